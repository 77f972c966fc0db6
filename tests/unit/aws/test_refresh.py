"""The way of a release through a scaling group, with an AWS that answers from memory."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from plugins.module_utils.aws.client import AwsError, Fleet
from plugins.module_utils.aws.refresh import Preferences, Rollout, Sizes, Step, previous_version

SHOP = Fleet("shop", "production", "shop")
TAGS = [
    {"Key": f"fastapi-fleet:{key}", "Value": text}
    for key, text in (("app", "shop"), ("environment", "production"), ("fleet", "shop"))
]
SIZES = Sizes(3, 9)
PREFERENCES = Preferences(100, 150, 60, (10, 100), 30, ("errors",))


class Pages:
    def __init__(self, client: Any, action: str) -> None:
        self.ask = getattr(client, action)

    def paginate(self, **given: Any) -> list[dict[str, Any]]:
        return [self.ask(**given)]


class Aws:
    """Auto Scaling and EC2 in one: a group, a template, refreshes."""

    def __init__(self, version: str = "3", instances: int = 3, bad: str = "") -> None:
        self.group: dict[str, Any] = {
            "AutoScalingGroupName": "shop", "LaunchTemplate": {"Version": version}, "MinSize": 0, "DesiredCapacity": 0,
            "Tags": TAGS,
            "Instances": [
                {"LifecycleState": "InService", "LaunchTemplate": {"Version": version}} for _ in range(instances)
            ],
        }  # fmt: skip
        self.tags = [*TAGS, *([{"Key": "fastapi-fleet:bad", "Value": bad}] if bad else [])]
        self.hosts: list[dict[str, Any]] = []
        self.refreshes: list[dict[str, Any]] = []
        self.activities: list[dict[str, Any]] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, service: str) -> Aws:
        return self

    def get_paginator(self, action: str) -> Pages:
        return Pages(self, action)

    def describe_auto_scaling_groups(self, **_: Any) -> dict[str, Any]:
        return {"AutoScalingGroups": [self.group] if self.group else []}

    def describe_launch_templates(self, **_: Any) -> dict[str, Any]:
        return {"LaunchTemplates": [{"LaunchTemplateId": "lt-1", "Tags": self.tags}]}

    def describe_launch_template_versions(self, **_: Any) -> dict[str, Any]:
        data: list[dict[str, str]] = [{}, *[{"UserData": "x"}] * 4]
        return {
            "LaunchTemplateVersions": [
                {"VersionNumber": number + 1, "LaunchTemplateData": item} for number, item in enumerate(data)
            ]
        }

    def describe_instances(self, **_: Any) -> dict[str, Any]:
        return {"Reservations": [{"Instances": self.hosts}]}

    def describe_instance_refreshes(self, **_: Any) -> dict[str, Any]:
        return {"InstanceRefreshes": self.refreshes}

    def describe_scaling_activities(self, **_: Any) -> dict[str, Any]:
        return {"Activities": self.activities}

    def __getattr__(self, action: str) -> Any:
        def note(**given: Any) -> dict[str, Any]:
            self.asked.append((action, given))
            return {"InstanceRefreshId": "r-1"}

        return note


def rollout(aws: Aws) -> Rollout:
    return Rollout(aws, SHOP)  # type: ignore[arg-type]


def running(status: str, **more: Any) -> dict[str, Any]:
    return {"InstanceRefreshId": "r-1", "Status": status, "PercentageComplete": 50, "InstancesToUpdate": 2, **more}


def test_a_release_replaces_instances_and_may_be_rolled_back() -> None:
    aws = Aws()
    step = rollout(aws).start("4", SIZES, PREFERENCES)
    ((action, asked),) = aws.asked
    assert (step.state, step.refresh, action) == ("running", "r-1", "start_instance_refresh")
    assert asked["DesiredConfiguration"]["LaunchTemplate"]["Version"] == "4"
    assert asked["Preferences"] == {
        "MinHealthyPercentage": 100, "MaxHealthyPercentage": 150, "InstanceWarmup": 60, "AutoRollback": True,
        "SkipMatching": True, "CheckpointPercentages": [10, 100], "CheckpointDelay": 30,
        "AlarmSpecification": {"Alarms": ["errors"]},
    }  # fmt: skip


def test_nothing_is_asked_where_all_instances_have_the_version() -> None:
    aws = Aws(version="4")
    assert rollout(aws).start("4", SIZES, PREFERENCES).state == "unchanged"
    aws.group["Instances"][0]["LaunchTemplate"]["Version"] = "3"  # left by a refresh that was cancelled
    assert rollout(aws).start("4", SIZES, PREFERENCES).state == "running"


def test_check_mode_asks_for_nothing() -> None:
    aws = Aws()
    assert rollout(aws).start("4", SIZES, PREFERENCES, check=True).state == "running"
    assert rollout(aws).roll_back("", SIZES, PREFERENCES, check=True).state == "running"
    assert aws.asked == []


def test_the_first_release_starts_instances() -> None:
    aws = Aws(version="1", instances=0)
    step = rollout(aws).start("2", SIZES, PREFERENCES)
    ((action, asked),) = aws.asked
    assert (action, asked["MinSize"], asked["DesiredCapacity"]) == ("update_auto_scaling_group", 3, 3)
    assert asked["LaunchTemplate"]["Version"] == "2"
    assert step.refresh == ""


def test_first_instances_fail_once_as_many_starts_have_failed_as_there_should_be() -> None:
    aws = Aws(version="2", instances=1)
    start = {"StatusCode": "Failed", "StatusMessage": "no capacity", "StartTime": datetime.datetime.now(datetime.UTC)}
    step, since = Step("running", "", version="2"), start["StartTime"].timestamp()  # type: ignore[attr-defined]
    aws.activities = [start] * 2 + [
        start | {"StartTime": datetime.datetime.fromtimestamp(since - 60, datetime.UTC)}
    ] * 5
    assert rollout(aws).poll(step, since, SIZES).state == "running"  # those before it began do not count
    aws.activities.append(start)
    polled = rollout(aws).poll(step, since, SIZES)
    assert polled.state == "failed"
    assert "3 starts failed, the last: no capacity" in polled.text


@pytest.mark.parametrize(
    ("status", "state", "marks"),
    [
        ("Pending", "running", False), ("InProgress", "running", False), ("Baking", "running", False),
        ("RollbackInProgress", "running", False), ("Successful", "done", False), ("Cancelled", "failed", False),
        ("Failed", "failed", True), ("RollbackSuccessful", "failed", True), ("RollbackFailed", "failed", True),
    ],
)  # fmt: skip
def test_what_aws_says_of_a_refresh(status: str, state: str, marks: bool) -> None:
    aws = Aws(bad="2")
    aws.refreshes = [running(status, StatusReason="alarm")]
    polled = rollout(aws).poll(Step("running", "", "r-1", "4"), 0, SIZES)
    assert polled.state == state
    assert polled.text == f"shop: {status}, 50 %, 2 left: alarm"
    assert [asked["Tags"][0]["Value"] for _, asked in aws.asked] == (["2 4"] if marks else [])


def test_going_back_skips_what_is_bad_and_what_has_no_release() -> None:
    found = {
        "versions": [
            {"VersionNumber": n, "LaunchTemplateData": {"UserData": "x"} if n > 1 else {}} for n in (4, 3, 2, 1)
        ]
    }
    assert previous_version(found, "4") == "3"
    assert previous_version(found | {"Tags": [{"Key": "fastapi-fleet:bad", "Value": "3"}]}, "4") == "2"
    assert previous_version(found, "2") is None


def test_going_back_marks_the_version_that_it_leaves() -> None:
    aws = Aws(version="5", bad="4")
    step = rollout(aws).roll_back("", SIZES, PREFERENCES)
    assert step.version == "3"
    assert aws.asked[-1][1]["Tags"] == [{"Key": "fastapi-fleet:bad", "Value": "4 5"}]


def test_going_back_to_nothing_is_refused() -> None:
    with pytest.raises(AwsError, match="nothing to go back to from version 2"):
        rollout(Aws(version="2")).roll_back("", SIZES, PREFERENCES)
    with pytest.raises(AwsError, match=r"rollback_to is 1; allowed: a version with a release: 2, 3, 4, 5"):
        rollout(Aws()).roll_back("1", SIZES, PREFERENCES)


def test_a_refresh_under_way_is_turned_back_but_not_joined_by_another() -> None:
    aws = Aws()
    wanted = {"LaunchTemplate": {"Version": "4"}}
    aws.refreshes = [running("InProgress", DesiredConfiguration=wanted)]
    with pytest.raises(AwsError, match=r"a refresh is under way \(r-1\); wait"):
        rollout(aws).start("4", SIZES, PREFERENCES)
    step = rollout(aws).roll_back("", SIZES, PREFERENCES)
    assert step.refresh == "r-1"
    assert [action for action, _ in aws.asked] == ["rollback_instance_refresh", "create_tags"]
    assert aws.asked[-1][1]["Tags"][0]["Value"] == "4"
    with pytest.raises(AwsError, match="rollback_to is 2, but a refresh is under way"):
        rollout(aws).roll_back("2", SIZES, PREFERENCES)
    aws.refreshes = [running("RollbackSuccessful")]
    assert rollout(aws).poll(step, 0, SIZES).state == "done"


def test_a_group_that_is_not_there_is_named() -> None:
    aws = Aws()
    aws.group = {}
    with pytest.raises(AwsError, match="no scaling group shop"):
        rollout(aws).start("4", SIZES, PREFERENCES)


def test_a_fleet_of_hosts_is_not_rolled_back_as_a_scaling_group() -> None:
    aws = Aws()
    aws.group = {}
    aws.hosts = [
        {
            "InstanceId": "i-1", "Tags": TAGS, "State": {"Name": "running"}, "Placement": {"AvailabilityZone": "eu-1a"},
            "LaunchTime": datetime.datetime.now(datetime.UTC),
        }
    ]  # fmt: skip
    with pytest.raises(AwsError, match=r"shape is 'autoscaling', but shop has 1 of the shape instances \(i-1\)"):
        rollout(aws).roll_back("", SIZES, PREFERENCES)
    assert aws.asked == []


@pytest.mark.parametrize("verb", ["start", "roll_back", "cancel"])
def test_a_group_that_has_the_name_alone_is_left_alone(verb: str) -> None:
    aws = Aws()
    aws.group["Tags"] = [*TAGS[:1], {"Key": "fastapi-fleet:environment", "Value": "staging"}, TAGS[2]]
    with pytest.raises(AwsError, match=r"scaling group shop is of another fleet \(app shop, environment staging\)"):
        getattr(rollout(aws), verb)(*([] if verb == "cancel" else ["4", SIZES, PREFERENCES]))
    assert aws.asked == []
