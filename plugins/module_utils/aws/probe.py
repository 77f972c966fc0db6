# SPDX-License-Identifier: Apache-2.0
"""What a fleet's playbooks must know of AWS before they change anything, in one go."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from .client import AwsError, Clients, Fleet, code, explained, group, pages, template
from .hosts import find
from .owner import refuse_name_conflict, refuse_shape
from .refresh import ACTIVE, current_version, previous_version

#: Canonical's own parameter for its newest image of a release.
IMAGE = "/aws/service/canonical/ubuntu/server/{ubuntu}/stable/current/{arch}/hvm/ebs-gp3/ami-id"
ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}  # AWS's name: Canonical's


@dataclass(frozen=True)
class FleetSettings:
    """The settings that AWS itself has to judge."""

    fleet: Fleet
    shape: str
    region: str
    instance_type: str
    image: str  # an image's id, "" for the one that the fleet has, else the newest of `ubuntu`
    ubuntu: str
    zones: int
    vpc: str  # one that is there already, "" where the fleet makes its own


def probe(settings: FleetSettings) -> dict[str, Any]:
    """Return account, machine type, image, zones, and what there is of the fleet; AwsError names what AWS refuses."""
    clients = Clients(settings.region)
    with explained(settings.region):
        caller = clients("sts").get_caller_identity()
        machine = _machine(clients, settings)
        scaling = group(clients, settings.fleet.name)
        # What goes with a group of its own was judged before that was made.
        if scaling is None or not settings.fleet.owns(scaling["Tags"]):
            refuse_name_conflict(clients, settings.fleet, settings.vpc)
        hosts = find(clients, settings.fleet)
        refuse_shape(settings.fleet, settings.shape, scaling, [host.id for host in hosts])
        fleet = _fleet(clients, settings.fleet.name, scaling)
        image = settings.image or fleet["image"]
        return {
            "account": caller["Account"],
            "partition": caller["Arn"].split(":")[1],
            "machine": machine,
            "zones": _zones(clients, settings),
            "network": _network(clients, settings.fleet),
            "fleet": fleet | {"image": _image(clients, settings, image, machine["architecture"])},
        }


def _machine(clients: Clients, settings: FleetSettings) -> dict[str, Any]:
    try:
        (machine,) = clients("ec2").describe_instance_types(InstanceTypes=[settings.instance_type])["InstanceTypes"]
    except Exception as error:
        if code(error) not in {"InvalidInstanceType", "InvalidParameterValue"}:
            raise
        raise AwsError(
            f"aws_fleet_instance_type is {settings.instance_type!r}; allowed: a type that {settings.region} has, "
            "such as t3.small or m7g.large"
        ) from error
    supported = [arch for arch in machine["ProcessorInfo"]["SupportedArchitectures"] if arch in ARCHITECTURES]
    if not supported:
        raise AwsError(f"aws_fleet_instance_type is {settings.instance_type!r}; allowed: a type with x86_64 or arm64")
    return {
        "architecture": supported[-1],
        "vcpus": machine["VCpuInfo"]["DefaultVCpus"],
        "memory_mib": machine["MemoryInfo"]["SizeInMiB"],
    }


def _zones(clients: Clients, settings: FleetSettings) -> list[str]:
    offered = pages(
        clients("ec2"), "describe_instance_type_offerings", "InstanceTypeOfferings",
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [settings.instance_type]}],
    )  # fmt: skip
    zones = sorted({item["Location"] for item in offered})
    if len(zones) < settings.zones:
        raise AwsError(
            f"aws_fleet_zones is {settings.zones}; allowed: at most {len(zones)}, as {settings.instance_type} is in "
            f"{', '.join(zones) or 'no zone'}"
        )
    return zones[: settings.zones]


def _network(clients: Clients, fleet: Fleet) -> dict[str, dict[str, str]]:
    """Return the fleet's own subnets by their addresses, and by subnet its zone and its NAT gateway.

    They need no second round trip.
    """
    ec2, own = clients("ec2"), fleet.filters()
    alive = {"Name": "state", "Values": ["pending", "available"]}
    subnets = pages(ec2, "describe_subnets", "Subnets", Filters=own)
    gateways = pages(ec2, "describe_nat_gateways", "NatGateways", Filters=[*own, alive])
    nats = [item for item in gateways if fleet.owns(item.get("Tags"))]
    return {
        "subnets": {str(item["CidrBlock"]): str(item["SubnetId"]) for item in subnets},
        "zones": {str(item["SubnetId"]): str(item["AvailabilityZone"]) for item in subnets},
        "nats": {str(item["SubnetId"]): str(item["NatGatewayId"]) for item in nats},
    }


def _image(clients: Clients, settings: FleetSettings, image: str, architecture: str) -> str:
    if not image:
        name = IMAGE.format(ubuntu=settings.ubuntu, arch=ARCHITECTURES[architecture])
        try:
            return str(clients("ssm").get_parameter(Name=name)["Parameter"]["Value"])
        except Exception as error:
            if code(error) != "ParameterNotFound":
                raise
            raise AwsError(
                f"{settings.region} has no image of Ubuntu {settings.ubuntu}; set aws_fleet_image"
            ) from error
    try:
        images = clients("ec2").describe_images(ImageIds=[image])["Images"]
    except Exception as error:
        if not code(error).startswith("InvalidAMIID"):
            raise
        images = []
    if not images:
        raise AwsError(
            f"aws_fleet_image is {image!r}; allowed: an image that is in {settings.region}, or an empty text"
        )
    if images[0]["Architecture"] != architecture:
        raise AwsError(
            f"aws_fleet_image is {image!r}, for {images[0]['Architecture']}; allowed: one for {architecture}, "
            f"as {settings.instance_type} is"
        )
    return image


def _fleet(clients: Clients, name: str, scaling: dict[str, Any] | None) -> dict[str, Any]:
    """Return what there is of a scaling fleet; user data and description are the live version's."""
    launch = template(clients, name)
    version = current_version(scaling) if scaling else None
    versions = {str(item["VersionNumber"]): item for item in launch["versions"]} if launch else {}
    # Before there is a group, the newest version is what it would begin with.
    live = versions.get(version or max(versions, key=int, default=""), {})
    data = live.get("LaunchTemplateData", {})
    refreshes = clients("autoscaling").describe_instance_refreshes(AutoScalingGroupName=name) if scaling else {}
    active = [item for item in refreshes.get("InstanceRefreshes", []) if item["Status"] in ACTIVE]
    return {
        "exists": scaling is not None,
        "version": version,
        "latest": max(versions, key=int, default=None),
        "previous": previous_version(launch, version) if launch and version else None,
        "image": data.get("ImageId", ""),
        "security_groups": data.get("SecurityGroupIds", []),
        "user_data": base64.b64decode(data.get("UserData", "")).decode(),
        "description": live.get("VersionDescription", ""),
        "min_size": scaling["MinSize"] if scaling else 0,
        "desired": scaling["DesiredCapacity"] if scaling else 0,
        "instances": len(scaling["Instances"]) if scaling else 0,
        "zones": sorted({item["AvailabilityZone"] for item in scaling["Instances"]}) if scaling else [],
        "policies": [item["PolicyName"] for item in _policies(clients, name)] if scaling else [],
        "refresh": active[0]["InstanceRefreshId"] if active else "",
    }


def _policies(clients: Clients, name: str) -> list[dict[str, Any]]:
    return pages(clients("autoscaling"), "describe_policies", "ScalingPolicies", AutoScalingGroupName=name)
