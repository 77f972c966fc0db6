# SPDX-License-Identifier: Apache-2.0
"""The hosts of a fleet of the shape `instances`: find them, start what is missing, end what is too many.

A host ends only by `Hosts.end`, only where a plan says so that was shown before, and only after the load balancer has
given it up.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .client import AwsError, Clients, Fleet, pages, tags
from .spread import RUNNING, Host, Place, Plan, spread
from .targets import DRAINING, PAUSE, Targets

#: States of an instance that is still there. One that is stopped counts.
THERE = ["pending", "running", "stopping", "stopped"]
#: AWS's own tag on an instance that a scaling group has started.
GROUP_TAG = "aws:autoscaling:groupName"
PROFILE = 60  # seconds until EC2 must know of a new instance profile
MARGIN = 60  # seconds beyond the target group's own delay


def find(clients: Clients, fleet: Fleet) -> list[Host]:
    """Return the fleet's hosts, by their id. Those of a scaling group are none, whatever tags they carry."""
    filters = [*fleet.filters(shape="instances"), {"Name": "instance-state-name", "Values": THERE}]
    reservations = pages(clients("ec2"), "describe_instances", "Reservations", Filters=filters)
    return sorted(
        (
            Host(
                item["InstanceId"],
                item["Placement"]["AvailabilityZone"],
                item.get("SubnetId", ""),
                item["State"]["Name"],
                item["LaunchTime"].timestamp(),
            )
            for reservation in reservations
            for item in reservation["Instances"]
            # A filter that some API does not know must not cost another fleet its hosts.
            if fleet.owns(item["Tags"]) and GROUP_TAG not in tags(item["Tags"])
        ),
        key=lambda host: host.id,
    )


class Hosts:
    """What there is, and what is to become of it."""

    def __init__(
        self,
        clients: Clients,
        fleet: Fleet,
        places: Sequence[Mapping[str, str]],
        front: Sequence[str],
        count: int | None,
    ) -> None:
        """Read the hosts and plan.

        `places` have a `subnet`, a `zone`, or both; `front` are the load balancer's subnets, none where it is in the
        same zones. AwsError where a host would be in a zone that it is not in, and get no request.
        """
        self.clients, self.fleet = clients, fleet
        zones = _zones(clients, [*(place.get("subnet", "") for place in places), *front])
        self.places = [Place(place.get("zone") or zones[place["subnet"]], place.get("subnet", "")) for place in places]
        self.hosts = find(clients, fleet)
        self.plan: Plan = spread(self.hosts, self.places, count)
        self._refuse_cut_off({zones[subnet] for subnet in front} or {place.zone for place in self.places})

    def _refuse_cut_off(self, served: set[str]) -> None:
        # Also one that is to end: it would be cut off before it has drained.
        cut_off = [f"{host.id} in {host.zone}" for host in self.hosts if host.zone not in served]
        cut_off += [f"a new one in {place.zone}" for place in self.plan.starts if place.zone not in served]
        if cut_off:
            raise AwsError(
                f"the load balancer would send nothing to {', '.join(cut_off)}: it would be in "
                f"{', '.join(sorted(served))} only. Nothing was changed. Allowed: as many aws_fleet_zones as hosts are "
                "in, or one of aws_fleet_public_subnets in each zone of aws_fleet_private_subnets"
            )

    def start(self, launch: Mapping[str, Any]) -> list[str]:
        """Start what the plan says and wait until all that start run; return the new ids.

        `launch`: as RunInstances takes it.
        """
        ec2, started = self.clients("ec2"), []
        for place in dict.fromkeys(self.plan.starts):
            number = self.plan.starts.count(place)
            reservation = _run(ec2, SubnetId=place.subnet, MinCount=number, MaxCount=number, **launch)
            started += [item["InstanceId"] for item in reservation["Instances"]]
        starting = [*started, *(host.id for host in self.plan.stays(self.hosts) if host.state == "pending")]
        if starting:
            ec2.get_waiter("instance_running").wait(InstanceIds=starting)
        return started

    def register(self, targets: Targets, started: Sequence[str]) -> list[str]:
        """Have the load balancer know every host that runs and stays; return those that it did not know, or gave up."""
        running = [host.id for host in self.plan.stays(self.hosts) if host.state in RUNNING]
        known = targets.states()
        missing = [name for name in [*running, *started] if known.get(name, DRAINING) == DRAINING]
        if missing:
            targets.register(missing)
        return missing

    def end(self, targets: Targets, shown: Sequence[str], drain: float) -> None:
        """End what the plan says, once it has left the load balancer and drained, `drain` seconds at most.

        AwsError, with nothing ended, for a host that is not among those `shown` or that is protected, and where a host
        does not drain.
        """
        ec2, ends = self.clients("ec2"), [host.id for host in self.plan.ends]
        if other := [name for name in ends if name not in shown]:
            raise AwsError(
                f"{', '.join(other)} would end, which the plan did not say: the hosts have changed since it was shown. "
                "No host was ended. Run it again"
            )
        for name in ends:
            protection = ec2.describe_instance_attribute(InstanceId=name, Attribute="disableApiTermination")
            if protection["DisableApiTermination"]["Value"]:
                raise AwsError(
                    f"{name} would end, but it is protected against termination in EC2. No host was ended. Take the "
                    "protection off, or set aws_fleet_count higher"
                )
        try:
            targets.drain(ends, drain + MARGIN)
        except AwsError as error:
            raise AwsError(
                f"{error}. No host was ended, these get no new requests. Run it again to go on, or with a larger "
                "aws_fleet_count to put them back"
            ) from error
        ec2.terminate_instances(InstanceIds=ends)

    def report(self) -> dict[str, Any]:
        """Return the plan in words that a template can use."""
        stays = self.plan.stays(self.hosts)
        zones = Counter([*(host.zone for host in stays), *(place.zone for place in self.plan.starts)])
        return {
            "before": len(self.hosts),
            "starts": [place.zone for place in self.plan.starts],
            "ends": [{"id": host.id, "zone": host.zone, "state": host.state} for host in self.plan.ends],
            "zones": dict(sorted(zones.items())),
            "stopped": [host.id for host in stays if host.state not in RUNNING],
        }


def _run(ec2: Any, **parameters: Any) -> dict[str, Any]:
    """Start instances. EC2 learns of a new instance profile some seconds after IAM has said that it is there."""
    until = time.monotonic() + PROFILE
    while True:
        try:
            return dict(ec2.run_instances(**parameters))
        except Exception as error:
            if "Invalid IAM Instance Profile" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(PAUSE)


def _zones(clients: Clients, subnets: Sequence[str]) -> dict[str, str]:
    known = [subnet for subnet in dict.fromkeys(subnets) if subnet]
    if not known:
        return {}
    described = pages(clients("ec2"), "describe_subnets", "Subnets", SubnetIds=known)
    return {item["SubnetId"]: item["AvailabilityZone"] for item in described}
