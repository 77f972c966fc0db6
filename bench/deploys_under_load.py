"""Deploys of new code in a row to one host that is under load all the time: what is lost, and how latency changes.

Each deploy is `ansible-playbook deploy.yml` after a change of the app's code, as a user would run it. The load does not
wait for answers (bench/load). Prints what it found and writes every deploy's figures to a JSON file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from bench.lab import REPOSITORY, Fleet, fleet
from bench.load import Load, Report

ONE_HOST = [{"name": "web1", "os": "ubuntu-24.04", "vcpus": 2, "memory_mb": 2048}]
#: New connections and kept ones, bodies to be echoed, downloads of 2 s, and requests of 10 s: about one is under way at
#: any moment, and the old slot waits for it.
MIX = "get-new=40,get-keep=40,post-keep=15,post-new=4.5,long=0.05,download=0.45"
QUIET_SECONDS, MOST_DEPLOYS = 60.0, 200


def measure(fleet: Fleet, count: int, rate: float) -> dict[str, Any]:
    """Return the figures of `count` deploys in a row, under one load that begins before and ends after them."""
    windows = []
    with Load(f"http://{fleet.addresses['web1']}", rate=rate, mix=MIX, long_seconds=10, websockets=0) as load:
        begun = time.monotonic()
        time.sleep(QUIET_SECONDS)
        quiet = (begun + 5, time.monotonic())  # the first seconds warm the caches
        for number in range(1, count + 1):
            fleet.edit(f"deploy {number}")
            seconds = fleet.deploy()["wall"]  # without the wait for a quiet moment before it
            windows.append((time.monotonic() - seconds, time.monotonic()))
            print(f"deploy {number} of {count}: {seconds:.1f} s", flush=True)
        time.sleep(5)
        report = load.stop()
    return figures(report, quiet, windows)


def figures(report: Report, quiet: tuple[float, float], windows: list[tuple[float, float]]) -> dict[str, Any]:
    """Return what is written down: every request accounted for, and latency before and during each deploy (ms)."""
    before = report.p99(quiet) * 1000
    during = [report.p99(window) * 1000 for window in windows]
    return {
        "sent": report.sent,
        "ok": report.ok,
        "lost": report.lost,
        "reasons": dict(report.reasons),
        "rate": report.rate,
        "mix": report.mix,
        "deploys": len(windows),
        "releases seen": len(report.releases),
        "late starts": report.late,
        "p99 before, ms": round(before, 1),
        "p99 during a deploy, ms, median": round(statistics.median(during), 1),
        "p99 during / before, median": round(statistics.median(during) / before, 2),
        "deploy seconds, median": round(statistics.median(end - start for start, end in windows), 1),
        "each": [
            {"seconds": round(end - start, 1), "p99 ms": round(p99, 1)}
            for (start, end), p99 in zip(windows, during, strict=True)
        ],
    }


def main() -> None:
    """Bring a host up, deploy once, then again and again under load; print and write the figures."""
    parser = argparse.ArgumentParser(prog="script/bench under-load", description=__doc__)
    parser.add_argument("--deploys", type=int, default=10, help="how many in a row (10)")
    parser.add_argument("--rate", type=float, default=200, help="requests a second (200)")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "bench" / "deploys_under_load.json")
    given = parser.parse_args()
    if not 1 <= given.deploys <= MOST_DEPLOYS:
        parser.error(f"--deploys is {given.deploys}: allowed is a whole number from 1 to {MOST_DEPLOYS}")
    with fleet("under-load", ONE_HOST, service_watch_seconds=2) as made:
        made.deploy()
        found = measure(made, given.deploys, given.rate)
    given.output.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({key: value for key, value in found.items() if key != "each"}, indent=1))
    sys.exit(0 if found["lost"] == 0 and found["sent"] == found["ok"] else 1)


if __name__ == "__main__":
    main()
