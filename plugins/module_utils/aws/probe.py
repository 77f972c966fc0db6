# SPDX-License-Identifier: Apache-2.0
"""What a fleet's playbooks must know of AWS before they change anything, in one go."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from .client import AwsError, Clients, Fleet, code, explained, group, pages, template
from .hosts import find
from .owner import refuse_shape, refuse_strangers
from .refresh import ACTIVE, current_version, previous_version

#: Canonical's own parameter for its newest image of a release.
IMAGE = "/aws/service/canonical/ubuntu/server/{ubuntu}/stable/current/{arch}/hvm/ebs-gp3/ami-id"
ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}  # AWS's name: Canonical's


@dataclass(frozen=True)
class Wanted:
    """The settings that AWS itself has to judge."""

    fleet: Fleet
    shape: str
    region: str
    instance_type: str
    image: str  # an image's id, "" for the one that the fleet has, else the newest of `ubuntu`
    ubuntu: str
    zones: int
    vpc: str  # one that is there already, "" where the fleet makes its own


def probe(wanted: Wanted) -> dict[str, Any]:
    """Return account, machine type, image, zones, and what there is of the fleet; AwsError names what AWS refuses."""
    clients = Clients(wanted.region)
    with explained(wanted.region):
        who = clients("sts").get_caller_identity()
        machine = _machine(clients, wanted)
        made = group(clients, wanted.fleet.name)
        # What goes with a group of its own was judged before that was made.
        if made is None or not wanted.fleet.owns(made["Tags"]):
            refuse_strangers(clients, wanted.fleet, wanted.vpc)
        hosts = find(clients, wanted.fleet)
        refuse_shape(wanted.fleet, wanted.shape, made, [host.id for host in hosts])
        there = _fleet(clients, wanted.fleet.name, made)
        image = wanted.image or there["image"]
        return {
            "account": who["Account"],
            "partition": who["Arn"].split(":")[1],
            "machine": machine,
            "zones": _zones(clients, wanted),
            "network": _network(clients, wanted.fleet),
            "fleet": there | {"image": _image(clients, wanted, image, machine["architecture"])},
        }


def _machine(clients: Clients, wanted: Wanted) -> dict[str, Any]:
    try:
        (found,) = clients("ec2").describe_instance_types(InstanceTypes=[wanted.instance_type])["InstanceTypes"]
    except Exception as error:
        if code(error) not in {"InvalidInstanceType", "InvalidParameterValue"}:
            raise
        raise AwsError(
            f"aws_fleet_instance_type is {wanted.instance_type!r}; allowed: a type that {wanted.region} has, "
            "such as t3.small or m7g.large"
        ) from error
    supported = [arch for arch in found["ProcessorInfo"]["SupportedArchitectures"] if arch in ARCHITECTURES]
    if not supported:
        raise AwsError(f"aws_fleet_instance_type is {wanted.instance_type!r}; allowed: a type with x86_64 or arm64")
    return {
        "architecture": supported[-1],
        "vcpus": found["VCpuInfo"]["DefaultVCpus"],
        "memory_mib": found["MemoryInfo"]["SizeInMiB"],
    }


def _zones(clients: Clients, wanted: Wanted) -> list[str]:
    offered = pages(
        clients("ec2"), "describe_instance_type_offerings", "InstanceTypeOfferings",
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [wanted.instance_type]}],
    )  # fmt: skip
    found = sorted({item["Location"] for item in offered})
    if len(found) < wanted.zones:
        raise AwsError(
            f"aws_fleet_zones is {wanted.zones}; allowed: at most {len(found)}, as {wanted.instance_type} is in "
            f"{', '.join(found) or 'no zone'}"
        )
    return found[: wanted.zones]


def _network(clients: Clients, fleet: Fleet) -> dict[str, dict[str, str]]:
    """Return the fleet's own subnets by their addresses, and by subnet its zone and its NAT gateway.

    They need no second round trip.
    """
    ec2, own = clients("ec2"), fleet.filters()
    alive = {"Name": "state", "Values": ["pending", "available"]}
    subnets = pages(ec2, "describe_subnets", "Subnets", Filters=own)
    gateways = pages(ec2, "describe_nat_gateways", "NatGateways", Filters=[*own, alive])
    nats = [found for found in gateways if fleet.owns(found.get("Tags"))]
    return {
        "subnets": {str(found["CidrBlock"]): str(found["SubnetId"]) for found in subnets},
        "zones": {str(found["SubnetId"]): str(found["AvailabilityZone"]) for found in subnets},
        "nats": {str(found["SubnetId"]): str(found["NatGatewayId"]) for found in nats},
    }


def _image(clients: Clients, wanted: Wanted, image: str, architecture: str) -> str:
    if not image:
        name = IMAGE.format(ubuntu=wanted.ubuntu, arch=ARCHITECTURES[architecture])
        try:
            return str(clients("ssm").get_parameter(Name=name)["Parameter"]["Value"])
        except Exception as error:
            if code(error) != "ParameterNotFound":
                raise
            raise AwsError(f"{wanted.region} has no image of Ubuntu {wanted.ubuntu}; set aws_fleet_image") from error
    try:
        found = clients("ec2").describe_images(ImageIds=[image])["Images"]
    except Exception as error:
        if not code(error).startswith("InvalidAMIID"):
            raise
        found = []
    if not found:
        raise AwsError(f"aws_fleet_image is {image!r}; allowed: an image that is in {wanted.region}, or an empty text")
    if found[0]["Architecture"] != architecture:
        raise AwsError(
            f"aws_fleet_image is {image!r}, for {found[0]['Architecture']}; allowed: one for {architecture}, "
            f"as {wanted.instance_type} is"
        )
    return image


def _fleet(clients: Clients, name: str, made: dict[str, Any] | None) -> dict[str, Any]:
    """Return what there is of a scaling fleet; user data and description are the live version's."""
    pattern = template(clients, name)
    version = current_version(made) if made else None
    versions = {str(item["VersionNumber"]): item for item in pattern["versions"]} if pattern else {}
    # Before there is a group, the newest version is what it would begin with.
    live = versions.get(version or max(versions, key=int, default=""), {})
    data = live.get("LaunchTemplateData", {})
    refreshes = clients("autoscaling").describe_instance_refreshes(AutoScalingGroupName=name) if made else {}
    active = [item for item in refreshes.get("InstanceRefreshes", []) if item["Status"] in ACTIVE]
    return {
        "exists": made is not None,
        "version": version,
        "latest": max(versions, key=int, default=None),
        "previous": previous_version(pattern, version) if pattern and version else None,
        "image": data.get("ImageId", ""),
        "security_groups": data.get("SecurityGroupIds", []),
        "user_data": base64.b64decode(data.get("UserData", "")).decode(),
        "description": live.get("VersionDescription", ""),
        "min_size": made["MinSize"] if made else 0,
        "desired": made["DesiredCapacity"] if made else 0,
        "instances": len(made["Instances"]) if made else 0,
        "zones": sorted({item["AvailabilityZone"] for item in made["Instances"]}) if made else [],
        "policies": [item["PolicyName"] for item in _policies(clients, name)] if made else [],
        "refresh": active[0]["InstanceRefreshId"] if active else "",
    }


def _policies(clients: Clients, name: str) -> list[dict[str, Any]]:
    return pages(clients("autoscaling"), "describe_policies", "ScalingPolicies", AutoScalingGroupName=name)
