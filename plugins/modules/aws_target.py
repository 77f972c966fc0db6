#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Take one host out of a fleet's load balancer and put it back, and wait until it has followed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: aws_target
short_description: Take a host out of a fleet's load balancer, or put it back
version_added: "0.2.0"
description:
  - Like M(community.aws.elb_target), for the target group that carries all three tags of the fleet. One that has the
    name alone is refused.
options:
  instance:
    description: The host's instance id.
    type: str
    required: true
  state:
    description: V(present) registers it and waits until it is healthy; V(absent) until it has drained.
    type: str
    choices: [present, absent]
    default: present
  timeout:
    description: Seconds to wait for that.
    type: int
    default: 90
extends_documentation_fragment: [webfleet.fastapi.aws, webfleet.fastapi.aws.fleet]
author: The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: Take the host out
  webfleet.fastapi.aws_target:
    fleet: {app: shop, environment: production, name: shop-production}
    region: eu-central-1
    instance: i-0123456789abcdef0
    state: absent
"""

RETURN = r"""
changed:
  description: Whether the load balancer was told something that it did not know.
  type: bool
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.aws.client import FLEET_OPTIONS, AwsError, Clients, Fleet, explained
from ..module_utils.aws.targets import HEALTHY, Targets


def main() -> None:
    """Read the parameters, register or deregister, wait, report."""
    module = AnsibleModule(
        argument_spec={
            **FLEET_OPTIONS,
            "instance": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "timeout": {"type": "int", "default": 90},
        },
    )
    params, changed = module.params, True
    try:
        with explained(params["region"]):
            targets = Targets(Clients(params["region"]), Fleet(**params["fleet"]))
            if params["state"] == "absent":
                changed = targets.drain([params["instance"]], params["timeout"])
            else:
                changed = params["instance"] not in targets.states()
                targets.register([params["instance"]])
                targets.wait([params["instance"]], HEALTHY, params["timeout"])
    except AwsError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
