#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Have a host measure numbers of workers: the documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tune_measure
short_description: Have a host measure numbers of workers, and show each step as it comes
version_added: "0.2.0"
description:
  - Starts the measurement on the host and looks at it until it is over. The host measures by itself, and ends when
    nobody has polled it for some time, so soon after the run that asked for it, however that ended.
  - Runs as an action plugin. A refusal is no failure of the task.
options:
  argv:
    description: The host's command that measures, as a list of words.
    type: list
    elements: str
    required: true
  options:
    description: Further words for it, as C(APP-release tune --help) lists them.
    type: list
    elements: str
    required: true
author:
  - The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: Measure one and two workers
  webfleet.fastapi.tune_measure:
    argv: [/usr/local/sbin/shop-release, tune, --json]
    options: [--workers, "1,2"]
  become: true
  register: measured
"""

RETURN = r"""
rc:
  description: The exit code of the host's command.
  type: int
  returned: success
stdout:
  description: The measurements, as JSON, where the exit code is 0.
  type: str
  returned: success
stderr:
  description: Why the host refused, where it did.
  type: str
  returned: success
"""
