#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Refuse bad settings on the controller: the documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_settings
short_description: Refuse bad settings on the controller
version_added: "0.1.0"
description:
  - Judges variables by rules. Each complaint names the variable, its value and what is allowed; all of them come at
    once. What may be a secret is not shown.
  - Runs on the controller, as an action plugin, for each host of the play; no host is asked and nothing is changed.
options:
  rules:
    description:
      - >-
        A rule for each variable, by its name. V({whole: [1, 300], unit: seconds}) is a whole number, both ends
        allowed, with C(or) for a word that is allowed, too; V({choices: [a, b]}) one of these words; V({bool:
        true}) true or false; V({pattern: REGEX, allowed: TEXT}) a text that the pattern matches as a whole, and
        none of C(except); V({each: REGEX, allowed: TEXT}) a list of such texts, with C(empty) also none; V({names:
        REGEX, allowed: TEXT}) a dictionary with such names, whose values are shown nowhere.
      - C(only), a dictionary, refuses a setting that is not off (0, false) where another variable does not have the
        value that it names. C(after) names a variable that this one follows, so that one mistake is one complaint.
        C(optional) is for a variable that may be missing.
    type: dict
    required: true
author:
  - The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: Refuse bad settings
  webfleet.fastapi.check_settings:
    rules:
      service_workers: {whole: [1, 1024], or: auto}
      service_engine: {choices: [gunicorn, asgi, uvicorn]}
"""

RETURN = r"""
msg:
  description: A line for each bad setting.
  type: str
  returned: failure
"""
