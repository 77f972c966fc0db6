# SPDX-License-Identifier: Apache-2.0
"""How the service unit starts an engine's server."""

from __future__ import annotations

DOCUMENTATION = r"""
name: unit_start
short_description: Return how a service unit starts an engine's server
description:
  - The lines of the unit that differ from engine to engine. The number of workers, the release's search path and its
    module are no part of them, as the unit takes those from the slot's environment file.
positional: _input
options:
  _input:
    description: >-
      The engine's name (C(engine)) and how it is started, named as in C(module_utils/workers/engines/base.py).
    type: dict
    required: true
author:
  - The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: Show the command line
  ansible.builtin.debug:
    msg: "{{ {'engine': 'uvicorn', 'python': ['python3'], 'timeout': 60} | webfleet.fastapi.unit_start }}"
"""

RETURN = r"""
_value:
  description: The lines C(Type=) and C(ExecStart=).
  type: str
"""

from collections.abc import Mapping
from typing import Any

from ..module_utils.workers.engines import Start, engine


def unit_start(settings: Mapping[str, Any]) -> str:
    """Return the lines `Type=` and `ExecStart=`; see DOCUMENTATION."""
    options: dict[str, Any] = {key: value for key, value in settings.items() if key != "engine"}
    options |= {"app": "${FLEET_MODULE}", "attribute": "${FLEET_APP}", "workers": "${FLEET_WORKERS}"}
    server = engine(str(settings["engine"]))
    lines = server.command(Start(**{**options, "version": tuple(settings.get("version", (3, 10)))}))
    return f"Type={server.unit_type}\nExecStart=" + " \\\n    ".join(map(" ".join, lines))


class FilterModule:
    """The filter's name."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"unit_start": unit_start}
