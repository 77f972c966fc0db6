"""What one more host costs the controller: CPU seconds of a redeploy and of a deploy that changes nothing.

The hosts are containers on the same machine, so wall times say little; the controller's CPU seconds are its own. Also
how long the hosts need to go back to the release before, from the command to the old release live.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from bench.lab import REPOSITORY, fleet

MOST_HOSTS = 50

Figures = dict[str, dict[str, float]]


def measure(count: int, rounds: int) -> Figures:
    """Return the medians of some rounds with so many hosts, wall and CPU seconds."""
    hosts = [{"name": f"web{number + 1}", "os": "ubuntu-24.04"} for number in range(count)]
    found: dict[str, list[dict[str, float]]] = {"code changed": [], "nothing changed": [], "rollback": []}
    # Two workers each: what they do costs the machine, but not the controller.
    with fleet("many", hosts, service_workers=2, service_watch_seconds=0, service_boot_timeout=300) as made:
        made.deploy()
        for number in range(rounds):
            made.edit(f"{count} hosts, round {number}")
            found["code changed"].append(made.deploy())
            found["nothing changed"].append(made.deploy())
            found["rollback"].append(made.rollback())
    return {
        kind: {figure: round(statistics.median(run[figure] for run in runs), 2) for figure in ("wall", "cpu")}
        for kind, runs in found.items()
    }


def per_host(figures: dict[int, Figures], kind: str) -> float:
    """Return the CPU seconds of one more host: the slope between the fewest and the most."""
    few, many = min(figures), max(figures)
    return round((figures[many][kind]["cpu"] - figures[few][kind]["cpu"]) / (many - few), 3)


def main() -> None:
    """Measure with each number of hosts; print a table and write the figures."""
    parser = argparse.ArgumentParser(prog="script/bench hosts", description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=[3, 10, 20], help="numbers of hosts (3 10 20)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "bench" / "many_hosts.json")
    given = parser.parse_args()
    if len(set(given.hosts)) <= 1 or min(given.hosts) < 1 or max(given.hosts) > MOST_HOSTS or given.rounds < 1:
        parser.error(f"--hosts takes two or more different numbers from 1 to {MOST_HOSTS}, --rounds one from 1")
    figures = {}
    print("| hosts | code changed: CPU, wall | nothing changed: CPU, wall | rollback: wall |\n|---|---|---|---|")
    for count in given.hosts:
        found = figures[count] = measure(count, given.rounds)
        changed, same, back = found["code changed"], found["nothing changed"], found["rollback"]
        row = f"{changed['cpu']} s, {changed['wall']} s | {same['cpu']} s, {same['wall']} s | {back['wall']} s"
        print(f"| {count} | {row} |", flush=True)
    each = {kind: per_host(figures, kind) for kind in ("code changed", "nothing changed")}
    print(f"CPU seconds of the controller for one more host: {each}")
    given.output.write_text(json.dumps({"figures": figures, "CPU seconds per host": each}, indent=1) + "\n")


if __name__ == "__main__":
    main()
