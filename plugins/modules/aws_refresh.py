#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Bring a scaling group to a version of its launch template, or back, and follow it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: aws_refresh
short_description: Bring a scaling group to a version of its launch template, or back
version_added: "0.2.0"
description:
  - What M(amazon.aws.autoscaling_instance_refresh) lacks, a numbered version to go to, automatic rollback, checkpoints
    and alarms. A group without instances gets its first ones instead of a refresh.
  - As a task it follows the refresh, says how far it is, and fails when it fails. The module alone does one step.
options:
  state:
    description:
      - V(started) begins, V(rolled_back) begins to go back, V(cancelled) ends a refresh where it is.
      - V(polled) says how far it is, V(stopped) leaves a group without instances; the task uses both itself.
    type: str
    choices: [started, rolled_back, cancelled, polled, stopped]
    default: started
  version:
    description: The launch template's version to go to. With V(rolled_back), empty means the good one before.
    type: str
    default: ""
  refresh:
    description: The refresh to look at.
    type: str
    default: ""
  since:
    description: When it began, in seconds of the epoch.
    type: float
    default: 0
  sizes:
    description: Fewest and most instances.
    type: list
    elements: int
    default: [1, 1]
  min_healthy:
    description: Percentage of the wanted instances that serve at any time.
    type: int
    default: 100
  max_healthy:
    description: Percentage of the wanted instances that there may be meanwhile.
    type: int
    default: 150
  warmup:
    description: Seconds until a new instance counts.
    type: int
    default: 60
  checkpoints:
    description: Percentages at which the refresh waits.
    type: list
    elements: int
    default: []
  checkpoint_delay:
    description: Seconds that it waits there.
    type: int
    default: 60
  alarms:
    description: Names of alarms; one that goes off turns the refresh back.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds after which following gives up. The refresh itself goes on.
    type: int
    default: 3600
  interval:
    description: Seconds between two looks.
    type: int
    default: 15
extends_documentation_fragment: [webfleet.fastapi.aws, webfleet.fastapi.aws.fleet]
author: The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: Release version 7
  webfleet.fastapi.aws_refresh:
    fleet: {app: shop, environment: production, name: shop-production}
    region: eu-central-1
    version: "7"
    sizes: [3, 9]
    checkpoints: [10, 50, 100]
    alarms: [shop-production-5xx]
"""

RETURN = r"""
step:
  description: C(state) (running, done, failed or unchanged), C(text), C(refresh) and C(version).
  type: dict
  returned: success
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.aws.client import FLEET_OPTIONS, AwsError, Clients, Fleet, explained
from ..module_utils.aws.refresh import Preferences, Rollout, Sizes, Step


def main() -> None:
    """Read the parameters, do one step, report."""
    whole, texts = {"type": "int"}, {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            **FLEET_OPTIONS,
            "state": {
                "type": "str",
                "choices": ["started", "rolled_back", "cancelled", "polled", "stopped"],
                "default": "started",
            },
            "version": {"type": "str", "default": ""},
            "refresh": {"type": "str", "default": ""},
            "since": {"type": "float", "default": 0},
            "sizes": {"type": "list", "elements": "int", "default": [1, 1]},
            "min_healthy": whole | {"default": 100},
            "max_healthy": whole | {"default": 150},
            "warmup": whole | {"default": 60},
            "checkpoints": {"type": "list", "elements": "int", "default": []},
            "checkpoint_delay": whole | {"default": 60},
            "alarms": texts,
            "timeout": whole | {"default": 3600},
            "interval": whole | {"default": 15},
        },
        supports_check_mode=True,
    )
    try:
        with explained(module.params["region"]):
            step = _step(module)
    except AwsError as error:
        module.fail_json(msg=str(error))
    changed = module.params["state"] != "polled" and step.state != "unchanged"
    module.exit_json(changed=changed, step=dataclasses.asdict(step))


def _step(module: AnsibleModule) -> Step:
    params = module.params
    rollout = Rollout(Clients(params["region"]), Fleet(**params["fleet"]))
    sizes = Sizes(*params["sizes"])
    preferences = Preferences(
        min_healthy=params["min_healthy"],
        max_healthy=params["max_healthy"],
        warmup=params["warmup"],
        checkpoints=tuple(params["checkpoints"]),
        checkpoint_delay=params["checkpoint_delay"],
        alarms=tuple(params["alarms"]),
    )
    state, version = params["state"], params["version"]
    if state == "started":
        return rollout.start(version, sizes, preferences, check=module.check_mode)
    if state == "rolled_back":
        return rollout.roll_back(version, sizes, preferences, check=module.check_mode)
    if state == "polled":
        return rollout.poll(Step("running", "", params["refresh"], version), params["since"], sizes)
    if module.check_mode:
        return Step("unchanged", "check mode")
    if state == "stopped":
        return Step("done", rollout.stop())
    return Step("done", rollout.cancel())


if __name__ == "__main__":
    main()
