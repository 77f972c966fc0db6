# SPDX-License-Identifier: Apache-2.0
"""A release's way through a scaling group: an instance refresh to a numbered version of the launch template.

The first release starts the group's first instances; there is nothing to replace yet. Why by numbers: only a refresh
with a numbered version can be rolled back by AWS itself (EC2 Auto Scaling user guide, "Undo changes with a rollback").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .client import BAD_TAG, AwsError, Clients, Fleet, group, pages, tags, template
from .hosts import find
from .owner import refuse_shape

ACTIVE = {"Pending", "InProgress", "Cancelling", "RollbackInProgress", "Baking"}
FAILED = {"Failed", "Cancelled", "RollbackFailed", "RollbackSuccessful"}
REMEMBERED = 30  # versions in the tag, whose text has at most 256 characters


@dataclass(frozen=True)
class Sizes:
    """How many instances the group has once it has a release."""

    low: int
    high: int


@dataclass(frozen=True)
class Preferences:
    """How a refresh goes through the group. Percentages are of the group's desired capacity, times in seconds."""

    min_healthy: int
    max_healthy: int
    warmup: int
    checkpoints: tuple[int, ...]
    checkpoint_delay: int
    alarms: tuple[str, ...]

    def as_request(self) -> dict[str, Any]:
        """Return them as AWS takes them."""
        request: dict[str, Any] = {
            "MinHealthyPercentage": self.min_healthy,
            "MaxHealthyPercentage": self.max_healthy,
            "InstanceWarmup": self.warmup,
            "AutoRollback": True,
            "SkipMatching": True,
        }
        if self.checkpoints:
            request |= {"CheckpointPercentages": list(self.checkpoints), "CheckpointDelay": self.checkpoint_delay}
        return request | ({"AlarmSpecification": {"Alarms": list(self.alarms)}} if self.alarms else {})


@dataclass(frozen=True)
class Step:
    """Where a release is on its way: `running`, `done`, `failed`, or `unchanged` where there is nothing to do."""

    state: str
    text: str
    refresh: str = ""
    version: str = ""


def current_version(scaling: Mapping[str, Any]) -> str | None:
    """Return the number of the version that a group starts instances from; None where it is not a number."""
    version = str(scaling.get("LaunchTemplate", {}).get("Version", ""))
    return version if version.isdigit() else None


def bad_versions(launch: Mapping[str, Any]) -> list[str]:
    """Return the numbers that no rollback chooses."""
    return tags(launch.get("Tags")).get(BAD_TAG, "").split()


def previous_version(launch: Mapping[str, Any], current: str) -> str | None:
    """Return the newest version before the current one that has a release and is not marked bad."""
    bad = bad_versions(launch)
    for version in launch["versions"]:
        number = str(version["VersionNumber"])
        if int(number) < int(current) and number not in bad and version["LaunchTemplateData"].get("UserData"):
            return number
    return None


class Rollout:
    """What can be done with one group; AwsError says why something cannot."""

    def __init__(self, clients: Clients, fleet: Fleet) -> None:
        self.scaling, self.ec2, self.name = clients("autoscaling"), clients("ec2"), fleet.name
        self.fleet, self._clients = fleet, clients

    def group(self) -> dict[str, Any]:
        """Return the group."""
        scaling = group(self._clients, self.name)
        if scaling is None:
            refuse_shape(self.fleet, "autoscaling", None, [host.id for host in find(self._clients, self.fleet)])
        return self._own("scaling group", scaling)

    def template(self) -> dict[str, Any]:
        """Return the launch template with its versions."""
        return self._own("launch template", template(self._clients, self.name))

    def _own(self, kind: str, resource: dict[str, Any] | None) -> dict[str, Any]:
        if resource is None:
            raise AwsError(f"there is no {kind} {self.name}; playbooks/provision.yml makes it")
        if not self.fleet.owns(resource.get("Tags")):
            raise AwsError(
                f"the {kind} {self.name} is of another fleet ({Fleet.of(resource.get('Tags'))}), not of the "
                f"{self.fleet}. Nothing was changed"
            )
        return resource

    def refreshes(self, refresh: str = "") -> list[dict[str, Any]]:
        """Return the group's refreshes, the newest first, or the one."""
        chosen = {"InstanceRefreshIds": [refresh]} if refresh else {}
        answer = self.scaling.describe_instance_refreshes(AutoScalingGroupName=self.name, **chosen)
        return list(answer["InstanceRefreshes"])

    def active(self) -> str:
        """Return the id of the refresh that is under way, "" where none is."""
        return next((str(item["InstanceRefreshId"]) for item in self.refreshes() if item["Status"] in ACTIVE), "")

    def start(self, version: str, sizes: Sizes, preferences: Preferences, *, check: bool = False) -> Step:
        """Begin to bring all instances to a version."""
        scaling, active = self.group(), self.active()
        if active:
            raise AwsError(
                f"{self.name}: a refresh is under way ({active}); wait until it has ended, or end it with "
                f"`aws autoscaling cancel-instance-refresh --auto-scaling-group-name {self.name}`"
            )
        if current_version(scaling) == version and self._settled(scaling, version):
            return Step("unchanged", f"{self.name} runs version {version}", version=version)
        if check:
            return Step("running", f"{self.name} would go to version {version}", version=version)
        target = {"LaunchTemplate": {"LaunchTemplateName": self.name, "Version": version}}
        if not scaling["Instances"]:
            self.scaling.update_auto_scaling_group(
                AutoScalingGroupName=self.name, MinSize=sizes.low, MaxSize=sizes.high,
                DesiredCapacity=min(max(sizes.low, scaling["DesiredCapacity"]), sizes.high), **target,
            )  # fmt: skip
            return Step("running", f"{self.name}: the first instances start with version {version}", version=version)
        answer = self.scaling.start_instance_refresh(
            AutoScalingGroupName=self.name, Strategy="Rolling", DesiredConfiguration=target,
            Preferences=preferences.as_request(),
        )  # fmt: skip
        text = f"{self.name}: version {current_version(scaling)} → {version}, {len(scaling['Instances'])} instances"
        return Step("running", text, answer["InstanceRefreshId"], version)

    def poll(self, step: Step, since: float, sizes: Sizes) -> Step:
        """Say how far it is; `since` is when it began, in seconds of the epoch."""
        return self._refresh(step) if step.refresh else self._first(step, since, sizes)

    def roll_back(self, version: str, sizes: Sizes, preferences: Preferences, *, check: bool = False) -> Step:
        """Begin to go back: to a version, the one before without; a refresh that is under way turns round."""
        scaling, launch, active = self.group(), self.template(), self.active()
        if active:
            if version:
                raise AwsError(
                    f"rollback_to is {version}, but a refresh is under way ({active}): leave it out, or wait"
                )
            if not check:
                self.scaling.rollback_instance_refresh(AutoScalingGroupName=self.name)
                aim = self.refreshes(active)[0].get("DesiredConfiguration", {}).get("LaunchTemplate", {})
                self.mark_bad(str(aim.get("Version", "")))
            return Step("running", f"{self.name}: the refresh under way turns back", active)
        current = current_version(scaling) or ""
        known = {
            str(item["VersionNumber"]) for item in launch["versions"] if item["LaunchTemplateData"].get("UserData")
        }
        if version and version not in known:
            listed = ", ".join(sorted(known, key=int)) or "none"
            raise AwsError(f"rollback_to is {version}; allowed: a version with a release: {listed}")
        target = version or (previous_version(launch, current) if current else None)
        if target is None:
            raise AwsError(
                f"{self.name} has nothing to go back to from version {current or 'none'}: no good one before"
            )
        step = self.start(target, sizes, preferences, check=check)
        if step.state == "running" and not check:
            self.mark_bad(current)
        return step

    def stop(self) -> str:
        """Leave a group whose first instances do not come up without any, so that it does not go on trying."""
        self.scaling.update_auto_scaling_group(AutoScalingGroupName=self.name, MinSize=0, DesiredCapacity=0)
        return f"{self.name} was set to 0 instances, so that AWS does not go on starting them; deploy again"

    def cancel(self) -> str:
        """End the refresh under way where it is."""
        self.group()
        refresh = self.scaling.cancel_instance_refresh(AutoScalingGroupName=self.name)["InstanceRefreshId"]
        return f"{self.name}: refresh {refresh} ends; instances that it has replaced stay"

    def mark_bad(self, version: str) -> None:
        """Mark a version bad: no rollback chooses it."""
        if not version:
            return
        launch = self.template()
        bad = [number for number in bad_versions(launch) if number != version] + [version]
        tag = {"Key": BAD_TAG, "Value": " ".join(bad[-REMEMBERED:])}
        self.ec2.create_tags(Resources=[launch["LaunchTemplateId"]], Tags=[tag])

    @staticmethod
    def _settled(scaling: Mapping[str, Any], version: str) -> bool:
        """Return whether nothing is left of an earlier attempt: there are instances, all of this version."""
        return {str(item.get("LaunchTemplate", {}).get("Version")) for item in scaling["Instances"]} == {version}

    def _refresh(self, step: Step) -> Step:
        (refresh,) = self.refreshes(step.refresh)
        status, reason = refresh["Status"], refresh.get("StatusReason", "")
        text = f"{self.name}: {status}, {refresh.get('PercentageComplete', 0)} %, "
        text += f"{refresh.get('InstancesToUpdate', 0)} left"
        text += f": {reason}" if reason else ""
        if status == "RollbackSuccessful" and not step.version:
            return Step("done", text, step.refresh)  # somebody asked for just that
        if status in FAILED:
            if status != "Cancelled" and step.version:
                self.mark_bad(step.version)
            return Step("failed", text, step.refresh, step.version)
        return Step("done" if status == "Successful" else "running", text, step.refresh, step.version)

    def _first(self, step: Step, since: float, sizes: Sizes) -> Step:
        serving = [item for item in self.group()["Instances"] if item["LifecycleState"] == "InService"]
        text = f"{self.name}: {len(serving)} of {sizes.low} instances are in service"
        if len(serving) >= sizes.low:
            return Step("done", text, version=step.version)
        activities = pages(
            self.scaling, "describe_scaling_activities", "Activities", AutoScalingGroupName=self.name
        )  # fmt: skip
        failed = [
            str(item.get("StatusMessage", "no reason given")) for item in activities
            if item["StatusCode"] in {"Failed", "Cancelled"} and item["StartTime"].timestamp() >= since - 1
        ]  # fmt: skip
        # AWS tries for ever. Once as many starts have failed as there should be instances, it is not one unlucky zone.
        if len(failed) >= sizes.low:
            return Step("failed", f"{text}; {len(failed)} starts failed, the last: {failed[0]}", version=step.version)
        return Step("running", text + (f"; a start failed: {failed[0]}" if failed else ""), version=step.version)
