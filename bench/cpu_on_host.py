"""Runs on a lab host: requests per CPU second of two ways to serve one app, in alternating rounds. Standard library.

cpu_on_host.py ROUNDS SECONDS CONNECTIONS HOST-NAME OUTPUT
"""

from __future__ import annotations

import glob
import json
import re
import subprocess
import sys
from pathlib import Path

GROUPS = "/sys/fs/cgroup/system.slice"
#: Address, the control groups whose CPU counts, and where its packages are.
SIDES = {
    "plain": ("http://127.0.0.1:8000", {"app": "plain.service"}, "/opt/plain/venv/lib/python3*/site-packages"),
    "fleet": (
        "http://127.0.0.1:80",
        {"app": "system-counter.slice/counter@*.service", "nginx": "nginx.service"},
        "/srv/counter/releases/*/lib",
    ),
}
LOADS: dict[str, list[str]] = {"kept connections": [], "new connections": ["-H", "Connection: close"]}
PACKAGES = ("fastapi", "starlette", "uvicorn", "uvicorn_worker", "gunicorn", "uvloop", "httptools")


def group(pattern: str) -> Path:
    """Return the one control group of a name."""
    (found,) = glob.glob(f"{GROUPS}/{pattern}")
    return Path(found)


def cpu_seconds(pattern: str) -> float:
    """Return what all processes of a group, ended ones too, have used: user and system time."""
    return int(re.findall(r"usage_usec (\d+)", (group(pattern) / "cpu.stat").read_text())[0]) / 1e6


def processes(pattern: str) -> int:
    """Return how many run in a group."""
    return len((group(pattern) / "cgroup.procs").read_text().split())


def versions(packages: str) -> dict[str, str]:
    """Return what is installed of what the two sides may differ in."""
    found = {
        Path(path).name.removesuffix(".dist-info").rpartition("-") for path in glob.glob(f"{packages}/*.dist-info")
    }
    return {name: version for name, _, version in sorted(found) if name in PACKAGES}


def serve(side: str, load: str, seconds: int, connections: int, name: str) -> dict[str, float]:
    """Load one side as hard as it will go; return requests and CPU seconds. Any bad answer ends the benchmark."""
    url, groups, _ = SIDES[side]
    before = {part: cpu_seconds(pattern) for part, pattern in groups.items()}
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "-H", f"Host: {name}", *LOADS[load], f"{url}/health"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = {part: round(cpu_seconds(pattern) - before[part], 4) for part, pattern in groups.items()}
    requests = int(re.findall(r"(\d+) requests in", said)[0])
    if "Non-2xx" in said or "Socket errors" in said or not requests:
        sys.exit(f"{side}, {load}: {said}")
    return {"requests": requests, **used}


def main() -> None:
    """Measure all rounds and write them down."""
    rounds, seconds, connections = (int(word) for word in sys.argv[1:4])
    name, output = sys.argv[4:6]
    found = {
        "workers": {side: processes(groups["app"]) - 1 for side, (_, groups, _) in SIDES.items()},
        "versions": {side: versions(packages) for side, (_, _, packages) in SIDES.items()},
        "rounds": {
            load: [
                # Each side goes first in every other round.
                {side: serve(side, load, seconds, connections, name) for side in sorted(SIDES, reverse=number % 2 == 0)}
                for number in range(rounds + 1)
            ][1:]  # the first warms up
            for load in LOADS
        },
    }
    Path(output).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
