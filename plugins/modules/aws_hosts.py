#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Have a fleet of a fixed number of hosts have that number, spread over its zones."""

from __future__ import annotations

DOCUMENTATION = r"""
module: aws_hosts
short_description: Start and end the hosts of a fleet of the shape instances
version_added: "0.2.0"
description:
  - What M(amazon.aws.ec2_instance) cannot do with C(exact_count), hosts that are spread over zones whatever their
    number, and a host that leaves the load balancer and drains before it ends.
  - A host ends only where O(count) is smaller than the number of hosts, and only one that is among O(shown). One that
    somebody stopped counts. In check mode the plan alone.
options:
  count:
    description: How many hosts; V(auto) is as many as there are, at least three, and ends none.
    type: str
    default: auto
  places:
    description:
      - The subnets for the hosts, each with C(subnet), or with C(zone) as long as there is none yet, or with both.
    type: list
    elements: dict
    required: true
  front:
    description: The load balancer's subnets, where it is not sure to be in all zones of O(places).
    type: list
    elements: str
    default: []
  launch:
    description: What a new host is like, as C(RunInstances) takes it.
    type: dict
    default: {}
  shown:
    description: Ids of the hosts that may end, as the plan had them that somebody has seen.
    type: list
    elements: str
    default: []
  drain:
    description: Seconds that the target group leaves to requests under way.
    type: int
    default: 30
extends_documentation_fragment: [webfleet.fastapi.aws, webfleet.fastapi.aws.fleet]
author: The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: See what would start and end
  webfleet.fastapi.aws_hosts:
    fleet: {app: shop, environment: staging, name: shop-staging}
    region: eu-central-1
    count: 4
    places: [{subnet: subnet-0a}, {subnet: subnet-0b}]
  check_mode: true
  register: plan
"""

RETURN = r"""
before:
  description: How many hosts there were.
  type: int
  returned: success
starts:
  description: The zone of each host that starts.
  type: list
  elements: str
  returned: success
ends:
  description: C(id), C(zone) and C(state) of each host that ends, in this order.
  type: list
  elements: dict
  returned: success
zones:
  description: How many hosts there are in each zone afterwards.
  type: dict
  returned: success
stopped:
  description: Ids of hosts that stay and do not run.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.aws.client import FLEET_OPTIONS, AwsError, Clients, Fleet, explained
from ..module_utils.aws.hosts import Hosts
from ..module_utils.aws.targets import Targets


def main() -> None:
    """Read the parameters, plan, start and end, report."""
    module = AnsibleModule(
        argument_spec={
            **FLEET_OPTIONS,
            "count": {"type": "str", "default": "auto"},
            "places": {"type": "list", "elements": "dict", "required": True},
            "front": {"type": "list", "elements": "str", "default": []},
            "launch": {"type": "dict", "default": {}},
            "shown": {"type": "list", "elements": "str", "default": []},
            "drain": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    params, registered = module.params, False
    try:
        clients, fleet = Clients(params["region"]), Fleet(**params["fleet"])
        count = None if params["count"] == "auto" else int(params["count"])
        with explained(params["region"]):
            hosts = Hosts(clients, fleet, params["places"], params["front"], count)
            if not module.check_mode:
                started = hosts.start(params["launch"])
                targets = Targets(clients, fleet)
                registered = bool(hosts.register(targets, started))
                if hosts.plan.ends:
                    hosts.end(targets, params["shown"], params["drain"])
    except AwsError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(hosts.plan.starts or hosts.plan.ends or registered), **hosts.report())


if __name__ == "__main__":
    main()
