"""The end of a fleet, with an AWS that holds on to things for a while."""

from __future__ import annotations

import pytest

from plugins.module_utils.aws import remove as remove_module
from plugins.module_utils.aws.client import AwsError, Fleet
from plugins.module_utils.aws.remove import Remover, Resource


class RefusedError(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(f"{code}: no")
        self.response = {"Error": {"Code": code}}


class Clients:
    region = "eu-central-1"


class Held(Remover):
    """Some resources; each answers with what is set for it, then it is gone."""

    def __init__(self, answers: dict[str, list[str]]) -> None:
        super().__init__(Clients(), Fleet("shop", "production", "shop"))  # type: ignore[arg-type]
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
