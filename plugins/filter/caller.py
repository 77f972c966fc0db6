# SPDX-License-Identifier: Apache-2.0
"""Who runs Ansible, for a host's history."""

from __future__ import annotations

DOCUMENTATION = r"""
name: caller
short_description: Return who runs Ansible
description:
  - The name that is given; where it is empty, who began the CI's run, with its number, else user@host.
  - What could not stand in a command line of systemd's or a line of history is replaced by a hyphen.
positional: _input
options:
  _input:
    description: A name, or an empty text.
    type: str
    required: true
author:
  - The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: Say who deploys
  ansible.builtin.debug:
    msg: "{{ fleet_by | default('') | webfleet.fastapi.caller }}"
"""

RETURN = r"""
_value:
  description: Who it is, as in C(octocat (GitHub run 77)) or C(ann@laptop).
  type: str
"""

from typing import Any

from ..plugin_utils.caller import caller


class FilterModule:
    """The filter's name."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"caller": lambda name: caller(str(name or ""))}
