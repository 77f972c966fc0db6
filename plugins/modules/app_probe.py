#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Read what a host is, what it can carry and what it runs of one app, in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_probe
short_description: Read what a host is and what it runs of an app
description:
  - Returns as facts what sizing, building and shipping need, and how many workers the host should run.
  - One call instead of C(setup) and a row of C(stat) tasks. CPUs and memory are counted as C(setup) counts them; its
    own code would more than double what is sent to each host, and compiled there, for three numbers.
  - Fails, with the reason, on a host that cannot run the app, or that remembers another fleet than O(fleet) for it.
    Changes nothing.
  - A variable that looks like a setting of this collection and is none is refused before the host is asked, as by
    M(webfleet.fastapi.check_settings) with roles, so that roles that are used alone have that, too.
options:
  app:
    description: Name of the app.
    type: str
    required: true
  root:
    description: Folder that holds the app's releases.
    type: path
    required: true
  fleet:
    description: The fleet that the host belongs to, empty for none. What it remembers is C(/etc/APP/fleet).
    type: str
    default: ""
  user:
    description: The system user that the app runs as. Named as the app by default.
    type: str
  python:
    description: The host's Python that will run the app.
    type: path
    default: /usr/bin/python3
  python_min:
    description: The oldest Python that will do, major and minor.
    type: str
    default: "3.10"
  systemd_min:
    description: The oldest systemd that will do.
    type: int
    default: 249
  user_given:
    description: Whether O(user) was chosen, and did not come from O(app). The action plugin of the same name says so.
    type: bool
    default: false
  secrets:
    description: >-
      What secret files should hold, by path. In a task, a list of C(path) and C(template), of which the action plugin
      makes that.
    type: dict
    default: {}
  key_file:
    description: File on the host with the key for digests of these, see M(webfleet.fastapi.host_files).
    type: path
  plan:
    description: Settings of the worker plan, named as C(plan_workers) in C(module_utils/workers/plan.py) names them.
    type: dict
    default: {}
  health:
    description: >-
      How the live slot is asked whether it is well: C(path), C(host), and C(timeout) in seconds. Empty: not at all.
    type: dict
    default: {}
author:
  - The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: Read the host
  webfleet.fastapi.app_probe:
    app: counter
    root: /srv/counter
    plan:
      workers: auto
"""

RETURN = r"""
ansible_facts:
  description: >-
    C(processor_vcpus), C(processor_nproc) and C(memtotal_mb) as C(setup) gives them; C(app_probe) with
    C(python) and C(arch) (what to build for), C(python_version) (the same Python with its patch release),
    C(systemd) (version, 0 where PID 1 is not systemd),
    C(plan) (for another release than the live one) and C(plan_live) (for the live one: it keeps the memory per worker
    that it was planned with, so that a second deploy changes nothing; see workers/plan.py), C(releases) (complete ones
    on disk), C(fleet) (what the host remembers, empty for none), C(live) (what the last switch recorded), C(serves)
    (the release and the fingerprint that it serves with; empty where that no longer is as the switch made it),
    C(altered) (in what way it is not: down, hung, disabled, edited, files gone), C(unadopted) (whether a deploy left
    settings on the host that the live release does not go by), C(files)
    (the bundle's own, so that M(webfleet.fastapi.host_files) need not look at them once more), C(written) (of which of
    them it has noted the content), C(secrets) (likewise,
    with digests that take a key which stays on the host), C(has_key) (whether there is one yet), C(user) (whether it is
    there), C(nginx) (its version, empty where it is not installed), C(nginx_active), and C(port_holder) (process id
    and name of another server that listens on port 80, none where there is none).
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.host.probe import probe, refusal
from ..module_utils.workers.plan import WorkerPlanError


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "fleet": {"type": "str", "default": ""},
            "user": {"type": "str"},
            "user_given": {"type": "bool", "default": False},
            # As a whole, as in host_files.
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "key_file": {"type": "path"},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "python_min": {"type": "str", "default": "3.10"},
            "systemd_min": {"type": "int", "default": 249},
            "plan": {"type": "dict", "default": {}},
            "health": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    try:
        facts = probe(module.params)
    except WorkerPlanError as error:
        module.fail_json(msg=str(error))
    if reason := refusal(facts["app_probe"], module.params):
        module.fail_json(msg=reason)
    module.exit_json(changed=False, ansible_facts=facts)


if __name__ == "__main__":
    main()
