"""How much the live release serves with other numbers of workers, measured in a private slot (private.py)."""

from __future__ import annotations

import argparse
import contextlib
import functools
import getpass
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import Config, HostError
from .lock import describe, holder, locked
from .mask import mask
from .preflight import check_state
from .switch import Say
from .systemd import Systemd, SystemdError, in_unit
from .tune_lease import Lease
from .tune_slot import SLOT, Slot, clean
from .watch import ProxyLog
from .workers import PROC, connections, memory_mib

LOAD = Path(__file__).with_name("tune_load.py")
#: Seconds of load before those that count, and what a change of the number of workers may take beside its boot.
WARM_SECONDS, CHANGE_SECONDS = 1.0, 20.0
#: A host is drained where the live slot gets no more requests than this: a load balancer's health checks.
DRAINED_SECONDS, DRAINED_PER_SECOND = 5.0, 1.0
#: Requests that have begun may take so many seconds once no new ones are sent.
DRAIN_SECONDS = 10.0
#: The share of bad answers above which a figure says nothing.
BAD_SHARE = 0.01
#: So many CPUs keep one load program busy at most.
CPUS_PER_LOAD = 4
ROUNDS, SECONDS = (1, 100), (0.5, 600.0)
LOAD_PATTERN = re.compile(r"(?:([1-9][0-9]{0,2}) )?(/[!-~]*)")


@dataclass(frozen=True)
class Wanted:
    """What to measure. `load` are paths with their weights, `seconds` is how long each number is measured a round."""

    load: tuple[tuple[str, int], ...]
    workers: tuple[int, ...]
    rounds: int
    seconds: float
    connections: int
    while_serving: bool
    caller: int

    @classmethod
    def read(cls, config: Config, given: argparse.Namespace) -> Wanted:
        """Read the command line; HostError says what is wrong with it."""
        load: dict[str, int] = {}
        for text in given.load or [config.health_path]:
            found = LOAD_PATTERN.fullmatch(text)
            if not found:
                raise HostError(
                    f"the load has {text!r}: allowed are paths that begin with /, each with a weight from 1 to 999 and "
                    "a blank before it or without. They are asked for in a private slot, never in the live one"
                )
            load[found[2]] = load.get(found[2], 0) + int(found[1] or 1)
        numbers = sorted(set(given.workers or range(1, config.workers + 2)))
        if numbers[0] < 1:
            raise HostError(f"the numbers of workers are {numbers}: each has to be 1 or more")
        for name, value, (least, most) in (("rounds", given.rounds, ROUNDS), ("seconds", given.seconds, SECONDS)):
            if not least <= value <= most:
                raise HostError(f"{name} is {value:g}: allowed is {least:g} to {most:g}")
        return cls(
            tuple(load.items()), tuple(numbers), given.rounds, given.seconds,
            given.connections or max(32, 4 * numbers[-1]), given.while_serving, given.caller,
        )  # fmt: skip

    def limit(self, config: Config) -> float:
        """Return how many seconds all of it may take at most."""
        each = WARM_SECONDS + self.seconds + DRAIN_SECONDS + CHANGE_SECONDS
        return 2 * config.boot_timeout * len(self.workers) + each * self.rounds * len(self.workers) + 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb to its parser."""

    def numbers(text: str) -> list[int]:
        return [int(word) for word in text.split(",")]

    parser.add_argument("--load", action="append", metavar="[WEIGHT ]/PATH", help="what to ask for (the health path)")
    parser.add_argument("--workers", type=numbers, metavar="N,N,…", help="numbers to try (1 to one more than planned)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each number is measured (5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each time (4)")
    parser.add_argument("--connections", type=int, default=0, help="requests at a time (4 × the most workers, 32)")
    parser.add_argument("--while-serving", action="store_true", help="even while the live slot has traffic")
    parser.add_argument("--in-unit", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--by", default="", help=argparse.SUPPRESS)
    parser.add_argument("--caller", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--detach", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--leased", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--look", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seen", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--clean", action="store_true", help="only remove what a killed run may have left")


def command(config: Config, given: argparse.Namespace, say: Say) -> tuple[dict[str, Any], int]:
    """Measure, in a transient unit of its own; return what to print and the exit code.

    `systemctl stop APP-release-tune` ends it at any time; whoever asked for it and is gone does so, too.
    """
    systemd, lease = Systemd(functools.partial(mask, config)), Lease(config)
    if given.clean:
        clean(config, systemd)
        if not lease.looked.exists():
            # Nobody fetches the outcome; systemd has made the file anew to run this.
            lease.end()
        return {}, 0
    if given.look:
        return lease.look(systemd, given.seen), 0
    wanted = Wanted.read(config, given)
    check_state(config)
    by = given.by or os.environ.get("SUDO_USER") or getpass.getuser()
    if not given.in_unit:
        if (about := holder(config)) is not None:
            raise HostError(f"the lock is held: {describe(about)}. Nothing was done")
        # systemd-run keeps this process's number.
        ends_with = "--leased" if given.detach else f"--caller={os.getpid()}"
        output = lease.begin() if given.detach else None
        words = in_unit(
            lease.unit, f"Measuring {config.app}", given.config, [*sys.argv[1:], "--in-unit", f"--by={by}", ends_with],
            ["tune", "--clean", "--in-unit"], wanted.limit(config), output,
        )  # fmt: skip
        if output is None:
            os.execvp(words[0], words)
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemdError(f"systemd-run: {done.stderr.strip()}")
        return {}, 0
    here = callers(wanted.caller)

    def is_wanted() -> bool:
        return lease.is_wanted() if given.leased else callers(wanted.caller) == here

    def say_it(step: str) -> None:
        say(step)
        if given.leased:
            lease.say(step)

    with locked(config, "tune", by, wanted.limit(config)):
        return measure(config, systemd, wanted, say_it, is_wanted), 0


class Traffic:
    """What reaches the live slot: nginx's own notes, and who is connected."""

    def __init__(self, config: Config, live: str) -> None:
        self.config, self.socket = config, config.socket(live)
        # With a time of 0, all that nginx notes counts as `after`; only differences are used.
        self.log = ProxyLog(Path(config.proxy_log), 0.0) if config.proxy_log else None
        self.since, self.seen = time.monotonic(), self._requests()

    def _requests(self) -> int:
        if self.log is None:
            return 0
        self.log.read()
        return self.log.after.requests

    def trouble(self, least: float = 0.0) -> str:
        """Say what came since the last look, "" where it is next to nothing; look for at least so many seconds."""
        stayed = connections(self.socket)
        while time.monotonic() < self.since + least:
            time.sleep(0.25)
            stayed = min(stayed, connections(self.socket))
        seconds, new = time.monotonic() - self.since, self._requests() - self.seen
        self.since, self.seen = self.since + seconds, self.seen + new
        found = [f"{new} requests in {seconds:.0f} s"] if new > DRAINED_PER_SECOND * seconds + 1 else []
        # A WebSocket or a long download is in no log before its end.
        found += [f"{stayed} open connections"] if stayed and least else []
        return " and ".join(found)


def measure(
    config: Config, systemd: Systemd, wanted: Wanted, say: Say, is_wanted: Callable[[], bool] = lambda: True
) -> dict[str, Any]:
    """Measure each number in each round, upwards and downwards in turn; return every figure.

    It ends early where the figures are not wanted any more. HostError before anything was changed, or with the private
    slot gone again.
    """
    live, record = config.live_slot(), config.live_record()
    if live is None or not record:
        raise HostError(f"{config.app} has no live release on this host: deploy first")
    if config.transaction.exists():
        raise HostError(f"a switch was cut off: {config.app}-release recover. Nothing was changed")
    if not LOAD.is_file():
        raise HostError(f"the load tool is missing ({LOAD}): deploy once more to bring it. Nothing was changed")
    traffic = Traffic(config, live)
    if not wanted.while_serving and (found := traffic.trouble(DRAINED_SECONDS)):
        raise HostError(
            f"this host is not drained: {found} on the live slot. Nothing was changed. Take it out of the "
            "load balancer, or measure beside its users all the same: tune_while_serving (on the host: --while-serving)"
        )
    say(f"starting release {record['release']} in a private slot, beside the live one ({live})")

    def go_on() -> None:
        if not is_wanted():
            raise HostError("whoever asked for this is gone: measuring was stopped, the private slot is removed")

    rounds: list[dict[str, Any]] = []
    numbers, notes = list(wanted.workers), []
    with Slot(config, systemd, live, wanted.limit(config)) as slot:
        for path, _ in wanted.load:
            slot.check(path)
        for number in range(wanted.rounds):
            for workers in numbers if number % 2 == 0 else numbers[::-1]:
                go_on()
                _go_on(wanted, traffic)
                if workers not in numbers:
                    continue
                if not slot.resize(workers):
                    notes.append(
                        f"{workers} workers and more were not tried: memory does not hold them beside the live ones"
                    )
                    numbers = [least for least in numbers if least < workers]
                    continue
                rounds.append({"round": number + 1, **measure_once(slot, wanted, go_on)})
                say(f"round {number + 1}: {workers} workers, {rounds[-1]['throughput']:g} requests a second")
    return {
        "tuned": {
            "app": config.app, "release": record["release"], "plan": record["plan"], "numbers": numbers,
            "rounds": [entry for entry in rounds if entry["workers"] in numbers], "load": wanted.load,
            "connections": wanted.connections, "seconds": wanted.seconds, "notes": notes,
        }
    }  # fmt: skip


def measure_once(slot: Slot, wanted: Wanted, go_on: Callable[[], None]) -> dict[str, Any]:
    """Send the load for a while; return the figures."""
    main_pid = slot.systemd.state(slot.config.service(SLOT)).main_pid
    pids = slot.overlap.pids(SLOT)
    programs = max(1, min(int(slot.config.plan.get("inputs", {}).get("vcpus", 1)) // CPUS_PER_LOAD, 16))
    settings = {
        "socket": str(slot.config.socket(SLOT)), "load": wanted.load, "pids": [main_pid, *pids],
        "connections": -(-wanted.connections // programs), "warm": WARM_SECONDS, "seconds": wanted.seconds,
        "drain": DRAIN_SECONDS,
        "headers": {
            "Host": slot.config.health_host, "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http",
            "X-Forwarded-Host": slot.config.health_host, "User-Agent": "release-tune",
        },
    }  # fmt: skip
    seen = fire([{**settings, "skip": number} for number in range(programs)], go_on)
    took = sorted(seconds for one in seen for seconds in one["took"])
    bad: dict[str, int] = {}
    for one in seen:
        for status, count in one["bad"].items():
            bad[status] = bad.get(status, 0) + count
    wrong = sum(bad.values())
    if not took or wrong > BAD_SHARE * (wrong + len(took)):
        names = ", ".join(f"{count} × {status if status != '0' else 'none'}" for status, count in bad.items())
        raise HostError(
            f"under load, with {len(pids)} workers, {wrong} of {wrong + len(took)} answers were not 200 to 399 "
            f"({names or f'none within {wanted.seconds:g} s'}): such figures would say nothing"
        )
    sizes = [memory_mib(pid) for pid in pids]
    return {
        "workers": len(pids),
        "requests": len(took),
        "bad": wrong,
        "throughput": round(sum(len(one["took"]) / one["seconds"] for one in seen), 2),
        "p50_ms": round(1000 * took[len(took) // 2], 2),
        "p99_ms": round(1000 * took[min(len(took) - 1, len(took) * 99 // 100)], 2),
        "cpu_ms": round(1000 * seen[0]["cpu"] / len(took), 3),
        "pss_mib": round(memory_mib(main_pid) + sum(sizes), 1),
        "worker_mib": round(max(sizes), 1),
        "load_cpu": round(max(one["own"] for one in seen), 2),
    }


def _go_on(wanted: Wanted, traffic: Traffic) -> None:
    """Raise HostError where traffic has come."""
    found = traffic.trouble()
    if found and not wanted.while_serving:
        raise HostError(f"this host got traffic again, {found}: measuring was stopped, the private slot is removed")


def callers(pid: int) -> list[int]:
    """Return a process and its ancestors below PID 1; where one of them ends, this is no longer the same."""
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        while pid > 1:
            found.append(pid)
            pid = int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def fire(settings: Sequence[dict[str, Any]], go_on: Callable[[], None]) -> list[dict[str, Any]]:
    """Run load programs side by side; return what each saw. `go_on` raises where that is not wanted any more."""
    deadline = time.monotonic() + sum(settings[0][key] for key in ("warm", "seconds", "drain")) + CHANGE_SECONDS
    programs = [
        subprocess.Popen([sys.executable, "-I", "-B", str(LOAD), json.dumps(one)], stdout=subprocess.PIPE, text=True)
        for one in settings
    ]
    try:
        return [json.loads(_output(program, deadline, go_on)) for program in programs]
    except ValueError as error:
        raise HostError(f"the load program failed: {error}") from error
    finally:
        for program in programs:
            program.kill()


def _output(program: subprocess.Popen[str], deadline: float, go_on: Callable[[], None]) -> str:
    while True:
        go_on()
        try:
            return program.communicate(timeout=1)[0]
        except subprocess.TimeoutExpired as error:
            if time.monotonic() > deadline:
                raise HostError("the load program did not end") from error
