"""The hosts of a fixed number, with an EC2 and a load balancer that answer from memory: what is asked, and when."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from plugins.module_utils.aws import hosts as hosts_module
from plugins.module_utils.aws import targets as targets_module
from plugins.module_utils.aws.client import AwsError, Fleet
from plugins.module_utils.aws.hosts import Hosts, find
from plugins.module_utils.aws.targets import Targets

SHOP = Fleet("shop", "production", "shop-production")
PLACES = [{"subnet": "subnet-a"}, {"subnet": "subnet-b"}]


def tagged(fleet: Fleet, shape: str = "instances", **more: str) -> list[dict[str, str]]:
    words = {"app": fleet.app, "environment": fleet.environment, "fleet": fleet.name, "shape": shape}
    return [{"Key": f"fastapi-fleet:{key}", "Value": text} for key, text in words.items()] + [
        {"Key": key, "Value": text} for key, text in more.items()
    ]


class MissingError(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


class Pages:
    def __init__(self, ask: Any) -> None:
        self.ask = ask

    def paginate(self, **given: Any) -> list[dict[str, Any]]:
        return [self.ask(**given)]


class Aws:
    """EC2 and Elastic Load Balancing in one. It knows no filters, as the worst of all APIs."""

    region = "eu-central-1"

    def __init__(self, *subnets: str) -> None:
        self.instances: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, Any]] = []
        self.targets: dict[str, str] = {}
        self.target_tags = tagged(SHOP)
        self.looks = 2  # looks at a target until it has drained
        self.protected: set[str] = set()
        self.profile = 0  # requests until EC2 knows of it
        for number, subnet in enumerate(subnets):
            self.add(f"i-{number}", subnet, launched=number)

    def add(self, name: str, subnet: str, state: str = "running", launched: int = 0, **more: Any) -> None:
        self.instances[name] = {
            "InstanceId": name, "SubnetId": subnet, "State": {"Name": state}, "Tags": tagged(SHOP),
            "Placement": {"AvailabilityZone": f"eu-1{subnet[-1]}"},
            "LaunchTime": datetime.datetime.fromtimestamp(launched, datetime.UTC), **more,
        }  # fmt: skip
        if state == "running":
            self.targets[name] = "healthy"

    def __call__(self, service: str) -> Aws:
        return self

    def get_paginator(self, action: str) -> Pages:
        return Pages(getattr(self, action))

    def get_waiter(self, name: str) -> Any:
        return type("Waiter", (), {"wait": lambda _, **asked: self.asked.append((name, asked["InstanceIds"]))})()

    def describe_subnets(self, SubnetIds: list[str]) -> dict[str, Any]:  # noqa: N803  botocore's own names
        return {"Subnets": [{"SubnetId": name, "AvailabilityZone": f"eu-1{name[-1]}"} for name in SubnetIds]}

    def describe_instances(self, **_: Any) -> dict[str, Any]:
        return {"Reservations": [{"Instances": list(self.instances.values())}]}

    def describe_instance_attribute(self, InstanceId: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        return {"DisableApiTermination": {"Value": InstanceId in self.protected}}

    def run_instances(self, **asked: Any) -> dict[str, Any]:
        if self.profile:
            self.profile -= 1
            raise MissingError("InvalidParameterValue: Invalid IAM Instance Profile name")
        self.asked.append(("run", (asked["SubnetId"], asked["MinCount"], asked["MaxCount"])))
        made = [f"i-new-{asked['SubnetId'][-1]}{number}" for number in range(asked["MinCount"])]
        return {"Instances": [{"InstanceId": name} for name in made]}

    def terminate_instances(self, InstanceIds: list[str]) -> None:  # noqa: N803
        self.asked.append(("terminate", InstanceIds))

    def describe_target_groups(self, **_: Any) -> dict[str, Any]:
        if self.target_tags is None:
            raise MissingError("TargetGroupNotFound")
        return {"TargetGroups": [{"TargetGroupArn": "arn"}]}

    def describe_tags(self, **_: Any) -> dict[str, Any]:
        return {"TagDescriptions": [{"Tags": self.target_tags}]}

    def register_targets(self, Targets: list[dict[str, Any]], **_: Any) -> None:  # noqa: N803
        self.asked.append(("register", [item["Id"] for item in Targets]))

    def deregister_targets(self, Targets: list[dict[str, Any]], **_: Any) -> None:  # noqa: N803
        self.asked.append(("deregister", [item["Id"] for item in Targets]))
        self.targets |= {item["Id"]: "draining" for item in Targets}

    def describe_target_health(self, Targets: list[dict[str, Any]] | None = None, **_: Any) -> dict[str, Any]:  # noqa: N803
        if Targets:
            self.looks -= 1
            self.asked.append(("look", [item["Id"] for item in Targets]))
        if self.looks <= 0:
            self.targets = {name: state for name, state in self.targets.items() if state != "draining"}
        names = [item["Id"] for item in Targets] if Targets else list(self.targets)
        return {
            "TargetHealthDescriptions": [
                {"Target": {"Id": name}, "TargetHealth": {"State": self.targets.get(name, "unused")}} for name in names
            ]
        }


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets_module, "PAUSE", 0)
    monkeypatch.setattr(hosts_module, "PAUSE", 0)


def hosts(aws: Aws, count: int | None, **given: Any) -> Hosts:
    return Hosts(aws, SHOP, given.get("places", PLACES), given.get("front", []), count)  # type: ignore[arg-type]


def targets(aws: Aws) -> Targets:
    return Targets(aws, SHOP)  # type: ignore[arg-type]


def test_only_hosts_with_all_tags_of_the_fleet_and_none_of_a_scaling_group_are_its_own() -> None:
    aws = Aws("subnet-a")
    strangers = [
        tagged(Fleet("shop", "staging", "shop-production")), tagged(Fleet("shop-a", "b", "shop-production")),
        tagged(Fleet("shop", "production", "other")), [], tagged(SHOP, **{"aws:autoscaling:groupName": "x"}),
    ]  # fmt: skip
    for number, tags in enumerate(strangers):
        aws.add(f"i-stranger-{number}", "subnet-a", Tags=tags)
    assert [host.id for host in find(aws, SHOP)] == ["i-0"]  # type: ignore[arg-type]


def test_a_host_leaves_the_load_balancer_and_drains_before_it_ends() -> None:
    aws = Aws("subnet-a", "subnet-b", "subnet-a")
    fleet = hosts(aws, 1)
    ends = [host.id for host in fleet.plan.ends]
    assert ends == ["i-2", "i-1"]
    fleet.end(targets(aws), ends, 30)
    assert aws.asked == [("deregister", ends), ("look", ends), ("look", ends), ("terminate", ends)]


@pytest.mark.fault(73)
@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("drains for ever", r"i-2 is draining, i-1 is draining, not unused, after -90 s\. No host was ended"),
        ("not shown", r"i-1 would end, which the plan did not say.*No host was ended"),
        ("protected", r"i-1 would end, but it is protected against termination in EC2\. No host was ended"),
    ],
)
def test_no_host_ends_that_does_not_drain_that_nobody_was_shown_or_that_is_protected(
    trouble: str, message: str
) -> None:
    aws = Aws("subnet-a", "subnet-b", "subnet-a")
    fleet = hosts(aws, 1)
    aws.looks = 99
    aws.protected = {"i-1"} if trouble == "protected" else set()
    shown = ["i-2"] if trouble == "not shown" else ["i-1", "i-2"]
    with pytest.raises(AwsError, match=message):
        fleet.end(targets(aws), shown, -150)
    assert "terminate" not in dict(aws.asked)
    assert ("deregister" in dict(aws.asked)) == (trouble == "drains for ever")


def test_a_host_that_is_out_already_is_not_taken_out_again_but_waited_for() -> None:
    aws = Aws("subnet-a", "subnet-b", "subnet-a")
    aws.targets["i-2"] = "draining"
    fleet = hosts(aws, 2)
    fleet.end(targets(aws), ["i-2"], 30)
    assert [action for action, _ in aws.asked] == ["look", "look", "terminate"]


def test_new_hosts_start_in_one_request_for_each_subnet_and_are_registered_once_they_run() -> None:
    aws = Aws("subnet-a")
    aws.profile = 2
    fleet = hosts(aws, 5)
    started = fleet.start({})
    fleet.register(targets(aws), started)
    assert aws.asked[:2] == [("run", ("subnet-b", 2, 2)), ("run", ("subnet-a", 2, 2))]
    assert aws.asked[2] == ("instance_running", started)
    assert aws.asked[3] == ("register", started)
    assert len(started) == 4


def test_a_profile_that_ec2_never_learns_of_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts_module, "PROFILE", -1)
    aws = Aws("subnet-a")
    aws.profile = 9
    with pytest.raises(MissingError, match="Invalid IAM"):
        hosts(aws, 2).start({})


def test_what_runs_and_is_not_registered_is_put_back_but_neither_a_stopped_host_nor_one_that_ends() -> None:
    aws = Aws("subnet-a", "subnet-b", "subnet-a", "subnet-b")
    aws.add("i-stopped", "subnet-b", "stopped")
    aws.targets = {"i-0": "healthy", "i-3": "draining"}
    fleet = hosts(aws, 5)
    assert fleet.report()["stopped"] == ["i-stopped"]
    fleet.register(targets(aws), [])
    assert aws.asked == [("register", ["i-1", "i-2", "i-3"])]
    aws.asked.clear()
    fleet = hosts(aws, 3)
    assert [host.id for host in fleet.plan.ends] == ["i-stopped", "i-3"]
    fleet.register(targets(aws), [])
    assert aws.asked == [("register", ["i-1", "i-2"])]


def test_nothing_is_asked_where_all_is_as_it_should_be() -> None:
    aws = Aws("subnet-a", "subnet-b")
    fleet = hosts(aws, 2)
    assert fleet.start({}) == []
    assert fleet.register(targets(aws), []) == []
    assert aws.asked == []
    assert fleet.report() == {"before": 2, "starts": [], "ends": [], "zones": {"eu-1a": 1, "eu-1b": 1}, "stopped": []}


def test_a_zone_that_the_load_balancer_would_leave_is_refused_while_a_host_is_in_it() -> None:
    aws = Aws("subnet-a", "subnet-b", "subnet-c")
    with pytest.raises(AwsError, match=r"would send nothing to i-2 in eu-1c: it would be in eu-1a, eu-1b only"):
        hosts(aws, 3)
    with pytest.raises(AwsError, match="would send nothing to i-2 in eu-1c: "):
        hosts(aws, 2)  # it would end, and be cut off before
    with pytest.raises(AwsError, match="would send nothing to i-1 in eu-1b, i-2 in eu-1c"):
        hosts(aws, 3, front=["subnet-a"])
    with pytest.raises(AwsError, match="would send nothing to a new one in eu-1b"):
        hosts(Aws(), 2, front=["subnet-a"])


def test_a_target_group_that_has_the_name_alone_is_refused() -> None:
    aws = Aws("subnet-a")
    aws.target_tags = tagged(Fleet("shop", "b", "shop-production"))
    with pytest.raises(AwsError, match=r"target group shop-production is not that of the app shop, environment prod"):
        targets(aws)
    aws.target_tags = None  # type: ignore[assignment]
    with pytest.raises(AwsError, match=r"no target group shop-production; playbooks/provision\.yml makes it"):
        targets(aws)
