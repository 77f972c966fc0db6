"""How often 4 workers serve 4 blocking requests of 2 s in 2 s, where one worker takes 8: the well-known promise.

The requests (`time.sleep` in `async def`) go through nginx at once. All that is measured is written down, also the
rounds in which two of them met in one worker while others had nothing to do. Then the footnote: `def` endpoints.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.lab import REPOSITORY, Fleet, fleet
from bench.load import Load, Report

REQUESTS = 4
SECONDS = 2.0
#: FastAPI runs a `def` endpoint in a pool of so many threads for each worker.
THREADS = 40
#: Requests a second of the steady load.
RATE = 100
BLOCKING: dict[str, Any] = {"get_path": "/serve/blocking?seconds=0.2", "any_body": True}
#: What is compared, with its settings; the first two in turn.
KINDS: dict[str, dict[str, Any]] = {
    "4 workers": {"service_workers": 4},
    "4 workers, service_even_bursts": {"service_workers": 4, "service_even_bursts": True},
    "1 worker": {"service_workers": 1},
}
ANSIBLE = str(Path(sys.executable).with_name("ansible"))


@dataclass(frozen=True)
class Round:
    """Requests sent at once: seconds until all were answered, and how many each worker served, the most first."""

    seconds: float
    served: tuple[int, ...]

    @property
    def met(self) -> bool:
        """Whether one worker served more than one of them."""
        return self.served[0] > 1


def at_once(address: str, path: str, count: int, timeout: float = 60) -> Round:
    """Send requests at the same moment, each on a connection of its own. Raises OSError, or ValueError for no 200."""
    ready = threading.Barrier(count + 1)

    def one() -> str:
        connection = http.client.HTTPConnection(address, 80, timeout=timeout)
        try:
            connection.connect()
            ready.wait(timeout)
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            if answer.status != http.HTTPStatus.OK:
                raise ValueError(f"{path} answers {answer.status}")
            return answer.headers["X-Worker-Pid"]
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        answers = [pool.submit(one) for _ in range(count)]
        ready.wait(timeout)
        began = time.monotonic()
        pids = Counter(answer.result() for answer in answers)
        seconds = time.monotonic() - began
    return Round(round(seconds, 2), tuple(served for _, served in pids.most_common()))


def blocking(address: str, rounds: int) -> list[Round]:
    """Send four blocking requests at once, again and again, with a pause in which all workers get idle."""
    found = []
    for _ in range(rounds):
        found.append(at_once(address, f"/serve/blocking?seconds={SECONDS:g}", REQUESTS))
        time.sleep(0.5)
    return found


def steady(address: str, seconds: float) -> Report:
    """Return a load of short requests, beside one that blocks its worker for 200 ms in every tenth."""
    short = {"rate": RATE * 0.9, "mix": "get-new=1", "seconds": seconds}
    with (
        Load(f"http://{address}", **short) as load,
        Load(f"http://{address}", rate=RATE * 0.1, mix="get-new=1", seconds=seconds, **BLOCKING) as other,
    ):
        report = load.wait()
        if lost := report.lost + other.wait().lost:
            sys.exit(f"{lost} requests were lost")
    return report


def cost(made: Fleet, address: str, seconds: float) -> float:
    """Return how many short requests the app's unit serves per CPU second."""
    before = cpu_seconds(made)
    with Load(f"http://{address}", rate=300, mix="get-new=1", seconds=seconds) as load:
        report = load.wait()
    return round(report.ok / (cpu_seconds(made) - before))


def cpu_seconds(made: Fleet) -> float:
    """Return the CPU seconds that the app's units have used on the host."""
    words = [ANSIBLE, "-i", str(made.inventory), "app", "--one-line", "-m", "command", "-a"]
    words += ["systemctl show --property=CPUUsageNSec counter@blue.service counter@green.service"]
    said = subprocess.run(words, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout
    return sum(int(found) for found in re.findall(r"CPUUsageNSec=(\d+)", said)) / 1e9


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Return what a table shows."""
    took = sorted(each.seconds for each in rounds)
    return {
        "rounds": len(rounds),
        "median": statistics.median(took),
        "least": took[0],
        "most": took[-1],
        "met": sum(each.met for each in rounds),
    }


def main() -> None:
    """Measure with four workers of both kinds, in turn, and with one; print tables and write every round."""
    parser = argparse.ArgumentParser(prog="script/bench promise", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="bursts with each kind of workers (20)")
    parser.add_argument("--turns", type=int, default=4, help="how often the kinds take turns in them (4)")
    parser.add_argument("--seconds", type=float, default=15, help="of each load, one of each kind a turn (15)")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "bench" / "four_workers.json")
    given = parser.parse_args()
    if not 1 <= given.turns <= given.rounds <= 200:  # noqa: PLR2004
        parser.error("--rounds is from 1 to 200, --turns not more")
    found: dict[str, list[Round]] = {name: [] for name in KINDS}
    loads: dict[str, list[dict[str, float]]] = {name: [] for name in list(KINDS)[:2]}
    with fleet("promise", [{"name": "web1", "os": "ubuntu-24.04"}]) as made:
        (address,) = made.addresses.values()
        for turn in range(given.turns):
            for name, measured in loads.items():
                made.deploy(**KINDS[name])
                share = (given.rounds * (turn + 1)) // given.turns - (given.rounds * turn) // given.turns
                found[name] += blocking(address, share)
                report = steady(address, given.seconds)
                figures = {"p50": report.p50(), "p99": report.p99(), "late": report.late}
                measured.append({**figures, "requests per CPU second": cost(made, address, given.seconds)})
                print(name, measured[-1], flush=True)
        alone = list(KINDS)[-1]
        made.deploy(**KINDS[alone])
        found[alone] = blocking(address, given.rounds)
        path = f"/serve/threads?seconds={SECONDS:g}"
        threads = {
            f"{count} requests to def, 1 worker": at_once(address, path, count) for count in (THREADS, THREADS + 1)
        }
    table = {name: summary(rounds) for name, rounds in found.items()}
    print("| | median | least | most | two met in one worker |\n|---|---|---|---|---|")
    for name, row in table.items():
        print(f"| {name} | {row['median']} s | {row['least']} s | {row['most']} s | {row['met']} of {row['rounds']} |")
    for name, each in threads.items():
        print(f"{name}: {each.seconds} s")
    plain, even = loads.values()
    ratios = {
        figure: round(statistics.median(b[figure] / a[figure] for a, b in zip(plain, even, strict=True)), 3)
        for figure in ("p50", "p99", "requests per CPU second")
    }
    print(f"service_even_bursts, median ratio of pairs: {ratios}")
    rounds = {name: [asdict(each) for each in bursts] for name, bursts in found.items()}
    text = {"summary": table, "threads": {name: asdict(each) for name, each in threads.items()}, "ratios": ratios}
    given.output.write_text(json.dumps({**text, "loads": loads, "rounds": rounds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
