"""Requests served per CPU second, beside a plain gunicorn as in a tutorial: same host, app and number of workers.

The plain side is `gunicorn -k uvicorn_worker.UvicornWorker` on a TCP port, without uvloop, httptools or a proxy (it is
what bench/plain installs). This project's is nginx, the Unix socket and the locked engine, as deployed; nginx's CPU
counts. The app is the smallest that FastAPI has. wrk asks as fast as it gets answers (a closed loop), so both sides are
at their limit and neither is charged for idling; it runs on the host and is not counted. Short rounds alternate, and
what counts is the median of the ratios of neighbours: on a shared machine a CPU second is worth less at some times.
All of it is done twice: as deployed by default, and with proxy_keepalive, where nginx keeps its connections to the app.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from bench.lab import OWN_CONFIG, PLAYBOOK, REPOSITORY, Fleet, fleet, timed

ONE_HOST = [{"name": "web1", "os": "ubuntu-24.04", "vcpus": 2, "memory_mb": 4096}]
APP = """from fastapi import FastAPI

app = FastAPI()


@app.get("/health")
async def health() -> dict[str, bool]:
    return {"ok": True}
"""
#: How many idle connections nginx keeps to the app, by what the loads are called then.
KEEPALIVE = {"": 0, ", proxy_keepalive": 32}
MOST_ROUNDS, MOST_SECONDS, MOST_CONNECTIONS = 100, 10, 256


def on_host(fleet: Fleet, module: str, arguments: str) -> None:
    """Run a module of Ansible on the host, as root."""
    command = [PLAYBOOK.removesuffix("-playbook"), "-i", str(fleet.inventory), "web1", "-b", "-m", module]
    timed([*command, "-a", arguments], REPOSITORY, OWN_CONFIG)


def measure(fleet: Fleet, rounds: int, seconds: int, connections: int) -> dict[str, Any]:
    """Deploy both ways and return what the host measured."""
    (fleet.source / "main.py").write_text(APP)
    plain = REPOSITORY / "bench" / "plain"
    command = [PLAYBOOK, "-i", str(fleet.inventory), "playbook.yml", "-e", f"plain_source={fleet.source}"]
    timed(command, plain, {"ANSIBLE_CONFIG": str(plain / "ansible.cfg")})
    on_host(fleet, "ansible.builtin.apt", "name=wrk")
    program, result = REPOSITORY / "bench" / "cpu_on_host.py", "/run/requests_per_cpu.json"
    given = f"{rounds} {seconds} {connections} web1 {result}"
    local = fleet.source.with_name("result.json")
    found: dict[str, Any] = {"rounds": {}}
    for name, keepalive in KEEPALIVE.items():
        # The second one has nginx keep connections: the workers that can hand them over serve by then.
        fleet.deploy(proxy_keepalive=keepalive)
        fleet.deploy(proxy_keepalive=keepalive)
        on_host(fleet, "ansible.builtin.script", f"{program} {given} executable=python3")
        on_host(fleet, "ansible.builtin.fetch", f"src={result} dest={local} flat=true")
        seen = json.loads(local.read_text())
        rounds_of = {f"{load}{name}": pairs for load, pairs in seen["rounds"].items()}
        found = {**seen, "rounds": {**found["rounds"], **rounds_of}}
    return found


def check(found: dict[str, Any]) -> str:
    """Return why the two sides cannot be compared, "" where they can."""
    workers, versions = found["workers"], found["versions"]
    if workers["plain"] != workers["fleet"]:
        return f"the numbers of workers differ: {workers}"
    if {"uvloop", "httptools"} & versions["plain"].keys():
        return f"the plain side is not plain: {versions['plain']}"
    differ = {name for name, version in versions["plain"].items() if versions["fleet"].get(name) != version}
    return f"versions differ: {versions}" if differ else ""


def figures(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Return the medians: requests per CPU second, CPU microseconds of a request by part, ratio with its quartiles."""

    def cpu(side: dict[str, float]) -> float:
        return side["app"] + side.get("nginx", 0.0)

    ratios = [
        pair["fleet"]["requests"] / cpu(pair["fleet"]) / (pair["plain"]["requests"] / cpu(pair["plain"]))
        for pair in rounds
    ]
    low, middle, high = statistics.quantiles(ratios, n=4)
    parts = {"plain": ("app",), "fleet": ("app", "nginx")}
    return {
        "requests per CPU second": {
            side: round(statistics.median(pair[side]["requests"] / cpu(pair[side]) for pair in rounds))
            for side in parts
        },
        "CPU microseconds of a request": {
            f"{side}: {part}": round(
                statistics.median(1e6 * pair[side][part] / pair[side]["requests"] for pair in rounds)
            )
            for side, names in parts.items()
            for part in names
        },
        "ratio": round(middle, 2),
        "ratio, quartiles": [round(low, 2), round(high, 2)],
    }


def bounded(text: str, most: int, least: int = 1) -> int:
    """Return a whole number from `least` to `most`; ArgumentTypeError for another."""
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"{text!r}: allowed are whole numbers from {least} to {most}")
    return int(text)


def main() -> None:
    """Bring a host up, deploy both ways, measure; print and write the figures."""
    parser = argparse.ArgumentParser(prog="script/bench cpu", description=__doc__)
    parser.add_argument(
        "--rounds", type=lambda text: bounded(text, MOST_ROUNDS, 2), default=20, help="of each load (20)"
    )
    parser.add_argument("--seconds", type=lambda text: bounded(text, MOST_SECONDS), default=2, help="of a side (2)")
    parser.add_argument("--connections", type=lambda text: bounded(text, MOST_CONNECTIONS), default=16, help="(16)")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "bench" / "requests_per_cpu.json")
    given = parser.parse_args()
    with fleet("cpu", ONE_HOST, service_watch_seconds=0) as made:
        found = measure(made, given.rounds, given.seconds, given.connections)
    if trouble := check(found):
        sys.exit(trouble)
    found = {"connections": given.connections, "seconds": given.seconds, **found}
    found["figures"] = {load: figures(rounds) for load, rounds in found["rounds"].items()}
    given.output.write_text(json.dumps({**found, "rounds": found.pop("rounds")}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
