#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Set attributes of a scaling group and of a load balancer that the collections' modules do not know."""

from __future__ import annotations

DOCUMENTATION = r"""
module: aws_attributes
short_description: Set attributes that the collections' modules do not know
version_added: "0.2.0"
description:
  - Sets attributes of the scaling group and the load balancer that have the fleet's name, where they differ.
options:
  name:
    description: The fleet's name.
    type: str
    required: true
  group:
    description: Attributes as C(UpdateAutoScalingGroup) takes them, such as C(DefaultInstanceWarmup).
    type: dict
    default: {}
  balancer:
    description: Attributes as C(ModifyLoadBalancerAttributes) takes them, such as C(idle_timeout.timeout_seconds).
    type: dict
    default: {}
  alarms:
    description: Names of alarms that get O(tags).
    type: list
    elements: str
    default: []
  tags:
    description: Tags for O(alarms).
    type: dict
    default: {}
extends_documentation_fragment: webfleet.fastapi.aws
author: The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: Start new instances before old ones end
  webfleet.fastapi.aws_attributes:
    name: shop-production
    region: eu-central-1
    group:
      InstanceMaintenancePolicy: {MinHealthyPercentage: 100, MaxHealthyPercentage: 150}
"""

RETURN = r"""
attributes:
  description: Names of those that differed.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.aws.attributes import apply
from ..module_utils.aws.client import REGION_OPTION, AwsError, Clients


def main() -> None:
    """Read the parameters, apply, report."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            **REGION_OPTION,
            "group": {"type": "dict", "default": {}},
            "balancer": {"type": "dict", "default": {}},
            "alarms": {"type": "list", "elements": "str", "default": []},
            "tags": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        clients = Clients(params["region"])
        alarms = dict.fromkeys(params["alarms"], params["tags"])
        names = apply(clients, params["name"], params["group"], params["balancer"], alarms, check=module.check_mode)
    except AwsError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(names), attributes=names)


if __name__ == "__main__":
    main()
