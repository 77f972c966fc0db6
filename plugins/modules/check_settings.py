#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Refuse bad settings on the controller: the documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_settings
short_description: Refuse bad settings on the controller
version_added: "0.1.0"
description:
  - Judges variables by the collection's own definitions of its settings. Each complaint names the variable, its value
    and what is allowed; all of them come at once. What may be a secret is not shown.
  - With O(roles), a variable that looks like a setting and is none is refused, unless another variable's value uses it
    or C(fleet_own_variables) lists it. With O(names) alone only one that looks like one of these is; the others are
    named in a warning, so that a wrong name elsewhere keeps no fleet from going back.
  - Runs on the controller, as an action plugin, for each host of the play; no host is asked and nothing is changed.
options:
  roles:
    description: Roles of this collection whose settings are checked, all of them.
    type: list
    elements: str
    default: []
  names:
    description: Further settings that are checked, as V(app_name); a C(*) at the end stands for all that begin so.
    type: list
    elements: str
    default: []
author:
  - The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: Refuse bad settings
  webfleet.fastapi.check_settings:
    roles: [service, proxy]
    names: [app_name, "fleet_*"]
"""

RETURN = r"""
msg:
  description: A line for each bad setting.
  type: str
  returned: failure
"""
