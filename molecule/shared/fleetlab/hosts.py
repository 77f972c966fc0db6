"""A lab's hosts: network, containers, the wait until they answer, and the inventory that names them."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from . import images, machine
from .definition import Host, LabError, render_cpuinfo, render_meminfo
from .engine import LABEL, Engine
from .ubuntu import Choice

SPEC = "fastapi-fleet.spec"
SYSTEM = "fastapi-fleet.os"
USER = "deploy"
HEADER = "# Written by the lab; `lab.py down` removes it.\n"
_BOOT_SECONDS = 60
_SSH_PORT = 22


def lab_dir(lab: str) -> Path:
    """Return the folder with a lab's own files."""
    return machine.private("labs") / lab


def network(lab: str) -> str:
    """Return the name of a lab's network."""
    return f"fastapi-fleet-{lab}"


def containers(engine: Engine, lab: str | None = None) -> dict[str, dict[str, Any]]:
    """Return what the engine says of the hosts of one lab (or all), by container name."""
    label = LABEL if lab is None else f"{LABEL}={lab}"
    ids = engine.call("ps", "--all", "--quiet", "--filter", f"label={label}").split()
    if not ids:
        return {}
    return {item["Name"].lstrip("/"): item for item in json.loads(engine.call("inspect", *ids))}


def _reached_by_port() -> bool:
    """Say whether hosts are reached by a port of this machine: engines in a virtual machine hide addresses."""
    return sys.platform != "linux"


def _size_mounts(lab: str, host: Host) -> list[str]:
    """Write the made-up /proc files of a host and return docker's arguments that mount them."""
    folder = lab_dir(lab) / host.name
    folder.mkdir(parents=True, exist_ok=True)
    args = []
    if host.vcpus:
        own = Path("/proc/cpuinfo")
        (folder / "cpuinfo").write_text(render_cpuinfo(host.vcpus, own.read_text() if own.exists() else ""))
        args += ["--volume", f"{folder / 'cpuinfo'}:/proc/cpuinfo:ro"]
    if host.memory_mb:
        (folder / "meminfo").write_text(render_meminfo(host.memory_mb))
        args += ["--volume", f"{folder / 'meminfo'}:/proc/meminfo:ro"]
    return args


def _init(host: Host) -> str:
    """Return the shell line that becomes the host's PID 1.

    A host shown with fewer vCPUs than the machine has gets that many to run on, so that the scheduler
    affinity tells the same story as /proc/cpuinfo. A host cannot get more than there are.
    """
    real = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    pin = ""
    if host.vcpus and host.vcpus < len(real):
        start = sum(host.name.encode()) % len(real)
        pin = "taskset -c " + ",".join(str(real[(start + i) % len(real)]) for i in range(host.vcpus)) + " "
    return f"mount -o remount,rw /sys/fs/cgroup && exec {pin}/sbin/init"


def _start(engine: Engine, lab: str, host: Host, image: str, choice: Choice, spec: str) -> None:
    args = ["run", "--detach", "--name", f"fastapi-fleet-{lab}-{host.name}", "--hostname", host.name]
    for key, value in {LABEL: lab, SPEC: spec, SYSTEM: choice.title}.items():
        args += ["--label", f"{key}={value}"]
    args += ["--network", network(lab), "--network-alias", host.name]
    # systemd's own sandbox needs mounts and namespaces; --privileged would hand over the machine's devices, too.
    args += ["--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--cgroupns=private"]
    # As root has on a real host: to look into other users' processes, and to give a process more of the CPU again.
    args += ["--cap-add=SYS_PTRACE", "--cap-add=SYS_NICE"]
    args += ["--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"]
    args += ["--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp:exec", "--env=container=docker"]
    args += _size_mounts(lab, host)
    for inner, outer in sorted(host.publish.items()):
        args += ["--publish", f"127.0.0.1:{outer}:{inner}"]
    if _reached_by_port():
        args += ["--publish", f"127.0.0.1::{_SSH_PORT}"]
    engine.call(*args, image, "sh", "-c", _init(host), timeout=120)


def _address(lab: str, facts: dict[str, Any]) -> tuple[str, int]:
    if _reached_by_port():
        bound = facts["NetworkSettings"]["Ports"][f"{_SSH_PORT}/tcp"][0]
        return "127.0.0.1", int(bound["HostPort"])
    return str(facts["NetworkSettings"]["Networks"][network(lab)]["IPAddress"]), _SSH_PORT


def _sshd_answers(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=2) as connection:
            connection.settimeout(5)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _wait(engine: Engine, container: str, lab: str, host: Host) -> None:
    """Wait until the host's systemd has booted and its sshd answers."""
    end = time.monotonic() + _BOOT_SECONDS
    state = ""
    while time.monotonic() < end:
        done = machine.run(engine.argv("exec", container, "systemctl", "is-system-running"), env=engine.env())
        state = done.stdout.strip() or done.stderr.strip()
        if state in ("running", "degraded"):
            break
        time.sleep(0.2)
    else:
        log = machine.run(engine.argv("logs", "--tail", "15", container), env=engine.env())
        raise LabError(f"{host.name}: systemd is not up ({state}):\n{machine.tail(log.stdout + log.stderr)}")
    if state == "degraded":
        units = engine.call("exec", container, "systemctl", "list-units", "--failed", "--plain", "--no-legend")
        machine.say(f"{host.name}: systemd is up, but these units failed:\n{machine.tail(units)}")
    address = _address(lab, containers(engine, lab)[container])
    while not _sshd_answers(address):
        if time.monotonic() > end:
            raise LabError(f"{host.name}: sshd does not answer at {address[0]} port {address[1]}")
        time.sleep(0.1)


def _remove(engine: Engine, names: list[str]) -> None:
    if names:
        engine.call("rm", "--force", "--volumes", *names, timeout=120)


def bring_up(engine: Engine, lab: str, hosts: list[Host]) -> None:
    """Make the lab's hosts what the definition says; keep those that already are."""
    wanted = images.recipe()
    specs = {f"fastapi-fleet-{lab}-{host.name}": host.fingerprint(wanted) for host in hosts}
    there = containers(engine, lab)
    kept = {
        name
        for name, facts in there.items()
        if facts["State"]["Running"] and facts["Config"]["Labels"].get(SPEC) == specs.get(name)
    }
    _remove(engine, sorted(set(there) - kept))
    missing = [host for host in hosts if f"fastapi-fleet-{lab}-{host.name}" not in kept]
    if kept:
        machine.say(f"kept: {', '.join(sorted(name.removeprefix(f'fastapi-fleet-{lab}-') for name in kept))}")
    if not missing:
        return
    taken = images.provide(engine, missing, wanted)
    if not engine.works("network", "inspect", network(lab)):
        engine.call("network", "create", "--label", f"{LABEL}={lab}", network(lab))

    def start(host: Host) -> None:
        began = time.monotonic()
        name = f"fastapi-fleet-{lab}-{host.name}"
        image, choice = taken[host.os]
        _start(engine, lab, host, image, choice, specs[name])
        _wait(engine, name, lab, host)
        machine.say(f"host {host.name}: {choice.title}, {host.size}, up in {time.monotonic() - began:.1f} s")

    with ThreadPoolExecutor(min(8, len(missing))) as pool:
        for future in [pool.submit(start, host) for host in missing]:
            future.result()


def write_inventory(engine: Engine, lab: str, hosts: list[Host], path: Path) -> None:
    """Write the Ansible inventory of a lab's hosts, and the known_hosts file that it names."""
    there = containers(engine, lab)
    own = images.keys()
    known = lab_dir(lab) / "known_hosts"
    entries: dict[str, dict[str, Any]] = {}
    lines = []
    for host in hosts:
        facts = there[f"fastapi-fleet-{lab}-{host.name}"]
        address, port = _address(lab, facts)
        entries[host.name] = {
            "ansible_host": address,
            "ansible_port": port,
            "lab_os": facts["Config"]["Labels"][SYSTEM],
            "lab_size": host.size,
        }
        lines.append(f"{address if port == _SSH_PORT else f'[{address}]:{port}'} {own.host_public}\n")
    known.write_text("".join(lines))
    options = {
        "UserKnownHostsFile": str(known),
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "ForwardAgent": "no",
        # Named here, and not left to Ansible, so that Testinfra takes it, too: else it makes a connection for each
        # command, at five times the cost. Of this lab only: a later one may get the same addresses.
        "ControlPath": f"{control_dir(lab)}/%r-%h-%p",
    }
    control_dir(lab).mkdir(parents=True, exist_ok=True)
    common = {
        "ansible_user": USER,
        "ansible_ssh_private_key_file": str(own.login),
        "ansible_ssh_common_args": shlex.join(
            ["-F", "none", *(part for key, value in options.items() for part in ("-o", f"{key}={value}"))]
        ),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"app": {"hosts": entries, "vars": common}}
    path.write_text(HEADER + yaml.safe_dump(document, sort_keys=False, width=1000))


def control_dir(lab: str) -> Path:
    """Return the folder of a lab's shared SSH connections: short, as a socket's path must be."""
    return machine.run_dir() / "ssh" / hashlib.sha256(lab.encode()).hexdigest()[:6]


def take_down(engine: Engine | None, lab: str) -> None:
    """Remove a lab's hosts, network and files."""
    if engine is not None:
        _remove(engine, sorted(containers(engine, lab)))
        for name in engine.call("network", "ls", "--quiet", "--filter", f"label={LABEL}={lab}").split():
            engine.call("network", "rm", name)
    if control_dir(lab).is_dir():
        for path in control_dir(lab).iterdir():
            machine.run(["ssh", "-F", "none", "-O", "exit", "-S", str(path), "lab"], timeout=10)
        shutil.rmtree(control_dir(lab), ignore_errors=True)
    try:
        inventory = Path(json.loads((lab_dir(lab) / "state.json").read_text())["inventory"])
        if inventory.read_text().startswith(HEADER):
            inventory.unlink()
    except (OSError, ValueError, KeyError):
        pass
    shutil.rmtree(lab_dir(lab), ignore_errors=True)
