"""What differs between the engines: memory, speed, boot time, and what a reload by HUP loses.

The same app three times on one host, each with another engine and all else alike, measured in turn: what counts is the
median over the rounds, and the ratio to gunicorn's figure of the same round. Speed and memory are those of the app's
own unit, asked straight on its socket, a new connection for each request as nginx makes them; reloads go through nginx.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from bench.lab import REPOSITORY, Fleet, fleet, settle
from bench.load import Load
from plugins.module_utils.workers.engines import DEFAULT, ENGINES

WORKERS = 3
HOST = {"name": "web1", "os": "ubuntu-24.04", "vcpus": 2, "memory_mb": 4096}
PROGRAM = REPOSITORY / "bench" / "engines_on_host.py"
PAGE = REPOSITORY / "docs" / "engines.md"
BEGIN, END = "<!-- script/bench engines -->\n", "<!-- end -->\n"
#: Few enough that all of them can wait, also for nginx, while new workers boot.
RELOADS, RATE = 3, 30
MIX = "get-new=45,get-keep=35,post-keep=15,post-new=5"
MOST_ROUNDS = 50

Figures = dict[str, float]


def deploy(made: Fleet, name: str, settings: dict[str, Any]) -> None:
    """Deploy the app under another name, beside those that are there; it answers to NAME.example."""
    file = made.inventory / "group_vars" / "app.yml"
    common = file.read_text()
    names = {"app_name": name, "proxy_server_names": [f"{name}.example"]}
    file.write_text(yaml.safe_dump({**yaml.safe_load(common), **names, **settings}))
    made.deploy()
    file.write_text(common)


class Host:
    """The host that has all engines."""

    def __init__(self, made: Fleet) -> None:
        app = yaml.safe_load((made.inventory / "lab.yml").read_text())["app"]
        self.address, known = made.addresses["web1"], app["vars"]
        options = shlex.split(known["ansible_ssh_common_args"])
        user = f"{known['ansible_user']}@{self.address}"
        self.ssh = ["ssh", *options, "-i", known["ansible_ssh_private_key_file"], user]

    def ask(self, *words: str) -> Any:
        """Run the program on the host; return what it measured."""
        command = [*self.ssh, "sudo", "python3", "-B", "-", *words]
        done = subprocess.run(command, input=PROGRAM.read_bytes(), stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)

    def reload(self, engine: str) -> Figures:
        """Send HUP some times under load; return how many requests were sent and lost."""
        url, header = f"http://{self.address}", f"{engine}.example"
        with Load(url, rate=RATE, mix=MIX, host_header=header) as load:
            time.sleep(1)
            for _ in range(RELOADS):
                self.ask("reload", engine)  # ends when all new workers have answered
                time.sleep(1)
            report = load.stop()
        print(f"{engine}: {dict(report.reasons)}", flush=True)
        return {"sent": report.sent, "lost": report.lost}


def measure(host: Host, order: Sequence[str], seconds: int) -> dict[str, Figures]:
    """Return one round's figures of each engine."""
    settle()
    speed = host.ask("speed", str(seconds), *order)
    found = {}
    for engine in order:
        boot, reload = host.ask("boot", engine), host.reload(engine)
        found[engine] = {
            "requests per CPU second": speed[engine]["requests"] / speed[engine]["cpu"],
            "worker, MiB": speed[engine]["worker_mib"],
            "main process, MiB": speed[engine]["main_mib"],
            "boot, CPU seconds": boot["cpu"],
            "boot, seconds": boot["wall"],
            **reload,
        }
    return found


def summary(rounds: list[dict[str, Figures]]) -> dict[str, Any]:
    """Return what is written down: every round, the medians, and speed as a ratio to gunicorn's."""
    speed = "requests per CPU second"
    medians = {}
    for engine in ENGINES:
        of = [each[engine] for each in rounds]
        medians[engine] = {
            **{name: round(statistics.median(each[name] for each in of), 2) for name in of[0]},
            "speed, ratio to gunicorn": round(
                statistics.median(each[engine][speed] / each[DEFAULT.name][speed] for each in rounds), 2
            ),
            "lost, least": min(each["lost"] for each in of),
            "lost, most": max(each["lost"] for each in of),
        }
    return {"workers": WORKERS, "reloads a round": RELOADS, "medians": medians, "rounds": rounds}


def table(found: dict[str, Any]) -> str:
    """Return the figures as a table in Markdown, as docs/engines.md has it."""
    medians, reloads = found["medians"], found["reloads a round"]
    rows: list[tuple[str, Callable[[Figures], str]]] = [
        ("requests per CPU second of the unit", lambda of: f"{of['requests per CPU second']:,.0f}"),
        ("the same, as a ratio to gunicorn's of the round", lambda of: f"{of['speed, ratio to gunicorn']:.2f}"),
        ("memory of a worker (PSS)", lambda of: f"{of['worker, MiB']:.0f} MiB"),
        ("memory of its other processes", lambda of: f"{of['main process, MiB']:.0f} MiB"),
        (f"boot until all {found['workers']} workers answer", lambda of: f"{of['boot, seconds']:.1f} s"),
        ("CPU time for that", lambda of: f"{of['boot, CPU seconds']:.1f} s"),
        (
            f"lost with {reloads} × HUP at {RATE} requests a second",
            lambda of: f"{of['lost']:.0f} [{of['lost, least']:.0f}–{of['lost, most']:.0f}] of {of['sent']:.0f}",
        ),
    ]
    head = f"| medians of {len(found['rounds'])} rounds | `{'` | `'.join(ENGINES)}` |\n|---|{'---|' * len(ENGINES)}\n"
    return head + "".join(
        f"| {title} | {' | '.join(shown(medians[engine]) for engine in ENGINES)} |\n" for title, shown in rows
    )


def main() -> None:
    """Bring a host up, deploy each engine to it, measure in turn; print and write the figures."""
    parser = argparse.ArgumentParser(prog="script/bench engines", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each engine is measured (5)")
    parser.add_argument("--seconds", type=int, default=6, help="how long each is asked for its speed in a round (6)")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "bench" / "engines.json")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.relative_to(REPOSITORY)}, too")
    given = parser.parse_args()
    if not 1 <= given.rounds <= MOST_ROUNDS:
        parser.error(f"--rounds is {given.rounds}: allowed is a whole number from 1 to {MOST_ROUNDS}")
    rounds = []
    with fleet("engines-bench", [HOST], service_workers=WORKERS, service_watch_seconds=0) as made:
        for engine in ENGINES:
            deploy(made, engine, {"service_engine": engine})
        host = Host(made)
        for number in range(given.rounds):
            # Each is the first one as often as the others: a machine drifts.
            names = [*ENGINES]
            order = [*names[number % len(names) :], *names[: number % len(names)]]
            rounds.append(measure(host, order, given.seconds))
            print(f"round {number + 1}: {json.dumps(rounds[-1])}", flush=True)
    found = summary(rounds)
    given.output.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    if given.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(before + BEGIN + table(found) + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
