"""How good the number is that tune.yml proposes: its throughput beside the best of all that were tried, for four loads.

Measured with tune.yml itself on one host, with the sample app. The figure that counts is not the one of the rounds that
led to the choice, as that is good by construction: the number is chosen from the odd rounds and judged by the even
ones, and the other way round. The rule of thumb is judged by the same rounds. The host is a container that is shown two
vCPUs of this machine, which runs the load program, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.lab import OWN_CONFIG, PLAYBOOK, REPOSITORY, Fleet, fleet, timed
from plugins.module_utils.workers.choice import ENOUGH, choose, paired
from plugins.module_utils.workers.curve import by_number

LEAST_ROUNDS, MOST_SECONDS = 6, 60
NUMBERS = [1, 2, 3, 4, 5, 7]
LOADS = {
    "CPU-bound": ["/serve/cpu?units=1"],
    "awaiting": ["/serve/awaiting?seconds=0.05"],
    "blocking in async def": ["/serve/blocking?seconds=0.02"],
    "mixed": ["/serve/cpu?units=1", "/serve/blocking?seconds=0.01", "4 /serve/awaiting?seconds=0.05", "4 /health"],
}

Speeds = Mapping[int, Sequence[float]]


def only(speeds: Speeds, first: int) -> dict[int, list[float]]:
    """Return every second round, from the given one on."""
    return {number: list(values[first::2]) for number, values in speeds.items()}


def share(speeds: Speeds, number: int) -> float:
    """Return a number's throughput in terms of the best's, as medians of paired rounds."""
    middle = {key: statistics.median(values) for key, values in paired(speeds).items()}
    return middle[number] / max(middle.values())


def judge(rounds: Sequence[Mapping[str, Any]], rule: int, most: int) -> dict[str, Any]:
    """Return what was chosen from all rounds, and how good choices from half of them are by the other half."""
    speeds = by_number(rounds, "throughput")
    halves = [only(speeds, 0), only(speeds, 1)]
    choices = [choose(half, most).workers for half in halves]
    others = [share(other, number) for number, other in zip(choices, halves[::-1], strict=True)]
    choice = choose(speeds, most)
    return {
        "chosen": choice.workers, "best": choice.best, "of best": choice.ratio, "interval": [choice.low, choice.high],
        "sure": choice.sure, "chosen from halves": choices, "judged by other halves": [round(s, 3) for s in others],
        "of best, unseen rounds": round(statistics.fmean(others), 3),
        "rule of thumb": rule, "rule of best": round(share(speeds, rule), 3),
        "throughput": {number: round(statistics.median(values), 1) for number, values in paired(speeds).items()},
    }  # fmt: skip


def measure(made: Fleet, load: list[str], rounds: int, seconds: int) -> dict[str, Any]:
    """Run tune.yml with one load; return what it wrote."""
    folder = made.inventory / "report"
    settings = {
        "tune_host": "web1", "tune_load": load, "tune_workers": NUMBERS, "tune_rounds": rounds,
        "tune_seconds": seconds, "tune_report": str(folder),
    }  # fmt: skip
    words = [PLAYBOOK, "-i", str(made.inventory / "lab.yml"), "-i", str(made.inventory), "playbooks/tune.yml"]
    timed([*words, "-e", json.dumps(settings)], REPOSITORY, OWN_CONFIG)
    found: dict[str, Any] = json.loads((folder / "web1.json").read_text())
    return found


def main() -> None:
    """Measure each load; print the table that is in docs/sizing.md, and write the figures."""
    parser = argparse.ArgumentParser(prog="script/bench regret", description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="an even number, 6 or more; half of them choose (8)")
    parser.add_argument("--seconds", type=int, default=1, help="how long each number is measured in a round (1)")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "bench" / "sizing_regret.json")
    given = parser.parse_args()
    if given.rounds % 2 or given.rounds < LEAST_ROUNDS or not 1 <= given.seconds <= MOST_SECONDS:
        parser.error("--rounds takes an even number from 6, --seconds one from 1 to 60")
    began = time.monotonic()
    hosts = [{"name": "web1", "os": "ubuntu-24.04", "vcpus": 2, "memory_mb": 2048}]
    found: dict[str, Any] = {}
    print("| load | chosen | of the best, in rounds not used for choosing | sure | rule of thumb | of the best |")
    print("|---|---|---|---|---|---|")
    with fleet("regret", hosts, service_watch_seconds=0) as made:
        made.deploy()
        for name, load in LOADS.items():
            result = measure(made, load, given.rounds, given.seconds)
            seen = found[name] = judge(result["rounds"], result["rule"], result["most"])
            seen["load"], seen["rounds"] = load, result["rounds"]
            print(
                f"| {name} | {seen['chosen']} | {seen['of best, unseen rounds']:.2f} | {100 * seen['sure']:.0f} % "
                f"| {seen['rule of thumb']} | {seen['rule of best']:.2f} |",
                flush=True,
            )
    given.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{time.monotonic() - began:.0f} s in all")
    missed = [name for name, seen in found.items() if seen["of best, unseen rounds"] < ENOUGH]
    if missed:
        sys.exit(f"below {ENOUGH} of the best: {', '.join(missed)}")


if __name__ == "__main__":
    main()
