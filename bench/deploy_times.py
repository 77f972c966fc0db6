"""How long a deploy takes beside a plain playbook: same app, same three hosts, in turn, in one run.

Prints a table in Markdown and writes every single figure to a JSON file. What counts is the median of the ratios
of neighbours: a machine's speed drifts, and both of a pair see the same drift.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import yaml

from bench.lab import PLAYBOOK, REPOSITORY, Fleet, fleet, timed

PLAIN = REPOSITORY / "bench" / "plain"


class Bench:
    """Two ways to deploy one folder to the same hosts."""

    def __init__(self, fleet: Fleet, pipelining: bool) -> None:
        self.fleet = fleet
        self.environment = {"ANSIBLE_CONFIG": str(PLAIN / "ansible.cfg")}
        if pipelining:
            self.environment["ANSIBLE_PIPELINING"] = "1"

    def plain(self) -> dict[str, float]:
        """Deploy with the plain playbook."""
        source = f"plain_source={self.fleet.source}"
        command = [PLAYBOOK, "-i", str(self.fleet.inventory), "playbook.yml", "-e", source]
        return timed(command, PLAIN, self.environment)


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
    parser = argparse.ArgumentParser(prog="script/bench times", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="pairs of each kind (7)")
    parser.add_argument("--pipelining", action="store_true", help="give the plain playbook SSH pipelining, too")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "bench" / "deploy_times.json")
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error(f"--rounds is {given.rounds}: allowed is a whole number from 1")
    hosts = yaml.safe_load((REPOSITORY / "molecule/shared/hosts.yml").read_text())
    # The plain playbook watches nothing, so the time in which a new release is watched does not count here.
    with fleet("bench", hosts, service_watch_seconds=0) as made:
        figures = measure(Bench(made, given.pipelining), given.rounds)
    given.output.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"\n| {given.rounds} rounds | plain playbook | fastapi-fleet | ratio of wall times | of controller's CPU |")
    print("|---|---|---|---|---|")
    for title, pairs in figures.items():
        print(row(title, pairs))


def measure(bench: Bench, rounds: int) -> dict[str, list[dict[str, dict[str, float]]]]:
    """Return the figures of all rounds, after one deploy of each kind that does not count."""
    print(f"first deploys: plain {bench.plain()['wall']:.0f} s, fleet {bench.fleet.deploy()['wall']:.0f} s", flush=True)
    figures: dict[str, list[dict[str, dict[str, float]]]] = {"nothing changed": [], "code changed": []}
    for number in range(rounds):
        for title, pairs in figures.items():
            if title == "code changed":
                bench.fleet.edit(f"round {number}")
            pairs.append({"plain": bench.plain(), "fleet": bench.fleet.deploy()})
            print(row(f"{title}, round {number + 1}", pairs[-1:]), flush=True)
    return figures


if __name__ == "__main__":
    main()
