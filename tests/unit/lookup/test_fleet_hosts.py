"""Which hosts a playbook may touch: two fleets, two apps, both shapes, and hosts that somebody wrote down."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError

from plugins.lookup.fleet_hosts import Owner, choose
from tests.unit.rendering import REPOSITORY, value

VERBS = ("deploy", "playbooks/rollback", "playbooks/verify", "playbooks/image")


def tags(fleet: str, app: str = "shop", environment: str = "staging", shape: str = "instances") -> dict[str, Any]:
    found = {"app": app, "environment": environment, "fleet": fleet, "shape": shape}
    return {"tags": {f"fastapi-fleet:{key}": text for key, text in found.items()}}


#: As AWS's inventory leaves them; `web` stands for a host that somebody wrote down.
HOSTS: dict[str, dict[str, Any]] = {
    "i-staging": tags("shop-staging"),
    "i-production": tags("shop-production", environment="production"),
    "i-blog": tags("blog-staging", app="blog"),
    "i-scaling": tags("shop-big", environment="big", shape="autoscaling"),
    # One name, two fleets: app shop in a-b, and app shop-a in b.
    "i-a-b": tags("shop-a-b", environment="a-b"),
    "i-b": tags("shop-a-b", app="shop-a", environment="b"),
    "i-other-app": tags("shop-staging", app="blog"),
    "i-half": {"tags": {"fastapi-fleet:fleet": "shop-staging"}},
    "web": {"tags": {"Name": "web"}, "image_tags": ["latest"]},
}


def views(common: dict[str, Any], hosts: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """Return what hosts and localhost see, where `common` is set for all."""
    settings = {"app_name": "shop", "aws_fleet_shape": "instances", **common}
    given = HOSTS if hosts is None else hosts
    return {**{name: settings | host for name, host in given.items()}, "localhost": settings}


@pytest.mark.fault(73)
@pytest.mark.parametrize(
    ("settings", "own"),
    [
        ({"aws_fleet_environment": "staging"}, "i-staging"),
        ({}, "i-production"),
        ({"app_name": "blog", "aws_fleet_environment": "staging"}, "i-blog"),
        ({"aws_fleet_environment": "a-b"}, "i-a-b"),
        ({"app_name": "shop-a", "aws_fleet_environment": "b"}, "i-b"),
        ({"aws_fleet_environment": "staging", "aws_fleet_name": "shop-staging"}, "i-staging"),
        ({"aws_fleet_environment": "staging", "aws_fleet_shape": ""}, "i-staging"),
    ],
)
def test_only_hosts_with_all_tags_are_chosen_and_the_others_named(settings: dict[str, str], own: str) -> None:
    found, said = choose(HOSTS, views(settings))
    assert sorted(found) == [own, "web"]
    assert said.startswith("Left out, as this run is for ")
    assert {name for name in HOSTS if re.search(rf": {name}(;|$)", said)} == HOSTS.keys() - {own, "web"}


@pytest.mark.parametrize("name", ["aws_tags", "tags_of_ec2"])
def test_tags_count_whatever_an_inventory_calls_them(name: str) -> None:
    hosts = {host: {name: there["tags"]} for host, there in HOSTS.items()}
    assert choose(hosts, views({"aws_fleet_environment": "staging"}, hosts))[0] == ["i-staging", "web"]


def test_hosts_that_somebody_wrote_down_stay_whatever_the_settings_say() -> None:
    hosts: dict[str, dict[str, Any]] = {"web1": {"tags": "mine"}, "web2": {}}
    for settings in ({}, {"app_name": ""}, {"aws_fleet_environment": "staging"}, {"aws_fleet_shape": ""}):
        assert choose(hosts, views(settings, hosts)) == (["web1", "web2"], "")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"aws_fleet_environment": "test"},
            r"the group app has no host of shop-test \(app shop, environment test, instances\)\. There are: "
            r".*1 × blog-staging \(app blog, environment staging, instances\); .*shop-production ",
        ),
        ({"aws_fleet_name": "shop-staging"}, r"no host of shop-staging \(app shop, environment production"),
        ({"app_name": ""}, "app_name is not set for localhost"),
        ({"aws_fleet_environment": "big"}, r"big is a scaling group, but aws_fleet_shape is 'instances'\. A fleet"),
        ({"aws_fleet_environment": "big", "aws_fleet_shape": ""}, "is a scaling group, but aws_fleet_shape is not set"),
        ({"aws_fleet_shape": "autoscaling"}, "shape is 'autoscaling', but there are 1 hosts of shop-production of"),
        (
            {"aws_fleet_shape": "autoscaling", "aws_fleet_environment": "big"},
            r"shop-big is a scaling group \(aws_fleet_shape\): nobody connects",
        ),
        ({"aws_fleet_environment": ""}, "aws_fleet_environment is ''; allowed: a name, or leave it out for '"),
        ({"aws_fleet_name": ""}, "aws_fleet_name is ''; allowed: a name, or leave it out for 'shop-production'"),
        ({"aws_fleet_shape": "instance"}, "aws_fleet_shape is 'instance'; allowed: instances, autoscaling"),
    ],
)  # fmt: skip
def test_without_a_host_the_reason_is_said_and_which_fleets_there_are(settings: dict[str, str], reason: str) -> None:
    hosts = {name: host for name, host in HOSTS.items() if name != "web"}
    with pytest.raises(AnsibleError, match=reason):
        choose(hosts, views(settings, hosts))


def test_hosts_outside_of_the_group_app_are_said_to_be_there() -> None:
    """As where the inventory's prefix for variables was changed, and what puts hosts into the group was not."""
    with pytest.raises(AnsibleError, match="has hosts of shop-production, but none of them in the group app"):
        choose(["i-staging"], views({}))


def placed(region: str, **more: str) -> dict[str, Any]:
    return tags("shop-staging", **more) | {"placement": {"availability_zone": f"{region}a", "region": region}}


@pytest.mark.fault(73)
def test_a_fleet_of_the_same_name_in_another_region_is_another_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    hosts = {"i-eu": placed("eu-central-1"), "i-us": placed("us-east-1")}
    of_settings = {"aws_fleet_environment": "staging"}
    with pytest.raises(AnsibleError, match="shop-staging is in eu-central-1, us-east-1: set aws_fleet_region"):
        choose(hosts, views(of_settings, hosts))
    found, said = choose(hosts, views(of_settings | {"aws_fleet_region": "us-east-1"}, hosts))
    assert found == ["i-us"]
    assert said.endswith("1 × shop-staging (app shop, environment staging, instances, eu-central-1): i-eu")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert choose(hosts, views(of_settings, hosts))[0] == ["i-eu"]
    with pytest.raises(AnsibleError, match="no host of shop-staging"):
        choose(["i-us"], views(of_settings, {"i-us": hosts["i-us"]}))


def test_an_inventory_without_hosts_says_so() -> None:
    with pytest.raises(AnsibleError, match="the inventory has no host in the group app"):
        choose([], views({}, {}))


def test_a_scaling_group_has_no_hosts_that_a_deploy_or_a_rollback_connects_to() -> None:
    assert choose(HOSTS, views({"aws_fleet_shape": "autoscaling"}), scaling=True) == ([], "")
    assert choose(["web"], views({"aws_fleet_shape": "autoscaling"}), scaling=True) == ([], "")


@pytest.mark.parametrize("other", [{"app_name": "blog"}, {"aws_fleet_environment": "a"}, {"aws_fleet_name": "x"}])
def test_settings_of_a_host_that_are_another_fleets_are_refused(other: dict[str, str]) -> None:
    """As by group_vars of a group with hosts of several fleets: localhost means one, the host would get another's."""
    seen = views({"aws_fleet_environment": "staging"})
    seen["i-staging"] |= other
    with pytest.raises(AnsibleError, match=r"i-staging carries the tags of shop-staging .*, but for this host"):
        choose(HOSTS, seen)


@pytest.mark.parametrize("settings", [{}, {"aws_fleet_environment": "staging"}, {"aws_fleet_name": "mine"}])
def test_playbooks_roles_and_hosts_mean_the_same_fleet(settings: dict[str, str]) -> None:
    """Three places have these defaults, as none can see the others'."""
    given = {"app_name": "shop", "aws_fleet_shape": "instances", **settings}
    own = value("aws_fleet", "_aws_fleet_own", **given)
    of_settings = Owner.of_settings(given)
    assert {"app": of_settings.app, "environment": of_settings.environment, "name": of_settings.fleet} == own
    assert value("service", "service_fleet", **given) == own["name"]


def test_hosts_without_aws_belong_to_no_fleet_unless_it_is_named() -> None:
    assert value("service", "service_fleet") == ""
    assert value("service", "service_fleet", service_fleet="eu") == "eu"
    for tags in (["mine"], None, 5, "", "fastapi-fleet:fleet"):
        assert value("service", "service_fleet", tags=tags) == ""
    assert value("service", "service_fleet", tags=HOSTS["i-production"]["tags"]) == "counter-production"


def listed(inventory: Path, playbook: str, *words: str) -> subprocess.CompletedProcess[str]:
    program, book = Path(sys.executable).with_name("ansible-playbook"), f"{playbook}.yml"
    return subprocess.run(
        [program, "-i", inventory, book, "--list-hosts", *words],
        cwd=REPOSITORY, env=os.environ | {"ANSIBLE_NOCOLOR": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """An inventory like AWS's, with settings in group_vars, which Ansible itself does not read for --list-hosts."""
    hosts: dict[str, Any] = {name: host for name, host in HOSTS.items() if name != "web"}
    app: dict[str, Any] = {name: {} for name in hosts if name != "i-scaling"}
    (tmp_path / "aws.json").write_text(json.dumps({"all": {"hosts": hosts}, "app": {"hosts": app}}))
    (tmp_path / "group_vars").mkdir()
    settings = {"app_name": "shop", "aws_fleet_environment": "{{ 'STAGING' | lower }}", "aws_fleet_shape": "instances"}
    (tmp_path / "group_vars/all.json").write_text(json.dumps(settings))
    return tmp_path / "aws.json"


@pytest.mark.fault(73)
@pytest.mark.parametrize("playbook", VERBS)
def test_list_of_a_playbooks_hosts_is_this_fleets(inventory: Path, playbook: str) -> None:
    done = listed(inventory, playbook)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {name for name in HOSTS if name in done.stdout} == {"i-staging"}
    (left,) = [line for line in done.stderr.splitlines() if line.startswith("Left out")]
    assert "1 × shop-production (app shop, environment production, instances): i-production" in left


def test_a_large_fleet_that_is_left_out_takes_one_line() -> None:
    hosts = {f"i-{number}": tags("shop-staging") for number in range(100)} | {"web": {}}
    said = choose(hosts, views({"aws_fleet_environment": "test"}, hosts))[1]
    assert said.endswith(": 100 × shop-staging (app shop, environment staging, instances): i-0, i-1, i-2, i-3, i-4, …")


def test_the_command_line_says_which_fleet_and_tuning_takes_one_of_its_hosts(inventory: Path) -> None:
    done = listed(inventory, "deploy", "-e", "aws_fleet_environment=production")
    assert "i-production" in done.stdout
    assert "i-staging" not in done.stdout
    done = listed(inventory, "playbooks/tune", "-e", "tune_host=i-production")
    assert done.returncode != 0
    reason = "tune_host=HOST has to name one host of the group app; this fleet has: i-staging"
    assert reason in " ".join(done.stderr.split())
    assert "i-staging" in listed(inventory, "playbooks/tune", "-e", "tune_host=i-staging").stdout


@pytest.mark.fault(73)
@pytest.mark.parametrize(
    ("playbook", "words", "reason"),
    [
        (
            "deploy",
            ["--limit", "i-production"],
            "--limit i-production leaves nothing of shop-staging, which has i-stag",
        ),
        ("playbooks/rollback", ["--limit", "i-production"], "leaves nothing of shop-staging"),
        ("playbooks/verify", ["--limit", "all:!i-staging"], "leaves nothing of shop-staging"),
        ("playbooks/image", ["-e", "tags=x"], "-e tags=… hides the tags by which hosts are chosen"),
    ],
)
def test_a_run_that_would_touch_nothing_or_all_is_an_error(
    inventory: Path, playbook: str, words: list[str], reason: str
) -> None:
    done = listed(inventory, playbook, *words)
    assert done.returncode != 0, done.stdout
    assert reason in " ".join(done.stderr.split())


def test_a_limit_that_leaves_some_of_the_fleet_is_none_of_our_business(inventory: Path) -> None:
    for limit in ("i-staging", "i-staging,i-production", "app"):
        assert listed(inventory, "deploy", "--limit", limit).returncode == 0


def test_a_limit_without_localhost_leaves_nothing_of_a_scaling_group(inventory: Path) -> None:
    big = ("-e", "aws_fleet_environment=big", "-e", "aws_fleet_shape=autoscaling", "--limit")
    done = listed(inventory, "deploy", *big, "i-scaling")
    assert done.returncode != 0
    assert "--limit i-scaling leaves nothing of shop-big, which has localhost" in " ".join(done.stderr.split())
    assert listed(inventory, "deploy", *big, "i-scaling,localhost").returncode == 0


@pytest.mark.fault(73)
@pytest.mark.parametrize("name", ["aws_fleet_environment", "aws_fleet_name", "app_name", "aws_fleet_region"])
def test_settings_of_a_play_that_are_another_fleets_are_refused(inventory: Path, tmp_path: Path, name: str) -> None:
    """Hosts would be chosen by localhost's, and get a release by the play's."""
    site = tmp_path / "site.yml"
    book = {"ansible.builtin.import_playbook": str(REPOSITORY / "playbooks/verify.yml")}
    site.write_text(json.dumps([book | {"vars": {name: "{{ 'other' }}"}}]))
    done = listed(inventory, str(site.with_suffix("")))
    assert done.returncode != 0, done.stdout
    assert f"{name} is 'other' for this play, but " in " ".join(done.stderr.split())
    site.write_text(json.dumps([book | {"vars": {"aws_fleet_environment": "staging"}}]))
    assert listed(inventory, str(site.with_suffix(""))).returncode == 0
