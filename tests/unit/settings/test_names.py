"""Variables that somebody meant as a setting, and those that nobody did."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from plugins.module_utils.settings.definitions import load
from plugins.module_utils.settings.names import concerns, distance, unknown

DEFINITIONS = load()
REPOSITORY = Path(__file__).parents[3]
MISSPELT = {
    "service_worker": "service_workers",
    "service_drain_timout": "service_drain_timeout",
    "proxy_server_name": "proxy_server_names",
    "app_modul": "app_module",
    "app_nmae": "app_name",
    "app_sorce": "app_source",
    "service_healt_path": "service_health_path",
    "service_workers_maximum": "service_workers_max",
    "service_boot_time": "service_boot_timeout",
    "service_enviroment": "service_env",
    "service_keep_release": "service_keep_releases",
    "release_exclud": "release_exclude",
    "release_index": "release_index_url",
    "proxy_max_body": "proxy_body_max",
    "proxy_trusted_proxy": "proxy_trusted_proxies",
    "fleet_batch": "fleet_batches",
    "fleet_max_failure": "fleet_max_failures",
    "aws_fleet_instance_typ": "aws_fleet_instance_type",
    "tune_round": "tune_rounds",
    # The prefix itself is misspelt.
    "sevice_workers": "service_workers",
    "servcie_worker": "service_workers",
    "services_drain_timeout": "service_drain_timeout",
    "poxy_server_names": "proxy_server_names",
    "realease_exclude": "release_exclude",
    # Another spelling, another order, or no prefix at all.
    "SERVICE_WORKERS": "service_workers",
    "Service_Worker": "service_workers",
    "serviceWorkers": "service_workers",
    "serviceWorker": "service_workers",
    "appName": "app_name",
    "appname": "app_name",
    "worker_service": "service_workers",
    "workers_service": "service_workers",
    "health_path": "service_health_path",
    "watch_seconds": "service_watch_seconds",
    "server_names": "proxy_server_names",
    "HEALTH_PATH": "service_health_path",
    # Words of it are there, or begin so.
    "service_health": "service_health_path or service_health_host or service_health_timeout",
    "service_timeout": "service_health_timeout or service_boot_timeout or service_drain_timeout",
    "app_src": "app_source",
    "proxy_name": "proxy_server_names",
    "proxy_body_size": "proxy_body_max",
    "aws_fleet_subnets": "aws_fleet_public_subnets or aws_fleet_private_subnets",
    "rolback_to": "rollback_to",
    "verify_relase": "verify_release",
}
OWN = (
    "ansible_host", "ansible_user", "inventory_hostname", "group_names", "instance_id", "tags", "placement",
    "map_name", "app", "service", "proxy", "http_proxy", "my_service_workers", "vault_service_env", "env",
    "database_url", "workers", "release", "host_addresses", "demo_ports", "bundle_server_names", "services", "fleet",
    "_service_files", "__service_proof", "tuned_load", "environment", "instance_type",
    "index_url", "port", "name", "user", "verify_ssl", "rollback_enabled", "APP_ENV", "SERVICE_NAME",
)  # fmt: skip


def refused(**variables: Any) -> list[str]:
    return [str(suspect) for suspect in unknown(variables, DEFINITIONS)]


@pytest.mark.fault(55)
@pytest.mark.parametrize(("name", "meant"), MISSPELT.items())
def test_misspelt_setting_is_refused_with_the_name_that_was_meant(name: str, meant: str) -> None:
    assert refused(**{name: 2}) == [f"unknown setting {name}; did you mean {meant}?"]


@pytest.mark.parametrize("prefix", DEFINITIONS.prefixes)
def test_name_with_a_prefix_of_ours_that_is_like_no_setting_is_refused_too(prefix: str) -> None:
    (said,) = refused(**{f"{prefix}zzzzzzzzzzzz": 1})
    assert said.startswith(f"unknown setting {prefix}zzzzzzzzzzzz; names that begin with {prefix} are for settings")


def test_all_are_said_at_once_in_order_and_no_value_is_shown() -> None:
    said = refused(service_worker="s3cret", app_modul="s3cret", fleet_x={"s3cret": 1}, service_workers=2)
    assert [line.split()[2].rstrip(";") for line in said] == ["app_modul", "fleet_x", "service_worker"]
    assert "s3cret" not in "".join(said)


@pytest.mark.parametrize("name", OWN)
def test_names_of_others_are_taken(name: str) -> None:
    assert refused(**{name: 1}) == []


def test_settings_facts_and_what_the_project_keeps_are_taken() -> None:
    names = [*DEFINITIONS.settings, *DEFINITIONS.internal]
    assert refused(**dict.fromkeys(names, 1)) == []
    assert refused(app_of_the_facts=1, ansible_facts={"app_of_the_facts": 1}) == []


def test_name_that_the_user_claims_is_taken() -> None:
    assert not unknown({"app_version": 1, "service_worker": 2}, DEFINITIONS, own=["app_version", "service_worker"])


@pytest.mark.parametrize(
    ("name", "concerned"),
    [
        ("rolback_to", True), ("rollback_release", True), ("rollbak_to", True), ("app_nmae", True), ("app_names", True),
        ("service_flet", True), ("app_home", False), ("app_version", False), ("service_worker", False),
        ("service_fleets_a", False), ("tune_round", False), ("verify_relase", False),
    ],
)  # fmt: skip
def test_playbook_that_must_run_minds_only_names_like_those_that_it_goes_by(name: str, concerned: bool) -> None:
    suspects = unknown({name: 1}, DEFINITIONS, verbs=["rollback_"])
    settings = ("app_name", "service_fleet", "rollback_to")
    assert [concerns(suspect, settings, ["rollback_"]) for suspect in suspects] == [concerned]


@pytest.mark.parametrize(
    ("value", "is_used"),
    [
        ({"DB": "postgres://x:{{ app_db }}@db/"}, True),
        ({"DB": ["{{ lookup('vars', 'app_db') }}"]}, True),
        ("{% if app_db %}x{% endif %}", True),
        ("{{ app_db2 }}", False),
        ("app_db", False),
        ({"app_db": 1}, False),
    ],
)
def test_variable_of_ones_own_that_another_one_names_is_taken(value: Any, is_used: bool) -> None:
    assert bool(refused(app_db="x", service_env=value)) != is_used


def test_variable_is_not_used_because_it_names_itself_or_as_what_ansible_shows_of_all() -> None:
    assert refused(app_db="{{ app_db | default(1) }}", hostvars={"h": {"x": "{{ app_db }}"}})


WORDS = st.text("abc", max_size=6)


@hypothesis(deadline=None)
@given(WORDS, WORDS)
def test_distance_is_none_only_of_the_same_and_the_same_both_ways(one: str, other: str) -> None:
    assert distance(one, other) == distance(other, one)
    assert (distance(one, other) == 0) == (one == other)
    assert abs(len(one) - len(other)) <= distance(one, other) <= max(len(one), len(other))


@hypothesis(deadline=None)
@given(WORDS, st.integers(0, 6), st.sampled_from("abc"), st.sampled_from(["insert", "remove", "replace", "swap"]))
def test_one_edit_is_a_distance_of_one_at_most(word: str, place: int, letter: str, edit: str) -> None:
    head, tail = word[:place], word[place:]
    tail = {
        "insert": letter + tail, "remove": tail[1:], "replace": letter + tail[1:] if tail else tail,
        "swap": tail[1:2] + tail[:1] + tail[2:],
    }[edit]  # fmt: skip
    assert distance(word, head + tail) <= 1


def names_of_tasks(tasks: Any) -> set[str]:
    """The variables that tasks, at any depth, register or set."""
    found: set[str] = set()
    if isinstance(tasks, list):
        for task in tasks:
            found |= names_of_tasks(task)
    elif isinstance(tasks, dict):
        found |= {tasks["register"]} if isinstance(tasks.get("register"), str) else set()
        for key, value in tasks.items():
            found |= set(value) if key in ("vars", "ansible.builtin.set_fact") and isinstance(value, dict) else set()
            found |= names_of_tasks(value)
    return found


def test_what_the_project_itself_keeps_is_not_refused() -> None:
    """A registered result would else stop the next play of the same run that checks the settings."""
    files = [*REPOSITORY.glob("roles/*/tasks/*.yml"), *REPOSITORY.glob("playbooks/**/*.yml")]
    kept = {name for file in files for name in names_of_tasks(yaml.safe_load(file.read_text()))}
    ours = "|".join(DEFINITIONS.prefixes)
    read = {name for file in files for name in re.findall(rf"\b((?:{ours})\w+) \| default", file.read_text())}
    assert {"service_probe", "release_id", "aws_fleet_traffic"} <= kept
    assert refused(**dict.fromkeys(kept | read, 1)) == []
