"""What only AWS can judge is refused by name, and what there is of a fleet is told."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.module_utils.aws.client import AwsError, Clients
from plugins.module_utils.aws.probe import FleetSettings, probe
from tests.unit.aws.test_client import SHOP


def settings(clients: Clients, **changes: Any) -> FleetSettings:
    images = clients("ec2").describe_images(Owners=["amazon"])["Images"]
    image = next(item["ImageId"] for item in images if item["Architecture"] == "x86_64")
    fields = {"fleet": SHOP, "shape": "autoscaling", "region": "eu-central-1", "instance_type": "t3.small",
              "image": image, "ubuntu": "24.04", "zones": 2, "vpc": ""}  # fmt: skip
    return FleetSettings(**{**fields, **changes})


def test_a_fleet_that_is_not_there_yet(empty_region: Clients) -> None:
    facts = probe(settings(empty_region))
    assert facts["machine"] == {"architecture": "x86_64", "vcpus": 2, "memory_mib": 2048}
    assert len(facts["zones"]) == 2
    assert facts["partition"] == "aws"
    assert (facts["fleet"]["exists"], facts["fleet"]["version"], facts["fleet"]["latest"]) == (False, None, None)
    assert facts["network"] == {"subnets": {}, "zones": {}, "nats": {}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instance_type": "t3.tiny"}, r"aws_fleet_instance_type is 't3\.tiny'; allowed: a type that eu-central-1 has"),
        ({"zones": 30}, r"aws_fleet_zones is 30; allowed: at most \d, as t3\.small is in eu-central-1a"),
        ({"image": "ami-00000000000000000"}, "aws_fleet_image is 'ami-0+'; allowed: an image that is in eu-central-1"),
        ({"instance_type": "m7g.large"}, "for x86_64; allowed: one for arm64, as m7g.large is"),
        ({"image": "", "ubuntu": "7.10"}, r"eu-central-1 has no image of Ubuntu 7\.10; set aws_fleet_image"),
    ],
)
def test_settings_that_aws_refuses_are_named(empty_region: Clients, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AwsError, match=message):
        probe(settings(empty_region, **changes))
