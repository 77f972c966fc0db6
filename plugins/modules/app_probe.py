#!/usr/bin/python
"""Read what a host is, what it can carry and what it runs of one app, in one round trip."""

from __future__ import annotations

import grp
import hashlib
import json
import os
import platform
import pwd
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.host.names import taken
from ..module_utils.host.secrets import keyed, read_key
from ..module_utils.workers.limits import measured_mib, memory_of, read_groups, text_of
from ..module_utils.workers.plan import WorkerPlanError, kept_mib, plan_workers

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

DOCUMENTATION = r"""
module: app_probe
short_description: Read what a host is and what it runs of an app
description:
  - Returns as facts what sizing, building and shipping need, and how many workers the host should run.
  - One call instead of C(setup) and a row of C(stat) tasks. CPUs and memory are counted as C(setup) counts them; its
    own code would more than double what is sent to each host, and compiled there, for three numbers.
  - Fails, with the reason, on a host that cannot run the app, or that remembers another fleet than O(fleet) for it.
    Changes nothing.
options:
  app:
    description: Name of the app.
    type: str
    required: true
  root:
    description: Folder that holds the app's releases.
    type: path
    required: true
  fleet:
    description: The fleet that the host belongs to, empty for none. What it remembers is C(/etc/APP/fleet).
    type: str
    default: ""
  user:
    description: The system user that the app runs as. Named as the app by default.
    type: str
  python:
    description: The host's Python that will run the app.
    type: path
    default: /usr/bin/python3
  python_min:
    description: The oldest Python that will do, major and minor.
    type: str
    default: "3.10"
  systemd_min:
    description: The oldest systemd that will do.
    type: int
    default: 249
  user_given:
    description: Whether O(user) was chosen, and did not come from O(app). The action plugin of the same name says so.
    type: bool
    default: false
  secrets:
    description: >-
      What secret files should hold, by path. In a task, a list of C(path) and C(template), of which the action plugin
      makes that.
    type: dict
    default: {}
  key_file:
    description: File on the host with the key for digests of these, see M(webfleet.fastapi.host_files).
    type: path
  plan:
    description: Settings of the worker plan, named as C(plan_workers) in C(module_utils/workers/plan.py) names them.
    type: dict
    default: {}
author:
  - The fastapi-fleet developers
"""

EXAMPLES = r"""
- name: Read the host
  webfleet.fastapi.app_probe:
    app: counter
    root: /srv/counter
    plan:
      workers: auto
"""

RETURN = r"""
ansible_facts:
  description: >-
    C(processor_vcpus), C(processor_nproc) and C(memtotal_mb) as C(setup) gives them; C(app_probe) with
    C(python) and C(arch) (what to build for), C(systemd) (version, 0 where PID 1 is not systemd),
    C(plan) (for another release than the live one) and C(plan_live) (for the live one: it keeps the memory per worker
    that it was planned with, so that a second deploy changes nothing; see workers/plan.py), C(releases) (complete ones
    on disk), C(fleet) (what the host remembers, empty for none), C(live) (what the last switch recorded), C(intact)
    (whether that still is so), C(files) (the bundle's own, so that M(webfleet.fastapi.host_files) need not look at them
    once more), C(secrets) (likewise, with digests that take a key which stays on the host), C(has_key) (whether there
    is one yet), C(user) (whether it is there), C(nginx) (its version, empty where it is not installed) and
    C(nginx_active).
  returned: always
  type: dict
"""


def python_version(python: str) -> str:
    """Return `3.12` for the interpreter at this path, or an empty string where it does not run or is no Python."""
    try:
        done = subprocess.run(
            [python, "-IS", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    said = done.stdout.strip()
    return said if re.fullmatch(r"\d+\.\d+", said) else ""


def cpus_of(cpuinfo: str) -> int:
    """Return sockets × cores × threads, as `setup` counts `processor_vcpus`, from the text of /proc/cpuinfo.

    Where it names no sockets, as on ARM, each processor counts.
    """
    processors, socket, siblings = 0, "", {}
    for line in cpuinfo.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
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


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one where the file is missing or not an object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def live_record(root: Path) -> dict[str, Any]:
    """Return what the last switch wrote down of the slot that the link names; an empty object where nothing is live."""
    try:
        slot = Path(os.readlink(root / "live.sock")).stem
    except OSError:
        return {}
    # Version 0.1 kept one record for the host.
    former = read_json(root / "live.json")
    return read_json(root / "slots" / f"{slot}.json") or (former if former.get("slot") == slot else {})


def releases_on_disk(root: Path) -> list[dict[str, Any]]:
    """Return the marker of each complete release; one without a marker is no release."""
    markers = sorted(root.glob("releases/*/.complete"))
    return [marker for marker in map(read_json, markers) if marker]


def states(*units: str) -> dict[str, tuple[bool, int]]:
    """Return for each unit whether systemd says that it is active, and its main process, 0 where it has none."""
    command = ["systemctl", "show", "--property=Id,ActiveState,MainPID", *units]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = {}
    for block in shown.split("\n\n"):
        said = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        found[said.get("Id", "")] = (said.get("ActiveState") == "active", int(said.get("MainPID") or 0))
    return {unit: found.get(unit, (False, 0)) for unit in units}


def intact(live: dict[str, Any], root: Path, active: bool, key: bytes | None) -> bool:
    """Return whether what the last switch made still is: the link, the slot that runs, and the files it runs from.

    `live` is what that switch recorded, with the SHA-256 of each of these files, of secret ones the digest with `key`;
    `active`: its units are.
    """
    slot = str(live.get("slot"))
    try:
        linked = Path(os.readlink(root / "live.sock")).stem
        same = all(
            digest in (hashlib.sha256(content).hexdigest(), f"keyed:{keyed(key, content)}" if key else None)
            for path, digest in live["files"].items()
            for content in [Path(path).read_bytes()]
        )
    except (OSError, KeyError, AttributeError):
        return False
    return linked == slot and same and active


def public(live: dict[str, Any]) -> dict[str, Any]:
    """Return what may leave the host of a slot's record, as host/keyed.py does."""
    shown = {name: value for name, value in live.items() if name != "files"}
    if not re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]{32}", str(shown.get("fingerprint", ""))):
        shown.pop("fingerprint", None)
    return shown


def secret_as_found(path: Path, wanted: str, key: bytes | None) -> dict[str, Any]:
    """Return digests of a secret file as it is wanted and as it is, "" and None without a key."""
    found = file_as_found(path, key) if key else None
    return {"wanted": keyed(key, wanted.encode("utf-8", "surrogateescape")), "found": found}


def _digest(content: bytes, key: bytes | None) -> str:
    return keyed(key, content) if key else hashlib.sha256(content).hexdigest()


def file_as_found(path: Path, key: bytes | None = None) -> dict[str, str] | None:
    """Return what C(host_files) could want of a path: a link's target, or the content's digest, owner and mode.

    The digest is C(sha256), or with a key C(keyed).
    """
    try:
        if path.is_symlink():
            return {"link": os.readlink(path)}
        found = path.stat()
        content = None if path.is_dir() else path.read_bytes()
        digest = {"keyed" if key else "sha256": "" if content is None else _digest(content, key)}
        owner, group = pwd.getpwuid(found.st_uid).pw_name, grp.getgrgid(found.st_gid).gr_name
    except (OSError, KeyError):
        return None
    return {**digest, "owner": owner, "group": group, "mode": f"{found.st_mode & 0o7777:04o}"}


def files_of(app: str) -> dict[str, dict[str, str] | None]:
    """Return the bundle's own files as they are; None for one that is not there."""
    patterns = [pattern.format(app=app) for pattern in FILES]
    found = {path for pattern in patterns for path in Path("/").glob(pattern)}
    found |= {Path("/", pattern) for pattern in patterns if "*" not in pattern}
    return {str(path): file_as_found(path) for path in sorted(found) if path.is_symlink() or not path.is_dir()}


def nginx_version() -> str:
    """Return nginx's version, as 1.24.0; "" where it is not installed."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if program is None:
        return ""
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stderr
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else "0"


def fleet_of(app: str, etc: Path = Path("/etc")) -> str:
    """Return the fleet that this host remembers for an app; "" where it remembers none, as after an earlier version."""
    try:
        return (etc / app / "fleet").read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def user_exists(name: str) -> bool:
    """Return whether the host knows this user."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def unfit(facts: dict[str, Any], params: dict[str, Any]) -> str:
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


def foreign(record: str, params: dict[str, Any]) -> str:
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


def probe(module: AnsibleModule) -> dict[str, Any]:
    """Return the facts. Raises WorkerPlanError for settings that no plan can be made from."""
    app, root = module.params["app"], Path(module.params["root"])
    vcpus = cpus_of(text_of(Path("/proc/cpuinfo")) or "") or os.cpu_count() or 1
    nproc = len(os.sched_getaffinity(0))
    memory = memory_of(text_of(Path("/proc/meminfo")) or "")
    systemd = systemd_version()
    live = live_record(root)
    groups = read_groups(pid="1", below="system.slice")
    given = {"vcpus": vcpus, "affinity": nproc, "quota": groups.quota, "notes": groups.notes, **module.params["plan"]}
    given |= {"memory_mib": memory, "memory_limit_mib": groups.memory_limit_mib}
    kept = kept_mib(live)
    slot = f"{app}@{live.get('slot', 'blue')}"
    service, socket, nginx = (f"{slot}.service", f"{slot}.socket", "nginx.service")
    # In one call: a systemctl costs as much as all the rest of a look at a unit.
    state = states(service, socket, nginx) if systemd else dict.fromkeys((service, socket, nginx), (False, 0))
    measured = (measured_mib(state[service][1]) if live else None) or kept
    key = read_key(Path(module.params["key_file"])) if module.params["key_file"] else None
    secrets = module.params["secrets"].items()

    return {
        "processor_vcpus": vcpus,
        "processor_nproc": nproc,
        "memtotal_mb": memory,
        "app_probe": {
            "python": python_version(module.params["python"]),
            "arch": platform.machine(),
            "systemd": systemd,
            "plan": plan_workers(**given, measured_mib=measured).as_dict(),
            "plan_live": plan_workers(**given, measured_mib=kept).as_dict(),
            "releases": releases_on_disk(root),
            "fleet": fleet_of(app),
            "live": public(live),
            "intact": intact(live, root, state[service][0] and state[socket][0], key),
            "user": user_exists(module.params["user"] or app),
            "nginx": nginx_version(),
            "files": files_of(app),
            "secrets": {path: secret_as_found(Path(path), text, key) for path, text in secrets},
            "has_key": key is not None,
            "nginx_active": state[nginx][0],
        },
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "fleet": {"type": "str", "default": ""},
            "user": {"type": "str"},
            "user_given": {"type": "bool", "default": False},
            # As a whole, as in host_files.
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "key_file": {"type": "path"},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "python_min": {"type": "str", "default": "3.10"},
            "systemd_min": {"type": "int", "default": 249},
            "plan": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    try:
        facts = probe(module)
    except WorkerPlanError as error:
        module.fail_json(msg=str(error))
    if other := foreign(facts["app_probe"]["fleet"], module.params):
        module.fail_json(msg=other)
    user = module.params["user"] or module.params["app"]
    reasons = unfit(facts["app_probe"], module.params), taken(module.params["app"], user, module.params["user_given"])
    if reason := "; ".join(filter(None, reasons)):
        host = platform.node()
        module.fail_json(msg=f"{host} cannot run {module.params['app']}: {reason}. Nothing was changed on it.")
    module.exit_json(changed=False, ansible_facts=facts)


if __name__ == "__main__":
    main()
