# SPDX-License-Identifier: Apache-2.0
"""Options of what runs uv on the controller."""

from __future__ import annotations


class ModuleDocFragment:
    """Where builds are kept, and which uv and index make them."""

    DOCUMENTATION = r"""
options:
  cache:
    description: Folder for what was built. V($XDG_CACHE_HOME/fastapi-fleet/builds) by default.
    type: path
  uv:
    description: The uv program. By default the one next to the running Python, else the one in PATH.
    type: path
  index_url:
    description: The package index, instead of uv's own setting. Its credentials are shown nowhere.
    type: str
"""
