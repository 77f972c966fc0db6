"""How often 4 workers serve 4 blocking requests of 2 s in 2 s, where one worker takes 8: the well-known promise.

The requests (`time.sleep` in `async def`) go through nginx at once. All that is measured is written down, also the
rounds in which two of them met in one worker while others had nothing to do. Then the footnote: `def` endpoints.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.lab import REPOSITORY, fleet

REQUESTS = 4
SECONDS = 2.0
#: FastAPI runs a `def` endpoint in a pool of so many threads for each worker.
THREADS = 40


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


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Return what a table shows."""
    took = sorted(each.seconds for each in rounds)
    return {
        "rounds": len(rounds),
        "median": statistics.median(took),
        "least": took[0],
        "most": took[-1],
        "met": sum(each.met for each in rounds),
        "seconds": dict(sorted(Counter(round(each.seconds) for each in rounds).items())),
    }


def main() -> None:
    """Measure with four workers and with one; print a table and write every round."""
    parser = argparse.ArgumentParser(prog="script/bench promise", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "bench" / "four_workers.json")
    given = parser.parse_args()
    if not 1 <= given.rounds <= 200:  # noqa: PLR2004
        parser.error("--rounds is from 1 to 200")
    found: dict[str, list[Round]] = {}
    threads: dict[str, Round] = {}
    with fleet("promise", [{"name": "web1", "os": "ubuntu-24.04"}]) as made:
        (address,) = made.addresses.values()
        for workers in (REQUESTS, 1):
            made.deploy(service_workers=workers)
            found[f"{workers} workers"] = blocking(address, given.rounds)
        for count in (THREADS, THREADS + 1):
            threads[f"{count} requests to `def`, 1 worker"] = at_once(
                address, f"/serve/threads?seconds={SECONDS:g}", count
            )
    table = {name: summary(rounds) for name, rounds in found.items()}
    print("| | median | least | most | two met in one worker |\n|---|---|---|---|---|")
    for name, row in table.items():
        print(f"| {name} | {row['median']} s | {row['least']} s | {row['most']} s | {row['met']} of {row['rounds']} |")
    for name, each in threads.items():
        print(f"{name}: {each.seconds} s")
    rounds = {name: [asdict(each) for each in each_round] for name, each_round in found.items()}
    text = {"summary": table, "threads": {name: asdict(each) for name, each in threads.items()}, "rounds": rounds}
    given.output.write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    main()
