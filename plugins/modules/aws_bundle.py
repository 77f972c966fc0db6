#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Make the bundle that an instance sets itself up from."""

from __future__ import annotations

DOCUMENTATION = r"""
module: aws_bundle
short_description: Make the bundle that an EC2 instance sets itself up from
version_added: "0.2.0"
description:
  - Writes one reproducible C(.tar.gz) with playbooks, roles and plugins, a release's artifacts, the app's settings, and
    ansible-core from wheels for the same Pythons and architectures. An instance needs no package index.
  - Runs on the controller and needs uv there, as M(webfleet.fastapi.release_build) does.
  - O(settings) may hold secrets, and so does the bundle. The file is readable by its maker only; give the task
    C(no_log=true), and keep the bundle in a private bucket.
options:
  project:
    description: The folder of the clone or of the installed collection, as in C({{ role_path }}/../..).
    type: path
    required: true
  artifacts:
    description:
      - Paths of a release's artifacts, one for each Python and architecture of the instances, as
        M(webfleet.fastapi.release_build) returns them.
    type: list
    elements: path
    required: true
  settings:
    description:
      - The app's settings, as they would be in C(group_vars). C(app_name) and C(app_module) are needed. What only a
        controller uses (C(app_source), C(release_...), C(fleet_...), C(aws_...)) is left out. An instance adds its own
        addresses to C(proxy_server_names).
    type: dict
    required: true
  dest:
    description: Folder on the controller into which the bundle is written. Made where it is missing.
    type: path
    required: true
extends_documentation_fragment: webfleet.fastapi.build
author: The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: Make the bundle
  webfleet.fastapi.aws_bundle:
    project: "{{ role_path }}/../.."
    artifacts: "{{ release.artifacts.values() | map(attribute='path') | list }}"
    settings: {app_name: shop, app_module: main:app, service_health_path: /health}
    dest: ~/.cache/fastapi-fleet/bundles
  delegate_to: localhost
  run_once: true
  no_log: true
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
  register: bundle
"""

RETURN = r"""
path:
  description: The bundle. Its name has the app, the release and the beginning of its own hash.
  type: str
  returned: success
  sample: /home/me/.cache/fastapi-fleet/bundles/shop-3f9a1c0b7d2e-0b5c7a1d9e2f.tar.gz
sha256:
  description: The bundle's hash.
  type: str
  returned: success
size:
  description: The bundle's size in bytes.
  type: int
  returned: success
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.aws.bundle import make
from ..module_utils.build.cache import Cache
from ..module_utils.build.uv import UV_OPTIONS, BuildError, Uv


def main() -> None:
    """Read the parameters, make the bundle, report."""
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "path", "required": True},
            "artifacts": {"type": "list", "elements": "path", "required": True},
            "settings": {"type": "dict", "required": True},
            "dest": {"type": "path", "required": True},
            **UV_OPTIONS,
        }
    )
    params = module.params
    try:
        result = make(
            Path(params["project"]),
            [Path(path) for path in params["artifacts"]],
            params["settings"],
            Path(params["dest"]),
            Cache(params["cache"]),
            Uv(params["uv"], params["index_url"]),
        )
    except BuildError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
