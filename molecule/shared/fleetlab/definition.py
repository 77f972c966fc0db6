"""What a lab is asked for: hosts and their sizes. Pure functions, no effects."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .ubuntu import RELEASES

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


class LabError(Exception):
    """Something the user can put right; the text says what."""


@dataclass(frozen=True)
class Host:
    """One host of a lab. `publish` maps the host's TCP ports to ports of 127.0.0.1."""

    name: str
    os: str
    vcpus: int | None = None
    memory_mb: int | None = None
    publish: Mapping[int, int] = field(default_factory=dict)

    @property
    def size(self) -> str:
        """The size that the host is shown with, as the inventory's `lab_size` says it."""
        parts = []
        if self.vcpus:
            parts.append(f"{self.vcpus} vCPU")
        if self.memory_mb:
            parts.append(f"{self.memory_mb} MiB")
        return "shown as " + ", ".join(parts) if parts else "this machine's own"

    def fingerprint(self, recipe: str) -> str:
        """Return a hash that changes when the host has to be made anew; `recipe` names its image's."""
        facts = [self.name, self.os, self.vcpus, self.memory_mb, sorted(self.publish.items()), recipe]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def check_name(what: str, value: object) -> str:
    """Return `value` as a name that Docker and DNS both take, or raise LabError."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise LabError(f"{what}: {value!r} is not allowed; take a-z, 0-9 and '-', at most 40 characters")
    return value


def _number(where: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise LabError(f"{where}: {value!r} is not allowed; take a whole number from {low} to {high}")
    return value


def _publish(where: str, value: object) -> dict[int, int]:
    if not isinstance(value, dict):
        raise LabError(f"{where}.publish: {value!r} is not allowed; take a mapping such as {{80: 8081}}")
    return {
        _number(f"{where}.publish (the host's port)", inner, 1, 65535): _number(
            f"{where}.publish.{inner}", outer, 1024, 65535
        )
        for inner, outer in value.items()
    }


def _host(where: str, entry: object) -> Host:
    allowed = ("name", "os", "vcpus", "memory_mb", "publish")
    if not isinstance(entry, dict):
        raise LabError(f"{where}: {entry!r} is not allowed; take a mapping with {', '.join(allowed)}")
    for key in entry:
        if key not in allowed:
            raise LabError(f"{where}.{key}: unknown key; allowed are {', '.join(allowed)}")
    for key in ("name", "os"):
        if key not in entry:
            raise LabError(f"{where}.{key}: missing")
    if not isinstance(entry["os"], str) or entry["os"] not in RELEASES:
        raise LabError(f"{where}.os: {entry['os']!r} is unknown; allowed are {', '.join(RELEASES)}")
    vcpus, memory = entry.get("vcpus"), entry.get("memory_mb")
    return Host(
        name=check_name(f"{where}.name", entry["name"]),
        os=entry["os"],
        vcpus=None if vcpus is None else _number(f"{where}.vcpus", vcpus, 1, 1024),
        memory_mb=None if memory is None else _number(f"{where}.memory_mb", memory, 64, 16_777_216),
        publish=_publish(where, entry.get("publish") or {}),
    )


def parse(document: Any, source: str = "hosts.yml") -> list[Host]:
    """Turn a loaded HOSTS.yml into hosts.

    Raise LabError that names the key, its value and what is allowed, before anything is started.
    """
    if not isinstance(document, list) or not document:
        raise LabError(f"{source}: expected a list of hosts, each with name and os")
    hosts = [_host(f"{source}[{index}]", entry) for index, entry in enumerate(document)]
    names: set[str] = set()
    ports: dict[int, str] = {}
    for index, host in enumerate(hosts):
        if host.name in names:
            raise LabError(f"{source}[{index}].name: {host.name!r} is there twice; names are unique")
        names.add(host.name)
        for port in host.publish.values():
            if port in ports:
                raise LabError(f"{source}[{index}].publish: port {port} is already taken by {ports[port]}")
            ports[port] = host.name
    return hosts


def render_cpuinfo(vcpus: int, machine: str = "") -> str:
    """Return a /proc/cpuinfo of one socket with `vcpus` cores of one thread each.

    `machine` is this machine's own cpuinfo; its first processor gives model and flags.
    Ansible computes `processor_vcpus` as sockets * cores * threads (siblings / cores) from these lines.
    """
    first = [line for line in machine.split("\n\n", maxsplit=1)[0].splitlines() if ":" in line]
    pairs = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in first)]
    if not any(key == "model name" for key, _ in pairs):
        pairs.append(("model name", "Virtual CPU"))
    blocks = []
    for index in range(vcpus):
        numbers = {
            "processor": index,
            "physical id": 0,
            "siblings": vcpus,
            "core id": index,
            "cpu cores": vcpus,
            "apicid": index,
            "initial apicid": index,
        }
        lines = {"processor": str(index)} | dict(pairs) | {key: str(value) for key, value in numbers.items()}
        blocks.append("".join(f"{key:<15} : {value}\n" for key, value in lines.items()))
    return "\n".join(blocks) + "\n"


def render_meminfo(memory_mb: int) -> str:
    """Return a /proc/meminfo of an idle host with `memory_mb` MiB and no swap; values are in kB, as there."""
    total = memory_mb * 1024
    values = {
        "MemTotal": total,
        "MemFree": total * 6 // 10,
        "MemAvailable": total * 8 // 10,
        "Buffers": total // 50,
        "Cached": total * 2 // 10,
        "SwapCached": 0,
        "Active": total * 2 // 10,
        "Inactive": total // 10,
        "SwapTotal": 0,
        "SwapFree": 0,
        "Dirty": 0,
        "Writeback": 0,
        "AnonPages": total // 10,
        "Mapped": total // 20,
        "Shmem": 0,
        "Slab": total // 50,
        "SReclaimable": total // 100,
        "SUnreclaim": total // 100,
        "CommitLimit": total // 2,
        "Committed_AS": total // 5,
    }
    return "".join(f"{key + ':':<16}{value:>8} kB\n" for key, value in values.items())
