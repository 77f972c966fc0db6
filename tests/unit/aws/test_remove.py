"""The end of a fleet, with an AWS that holds on to things for a while."""

from __future__ import annotations

import pytest

from plugins.module_utils.aws import remove as remove_module
from plugins.module_utils.aws.client import AwsError, Clients, Fleet
from plugins.module_utils.aws.remove import DELETES, ORDER, Remover, Resource
from tests.unit.aws.test_client import SHOP, TAGS


class RefusedError(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(f"{code}: no")
        self.response = {"Error": {"Code": code}}


class NoClients:
    region = "eu-central-1"


class Held(Remover):
    """Some resources; each answers with what is set for it, then it is gone."""

    def __init__(self, answers: dict[str, list[str]]) -> None:
        super().__init__(NoClients(), Fleet("shop", "production", "shop"))  # type: ignore[arg-type]
        self.answers, self.gone, self.stays = answers, [], [] if answers else [Resource("VPC", "vpc-9")]  # type: ignore[var-annotated]

    def find(self) -> list[Resource]:
        return list(self.stays)

    def _remove(self, resource: Resource) -> bool:
        if self.answers.get(resource.id):
            code = self.answers[resource.id].pop(0)
            if code:
                raise RefusedError(code)
            return False
        self.gone.append(resource.id)
        return True


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remove_module, "PAUSE", 0)


FOUND = [Resource("subnet", "subnet-1"), Resource("subnet", "subnet-2"), Resource("VPC", "vpc-1")]


def test_what_aws_still_holds_is_tried_again_and_what_needs_it_gone_waits() -> None:
    held = Held({"subnet-1": ["DependencyViolation", ""]})  # in use, then still ending
    held.remove(FOUND, 60)
    assert held.gone == ["subnet-2", "subnet-1", "vpc-1"]


def test_what_is_gone_already_is_no_error() -> None:
    held = Held({"subnet-2": ["InvalidSubnetID.NotFound"]})
    held.remove(FOUND, 60)
    assert held.gone == ["subnet-1", "vpc-1"]


def test_what_is_left_when_the_time_is_over_is_named() -> None:
    held = Held({"subnet-1": ["DependencyViolation"] * 99})
    with pytest.raises(
        AwsError, match=r"subnet subnet-1: Dependency.* Left: subnet subnet-1, VPC vpc-1\. Run it again"
    ):
        held.remove(FOUND, -1)
    assert "vpc-1" not in held.gone


def test_what_aws_refuses_ends_it_at_once_and_is_named() -> None:
    held = Held({"subnet-1": ["UnauthorizedOperation"]})
    with pytest.raises(AwsError, match="subnet subnet-1: UnauthorizedOperation"):
        held.remove(FOUND, 60)


def test_it_looks_again_at_the_end() -> None:
    with pytest.raises(AwsError, match="AWS still has VPC vpc-9"):
        Held({}).remove(FOUND, 60)


def test_deletes_are_requests_that_aws_knows(clients: Clients) -> None:
    assert set(DELETES) < set(ORDER)
    for service, action, parameter in DELETES.values():
        client = clients(service)
        operation = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[action])
        kind = operation.input_shape.members[parameter].type_name
        assert kind == ("list" if parameter.endswith("s") else "string"), action


def test_what_carries_the_tags_is_found_and_removed_and_nothing_else(clients: Clients) -> None:
    ec2 = clients("ec2")
    kept = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    tagged = {kind: [{"ResourceType": kind, "Tags": TAGS}] for kind in ("vpc", "subnet", "security-group", "volume")}
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=tagged["vpc"])["Vpc"]["VpcId"]
    ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24", TagSpecifications=tagged["subnet"])
    ec2.create_security_group(
        GroupName="x", Description="x", VpcId=vpc, TagSpecifications=tagged["security-group"]
    )  # fmt: skip
    ec2.create_volume(AvailabilityZone="eu-central-1a", Size=1, TagSpecifications=tagged["volume"])
    remover = Remover(clients, SHOP)
    resources = remover.find()
    assert [resource.kind for resource in resources] == ["volume", "subnet", "security group", "VPC"]
    remover.remove(resources, 5)
    left = {item["VpcId"] for item in ec2.describe_vpcs()["Vpcs"]}
    assert kept in left
    assert vpc not in left
