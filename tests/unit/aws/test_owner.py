"""Whose a name is on AWS, and which shape a fleet has."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.module_utils.aws.client import AwsError, Clients, Fleet
from plugins.module_utils.aws.owner import name_conflict, refuse_name_conflict, refuse_shape
from tests.unit.aws.test_client import SHOP, TAGS

GROUP: dict[str, Any] = {"Instances": [{}, {}]}


@pytest.mark.parametrize(
    ("shape", "group", "hosts"),
    [
        ("autoscaling", None, []),
        ("instances", None, []),
        ("autoscaling", GROUP, []),
        ("instances", None, ["i-1"]),
    ],
)
def test_a_fleet_keeps_its_shape(shape: str, group: dict[str, Any] | None, hosts: list[str]) -> None:
    refuse_shape(SHOP, shape, group, hosts)


@pytest.mark.parametrize(
    ("shape", "group", "hosts", "message"),
    [
        ("instances", GROUP, [], r"has a scaling group with 2 instances\. .*Set aws_fleet_shape to autoscaling\."),
        ("autoscaling", None, ["i-1"], r"has 1 of the shape instances \(i-1\)\. .*Set aws_fleet_shape to instances\."),
        (
            "instances",
            GROUP,
            [f"i-{n}" for n in range(6)],
            r"instances \(i-0, i-1, i-2, i-3 and 2 more\); it ",
        ),
    ],
)
def test_another_shape_is_refused(shape: str, group: dict[str, Any] | None, hosts: list[str], message: str) -> None:
    with pytest.raises(AwsError, match=message):
        refuse_shape(SHOP, shape, group, hosts)


def vpc(clients: Clients, tags: list[dict[str, str]]) -> str:
    specification = {"ResourceType": "vpc", "Tags": [*tags, {"Key": "Name", "Value": SHOP.name}]}
    made = clients("ec2").create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=[specification])
    return str(made["Vpc"]["VpcId"])


def test_a_name_that_nothing_has_is_free(clients: Clients) -> None:
    assert name_conflict(clients, SHOP) == ""


def test_what_is_the_fleets_own_is_no_conflict(clients: Clients) -> None:
    own = vpc(clients, TAGS)
    # Made before its tags, by a run that ended in between.
    clients("ec2").create_security_group(GroupName="shop-production-app", Description="x", VpcId=own)
    assert name_conflict(clients, SHOP) == ""


def test_what_has_the_name_alone_is_named(clients: Clients) -> None:
    other = vpc(clients, [])
    with pytest.raises(AwsError, match=rf"something without the tag fastapi-fleet:fleet has .*: vpc {other}\."):
        refuse_name_conflict(clients, SHOP, "")


def test_another_fleets_name_is_refused_although_it_reads_alike(clients: Clients) -> None:
    vpc(clients, TAGS)
    with pytest.raises(AwsError, match=r"another fleet \(app shop, environment production\) has the name"):
        refuse_name_conflict(clients, Fleet("shop-production", "", "shop-production"), "")


def test_roles_and_buckets_of_the_name_are_claims(clients: Clients) -> None:
    account = clients("sts").get_caller_identity()["Account"]
    clients("iam").create_role(RoleName="shop-production-eu-central-1", AssumeRolePolicyDocument="{}")
    bucket = f"shop-production-{account}-eu-central-1"
    clients("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    conflict = name_conflict(clients, SHOP)
    assert "role shop-production-eu-central-1" in conflict
    assert f"bucket {bucket}" in conflict
