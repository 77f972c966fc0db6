# SPDX-License-Identifier: Apache-2.0
"""What the collections' modules cannot set: attributes of a scaling group and a load balancer, tags of alarms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .client import AwsError, Clients, explained, group, tags


def apply(
    clients: Clients,
    name: str,
    group_attributes: Mapping[str, Any],
    balancer: Mapping[str, str],
    alarms: Mapping[str, Mapping[str, str]],
    *,
    check: bool,
) -> list[str]:
    """Set what differs and return its names: attributes by AWS's own names, tags by alarm."""
    with explained(clients.region):
        changed = _group(clients, name, group_attributes, check=check) if group_attributes else []
        changed += _balancer(clients, name, balancer, check=check) if balancer else []
        return changed + (_alarms(clients, alarms, check=check) if alarms else [])


def _alarms(clients: Clients, tags_by_alarm: Mapping[str, Mapping[str, str]], *, check: bool) -> list[str]:
    client, changed = clients("cloudwatch"), []
    for alarm in client.describe_alarms(AlarmNames=list(tags_by_alarm))["MetricAlarms"]:
        arn, own = alarm["AlarmArn"], tags_by_alarm[alarm["AlarmName"]]
        current = tags(client.list_tags_for_resource(ResourceARN=arn)["Tags"])
        if not own.items() <= current.items():
            changed.append(str(alarm["AlarmName"]))
            if not check:
                client.tag_resource(ResourceARN=arn, Tags=[{"Key": key, "Value": own[key]} for key in own])
    return changed


def _group(clients: Clients, name: str, attributes: Mapping[str, Any], *, check: bool) -> list[str]:
    current = group(clients, name)
    if current is None:
        raise AwsError(f"there is no scaling group {name}")
    differs = {key: value for key, value in attributes.items() if current.get(key) != value}
    if differs and not check:
        clients("autoscaling").update_auto_scaling_group(AutoScalingGroupName=name, **differs)
    return list(differs)


def _balancer(clients: Clients, name: str, attributes: Mapping[str, str], *, check: bool) -> list[str]:
    client = clients("elbv2")
    (balancer,) = client.describe_load_balancers(Names=[name])["LoadBalancers"]
    arn = balancer["LoadBalancerArn"]
    current = {
        item["Key"]: item["Value"]
        for item in client.describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"]
    }
    differs = {key: str(value) for key, value in attributes.items() if current.get(key) != str(value)}
    if differs and not check:
        listed = [{"Key": key, "Value": value} for key, value in differs.items()]
        client.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=listed)
    return list(differs)
