"""What a host is, what it can carry and what it runs of one app: all that the module app_probe says of it.

Few modules are imported: what is imported is sent to each host, and compiled there, in the one round trip that a deploy
makes anyway.
"""

from __future__ import annotations

import json
import os
import platform
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..workers.limits import memory_of, planned_mib, read_groups, text_of
from ..workers.plan import plan_workers
from .digests import keyed, read_key
from .file_state import file_state
from .files import read_object
from .interpreter import python_version
from .names import conflict
from .proc import children, listener, memory_mib, seconds_old
from .records import bad_marks, bad_reason, fleet_of, live_record
from .serving import Host, altered, is_proved, serves, unadopted
from .whole import missing
from .written import EDITED, RECORD, read_written

#: A worker tells what it takes once it has served for so many seconds.
SERVED_SECONDS = 3600.0
#: The port that nginx listens on.
HTTP_PORT = 80
#: Where the bundle puts files of an app, below /. Not those with secrets: what is told of them takes a key.
FILES = (
    "etc/{app}/fleet",
    "etc/{app}/release.json",
    "etc/nginx/conf.d/00-refuse-unknown-hosts.conf",
    "etc/nginx/conf.d/{app}.conf",
    "etc/nginx/sites-enabled/default",
    "etc/systemd/system/{app}@.service",
    "etc/systemd/system/{app}@.socket",
    "etc/systemd/system/{app}-release-recover.service",
    "etc/systemd/system/{app}-release-recycle.*",
    "etc/systemd/system/multi-user.target.wants/{app}-release-recover.service",
    "usr/local/lib/{app}-release/*",
    "usr/local/lib/{app}-release/*/*",
    "usr/local/lib/{app}-release/*/*/*",
    "usr/local/lib/{app}-release/*/*/*/*",
    "usr/local/sbin/{app}-release",
)


def measured_mib(pids: Iterable[int]) -> int | None:
    """Return what one worker takes, as a plan may count with it; None before any has served for long.

    The greatest PSS, and a fourth more, in coarse steps: the number of workers is not to follow each MiB.
    """
    sizes = [memory_mib(pid) for pid in pids if seconds_old(pid) >= SERVED_SECONDS]
    return planned_mib(max(sizes, default=0.0)) or None


def secret_state(path: Path, content: str, key: bytes | None) -> dict[str, Any]:
    """Return digests of a secret file as it is wanted and as it is, "" and None without a key."""
    current = file_state(path, key) if key else None
    return {"digest": keyed(key, content.encode("utf-8", "surrogateescape")), "state": current}


def cpus_of(cpuinfo: str) -> int:
    """Return sockets × cores × threads, as `setup` counts `processor_vcpus`, from the text of /proc/cpuinfo.

    Where it names no sockets, as on ARM, each processor counts.
    """
    processors, socket, siblings = 0, "", {}
    for line in cpuinfo.splitlines():
        key, _unused, value = (part.strip() for part in line.partition(":"))
        if key == "processor":
            processors += 1
        elif key == "physical id":
            socket = value
        elif key == "siblings":
            siblings[socket] = int(value)
    return sum(siblings.values()) or processors


def systemd_version() -> int:
    """Return the version of the systemd that runs as PID 1, 0 where it is something else."""
    if not Path("/run/systemd/system").is_dir():
        return 0
    shown = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=False).stdout
    digits = [word for word in shown.split()[1:2] if word.isdigit()]
    return int(digits[0]) if digits else 0


def releases_on_disk(root: Path) -> list[dict[str, Any]]:
    """Return the marker of each complete release; one without a marker is no release."""
    markers = sorted(root.glob("releases/*/.complete"))
    return [marker for marker in map(read_object, markers) if marker]


def marked_bad(root: Path) -> dict[str, dict[str, str]]:
    """Return the releases that a switch refuses: with which settings, and what it would say."""
    return {
        release: {"fingerprint": str(mark.get("fingerprint")), "reason": bad_reason(release, mark)}
        for release, mark in bad_marks(root).items()
    }


def states(*units: str) -> dict[str, tuple[bool, int]]:
    """Return for each unit whether systemd says that it is active, and its main process, 0 where it has none."""
    command = ["systemctl", "show", "--property=Id,ActiveState,MainPID", *units]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    by_unit = {}
    for block in output.split("\n\n"):
        properties = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        by_unit[properties.get("Id", "")] = (
            properties.get("ActiveState") == "active",
            int(properties.get("MainPID") or 0),
        )
    return {unit: by_unit.get(unit, (False, 0)) for unit in units}


def files_of(app: str) -> dict[str, dict[str, str] | None]:
    """Return the bundle's own files as they are; None for one that is not there."""
    patterns = [pattern.format(app=app) for pattern in FILES]
    paths = {path for pattern in patterns for path in Path("/").glob(pattern)}
    paths |= {Path("/", pattern) for pattern in patterns if "*" not in pattern}
    paths = {path for path in paths if EDITED not in path.name}
    return {str(path): file_state(path) for path in sorted(paths) if path.is_symlink() or not path.is_dir()}


def nginx_version() -> str:
    """Return nginx's version, as 1.24.0; "" where it is not installed."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if program is None:
        return ""
    output = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stderr
    version = re.search(r"\d+(\.\d+)+", output)
    return version[0] if version else "0"


def user_exists(name: str) -> bool:
    """Return whether the host knows this user."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def unfit(facts: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """Say why a host cannot run the app, "" where it can."""
    reasons = []
    if facts["systemd"] == 0:
        reasons.append(f"PID 1 is not systemd (needed: systemd {params['systemd_min']} or newer)")
    elif facts["systemd"] < params["systemd_min"]:
        reasons.append(f"it has systemd {facts['systemd']} (needed: {params['systemd_min']} or newer)")
    python, needed = f"service_python {params['python']}", f"(needed: {params['python_min']} or newer)"
    if not facts["python"]:
        reasons.append(f"{python} is not there, or no Python {needed}")
    elif _version(facts["python"]) < _version(params["python_min"]):
        reasons.append(f"{python} is Python {facts['python']} {needed}")
    return "; ".join(reasons)


def foreign(record: str, params: Mapping[str, Any]) -> str:
    """Say that the host belongs to another fleet, "" where it does not. No fleet is another one, too.

    Who names none has most likely taken another inventory than was meant.
    """
    if record in {"", params["fleet"]}:
        return ""
    return (
        f"{platform.node()} belongs to the fleet {record}, but service_fleet is {json.dumps(params['fleet'])}. Nothing "
        f"was changed on it. Take the fleet's own settings; to move the host, remove /etc/{params['app']}/fleet on it"
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def refusal(facts: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """Say why the app is not to be deployed to this host, "" where it may."""
    if other := foreign(facts["fleet"], params):
        return other
    reasons = unfit(facts, params), conflict(params["app"], params["user"] or params["app"], params["user_given"])
    if reason := "; ".join(filter(None, reasons)):
        return f"{platform.node()} cannot run {params['app']}: {reason}. Nothing was changed on it."
    return ""


def probe(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts. Raises WorkerPlanError for settings that no plan can be made from."""
    app, root = params["app"], Path(params["root"])
    vcpus = cpus_of(text_of(Path("/proc/cpuinfo")) or "") or os.cpu_count() or 1
    nproc = len(os.sched_getaffinity(0))
    memory = memory_of(text_of(Path("/proc/meminfo")) or "")
    systemd = systemd_version()
    path = params["python"]
    python = python_version(path)
    live = live_record(root)
    groups = read_groups(pid="1", below="system.slice")
    limits = {"vcpus": vcpus, "affinity": nproc, "quota": groups.quota, "notes": groups.notes, **params["plan"]}
    limits |= {"memory_mib": memory, "memory_limit_mib": groups.memory_limit_mib}
    kept = live.plan.measured_mib
    slot = f"{app}@{live.slot or 'blue'}"
    service, socket, nginx = (f"{slot}.service", f"{slot}.socket", "nginx.service")
    # In one call: a systemctl costs as much as all the rest of a look at a unit.
    state = states(service, socket, nginx) if systemd else dict.fromkeys((service, socket, nginx), (False, 0))
    main_pid = state[service][1] if live else 0
    # Of one worker, a main process may have no child: it serves by itself.
    pids = children(main_pid) or [main_pid] * (live.plan.workers == 1) if main_pid else []
    measured = measured_mib(pids) or kept
    fresh, kept_fresh = live.fresh_mib or None, live.plan.inputs.get("fresh_mib")
    key = read_key(Path(params["key_file"])) if params["key_file"] else None
    secrets = params["secrets"].items()
    host = Host(
        app,
        root,
        service=state[service],
        socket=state[socket][0],
        key=key,
        python=python if live.proved_with.get("python", path) == path else python_version(live.proved_with["python"]),
        health=params.get("health") or {},
    )
    trouble = altered(live, host) if systemd else ""
    lost = missing(root / "releases" / live.release) if live else ""

    return {
        "processor_vcpus": vcpus,
        "processor_nproc": nproc,
        "memtotal_mb": memory,
        "app_probe": {
            "python": python.rpartition(".")[0],
            "python_version": python,
            "arch": platform.machine(),
            "systemd": systemd,
            "plan": plan_workers(**limits, measured_mib=measured, fresh_mib=fresh).as_dict(),
            "plan_live": plan_workers(**limits, measured_mib=kept, fresh_mib=kept_fresh).as_dict(),
            # One that lacks files is sent again.
            "releases": [found for found in releases_on_disk(root) if not (lost and found["id"] == live.release)],
            "bad": marked_bad(root),
            "fleet": fleet_of(Path("/etc", app)),
            "live": live.public(),
            "serves": serves(live) if live.files and not trouble and is_proved(live, host) else {},
            "altered": trouble,
            "unadopted": unadopted(live, Path("/etc", app)),
            "user": user_exists(params["user"] or app),
            "nginx": nginx_version(),
            "files": files_of(app),
            "written": sorted(read_written(Path("/etc", app, RECORD))),
            "secrets": {path: secret_state(Path(path), text, key) for path, text in secrets},
            "has_key": key is not None,
            "nginx_active": state[nginx][0],
            # Where nginx runs, it is the one.
            "port_holder": None if state[nginx][0] else listener(HTTP_PORT),
        },
    }
