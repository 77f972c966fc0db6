#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""List or remove what carries a fleet's tags."""

from __future__ import annotations

DOCUMENTATION = r"""
module: aws_remove
short_description: List or remove what carries a fleet's tags
version_added: "0.2.0"
description:
  - Finds everything in a region that carries all three tags of a fleet, C(fastapi-fleet:app),
    C(fastapi-fleet:environment) and C(fastapi-fleet:fleet), and removes it in an order that AWS takes. What does not
    carry them stays, whatever its name.
options:
  state:
    description: V(listed) changes nothing; V(absent) removes.
    type: str
    choices: [listed, absent]
    default: listed
  timeout:
    description: Seconds for all of it. Instances, NAT gateways and load balancers take minutes to end.
    type: int
    default: 1200
extends_documentation_fragment: [webfleet.fastapi.aws, webfleet.fastapi.aws.fleet]
author: The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: See what there is
  webfleet.fastapi.aws_remove:
    fleet: {app: shop, environment: staging, name: shop-staging}
    region: eu-central-1
  register: there
"""

RETURN = r"""
resources:
  description: What carried the tags, each with C(kind) and C(id), in the order of removal.
  type: list
  elements: dict
  returned: success
others:
  description: What has the fleet's name and does not carry its tags, as a sentence; empty where nothing does. It stays.
  type: str
  returned: success
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.aws.client import FLEET_OPTIONS, AwsError, Clients, Fleet, explained
from ..module_utils.aws.owner import name_conflict
from ..module_utils.aws.remove import Remover


def main() -> None:
    """Read the parameters, list, remove, report."""
    module = AnsibleModule(
        argument_spec={
            **FLEET_OPTIONS,
            "state": {"type": "str", "choices": ["listed", "absent"], "default": "listed"},
            "timeout": {"type": "int", "default": 1200},
        },
        supports_check_mode=True,
    )
    params = module.params
    removes = params["state"] == "absent" and not module.check_mode
    try:
        clients, fleet = Clients(params["region"]), Fleet(**params["fleet"])
        remover = Remover(clients, fleet)
        resources = remover.find()
        with explained(params["region"]):
            others = name_conflict(clients, fleet)
        if removes:
            remover.remove(resources, params["timeout"])
    except AwsError as error:
        module.fail_json(msg=str(error))
    changed = params["state"] == "absent" and bool(resources)
    module.exit_json(changed=changed, resources=[dataclasses.asdict(item) for item in resources], others=others)


if __name__ == "__main__":
    main()
