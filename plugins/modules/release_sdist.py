#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Build a wheel from a source distribution, on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_sdist
short_description: Build wheels from source distributions on a host
version_added: "0.2.0"
description:
  - Sends each source distribution with its build requirements to the host (an action plugin of the same name does
    that), builds its wheel there, and fetches the wheel back. What was sent and made is removed from the host.
  - A build runs the package's own code. It does so as C(nobody), without a network, with a read-only file system but
    for a private folder, and comes last for CPU and memory.
  - Says that nothing changed, as nothing of it stays on the host. Does not run in check mode.
options:
  builds:
    description: What to build, from C(needs_sdists) of M(webfleet.fastapi.release_build). Used by the action plugin.
    type: list
    elements: dict
  python:
    description: The Python to build for, and with.
    type: path
    default: /usr/bin/python3
  limit:
    description: Seconds for one build.
    type: int
    default: 900
  name:
    description: The package's name. Set by the action plugin, as all that follow.
    type: str
  version:
    description: Its version.
    type: str
  sdist:
    description: Where its source distribution is on the host.
    type: path
  tools:
    description: Where the tar with its build requirements is on the host.
    type: path
  have:
    description: The requirements that are in O(tools).
    type: list
    elements: str
    default: []
  backend:
    description: The build backend, as C(module:object).
    type: str
  backend_path:
    description: Folders of the source distribution in which the backend is.
    type: list
    elements: str
    default: []
  into:
    description: Folder on the host for the wheel.
    type: path
author: The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: Build what no index has a wheel of
  webfleet.fastapi.release_sdist:
    builds: "{{ release.needs_sdists | selectattr('host', 'eq', inventory_hostname) }}"
  become: true
  register: wheels
"""

RETURN = r"""
built:
  description:
    - For each build its C(key), and C(wheel), where the wheel is on the controller; or C(requires), what the package
      wants besides. To be given to M(webfleet.fastapi.release_build).
  type: list
  elements: dict
  returned: success
"""

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.host.sdist import Job, SdistError, build


def main() -> None:
    """Read the parameters, build one wheel, report."""
    module = AnsibleModule(
        argument_spec={
            "builds": {"type": "list", "elements": "dict"},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "limit": {"type": "int", "default": 900},
            "name": {"type": "str"},
            "version": {"type": "str"},
            "sdist": {"type": "path"},
            "tools": {"type": "path"},
            "have": {"type": "list", "elements": "str", "default": []},
            "backend": {"type": "str"},
            "backend_path": {"type": "list", "elements": "str", "default": []},
            "into": {"type": "path"},
        },
    )
    params = module.params
    began = time.monotonic()
    job = Job(
        name=params["name"],
        version=params["version"],
        sdist=Path(params["sdist"]),
        tools=Path(params["tools"]),
        backend=params["backend"],
        backend_path=params["backend_path"],
        have=params["have"],
        python=params["python"],
        limit=params["limit"],
    )
    try:
        result = build(job, Path(params["into"]))
    except SdistError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{job.label} could not be built from source: {error}.")
    module.exit_json(changed=False, seconds=round(time.monotonic() - began, 1), **result)


if __name__ == "__main__":
    main()
