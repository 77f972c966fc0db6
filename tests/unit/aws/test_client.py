"""Whose something is on AWS, and what its errors mean."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.module_utils.aws.client import AwsError, Clients, Fleet, explain, explained, group, template

SHOP = Fleet("shop", "production", "shop-production")
TAGS = [
    {"Key": "fastapi-fleet:app", "Value": "shop"},
    {"Key": "fastapi-fleet:environment", "Value": "production"},
    {"Key": "fastapi-fleet:fleet", "Value": "shop-production"},
]


def test_a_fleet_owns_what_carries_all_three_tags() -> None:
    assert SHOP.owns([*TAGS, {"Key": "Name", "Value": "x"}])
    assert Fleet.of(TAGS) == SHOP
    for number in range(3):
        assert not SHOP.owns(TAGS[:number] + TAGS[number + 1 :])
    assert not SHOP.owns(None)


def test_filters_ask_for_all_tags() -> None:
    assert {(item["Name"], *item["Values"]) for item in SHOP.filters(shape="instances")} == {
        ("tag:fastapi-fleet:app", "shop"),
        ("tag:fastapi-fleet:environment", "production"),
        ("tag:fastapi-fleet:fleet", "shop-production"),
        ("tag:fastapi-fleet:shape", "instances"),
    }


def test_region_that_is_none_is_refused_with_those_nearby(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_EC2", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with pytest.raises(AwsError, match=r"aws_fleet_region is 'eu-moon-1'; allowed: a region of AWS, such as eu-"):
        Clients("eu-moon-1")


def test_what_is_not_there_is_none(clients: Clients) -> None:
    assert group(clients, "shop-production") is None
    assert template(clients, "shop-production") is None


def test_versions_of_a_template_come_newest_first(clients: Clients) -> None:
    ec2 = clients("ec2")
    data: dict[str, Any] = {"InstanceType": "t3.small"}
    ec2.create_launch_template(LaunchTemplateName="shop-production", LaunchTemplateData=data)
    for _ in range(10):
        ec2.create_launch_template_version(LaunchTemplateName="shop-production", LaunchTemplateData=data)
    described = template(clients, "shop-production")
    assert described
    assert [item["VersionNumber"] for item in described["versions"]] == list(range(11, 0, -1))


def test_errors_of_others_are_not_taken_for_awss() -> None:
    with pytest.raises(ZeroDivisionError), explained("eu-central-1"):
        _ = 1 / 0
    with pytest.raises(AwsError, match="as it is"), explained("eu-central-1"):
        raise AwsError("as it is")


def test_refused_credentials_are_told_from_missing_ones() -> None:
    refused = Exception("no")
    refused.response = {"Error": {"Code": "ExpiredToken"}}  # type: ignore[attr-defined]
    assert "AWS refuses the credentials (ExpiredToken)" in explain(refused, "eu-central-1")
    missing = type("NoCredentialsError", (Exception,), {})("Unable to locate credentials")
    assert "allowed: the variables AWS_ACCESS_KEY_ID" in explain(missing, "eu-central-1")
