"""What the benchmarks share: a lab with a copy of the sample app that may be changed, and how a deploy is timed."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
LAB = [sys.executable, str(REPOSITORY / "molecule/shared/lab.py")]
PLAYBOOK = str(Path(sys.executable).with_name("ansible-playbook"))
OWN_CONFIG = {"ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")}


@dataclass(frozen=True)
class Fleet:
    """Hosts and an app. `addresses` are the hosts' by name."""

    inventory: Path
    source: Path
    addresses: Mapping[str, str]

    def edit(self, text: str) -> None:
        """Change the app's code."""
        with (self.source / "main.py").open("a") as main:
            main.write(f"\nBENCH = {text!r}\n")

    def deploy(self, **settings: Any) -> dict[str, float]:
        """Deploy with this project, as a user would; settings go before those that the fleet was made with."""
        command = [PLAYBOOK, "-i", str(self.inventory), "deploy.yml", "-e", json.dumps(settings)]
        return timed(command, REPOSITORY, OWN_CONFIG)

    def rollback(self) -> dict[str, float]:
        """Go back with this project, as a user would."""
        return timed([PLAYBOOK, "-i", str(self.inventory), "playbooks/rollback.yml"], REPOSITORY, OWN_CONFIG)


@contextlib.contextmanager
def fleet(name: str, hosts: list[dict[str, Any]], **settings: Any) -> Iterator[Fleet]:
    """Bring hosts up, with the sample app's copy to deploy to them; remove them in the end."""
    with tempfile.TemporaryDirectory() as folder:
        source, inventory, wanted = Path(folder, "app"), Path(folder, "inventory"), Path(folder, "hosts.yml")
        shutil.copytree(REPOSITORY / "app", source, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
        (inventory / "group_vars").mkdir(parents=True)
        app = {"app_name": "counter", "app_source": str(source), "app_module": "main:app", "service_boot_timeout": 120}
        (inventory / "group_vars" / "app.yml").write_text(yaml.safe_dump({**app, **settings}))
        wanted.write_text(yaml.safe_dump(hosts))
        files = ["--hosts", str(wanted), "--inventory", str(inventory / "lab.yml")]
        subprocess.run([*LAB, "up", "--name", name, *files], check=True)
        try:
            made = yaml.safe_load((inventory / "lab.yml").read_text())["app"]["hosts"]
            yield Fleet(inventory, source, {host: facts["ansible_host"] for host, facts in made.items()})
        finally:
            subprocess.run([*LAB, "down", "--name", name], check=False)


def timed(command: list[str], folder: Path, environment: Mapping[str, str]) -> dict[str, float]:
    """Run a command; return its wall and CPU seconds (the controller's own). A failure ends the benchmark."""
    settle()
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
    return {"wall": wall, "cpu": after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime}


def settle(seconds: float = 20, idle: float = 0.7) -> None:
    """Wait until the machine is idle, so that no run pays for what the one before it left to be done.

    The plain playbook ends while its workers still boot; this project's deploy has waited for its own.
    """
    deadline = time.monotonic() + seconds
    before = _cpu_ticks()
    while time.monotonic() < deadline:
        time.sleep(1)
        after = _cpu_ticks()
        total = after[1] - before[1]
        if total and (after[0] - before[0]) / total >= idle:
            return
        before = after


def _cpu_ticks() -> tuple[int, int]:
    """Return the idle and all ticks of /proc/stat."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return ticks[3] + ticks[4], sum(ticks)
