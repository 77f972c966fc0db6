"""A fleet on AWS from its plan to its end, against the local API; converge has made it, without a release.

In the order of a fleet's life: each test leaves what the next one begins with. AWS itself is not reached.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from fleetaws import (
    ENVIRONMENT,
    FLEET,
    REGION,
    REPOSITORY,
    changed,
    client,
    edit,
    good,
    group,
    playbook,
    refused,
    requests,
    tagged,
    template,
    versions,
    writes,
)

pytest_plugins = ["fleetaws"]


# What provision.yml made


def test_the_network_lets_only_the_load_balancer_reach_the_app() -> None:
    ec2, named = client("ec2"), {}
    for found in ec2.describe_security_groups(Filters=[{"Name": "tag:fastapi-fleet:fleet", "Values": [FLEET]}])[
        "SecurityGroups"
    ]:
        named[found["GroupName"]] = found
    (rule,) = named[f"{FLEET}-app"]["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"], rule["IpRanges"]) == (80, 80, [])
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [named[f"{FLEET}-balancer"]["GroupId"]]
    subnets = set(group()["VPCZoneIdentifier"].split(","))
    assert len(subnets) == 3
    for table in ec2.describe_route_tables(Filters=[{"Name": "tag:fastapi-fleet:fleet", "Values": [FLEET]}])[
        "RouteTables"
    ]:
        if subnets & {item.get("SubnetId") for item in table["Associations"]}:
            assert not [route for route in table["Routes"] if str(route.get("GatewayId")).startswith("igw-")]


def test_instances_are_described_as_promised() -> None:
    data = template()
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    (disk,) = data["BlockDeviceMappings"]
    assert disk["Ebs"]["Encrypted"] is True
    assert disk["Ebs"]["VolumeType"] == "gp3"
    (hook,) = client("autoscaling").describe_lifecycle_hooks(AutoScalingGroupName=FLEET)["LifecycleHooks"]
    assert hook["DefaultResult"] == "ABANDON"
    assert group()["Instances"] == []  # no release yet, so nothing that they could run


def test_the_role_reads_its_own_bundles_and_parameters_only() -> None:
    iam = client("iam")
    name = f"{FLEET}-{REGION}"
    assert iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"] == []
    policy = iam.get_role_policy(RoleName=name, PolicyName="fleet")["PolicyDocument"]
    for statement in policy["Statement"]:
        if statement["Sid"] != "SessionManager":
            assert FLEET in statement["Resource"]
        assert "*" not in json.dumps(statement["Action"])


def test_the_plan_says_what_there_will_be_and_makes_nothing() -> None:
    before = len(requests())
    said = good(playbook("playbooks/provision.yml --check", aws_fleet_environment="staging"))
    assert "counter-staging" in said
    assert re.search(r"3 to 9 instances .*\n.*t3.small: 2 vCPUs, 2048 MiB", said)
    assert "eu-central-1a, eu-central-1b, eu-central-1c" in said
    assert "1 NAT gateway" in said
    assert writes(before) == []


def test_the_roles_example_shows_the_plan(tmp_path: Path) -> None:
    """That of its README, as it stands."""
    (example,) = re.findall(
        r"^```yaml\n(- hosts:.*?)^```", (REPOSITORY / "roles/aws_fleet/README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (tmp_path / "example.yml").write_text(example)
    before = len(requests())
    said = good(playbook(f"{tmp_path}/example.yml --check", aws_fleet_environment="example"))
    assert "counter-example" in said
    assert writes(before) == []


# Bad input: refused before anything is made


@pytest.mark.parametrize(
    ("settings", "without", "message"),
    [
        ({}, ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], r"AWS credentials: .*allowed: .*AWS_PROFILE"),
        ({"aws_fleet_region": "eu-middle-7"}, [], r"aws_fleet_region is 'eu-middle-7'; allowed: .*eu-central-1"),
        ({"aws_fleet_instance_type": "t3.smal"}, [], r"aws_fleet_instance_type is 't3.smal'; allowed: a type that eu-"),
        ({"aws_fleet_image": "ami-0"}, [], r"aws_fleet_image is 'ami-0'; allowed: an image that is in eu-central-1"),
        ({"aws_fleet_name": "internal-shop"}, [], r'aws_fleet_name is "internal-shop"; allowed: 3 to 32 of a-z'),
        ({"aws_fleet_max": 2}, [], r"aws_fleet_max is 2; allowed: aws_fleet_min, 3, or more"),
        ({"aws_fleet_checkpoints": [50, 20]}, [], r"aws_fleet_checkpoints is \[50, 20\]; allowed: percentages that"),
    ],
    ids=["credentials", "region", "type", "image", "name", "sizes", "checkpoints"],
)  # fmt: skip
def test_bad_input_is_named_before_anything_is_made(settings: dict[str, Any], without: list[str], message: str) -> None:
    before = len(requests())
    environment = {key: text for key, text in ENVIRONMENT.items() if key not in without}
    environment |= {"HOME": "/nonexistent"} if without else {}
    said = refused(playbook("playbooks/provision.yml", environment, **settings))
    assert re.search(message, said), said[-3000:]
    assert writes(before) == []


def test_a_release_needs_a_fleet() -> None:
    said = refused(playbook("deploy.yml", aws_fleet_environment="staging"))
    assert "There is no fleet counter-staging in eu-central-1; playbooks/provision.yml makes it" in said


# Releases


def test_first_instances_that_do_not_start_are_given_up(faults: Any) -> None:
    """AWS would try for ever."""
    faults(launch="You have requested more vCPU capacity than your current vCPU limit of 32 allows")
    said = refused(playbook("deploy.yml"))
    assert "0 of 3 instances are in service; 3 starts failed, the last: You have requested more vCPU capacity" in said
    assert "was set to 0 instances" in said
    assert group()["MinSize"] == group()["DesiredCapacity"] == 0


def test_the_first_release_starts_the_instances_and_a_second_run_changes_nothing() -> None:
    good(playbook("deploy.yml"))
    assert versions() == {"2"}
    assert len(group()["Instances"]) == 3
    data = base64.b64decode(template()["UserData"])
    assert len(data) <= 4096
    (stored,) = client("s3").list_objects_v2(Bucket=f"{FLEET}-123456789012-{REGION}")["Contents"]
    body = client("s3").get_object(Bucket=f"{FLEET}-123456789012-{REGION}", Key=stored["Key"])["Body"].read()
    pinned = hashlib.sha256(body).hexdigest()
    assert stored["Key"] == f"counter/{pinned}.tar.gz"
    assert pinned in data.decode()
    with tarfile.open(fileobj=io.BytesIO(body)) as bundle:
        (name,) = (name for name in bundle.getnames() if name.endswith("/settings.json"))
        file = bundle.extractfile(name)
        assert file
        settings = json.load(file)
        # What nginx is to believe: the load balancer, which is all that reaches it in this network.
        assert settings["proxy_trusted_proxies"] == ["10.80.0.0/16"]
        assert settings["service_fleet"] == FLEET, "what the instance is to remember"
    assert changed(good(playbook("deploy.yml"))) == 0


def test_new_code_goes_through_the_group_step_by_step(source: Path) -> None:
    said = good(playbook("deploy.yml", app_source=edit(source, "second")))
    assert versions() == {"3"}
    assert group()["LaunchTemplate"]["Version"] == "3"
    assert re.search(r"version 2 → 3, 3 instances\n.*InProgress, 34 %, 2 left\n.*InProgress, 67 %, 1 left", said)
    newest = client("autoscaling").describe_instance_refreshes(AutoScalingGroupName=FLEET)["InstanceRefreshes"][0]
    preferences = newest["Preferences"]
    assert preferences["MinHealthyPercentage"] == 100
    assert preferences["AutoRollback"] is True
    assert preferences["CheckpointPercentages"] == [10, 50, 100]
    assert preferences["AlarmSpecification"]["Alarms"] == [f"{FLEET}-errors", f"{FLEET}-unhealthy"]


def test_a_release_that_fails_goes_back_and_fails_the_run(faults: Any, source: Path) -> None:
    faults(refresh="failed")
    said = refused(playbook("deploy.yml", app_source=edit(source, "third")))
    assert "RollbackInProgress" in said
    assert "RollbackSuccessful, 100 %" in said
    assert "The alarm went into ALARM state" in said
    assert versions() == {"3"}


def test_provision_neither_moves_the_group_nor_its_sizes() -> None:
    """After a failed release the newest version is not the live one: the next version has the live release again."""
    live = template("3")["UserData"]
    good(playbook("playbooks/provision.yml"))
    assert versions() == {"3"}
    assert (group()["MinSize"], group()["LaunchTemplate"]["Version"]) == (3, "3")
    assert template()["UserData"] == live


def test_rollback_goes_to_the_good_version_before_by_number(source: Path) -> None:
    good(playbook("deploy.yml", app_source=edit(source, "fourth")))
    assert versions() == {"6"}
    said = good(playbook("playbooks/rollback.yml"))
    assert "version 6 → 5" in said  # 4 has failed; 5 is 3 again
    assert versions() == {"5"}
    said = refused(playbook("playbooks/rollback.yml", rollback_to=99))
    assert "rollback_to is 99; allowed: a version with a release: 2, 3, 4, 5, 6" in said


def test_a_refresh_under_way_is_named_and_can_be_turned_back(source: Path) -> None:
    wanted = {"LaunchTemplate": {"LaunchTemplateName": FLEET, "Version": "6"}}
    asked = {"AutoScalingGroupName": FLEET, "DesiredConfiguration": wanted}
    running = client("autoscaling").start_instance_refresh(**asked)["InstanceRefreshId"]
    said = refused(playbook("deploy.yml", app_source=edit(source, "fifth")))
    assert f"A refresh of {FLEET} is under way ({running}). Wait until it has ended, turn it back" in said
    assert "RollbackSuccessful" in good(playbook("playbooks/rollback.yml"))
    assert versions() == {"5"}


# A fixed number of hosts


def test_a_launch_that_aws_refuses_is_named_and_a_second_run_goes_on(faults: Any, vpc: dict[str, Any]) -> None:
    faults(refuse={"RunInstances": ["VcpuLimitExceeded", "You have requested more vCPU capacity than your limit"]})
    said = refused(playbook("playbooks/provision.yml", **vpc))
    assert re.search(
        "Start the hosts that are missing, end those that are too many: .*You have requested more vCPU capacity", said
    )
    assert "What was made before stays, tagged fastapi-fleet:fleet=counter-test" in said
    faults()
    good(playbook("playbooks/provision.yml", **vpc))
    assert changed(good(playbook("playbooks/provision.yml", **vpc))) == 0


def test_the_inventory_groups_hosts_by_what_aws_says() -> None:
    """Those of the scaling group are none to deploy to over SSH."""
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-inventory"), "-i", "inventory/aws_ec2.yml", "--list"],
        cwd=REPOSITORY, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    listed = json.loads(done.stdout)
    assert len(listed["app"]["hosts"]) == 4
    assert len(listed["environment_production"]["hosts"]) == 3
    assert set(listed["app"]["hosts"]) == set(listed["environment_test"]["hosts"])
    assert len(listed["fleet_app_counter"]["hosts"]) == len(listed["instance_type_t3_small"]["hosts"]) == 7
    assert {"zone_eu_central_1a", "zone_eu_central_1b"} <= set(listed)
    for host in listed["app"]["hosts"]:
        known = listed["_meta"]["hostvars"][host]
        assert known["ansible_host"] == known["private_ip_address"]


def test_a_host_leaves_the_load_balancer_and_comes_back(tmp_path: Path) -> None:
    elb = client("elbv2")
    arn = elb.describe_target_groups(Names=["counter-test"])["TargetGroups"][0]["TargetGroupArn"]

    def targets() -> int:
        return len(elb.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"])

    assert targets() == 4
    for traffic, left in (("unused", 3), ("present", 4)):
        play = tmp_path / f"{traffic}.yml"
        task = {
            "ansible.builtin.include_role": {"name": "aws_fleet", "tasks_from": "drain", "rolespec_validate": False}
        }
        play.write_text(
            json.dumps(
                [{"hosts": "app[0]", "gather_facts": False, "vars": {"aws_fleet_traffic": traffic}, "tasks": [task]}]
            )
        )
        good(playbook(str(play), aws_fleet_environment="test"))
        assert targets() == left


# The end


def test_destroy_asks_and_removes_only_what_carries_the_tag(source: Path) -> None:
    others = tagged("counter-test")
    said = refused(playbook("playbooks/destroy.yml"))
    assert (
        f"launch template {client('ec2').describe_launch_templates()['LaunchTemplates'][0]['LaunchTemplateId']}" in said
    )
    assert f'Nothing was removed. confirm is ""; allowed: the fleet\'s name, {FLEET}' in said
    assert tagged(FLEET)
    good(playbook("playbooks/destroy.yml", confirm=FLEET))
    assert tagged(FLEET) == []
    assert client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"] == []
    assert [item["LoadBalancerName"] for item in client("elbv2").describe_load_balancers()["LoadBalancers"]] == [
        "counter-test"
    ]
    assert [item["RoleName"] for item in client("iam").list_roles()["Roles"]] == [f"counter-test-{REGION}"]
    assert client("s3").list_buckets()["Buckets"] == []
    assert client("cloudwatch").describe_alarms()["MetricAlarms"] == []
    assert tagged("counter-test") == others
    said = good(playbook("playbooks/destroy.yml", confirm=FLEET))
    assert "nothing" in said
    assert changed(said) == 0
