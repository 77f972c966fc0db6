"""A pytest plugin: what the tests of a fleet on AWS share. A test module says `pytest_plugins = ["fleetaws"]`."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

REPOSITORY = Path(__file__).parents[2]
STATE = Path(os.environ.get("FLEET_AWS_STATE", "/nonexistent"))
FLEET, REGION, IMAGE = "counter-production", "eu-central-1", "ami-1e749f67"
ENVIRONMENT = {
    "AWS_ENDPOINT_URL": os.environ.get("AWS_ENDPOINT_URL", ""), "AWS_ACCESS_KEY_ID": "not-a-key",
    "AWS_SECRET_ACCESS_KEY": "not-a-key", "AWS_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true",
}  # fmt: skip
#: Actions that make or change something.
WRITES = re.compile(
    r"(Create|Run|Put|Update|Modify|Start|Stop|Register|Deregister|Allocate|Release|Delete|Terminate|Authorize|Revoke|"
    r"Attach|Detach|Add|Remove|Associate|Disassociate|Replace|Set|Enable|Disable|Cancel|Rollback|Tag|Untag)[A-Z]"
)


@functools.cache
def client(service: str) -> Any:
    """Return a client of the local API."""
    keys = {"aws_access_key_id": "not-a-key", "aws_secret_access_key": "not-a-key"}
    return boto3.client(service, region_name=REGION, endpoint_url=ENVIRONMENT["AWS_ENDPOINT_URL"], **keys)


def playbook(
    name: str, environment: dict[str, str] | None = None, **settings: object
) -> subprocess.CompletedProcess[str]:
    """Run a playbook, several, or one with options, as a user would, with the inventory of this repository."""
    given = {"aws_fleet_image": IMAGE, "aws_fleet_refresh_interval": 1, **settings}
    command: list[str | Path] = [
        Path(sys.executable).with_name("ansible-playbook"),
        "-i",
        "inventory/aws_ec2.yml",
        "-e",
        json.dumps(given),
    ]
    inherited = {key: text for key, text in os.environ.items() if not key.startswith(("MOLECULE_", "AWS_"))}
    own = {"ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    aws = ENVIRONMENT if environment is None else environment
    return subprocess.run(
        [*command, *name.split()], cwd=REPOSITORY, env=inherited | own | aws,
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def good(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a playbook said that has succeeded."""
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a playbook said that has failed, on one line."""
    assert done.returncode != 0, done.stdout[-4000:]
    return " ".join((done.stdout + done.stderr).split())


def changed(output: str) -> int:
    """Return how many tasks have changed something."""
    return sum(int(number) for number in re.findall(r"changed=(\d+)", output))


def requests() -> list[dict[str, Any]]:
    """Return what the API was asked, from its start on."""
    return [json.loads(line) for line in (STATE / "requests.jsonl").read_text().splitlines()]


def writes(since: int) -> list[str]:
    """Return the actions, after so many requests, that make or change something."""
    return [asked["what"] for asked in requests()[since:] if WRITES.match(asked["what"])]


def group(name: str = FLEET) -> dict[str, Any]:
    """Return a scaling group."""
    (found,) = client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
    return dict(found)


def versions() -> set[str]:
    """Return the template's versions that instances run."""
    return {found["LaunchTemplate"]["Version"] for found in group()["Instances"]}


def template(version: str = "$Latest") -> dict[str, Any]:
    """Return what a version of the launch template starts."""
    asked = {"LaunchTemplateName": FLEET, "Versions": [version]}
    return dict(
        client("ec2").describe_launch_template_versions(**asked)["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    )


def tagged(name: str) -> list[str]:
    """Return everything that EC2 knows with the fleet's tag and that still is."""
    ec2, own = client("ec2"), [{"Name": "tag:fastapi-fleet:fleet", "Values": [name]}]
    found = [item["VpcId"] for item in ec2.describe_vpcs(Filters=own)["Vpcs"]]
    found += [item["SubnetId"] for item in ec2.describe_subnets(Filters=own)["Subnets"]]
    found += [item["GroupId"] for item in ec2.describe_security_groups(Filters=own)["SecurityGroups"]]
    found += [item["AllocationId"] for item in ec2.describe_addresses(Filters=own)["Addresses"]]
    found += [item["RouteTableId"] for item in ec2.describe_route_tables(Filters=own)["RouteTables"]]
    found += [item["LaunchTemplateId"] for item in ec2.describe_launch_templates(Filters=own)["LaunchTemplates"]]
    nats = ec2.describe_nat_gateways(Filters=own)["NatGateways"]
    # The local API does not know this filter.
    mine = [item for item in nats if {"Key": "fastapi-fleet:fleet", "Value": name} in item["Tags"]]
    found += [item["NatGatewayId"] for item in mine if item["State"] != "deleted"]
    states = [*own, {"Name": "instance-state-name", "Values": ["pending", "running", "stopped"]}]
    reserved = ec2.describe_instances(Filters=states)["Reservations"]
    found += [item["InstanceId"] for one in reserved for item in one["Instances"]]
    return found


@pytest.fixture
def faults() -> Iterator[Any]:
    """Make the API answer otherwise, for one test."""
    file = STATE / "faults.json"
    yield lambda **wanted: file.write_text(json.dumps(wanted))
    file.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the app, to change its code."""
    folder = tmp_path_factory.mktemp("source") / "app"
    shutil.copytree(REPOSITORY / "app", folder, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
    return folder


def edit(source: Path, text: str) -> str:
    """Change the app's code, and return where it is."""
    with (source / "main.py").open("a", encoding="utf-8") as file:
        file.write(f"\n# {text}\n")
    return str(source)


@pytest.fixture(scope="module")
def vpc() -> dict[str, Any]:
    """Return the settings of a fleet of hosts in a network that somebody else made."""
    ec2 = client("ec2")
    (found,) = ec2.describe_vpcs(Filters=[{"Name": "isDefault", "Values": ["true"]}])["Vpcs"]
    subnets = [
        item["SubnetId"]
        for item in ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [found["VpcId"]]}])["Subnets"]
    ]
    return {
        "aws_fleet_vpc": found["VpcId"], "aws_fleet_public_subnets": subnets, "aws_fleet_private_subnets": subnets,
        "aws_fleet_shape": "instances", "aws_fleet_environment": "test", "aws_fleet_count": 4,
    }  # fmt: skip
