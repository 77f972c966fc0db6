"""The lab's pure logic: definition checks, made-up sizes, where images come from."""

from __future__ import annotations

from typing import Any

import pytest
from fleetlab.definition import Host, LabError, check_name, parse, render_cpuinfo, render_meminfo
from fleetlab.machine import certificates_in
from fleetlab.ubuntu import RELEASES, Sources, choose

WEB1 = {"name": "web1", "os": "ubuntu-24.04"}
REGISTRY = Sources(registry=True, ubuntu_archive=True)
ARCHIVE = Sources(registry=False, ubuntu_archive=True)
NOTHING = Sources(registry=False, ubuntu_archive=False)


def test_a_full_definition_is_read() -> None:
    entry = WEB1 | {"vcpus": 1, "memory_mb": 1024, "publish": {80: 8081}}
    assert parse([entry]) == [Host("web1", "ubuntu-24.04", 1, 1024, {80: 8081})]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, ["list of hosts"]),
        ([], ["list of hosts"]),
        (["web1"], ["[0]", "'web1'", "mapping"]),
        ([{"os": "ubuntu-24.04"}], ["[0].name", "missing"]),
        ([{"name": "web1"}], ["[0].os", "missing"]),
        ([WEB1 | {"os": "ubuntu-23.10"}], ["[0].os", "'ubuntu-23.10'", "ubuntu-24.04"]),
        ([WEB1 | {"os": 24.04}], ["[0].os", "24.04", "ubuntu-24.04"]),
        ([WEB1 | {"os": ["ubuntu-24.04"]}], ["[0].os", "ubuntu-24.04"]),
        ([WEB1 | {"name": "web_1"}], ["[0].name", "'web_1'", "a-z"]),
        ([WEB1 | {"cpus": 2}], ["[0].cpus", "unknown key", "vcpus"]),
        ([WEB1 | {"vcpus": 0}], ["[0].vcpus", "0", "from 1"]),
        ([WEB1 | {"vcpus": True}], ["[0].vcpus", "True"]),
        ([WEB1 | {"vcpus": "2"}], ["[0].vcpus", "'2'", "whole number"]),
        ([WEB1 | {"memory_mb": 8}], ["[0].memory_mb", "8", "from 64"]),
        ([WEB1 | {"publish": [80]}], ["[0].publish", "mapping"]),
        ([WEB1 | {"publish": {80: 80}}], ["[0].publish.80", "from 1024"]),
        ([WEB1 | {"publish": {"http": 8080}}], ["[0].publish", "'http'"]),
        ([WEB1, WEB1], ["[1].name", "'web1'", "twice"]),
        ([WEB1 | {"publish": {80: 8080}}, {**WEB1, "name": "b", "publish": {80: 8080}}], ["8080", "web1"]),
    ],
)
def test_a_bad_definition_is_refused_with_key_value_and_what_is_allowed(document: Any, words: list[str]) -> None:
    with pytest.raises(LabError) as refused:
        parse(document, "hosts.yml")
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a" * 41, "../x", None])
def test_names_that_docker_or_dns_refuse(name: Any) -> None:
    with pytest.raises(LabError, match="--name"):
        check_name("--name", name)


def _fields(cpuinfo: str, key: str) -> list[str]:
    pairs = (line.partition(":") for line in cpuinfo.splitlines())
    return [value.strip() for name, _, value in pairs if name.strip() == key]


@pytest.mark.parametrize("machine", ["", "processor\t: 0\nmodel name\t: Fast\nsiblings\t: 96\nflags\t\t: fpu sse\n\n"])
@pytest.mark.parametrize("vcpus", [1, 2, 64])
def test_cpuinfo_shows_one_socket_of_single_thread_cores(vcpus: int, machine: str) -> None:
    shown = render_cpuinfo(vcpus, machine)
    assert _fields(shown, "processor") == [str(index) for index in range(vcpus)]
    assert set(_fields(shown, "physical id")) == {"0"}
    assert set(_fields(shown, "cpu cores")) == set(_fields(shown, "siblings")) == {str(vcpus)}
    assert set(_fields(shown, "model name")) == ({"Fast"} if machine else {"Virtual CPU"})
    assert len([block for block in shown.split("\n\n") if block.strip()]) == vcpus


def test_meminfo_adds_up() -> None:
    pairs = (line.split() for line in render_meminfo(1024).splitlines())
    shown = {key.rstrip(":"): int(value) for key, value, _unit in pairs}
    assert shown["MemTotal"] == 1024 * 1024
    assert shown["MemFree"] < shown["MemAvailable"] < shown["MemTotal"]
    assert shown["SwapTotal"] == 0


@pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES)
def test_a_registry_or_the_archive_gives_the_release_itself(release: Any) -> None:
    for sources, via in ((REGISTRY, "registry"), (ARCHIVE, "archive")):
        choice = choose(release, sources)
        assert (choice.taken, choice.via, choice.title) == (release, via, release.title)


@pytest.mark.parametrize(
    ("asked", "taken"), [("ubuntu-22.04", "debian-12"), ("ubuntu-24.04", "debian-12"), ("ubuntu-26.04", "debian-13")]
)
def test_debian_stands_in_and_says_so(asked: str, taken: str) -> None:
    choice = choose(RELEASES[asked], NOTHING)
    assert choice.taken.key == taken
    assert choice.title == f"{RELEASES[taken].title} (standing in for {asked})"
    assert f"building {RELEASES[taken].title} instead of {asked}" in choice.remark


def test_debian_asked_for_is_no_stand_in() -> None:
    assert choose(RELEASES["debian-13"], NOTHING).title == "Debian 13"


def test_a_host_is_made_anew_when_its_definition_or_image_changes() -> None:
    host = Host("web1", "ubuntu-24.04", 1)
    same = Host("web1", "ubuntu-24.04", 1)
    assert host.fingerprint("a") == same.fingerprint("a")
    others = [host.fingerprint("b"), Host("web1", "ubuntu-24.04", 2).fingerprint("a")]
    assert host.fingerprint("a") not in others


def test_the_size_in_words() -> None:
    assert Host("web1", "ubuntu-24.04", 1, 1024).size == "shown as 1 vCPU, 1024 MiB"
    assert Host("web1", "ubuntu-24.04").size == "this machine's own"


def test_certificates_are_compared_without_white_space() -> None:
    one = "-----BEGIN CERTIFICATE-----\nAB\nCD\n-----END CERTIFICATE-----"
    other = one.replace("AB\nCD", "ABCD")
    assert certificates_in(one).keys() == certificates_in("# name\n" + other).keys() == {"ABCD"}
