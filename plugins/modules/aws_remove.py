#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""List or remove what carries a fleet's tag."""

from __future__ import annotations

import dataclasses

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.fleet_aws import AwsError, Clients
from ..module_utils.fleet_remove import Remover

DOCUMENTATION = r"""
module: aws_remove
short_description: List or remove what carries a fleet's tag
version_added: "0.2.0"
description:
  - Finds everything in a region that carries the tag C(fastapi-fleet:fleet) with the fleet's name, and removes it in an
    order that AWS takes. What does not carry it stays, whatever its name.
options:
  name:
    description: The fleet's name.
    type: str
    required: true
  region:
    description: The region.
    type: str
    required: true
  state:
    description: V(listed) changes nothing; V(absent) removes.
    type: str
    choices: [listed, absent]
    default: listed
  timeout:
    description: Seconds for all of it. Instances, NAT gateways and load balancers take minutes to end.
    type: int
    default: 1200
author: The fastapi-fleet developers
"""

EXAMPLES = r"""
- name: See what there is
  aws_remove:
    name: shop-staging
    region: eu-central-1
  register: there
"""

RETURN = r"""
resources:
  description: What carried the tag, each with C(kind) and C(id), in the order of removal.
  type: list
  elements: dict
  returned: success
"""


def main() -> None:
    """Read the parameters, list, remove, report."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "region": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["listed", "absent"], "default": "listed"},
            "timeout": {"type": "int", "default": 1200},
        },
        supports_check_mode=True,
    )
    given = module.params
    removes = given["state"] == "absent" and not module.check_mode
    try:
        remover = Remover(Clients(given["region"]), given["name"])
        found = remover.find()
        if removes:
            remover.remove(found, given["timeout"])
    except AwsError as error:
        module.fail_json(msg=str(error))
    changed = given["state"] == "absent" and bool(found)
    module.exit_json(changed=changed, resources=[dataclasses.asdict(item) for item in found])


if __name__ == "__main__":
    main()
