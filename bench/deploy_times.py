"""How long a deploy takes beside a plain playbook: same app, same three hosts, in turn, in one run.

Prints a table in Markdown and writes every single figure to a JSON file. What counts is the median of the ratios
of neighbours: a machine's speed drifts, and both of a pair see the same drift.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
PLAIN = REPOSITORY / "bench" / "plain"
LAB = [sys.executable, str(REPOSITORY / "molecule/shared/lab.py")]


def timed(command: list[str], folder: Path, environment: Mapping[str, str]) -> dict[str, float]:
    """Run a command; return its wall and CPU seconds (the controller's own). A failure ends the benchmark."""
    settle()
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
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


class Bench:
    """Two ways to deploy one folder to the same hosts."""

    def __init__(self, inventory: Path, source: Path, pipelining: bool) -> None:
        self.playbook = str(Path(sys.executable).with_name("ansible-playbook"))
        self.inventory, self.source = str(inventory), source
        self.plain_environment = {"ANSIBLE_CONFIG": str(PLAIN / "ansible.cfg")}
        if pipelining:
            self.plain_environment["ANSIBLE_PIPELINING"] = "1"

    def fleet(self) -> dict[str, float]:
        """Deploy with this project."""
        command = [self.playbook, "-i", self.inventory, "deploy.yml"]
        return timed(command, REPOSITORY, {"ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")})

    def plain(self) -> dict[str, float]:
        """Deploy with the plain playbook."""
        command = [self.playbook, "-i", self.inventory, "playbook.yml", "-e", f"plain_source={self.source}"]
        return timed(command, PLAIN, self.plain_environment)

    def edit(self, text: str) -> None:
        """Change the app's code."""
        with (self.source / "main.py").open("a") as main:
            main.write(f"\nBENCH = {text!r}\n")


def median(pairs: list[dict[str, dict[str, float]]], side: str, figure: str) -> float:
    """Return the median of one figure over all rounds."""
    return statistics.median(pair[side][figure] for pair in pairs)


def row(title: str, pairs: list[dict[str, dict[str, float]]]) -> str:
    """Return a table row: medians of both sides, and the median and range of the ratios."""
    ratios = sorted(pair["fleet"]["wall"] / pair["plain"]["wall"] for pair in pairs)
    cpu = statistics.median(pair["fleet"]["cpu"] / pair["plain"]["cpu"] for pair in pairs)
    return (
        f"| {title} | {median(pairs, 'plain', 'wall'):.1f} s | {median(pairs, 'fleet', 'wall'):.1f} s "
        f"| {statistics.median(ratios):.2f} [{ratios[0]:.2f}–{ratios[-1]:.2f}] | {cpu:.2f} |"
    )


def main() -> None:
    """Bring hosts up, deploy both ways once, then in turn; print and write the figures."""
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="pairs of each kind (7)")
    parser.add_argument("--pipelining", action="store_true", help="give the plain playbook SSH pipelining, too")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "bench" / "deploy_times.json")
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error(f"--rounds is {given.rounds}: allowed is a whole number from 1")
    with tempfile.TemporaryDirectory() as folder:
        source, inventory = Path(folder, "app"), Path(folder, "inventory")
        shutil.copytree(REPOSITORY / "app", source, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
        (inventory / "group_vars").mkdir(parents=True)
        settings = {"app_name": "counter", "app_source": str(source), "app_module": "main:app"}
        (inventory / "group_vars" / "app.yml").write_text(yaml.safe_dump({**settings, "service_boot_timeout": 120}))
        hosts = ["--hosts", str(REPOSITORY / "molecule/shared/hosts.yml"), "--inventory", str(inventory / "lab.yml")]
        subprocess.run([*LAB, "up", "--name", "bench", *hosts], check=True)
        try:
            figures = measure(Bench(inventory, source, given.pipelining), given.rounds)
        finally:
            subprocess.run([*LAB, "down", "--name", "bench"], check=False)
    given.output.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"\n| {given.rounds} rounds | plain playbook | fastapi-fleet | ratio of wall times | of controller's CPU |")
    print("|---|---|---|---|---|")
    for title, pairs in figures.items():
        print(row(title, pairs))


def measure(bench: Bench, rounds: int) -> dict[str, list[dict[str, dict[str, float]]]]:
    """Return the figures of all rounds, after one deploy of each kind that does not count."""
    print(f"first deploys: plain {bench.plain()['wall']:.0f} s, fleet {bench.fleet()['wall']:.0f} s", flush=True)
    figures: dict[str, list[dict[str, dict[str, float]]]] = {"nothing changed": [], "code changed": []}
    for number in range(rounds):
        for title, pairs in figures.items():
            if title == "code changed":
                bench.edit(f"round {number}")
            pairs.append({"plain": bench.plain(), "fleet": bench.fleet()})
            print(row(f"{title}, round {number + 1}", pairs[-1:]), flush=True)
    return figures


if __name__ == "__main__":
    main()
