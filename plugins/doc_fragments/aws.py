# SPDX-License-Identifier: Apache-2.0
"""Options that modules for AWS have in common."""

from __future__ import annotations


class ModuleDocFragment:
    """Which region, and whose fleet."""

    DOCUMENTATION = r"""
options:
  region:
    description: The region.
    type: str
    required: true
"""

    FLEET = r"""
options:
  fleet:
    description:
      - The fleet. Only what carries all three tags, C(fastapi-fleet:app), C(fastapi-fleet:environment) and
        C(fastapi-fleet:fleet), is its own; what has its name alone is refused or left alone.
    type: dict
    required: true
    suboptions:
      app:
        description: The app's name.
        type: str
        required: true
      environment:
        description: The environment.
        type: str
        required: true
      name:
        description: The fleet's name; what AWS lets have a name has it, too.
        type: str
        required: true
"""
