"""How often 4 workers serve 4 blocking requests of 2 s in 2 s, where one worker takes 8: the well-known promise.

The requests (`time.sleep` in `async def`) go through nginx at once. All that is measured is written down, also the
rounds in which two of them met in one worker while others had nothing to do. Then the footnote: `def` endpoints.

The same app three times on one host, so that the kinds can take turns. With service_even_bursts and without, also what
a steady load with some blocking requests waits, and how many requests a CPU second serves, by bursts in turn.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.engines import HOST, Host, deploy
from bench.lab import REPOSITORY, fleet
from bench.load import Load, Report

REQUESTS = 4
SECONDS = 2.0
#: FastAPI runs a `def` endpoint in a pool of so many threads for each worker.
THREADS = 40
#: Requests a second of the steady load.
RATE = 100
BLOCKING: dict[str, Any] = {"get_path": "/serve/blocking?seconds=0.2", "any_body": True}
#: What is compared, by the name of its app, with its title and its settings; the first two in turn.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "even": ("4 workers", {"service_workers": 4}),
    "plain": ("4 workers, service_even_bursts: false", {"service_workers": 4, "service_even_bursts": False}),
    "alone": ("1 worker", {"service_workers": 1}),
}


@dataclass(frozen=True)
class Round:
    """Requests sent at once: seconds until all were answered, and how many each worker served, the most first."""

    seconds: float
    served: tuple[int, ...]

    @property
    def met(self) -> bool:
        """Whether one worker served more than one of them."""
        return self.served[0] > 1


def at_once(address: str, path: str, count: int, host: str = "", timeout: float = 60) -> Round:
    """Send requests at the same moment, each on a connection of its own. Raises OSError, or ValueError for no 200.

    `host` is the name to ask for, where it is not the address.
    """
    ready = threading.Barrier(count + 1)

    def one() -> str:
        connection = http.client.HTTPConnection(address, 80, timeout=timeout)
        try:
            connection.connect()
            ready.wait(timeout)
            connection.request("GET", path, headers={"Host": host or address})
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


def blocking(address: str, rounds: int, host: str = "") -> list[Round]:
    """Send four blocking requests at once, again and again, with a pause in which all workers get idle."""
    found = []
    for _ in range(rounds):
        found.append(at_once(address, f"/serve/blocking?seconds={SECONDS:g}", REQUESTS, host))
        time.sleep(0.5)
    return found


def steady(address: str, seconds: float, host: str) -> Report:
    """Return a load of short requests, beside one that blocks its worker for 200 ms in every tenth."""
    url, common = f"http://{address}", {"mix": "get-new=1", "seconds": seconds, "host_header": host}
    with (
        Load(url, rate=RATE * 0.9, **common) as load,
        Load(url, rate=RATE * 0.1, **common, **BLOCKING) as other,
    ):
        report = load.wait()
        if lost := report.lost + other.wait().lost:
            sys.exit(f"{lost} requests were lost")
    return report


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
    """Measure all kinds of workers, in turn; print tables and write every round."""
    parser = argparse.ArgumentParser(prog="script/bench promise", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="bursts with each kind of workers (20)")
    parser.add_argument("--turns", type=int, default=4, help="how often the kinds take turns in them (4)")
    parser.add_argument("--seconds", type=int, default=15, help="of each load, one of each kind a turn (15)")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "bench" / "four_workers.json")
    given = parser.parse_args()
    if not 1 <= given.turns <= given.rounds <= 200:  # noqa: PLR2004
        parser.error("--rounds is from 1 to 200, --turns not more")
    found: dict[str, list[Round]] = {name: [] for name in KINDS}
    pair = list(KINDS)[:2]
    loads: list[dict[str, dict[str, float]]] = []
    with fleet("promise", [HOST], service_watch_seconds=0) as made:
        for name, (_, settings) in KINDS.items():
            deploy(made, name, settings)
        host = Host(made)
        for turn in range(given.turns):
            share = (given.rounds * (turn + 1)) // given.turns - (given.rounds * turn) // given.turns
            for name, rounds in found.items():
                rounds.extend(blocking(host.address, share, f"{name}.example"))
            order = pair[:: 1 - 2 * (turn % 2)]
            reports = {name: steady(host.address, given.seconds, f"{name}.example") for name in order}
            speed = host.ask("speed", str(given.seconds), *order)
            loads.append(
                {
                    name: {
                        "p50": reports[name].p50(), "p99": reports[name].p99(), "late": reports[name].late,
                        "requests per CPU second": speed[name]["requests"] / speed[name]["cpu"],
                    }
                    for name in pair
                }
            )  # fmt: skip
            print(json.dumps(loads[-1]), flush=True)
        path = f"/serve/threads?seconds={SECONDS:g}"
        threads = {
            f"{count} requests to def, 1 worker": at_once(host.address, path, count, "alone.example")
            for count in (THREADS, THREADS + 1)
        }
    table = {KINDS[name][0]: summary(rounds) for name, rounds in found.items()}
    print("| | median | least | most | two met in one worker |\n|---|---|---|---|---|")
    for title, row in table.items():
        print(f"| {title} | {row['median']} s | {row['least']} s | {row['most']} s | {row['met']} of {row['rounds']} |")
    for title, each in threads.items():
        print(f"{title}: {each.seconds} s")
    even, plain = pair
    ratios = {}
    for figure in ("p50", "p99", "requests per CPU second"):
        values = sorted(each[even][figure] / each[plain][figure] for each in loads)
        ratios[figure] = [round(value, 3) for value in (statistics.median(values), values[0], values[-1])]
    print(f"service_even_bursts beside false, median, least and most of the turns' ratios: {ratios}")
    bursts = {KINDS[name][0]: [asdict(each) for each in rounds] for name, rounds in found.items()}
    text = {"summary": table, "threads": {name: asdict(each) for name, each in threads.items()}, "ratios": ratios}
    given.output.write_text(json.dumps({**text, "loads": loads, "rounds": bursts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
