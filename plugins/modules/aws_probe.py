#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Read from AWS what a fleet's playbooks must know before they change anything."""

from __future__ import annotations

DOCUMENTATION = r"""
module: aws_probe
short_description: Read account, zones, instance type, image and a fleet from AWS in one go
version_added: "0.2.0"
description:
  - Judges what only AWS can judge (credentials, region, instance type, image, zones, whose the name is, the shape)
    and says what there is of the fleet. Changes nothing. Runs where boto3 is, on the controller.
options:
  shape:
    description: The shape that the fleet is to have; another one than it has is refused.
    type: str
    choices: [autoscaling, instances]
    required: true
  instance_type:
    description: The instances' type.
    type: str
    required: true
  image:
    description: An image's id. Empty means the one that the fleet has, else Canonical's newest of O(ubuntu).
    type: str
    default: ""
  ubuntu:
    description: Ubuntu's release.
    type: str
    required: true
  zones:
    description: In how many availability zones the fleet is to be.
    type: int
    required: true
  vpc:
    description: The VPC that the fleet is to be in. Empty for one of its own.
    type: str
    default: ""
extends_documentation_fragment: [webfleet.fastapi.aws, webfleet.fastapi.aws.fleet]
author: The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: Ask AWS
  webfleet.fastapi.aws_probe:
    fleet: {app: shop, environment: production, name: shop-production}
    shape: autoscaling
    region: eu-central-1
    instance_type: m7g.large
    ubuntu: "24.04"
    zones: 3
  register: aws
"""

RETURN = r"""
account:
  description: The account's number.
  type: str
  returned: success
partition:
  description: AWS's partition, as V(aws).
  type: str
  returned: success
machine:
  description: The instance type's C(architecture), C(vcpus) and C(memory_mib).
  type: dict
  returned: success
zones:
  description: The first zones that have the type, as many as asked for.
  type: list
  elements: str
  returned: success
fleet:
  description:
    - What there is. C(exists); C(version), C(latest) and C(previous) are numbers of the launch template's versions,
      null where there is none; C(image), C(user_data) and C(description) are those of the live version; C(instances)
      counts them, C(zones) are theirs, C(desired) is how many the group wants; C(refresh) is the id of a refresh that
      is under way.
  type: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.aws.client import FLEET_OPTIONS, AwsError, Fleet
from ..module_utils.aws.probe import FleetSettings, probe


def main() -> None:
    """Read the parameters, ask, report."""
    module = AnsibleModule(
        argument_spec={
            **FLEET_OPTIONS,
            "shape": {"type": "str", "choices": ["autoscaling", "instances"], "required": True},
            "instance_type": {"type": "str", "required": True},
            "image": {"type": "str", "default": ""},
            "ubuntu": {"type": "str", "required": True},
            "zones": {"type": "int", "required": True},
            "vpc": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    fleet = Fleet(**module.params["fleet"])
    try:
        module.exit_json(changed=False, **probe(FleetSettings(**module.params | {"fleet": fleet})))
    except AwsError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
