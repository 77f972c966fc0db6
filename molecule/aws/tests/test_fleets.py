"""Fleets side by side in one account: two environments, two apps, both shapes. Each playbook keeps to its own.

After test_fleet.py, which leaves `counter-test`, four hosts. What stands for other people's fleets is made with boto3.
"""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from typing import Any

import pytest
from fleetaws import ENVIRONMENT, IMAGE, REGION, changed, client, good, playbook, refused, requests, tagged, writes

from plugins.module_utils.aws import targets as targets_module
from plugins.module_utils.aws.client import Clients, Fleet
from plugins.module_utils.aws.hosts import Hosts
from plugins.module_utils.aws.targets import Targets

pytest_plugins = ["fleetaws"]

STAGING = Fleet("counter", "staging", "counter-staging")
ALL = "deploy.yml playbooks/rollback.yml playbooks/verify.yml playbooks/image.yml --list-hosts"
#: Plays whose hosts are chosen from the inventory; those of later stages follow from what the hosts say.
CHOOSING = ("Check the settings, read", "Find out what every host", "Prove the workers", "Prepare hosts for an image")


def tags(fleet: Fleet, shape: str) -> list[dict[str, str]]:
    words = {"app": fleet.app, "environment": fleet.environment, "fleet": fleet.name, "shape": shape}
    return [{"Key": f"fastapi-fleet:{key}", "Value": text} for key, text in words.items()]


def hosts_of(name: str) -> set[str]:
    asked = [
        {"Name": "tag:fastapi-fleet:fleet", "Values": [name]},
        {"Name": "instance-state-name", "Values": ["running", "stopped"]},
    ]
    found = client("ec2").describe_instances(Filters=asked)["Reservations"]
    return {item["InstanceId"] for one in found for item in one["Instances"]}


def targets_of(name: str) -> set[str]:
    elb = client("elbv2")
    arn = elb.describe_target_groups(Names=[name])["TargetGroups"][0]["TargetGroupArn"]
    return {item["Target"]["Id"] for item in elb.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]}


def listed(output: str) -> dict[str, set[str]]:
    """The instances of each play that chooses its hosts."""
    found = {}
    for part in re.split(r"\n  play #", output)[1:]:
        title = part.splitlines()[0]
        for name in CHOOSING:
            if name in title:
                found[name] = set(re.findall(r"^      (\S+)$", part, re.MULTILINE))
    return found


@pytest.fixture(scope="module")
def fleets(vpc: dict[str, Any]) -> dict[str, set[str]]:
    """Hosts by fleet: `counter` in test and staging, `shop` in staging, and a scaling group of two."""
    ec2, elb = client("ec2"), client("elbv2")
    given: dict[str, Any] = {"ImageId": IMAGE, "InstanceType": "t3.small"}
    for fleet in (STAGING, Fleet("shop", "staging", "shop-staging")):
        kind = {"ResourceType": "instance", "Tags": tags(fleet, "instances")}
        subnet = vpc["aws_fleet_private_subnets"][0]
        asked = given | {"MinCount": 2, "MaxCount": 2, "SubnetId": subnet, "TagSpecifications": [kind]}
        made = ec2.run_instances(**asked)["Instances"]
        front = elb.create_target_group(
            Name=fleet.name, Protocol="HTTP", Port=80, VpcId=vpc["aws_fleet_vpc"], Tags=tags(fleet, "instances")
        )
        arn = front["TargetGroups"][0]["TargetGroupArn"]
        elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": one["InstanceId"], "Port": 80} for one in made])
    scaled = tags(Fleet("counter", "scaled", "counter-scaled"), "autoscaling")
    pattern = {"ResourceType": "launch-template", "Tags": scaled}
    ec2.create_launch_template(
        LaunchTemplateName="counter-scaled", LaunchTemplateData=given, TagSpecifications=[pattern]
    )
    client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName="counter-scaled", MinSize=1, MaxSize=9, DesiredCapacity=2,
        LaunchTemplate={"LaunchTemplateName": "counter-scaled", "Version": "1"},
        VPCZoneIdentifier=vpc["aws_fleet_private_subnets"][0],
        Tags=[tag | {"PropagateAtLaunch": True} for tag in scaled],
    )  # fmt: skip
    names = {"counter-test": 4, "counter-staging": 2, "shop-staging": 2, "counter-scaled": 2}
    found = {name: hosts_of(name) for name in names}
    assert {name: len(hosts) for name, hosts in found.items()} == names
    return found


# Which hosts


@pytest.mark.fault(73)
@pytest.mark.parametrize(("app", "environment"), [("counter", "test"), ("counter", "staging"), ("shop", "staging")])
def test_each_playbook_touches_its_own_fleets_hosts_only(
    fleets: dict[str, set[str]], app: str, environment: str
) -> None:
    settings: dict[str, Any] = {"app_name": app, "aws_fleet_environment": environment, "aws_fleet_shape": "instances"}
    own = fleets[f"{app}-{environment}"]
    done = playbook(ALL, **settings)
    assert listed(good(done)) == dict.fromkeys(CHOOSING, own)
    (left, *_) = [line for line in done.stderr.splitlines() if line.startswith("Left out")]
    ssh = set().union(*(hosts for name, hosts in fleets.items() if name != "counter-scaled"))
    assert set(re.findall(r"i-[0-9a-f]{17}", left)) == ssh - own


def test_another_fleets_host_is_not_tuned(fleets: dict[str, set[str]]) -> None:
    settings: dict[str, Any] = {"aws_fleet_environment": "staging", "aws_fleet_shape": "instances"}
    said = refused(playbook("playbooks/tune.yml", tune_host=min(fleets["counter-test"]), **settings))
    assert f"one host of the group app; this fleet has: {min(fleets['counter-staging'])}" in said


@pytest.mark.fault(73)
def test_nobody_connects_to_instances_of_a_scaling_group(fleets: dict[str, set[str]]) -> None:
    scaled: dict[str, Any] = {"aws_fleet_environment": "scaled", "aws_fleet_shape": "autoscaling"}
    said = good(playbook("deploy.yml playbooks/rollback.yml --list-hosts", **scaled))
    assert listed(said) == {name: set() for name in CHOOSING[:2]}
    assert "counter-scaled is a scaling group (aws_fleet_shape): nobody connects to its instances" in refused(
        playbook("playbooks/verify.yml", **scaled)
    )


@pytest.mark.fault(73)
def test_a_run_asks_its_own_hosts_and_no_others(fleets: dict[str, set[str]]) -> None:
    """Not the list alone: what a run would connect to. Nothing listens there."""
    away: dict[str, Any] = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    said = refused(
        playbook("playbooks/verify.yml", aws_fleet_environment="staging", aws_fleet_shape="instances", **away)
    )
    assert set(re.findall(r"(i-\w+) : ok=\d+ changed=0 unreachable=1", said)) == fleets["counter-staging"]
    assert set(re.findall(r"fatal: \[(i-\w+)\]", said)) == fleets["counter-staging"]


# The shape


@pytest.mark.fault(73)
@pytest.mark.parametrize("verb", ["playbooks/provision.yml", "deploy.yml", "playbooks/rollback.yml"])
@pytest.mark.parametrize(
    ("environment", "shape", "there"),
    [
        ("staging", "autoscaling", "has 2 of the shape instances (i-"),
        ("scaled", "instances", "a scaling group"),
    ],
)
def test_another_shape_is_refused_before_anything_changes(
    fleets: dict[str, set[str]], vpc: dict[str, Any], verb: str, environment: str, shape: str, there: str
) -> None:
    before = len(requests())
    said = refused(playbook(verb, **vpc | {"aws_fleet_environment": environment, "aws_fleet_shape": shape}))
    assert f"aws_fleet_shape is '{shape}'" in said
    assert there in said
    assert "A fleet keeps its shape" in said
    assert writes(before) == []
    assert {name: hosts_of(name) for name in fleets} == fleets


@pytest.mark.fault(73)
def test_a_smaller_scaling_group_than_there_is_now_is_refused(fleets: dict[str, set[str]], vpc: dict[str, Any]) -> None:
    scaled = vpc | {"aws_fleet_environment": "scaled", "aws_fleet_shape": "autoscaling", "aws_fleet_min": 1}
    before = len(requests())
    said = refused(playbook("playbooks/provision.yml --check", **scaled, aws_fleet_max=1))
    assert "aws_fleet_max is 1, but counter-scaled wants 2 instances now, and AWS would end the others" in said
    assert writes(before) == []
    client("autoscaling").set_desired_capacity(AutoScalingGroupName="counter-scaled", DesiredCapacity=1)
    good(playbook("playbooks/provision.yml --check", **scaled, aws_fleet_max=1))
    client("autoscaling").set_desired_capacity(AutoScalingGroupName="counter-scaled", DesiredCapacity=2)
    fleets["counter-scaled"] = hosts_of("counter-scaled")


@pytest.mark.fault(73)
def test_a_zone_with_instances_of_a_scaling_group_is_not_left(fleets: dict[str, set[str]]) -> None:
    """The local API has them all in the first zone, and this type in the others only."""
    before = len(requests())
    settings: dict[str, Any] = {"aws_fleet_environment": "scaled", "aws_fleet_shape": "autoscaling"}
    said = refused(
        playbook("playbooks/provision.yml", **settings, aws_fleet_instance_type="c7i-flex.large", aws_fleet_zones=2)
    )
    assert f"The load balancer and the routes would leave {REGION}a, where counter-scaled has instances" in said
    assert writes(before) == []


# The name


@pytest.mark.fault(73)
def test_a_name_that_another_fleet_has_is_refused_before_anything_is_made(vpc: dict[str, Any]) -> None:
    """`counter` in `a-b`, and `counter-a` in `b`."""
    ec2 = client("ec2")
    made = ec2.create_security_group(
        GroupName="of-counter-a-b", Description="theirs", VpcId=vpc["aws_fleet_vpc"],
        TagSpecifications=[
            {"ResourceType": "security-group", "Tags": tags(Fleet("counter", "a-b", "counter-a-b"), "instances")}
        ],
    )["GroupId"]  # fmt: skip
    before = len(requests())
    theirs: dict[str, Any] = {"app_name": "counter-a", "aws_fleet_environment": "b"}
    said = refused(playbook("playbooks/provision.yml", **vpc | theirs))
    assert (
        "aws_fleet_name is 'counter-a-b', for the app counter-a, environment b; but another fleet (app counter, "
        f"environment a-b) has the name counter-a-b: security group {made}. Nothing was changed; allowed: another"
    ) in said
    said = good(playbook("playbooks/destroy.yml", **theirs, confirm="counter-a-b"))
    others = f"another fleet (app counter, environment a-b) has the name counter-a-b: security group {made}"
    assert f"Not touched: {others}" in " ".join(said.replace("'", "").split())
    assert writes(before) == []
    assert tagged("counter-a-b") == [made]
    good(playbook("playbooks/provision.yml --check", **vpc | theirs, aws_fleet_name="counter-a-b2"))
    # The fleet that has it goes on, also where its last run ended before the target group had its tags.
    client("elbv2").create_target_group(Name="counter-a-b", Protocol="HTTP", Port=80, VpcId=vpc["aws_fleet_vpc"])
    good(playbook("playbooks/provision.yml --check", **vpc | {"aws_fleet_environment": "a-b"}))


def test_what_has_the_name_and_no_tags_is_not_taken_over(vpc: dict[str, Any]) -> None:
    """Of a VPC that the fleet is given, the name is anybody's business; of others, neither that nor their groups."""
    arn = client("elbv2").create_target_group(Name="counter-free", Protocol="HTTP", Port=80, VpcId=vpc["aws_fleet_vpc"])
    client("iam").create_role(RoleName=f"counter-free-{REGION}", AssumeRolePolicyDocument="{}")
    network = {"ResourceType": "vpc", "Tags": [{"Key": "Name", "Value": "counter-free"}]}
    made = client("ec2").create_vpc(CidrBlock="10.80.0.0/16", TagSpecifications=[network])["Vpc"]["VpcId"]
    group = {"GroupName": "counter-free-app", "Description": "theirs", "VpcId": vpc["aws_fleet_vpc"]}
    rules = client("ec2").create_security_group(**group)["GroupId"]
    client("ec2").create_tags(Resources=[vpc["aws_fleet_vpc"]], Tags=[{"Key": "Name", "Value": "counter-named"}])
    group |= {"GroupName": "counter-named-app", "VpcId": made}
    client("ec2").create_security_group(**group)
    before = len(requests())
    good(playbook("playbooks/provision.yml --check", **vpc | {"aws_fleet_environment": "named"}))
    assert f"name counter-free: vpc {made}, target" in refused(
        playbook("playbooks/provision.yml", aws_fleet_environment="free", aws_fleet_shape="instances")
    )
    said = refused(playbook("playbooks/provision.yml", **vpc | {"aws_fleet_environment": "free"}))
    what = f"security group {rules}, target group counter-free, role counter-free-{REGION}. Nothing was"
    assert f"but something without the tag fastapi-fleet:fleet has the name counter-free: {what}" in said
    assert writes(before) == []
    client("elbv2").delete_target_group(TargetGroupArn=arn["TargetGroups"][0]["TargetGroupArn"])
    client("iam").delete_role(RoleName=f"counter-free-{REGION}")


@pytest.mark.fault(73)
def test_a_scaling_group_of_another_fleet_is_not_rolled_back(fleets: dict[str, set[str]]) -> None:
    before = len(requests())
    settings: dict[str, Any] = {
        "app_name": "shop",
        "aws_fleet_name": "counter-scaled",
        "aws_fleet_shape": "autoscaling",
    }
    said = refused(playbook("playbooks/rollback.yml", **settings))
    assert "the scaling group counter-scaled is of another fleet (app counter, environment scaled)" in said
    assert writes(before) == []


# The number


def spread_of(name: str) -> list[int]:
    found = client("ec2").describe_instances(InstanceIds=sorted(hosts_of(name)))["Reservations"]
    zones = Counter(item["Placement"]["AvailabilityZone"] for one in found for item in one["Instances"])
    return sorted(zones.values(), reverse=True)


@pytest.mark.fault(73)
def test_a_smaller_count_ends_hosts_after_they_have_left_the_load_balancer(
    fleets: dict[str, set[str]], vpc: dict[str, Any]
) -> None:
    four, others = hosts_of("counter-test"), fleets["counter-staging"]
    before = len(requests())
    said = good(playbook("playbooks/provision.yml --check", **vpc | {"aws_fleet_count": 2}))
    ends = re.findall(r"end: (i-\w+) \(\S+, running\), once it has left the load balancer and drained", said)
    assert "hosts: 2 (1 in eu-central-1" in said
    assert len(ends) == 2
    assert writes(before) == []
    before = len(requests())
    good(playbook("playbooks/provision.yml", **vpc | {"aws_fleet_count": 2}))
    asked = [(one["what"], set(one["instances"])) for one in requests()[before:]]
    out = asked.index(("DeregisterTargets", set(ends)))
    end = asked.index(("TerminateInstances", set(ends)))
    looks = [number for number, one in enumerate(asked) if one == ("DescribeTargetHealth", set(ends))]
    assert out < looks[0] < looks[1] < end, "it drains until the second look"
    assert hosts_of("counter-test") == targets_of("counter-test") == four - set(ends)
    assert hosts_of("counter-staging") == targets_of("counter-staging") == others


@pytest.mark.fault(73)
def test_without_a_count_nothing_ends_and_the_number_at_first_is_restored(vpc: dict[str, Any]) -> None:
    two, unset = hosts_of("counter-test"), {key: value for key, value in vpc.items() if key != "aws_fleet_count"}
    (stopped, _) = sorted(two)
    client("ec2").stop_instances(InstanceIds=[stopped])
    said = good(playbook("playbooks/provision.yml", **unset))
    assert f"counted, but not running: {stopped}" in said
    assert "start: 1 (eu-central-1" in said
    assert hosts_of("counter-test") > two
    assert len(hosts_of("counter-test")) == 3
    assert spread_of("counter-test") == [1, 1, 1]
    assert hosts_of("counter-test") == targets_of("counter-test")
    client("ec2").start_instances(InstanceIds=[stopped])
    assert changed(good(playbook("playbooks/provision.yml", **unset))) == 0


@pytest.mark.fault(73)
def test_counts_and_zones_in_any_order_hold(
    fleets: dict[str, set[str]], vpc: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what the module calls, without Ansible around it: a playbook takes a quarter of a minute."""
    for name, text in ENVIRONMENT.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr(targets_module, "PAUSE", 0)
    clients, subnets = Clients(REGION), vpc["aws_fleet_private_subnets"]
    others = {name: hosts_of(name) for name in fleets if name != "counter-staging"}
    given: dict[str, Any] = {"ImageId": IMAGE, "InstanceType": "t3.small"}
    launch: dict[str, Any] = given | {
        "TagSpecifications": [{"ResourceType": "instance", "Tags": tags(STAGING, "instances")}]
    }
    order = random.Random(73)  # noqa: S311  an order of tests, no secret
    steps = [*itertools.product(range(1, 10), range(1, 4))]
    order.shuffle(steps)
    for count, zones in steps:
        before = hosts_of("counter-staging")
        hosts = Hosts(clients, STAGING, [{"subnet": subnet} for subnet in subnets[:zones]], subnets, count)
        targets = Targets(clients, STAGING)
        hosts.register(targets, hosts.start(launch))
        if hosts.plan.ends:
            hosts.end(targets, [host.id for host in hosts.plan.ends], 0)
        after = hosts_of("counter-staging")
        assert len(after) == count
        assert len(before - after) == max(0, len(before) - count)
        assert targets_of("counter-staging") == after
    assert {name: hosts_of(name) for name in others} == others
