"""Attributes and tags that differ are set, and no others."""

from __future__ import annotations

import pytest

from plugins.module_utils.aws.attributes import apply
from plugins.module_utils.aws.client import AwsError, Clients


def balancer(clients: Clients) -> str:
    ec2 = clients("ec2")
    subnets = [
        item["SubnetId"]
        for item in ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
    ]
    made = clients("elbv2").create_load_balancer(Name="shop", Subnets=subnets[:2])
    return str(made["LoadBalancers"][0]["LoadBalancerArn"])


@pytest.mark.parametrize("check", [True, False])
def test_attributes_of_a_load_balancer(clients: Clients, check: bool) -> None:
    arn = balancer(clients)
    attributes = {"idle_timeout.timeout_seconds": "75"}
    assert apply(clients, "shop", {}, attributes, {}, check=check) == list(attributes)
    described = clients("elbv2").describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"]
    current = {item["Key"]: item["Value"] for item in described}
    assert (current.get("idle_timeout.timeout_seconds") == "75") is not check
    assert apply(clients, "shop", {}, attributes, {}, check=check) == (list(attributes) if check else [])


def test_tags_of_alarms(clients: Clients) -> None:
    watch = clients("cloudwatch")
    watch.put_metric_alarm(
        AlarmName="shop-5xx", MetricName="x", Namespace="y", Period=60, EvaluationPeriods=1, Threshold=1,
        ComparisonOperator="GreaterThanThreshold", Statistic="Sum",
    )  # fmt: skip
    tags = {"shop-5xx": {"fastapi-fleet:app": "shop"}}
    assert apply(clients, "shop", {}, {}, tags, check=False) == ["shop-5xx"]
    assert apply(clients, "shop", {}, {}, tags, check=False) == []


def test_a_group_that_is_not_there_is_named(clients: Clients) -> None:
    with pytest.raises(AwsError, match="there is no scaling group shop"):
        apply(clients, "shop", {"CapacityRebalance": True}, {}, {}, check=False)
