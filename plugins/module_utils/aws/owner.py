# SPDX-License-Identifier: Apache-2.0
"""Whose a fleet's name is on AWS, and which shape the fleet has: settled before anything is made or changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .client import TAG, AwsError, Clients, Fleet, code, group, pages, template

#: What is made first and removed last: as long as there is anything of a fleet in EC2, there is one of these.
FIRST = ("vpc", "security-group")
SHOWN = 4  # resources in a message

#: Something on AWS in words, and its tags.
Claim = tuple[str, Sequence[dict[str, str]]]


def name_conflict(clients: Clients, fleet: Fleet, vpc: str = "") -> str:
    """Say what has the fleet's name, as a name or as a tag, and is not this fleet's; "" where nothing is.

    `vpc` is one that the fleet was given: it may have any name, and only its security groups can be taken for the
    fleet's. Without it, the fleet makes one.

    Where the fleet has begun to be made, what has its name and no such tag is its own: AWS takes the tags of a target
    group and of a bucket only after it has made them, and a run can end in between.
    """
    account = clients("sts").get_caller_identity()["Account"]
    owners = [(what, Fleet.of(listed)) for what, listed in _claims(clients, fleet.name, account, vpc)]
    begun = any(owner == fleet for _unused, owner in owners)
    others = [(what, owner) for what, owner in owners if owner != fleet and (owner.name or not begun)]
    if not others:
        return ""
    owner = others[0][1]
    whose = f"another fleet ({owner})" if owner.name else f"something without the tag {TAG}"
    return f"{whose} has the name {fleet.name}: {_listed([what for what, one in others if one == owner])}"


def refuse_name_conflict(clients: Clients, fleet: Fleet, vpc: str) -> None:
    """Raise AwsError where something that has the fleet's name is not this fleet's."""
    if conflict := name_conflict(clients, fleet, vpc):
        raise AwsError(
            f"aws_fleet_name is {fleet.name!r}, for the {fleet}; but {conflict}. Nothing was changed; allowed: another "
            "aws_fleet_environment, or an aws_fleet_name that nothing has"
        )


def refuse_shape(fleet: Fleet, shape: str, scaling: dict[str, Any] | None, hosts: Sequence[str]) -> None:
    """Raise AwsError where the fleet has another shape than `shape`.

    `scaling` is its scaling group, None where there is none; `hosts` are the ids of its instances that are in none.
    """
    scales = scaling is not None
    group_text = f"a scaling group with {len(scaling['Instances'])} instances" if scaling else ""
    host_text = f"{len(hosts)} of the shape instances ({_listed(hosts)})"
    if scales and hosts:
        raise AwsError(
            f"{fleet.name} has {group_text} and {host_text}; it cannot be both, and nothing was changed. Remove in EC2 "
            "what you do not want, once it gets no traffic; then run this again"
        )
    if (shape == "instances" and not scales) or (shape == "autoscaling" and not hosts):
        return
    raise AwsError(
        f"aws_fleet_shape is {shape!r}, but {fleet.name} has {group_text or host_text}. A fleet keeps its shape, and "
        "nothing was changed. "
        f"Set aws_fleet_shape to {'autoscaling' if scales else 'instances'}. For the other shape make a second fleet "
        "beside it, with another aws_fleet_environment or aws_fleet_name; deploy to it, move the traffic, then remove "
        "this one with playbooks/destroy.yml"
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _claims(clients: Clients, name: str, account: str, vpc: str) -> Iterator[Claim]:
    yield from _in_ec2(clients, name, vpc)
    launch, scaling = template(clients, name), group(clients, name)
    if launch is not None:
        yield f"launch template {launch['LaunchTemplateId']}", launch.get("Tags", [])
    if scaling is not None:
        yield f"scaling group {name}", scaling["Tags"]
    yield from _balancing(clients, name)
    role = f"{name}-{clients.region}"
    bucket = f"{name}-{account}-{clients.region}"
    try:
        yield f"role {role}", clients("iam").get_role(RoleName=role)["Role"].get("Tags", [])
    except Exception as error:
        if code(error) != "NoSuchEntity":
            raise
    try:
        yield f"bucket {bucket}", clients("s3").get_bucket_tagging(Bucket=bucket)["TagSet"]
    except Exception as error:
        if code(error) == "NoSuchTagSet":
            yield f"bucket {bucket}", []
        elif code(error) != "NoSuchBucket":
            raise


def _in_ec2(clients: Clients, name: str, vpc: str) -> Iterator[Claim]:
    ec2 = clients("ec2")
    kinds = {"Name": "resource-type", "Values": list(FIRST)}
    tagged = [{"Name": "key", "Values": [TAG]}, {"Name": "value", "Values": [name]}, kinds]
    claimed = pages(ec2, "describe_tags", "Tags", Filters=tagged)
    # A VPC that has the name alone would be taken for the fleet's own, and so would a security group in it.
    vpcs = [vpc]
    if not vpc:
        named = [{"Name": "tag:Name", "Values": [name]}]
        vpcs = [item["VpcId"] for item in pages(ec2, "describe_vpcs", "Vpcs", Filters=named)]
        claimed += [{"ResourceId": one, "ResourceType": "vpc"} for one in vpcs]
    groups = [
        {"Name": "group-name", "Values": [f"{name}-app", f"{name}-balancer"]},
        {"Name": "vpc-id", "Values": vpcs},
    ]
    claimed += [
        {"ResourceId": item["GroupId"], "ResourceType": "security-group"}
        for item in (pages(ec2, "describe_security_groups", "SecurityGroups", Filters=groups) if vpcs else [])
    ]
    words = {item["ResourceId"]: f"{item['ResourceType'].replace('-', ' ')} {item['ResourceId']}" for item in claimed}
    if not words:
        return
    listed: dict[str, list[dict[str, str]]] = {resource: [] for resource in words}
    for item in pages(ec2, "describe_tags", "Tags", Filters=[{"Name": "resource-id", "Values": list(words)}]):
        listed[item["ResourceId"]].append(item)
    for resource, tags_of in listed.items():
        yield words[resource], tags_of


def _balancing(clients: Clients, name: str) -> Iterator[Claim]:
    client = clients("elbv2")
    for kind, action, key, arn in (
        ("load balancer", "describe_load_balancers", "LoadBalancers", "LoadBalancerArn"),
        ("target group", "describe_target_groups", "TargetGroups", "TargetGroupArn"),
    ):
        try:
            described = getattr(client, action)(Names=[name])[key]
        except Exception as error:
            if not code(error).endswith("NotFound"):
                raise
            continue
        for tagged in client.describe_tags(ResourceArns=[item[arn] for item in described])["TagDescriptions"]:
            yield f"{kind} {name}", tagged["Tags"]
