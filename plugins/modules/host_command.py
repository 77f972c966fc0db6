#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Call one program on a host, without a module around it: the documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_command
short_description: Call one program on a host, without a module around it
version_added: "0.2.0"
description:
  - Like M(ansible.builtin.command), for a program that needs no more than its words. A module is sent, unpacked and
    started as a Python program of its own, which takes a third of a second of the host's CPU.
  - Runs as an action plugin. In check mode it is skipped.
options:
  argv:
    description: The program and its words, as they are; no shell reads them.
    type: list
    elements: str
    required: true
  stdin:
    description: What the program can read. In no command line, so others on the host do not see it.
    type: str
    default: "\n"
author:
  - The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: Ask the host what it runs
  webfleet.fastapi.host_command:
    argv: [/usr/local/sbin/shop-release, status, --json]
  become: true
  register: status
  changed_when: false
"""

RETURN = r"""
cmd:
  description: The program and its words.
  type: list
  elements: str
  returned: unless skipped
rc:
  description: The exit code; the task fails where it is not 0.
  type: int
  returned: unless skipped
stdout:
  description: What the program wrote, without the line breaks at the end.
  type: str
  returned: unless skipped
stderr:
  description: What it wrote as errors.
  type: str
  returned: unless skipped
"""
