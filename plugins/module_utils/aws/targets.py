# SPDX-License-Identifier: Apache-2.0
"""A fleet's target group: which hosts the load balancer sends requests to."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from .client import AwsError, Clients, Fleet, code

PAUSE = 2  # seconds between two polls
PORT = 80
#: AWS's words for a target that is not registered any more, with connections left and without, and for one that serves.
DRAINING, DRAINED, HEALTHY = "draining", "unused", "healthy"


class Targets:
    """The target group that has the fleet's name and carries its tags; AwsError where there is none."""

    def __init__(self, clients: Clients, fleet: Fleet) -> None:
        self._client, self.fleet = clients("elbv2"), fleet
        try:
            (described,) = self._client.describe_target_groups(Names=[fleet.name])["TargetGroups"]
        except Exception as error:
            if not code(error).endswith("NotFound"):
                raise
            raise AwsError(f"there is no target group {fleet.name}; playbooks/provision.yml makes it") from error
        self._arn = described["TargetGroupArn"]
        (tagged,) = self._client.describe_tags(ResourceArns=[self._arn])["TagDescriptions"]
        if not fleet.owns(tagged["Tags"]):
            raise AwsError(f"the target group {fleet.name} is not that of the {fleet}: it carries other tags")

    def states(self, ids: Sequence[str] = ()) -> dict[str, str]:
        """Return each target's state as AWS names it; without ids, of all that are registered or draining."""
        chosen = {"Targets": _targets(ids)} if ids else {}
        answer = self._client.describe_target_health(TargetGroupArn=self._arn, **chosen)
        return {item["Target"]["Id"]: item["TargetHealth"]["State"] for item in answer["TargetHealthDescriptions"]}

    def register(self, ids: Sequence[str]) -> None:
        """Have requests sent to these hosts, once they are healthy."""
        self._client.register_targets(TargetGroupArn=self._arn, Targets=_targets(ids))

    def drain(self, ids: Sequence[str], timeout: float) -> bool:
        """Deregister hosts and wait until each has drained; return whether one was registered.

        AwsError names those that have not drained in time.
        """
        known = self.states()
        registered = [name for name in ids if known.get(name, DRAINING) != DRAINING]
        if registered:
            self._client.deregister_targets(TargetGroupArn=self._arn, Targets=_targets(registered))
        self.wait(ids, DRAINED, timeout)
        return bool(registered)

    def wait(self, ids: Sequence[str], state: str, timeout: float) -> None:
        """Wait until all have a state; AwsError names those that have not, and theirs."""
        until = time.monotonic() + timeout
        while True:
            others = {name: current for name, current in self.states(ids).items() if current != state}
            if not others:
                return
            if time.monotonic() > until:
                named = ", ".join(f"{name} is {current}" for name, current in others.items())
                raise AwsError(f"{named}, not {state}, after {timeout:.0f} s")
            time.sleep(PAUSE)


def _targets(ids: Iterable[str]) -> list[dict[str, object]]:
    return [{"Id": name, "Port": PORT} for name in ids]
