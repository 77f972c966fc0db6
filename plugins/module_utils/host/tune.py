"""How much the live release serves with other numbers of workers, measured in a private slot (tune_slot.py)."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..workers.plan import count
from .commands import Call, Outcome
from .config import Config, HostError
from .context import Context
from .locks import describe, holder, locked
from .preflight import check_state
from .proc import ancestors, memory_mib
from .records import SlotRecord
from .systemd import SystemdError, in_unit
from .tune_lease import VERB, Lease
from .tune_slot import SLOT, Slot, clean
from .watch import ProxyLog

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
class Measurement:
    """What to measure. `load` are paths with their weights, `seconds` is how long each number is measured a round."""

    load: tuple[tuple[str, int], ...]
    workers: tuple[int, ...]
    rounds: int
    seconds: float
    connections: int
    while_serving: bool
    caller: int

    @classmethod
    def read(cls, config: Config, options: argparse.Namespace) -> Measurement:
        """Read the command line; HostError says what is wrong with it."""
        load: dict[str, int] = {}
        for text in options.load or [config.health_path]:
            match = LOAD_PATTERN.fullmatch(text)
            if not match:
                raise HostError(
                    f"the load has {text!r}: allowed are paths that begin with /, each with a weight from 1 to 999 and "
                    "a blank before it or without. They are asked for in a private slot, never in the live one"
                )
            load[match[2]] = load.get(match[2], 0) + int(match[1] or 1)
        numbers = sorted(set(options.workers or range(1, config.workers + 2)))
        if numbers[0] < 1:
            raise HostError(f"the numbers of workers are {numbers}: each has to be 1 or more")
        for name, value, (least, most) in (("rounds", options.rounds, ROUNDS), ("seconds", options.seconds, SECONDS)):
            if not least <= value <= most:
                raise HostError(f"{name} is {value:g}: allowed is {least:g} to {most:g}")
        return cls(
            tuple(load.items()), tuple(numbers), options.rounds, options.seconds,
            options.connections or max(32, 4 * numbers[-1]), options.while_serving, options.caller,
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
    parser.add_argument("--poll", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--shown", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--clean", action="store_true", help="only remove what a killed run may have left")


def command(context: Context, call: Call) -> Outcome:
    """Measure, in a transient unit of its own.

    `systemctl stop APP-release-tune` ends it at any time; whoever asked for it and is gone does so, too.
    """
    # What is measured is the live release: as that is asked.
    context = replace(context, config=context.config.of(SLOT))
    options, config, lease = call.options, context.config, Lease(context)
    if options.clean:
        clean(context)
        if not lease.polled.exists():
            # Nobody fetches the outcome; systemd has made the file anew to run this.
            lease.end()
        return Outcome()
    if options.poll:
        return Outcome(0, lease.poll(options.shown))
    plan = Measurement.read(config, options)
    check_state(config)
    if not options.in_unit:
        return _start(context, call, lease, plan)
    here = ancestors(plan.caller)

    def is_leased() -> bool:
        return lease.is_polled() if options.leased else ancestors(plan.caller) == here

    if options.leased:
        context = replace(context, report=lease.reporter(context.report))
    with locked(config, VERB, call.by, plan.limit(config)):
        return Outcome(0, measure(context, plan, is_leased))


def _start(context: Context, call: Call, lease: Lease, plan: Measurement) -> Outcome:
    """Run the same words in a unit: become its client, or with --detach leave it to those who poll the lease."""
    options, config = call.options, context.config
    if (about := holder(config)) is not None:
        raise HostError(f"the lock is held: {describe(about)}. Nothing was done")
    # systemd-run keeps this process's number.
    ends_with = "--leased" if options.detach else f"--caller={os.getpid()}"
    output = lease.begin() if options.detach else None
    words = in_unit(
        lease.unit, f"Measuring {config.app}", options.config,
        [*sys.argv[1:], "--in-unit", f"--by={call.by}", ends_with],
        ["tune", "--clean", "--in-unit"], plan.limit(config), output,
    )  # fmt: skip
    if output is None:
        os.execvp(words[0], words)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemdError(f"systemd-run: {done.stderr.strip()}")
    return Outcome()


class Traffic:
    """What reaches the live slot: nginx's own notes, and who is connected."""

    def __init__(self, context: Context, live: str) -> None:
        config = context.config
        self.context, self.live, self.clock = context, live, context.clock
        # With a time of 0, all that nginx notes counts as `after`; only differences are used.
        self.log = ProxyLog(Path(config.proxy_log), 0.0) if config.proxy_log else None
        self.since, self.seen = self.clock.monotonic(), self._requests()

    def _requests(self) -> int:
        if self.log is None:
            return 0
        self.log.read()
        return self.log.after.requests

    def trouble(self, least: float = 0.0) -> str:
        """Say what came since the last look, "" where it is next to nothing; look for at least so many seconds."""
        stayed = self.context.connections(self.live)
        while self.clock.monotonic() < self.since + least:
            self.clock.sleep(0.25)
            stayed = min(stayed, self.context.connections(self.live))
        seconds, new = self.clock.monotonic() - self.since, self._requests() - self.seen
        self.since, self.seen = self.since + seconds, self.seen + new
        causes = [f"{new} requests in {seconds:.0f} s"] if new > DRAINED_PER_SECOND * seconds + 1 else []
        # A WebSocket or a long download is in no log before its end.
        causes += [f"{stayed} open connections"] if stayed and least else []
        return " and ".join(causes)


def measure(context: Context, plan: Measurement, is_leased: Callable[[], bool] = lambda: True) -> dict[str, Any]:
    """Measure each number in each round, upwards and downwards in turn; return every figure.

    It ends early where the figures are not wanted any more. HostError before anything was changed, or with the private
    slot gone again.
    """
    live, record = _live(context)
    traffic = Traffic(context, live)
    if not plan.while_serving and (requests := traffic.trouble(DRAINED_SECONDS)):
        raise HostError(
            f"this host is not drained: {requests} on the live slot. Nothing was changed. Take it out of the "
            "load balancer, or measure beside its users all the same: tune_while_serving (on the host: --while-serving)"
        )
    context.report(f"starting release {record.release} in a private slot, beside the live one ({live})")

    def check_lease() -> None:
        if not is_leased():
            raise HostError("the caller ended or stopped polling: measuring was stopped, the private slot is removed")

    with Slot(context, live, plan.limit(context.config)) as slot:
        for path, _unused in plan.load:
            slot.check(path)
        rounds = _Rounds(context, plan, slot, traffic, check_lease)
        for number in range(1, plan.rounds + 1):
            rounds.measure(number)
    return {
        "tuned": {
            "app": context.config.app, "release": record.release, "plan": record.plan.as_dict(),
            "numbers": rounds.numbers, "rounds": rounds.of_all_numbers(), "load": plan.load,
            "connections": plan.connections, "seconds": plan.seconds, "notes": rounds.notes,
        }
    }  # fmt: skip


def _live(context: Context) -> tuple[str, SlotRecord]:
    """Return the live slot and its record; HostError where nothing can be measured beside it."""
    config = context.config
    live, record = config.live_slot(), config.live_record()
    if live is None or not record:
        raise HostError(f"{config.app} has no live release on this host: deploy first")
    if config.transaction.exists():
        raise HostError(f"a switch was cut off: {config.app}-release recover. Nothing was changed")
    if not LOAD.is_file():
        raise HostError(f"the load tool is missing ({LOAD}): deploy once more to bring it. Nothing was changed")
    return live, record


class _Rounds:
    """The figures of all rounds so far; `numbers` are those that memory holds."""

    def __init__(
        self, context: Context, plan: Measurement, slot: Slot, traffic: Traffic, check_lease: Callable[[], None]
    ) -> None:
        self.context, self.plan, self.slot, self.traffic = context, plan, slot, traffic
        self.check_lease = check_lease
        self.numbers, self.figures = list(plan.workers), list[dict[str, Any]]()
        self.notes: list[str] = []

    def measure(self, number: int) -> None:
        """Measure each number of workers, upwards in the first round, downwards in the second, and so on."""
        for workers in self.numbers if number % 2 else self.numbers[::-1]:
            self.check_lease()
            _check_drained(self.plan, self.traffic)
            if workers not in self.numbers:
                continue
            if not self.slot.resize(workers):
                self.notes.append(
                    f"{workers} workers and more were not tried: memory does not hold them beside the live ones"
                )
                self.numbers = [least for least in self.numbers if least < workers]
                continue
            self.figures.append({"round": number, **measure_once(self.slot, self.plan, self.check_lease)})
            throughput = self.figures[-1]["throughput"]
            self.context.report(f"round {number}: {count(workers)}, {throughput:g} requests a second")

    def of_all_numbers(self) -> list[dict[str, Any]]:
        """Return the figures, without those of numbers that memory did not hold in a later round."""
        return [entry for entry in self.figures if entry["workers"] in self.numbers]


def measure_once(slot: Slot, plan: Measurement, check_lease: Callable[[], None]) -> dict[str, Any]:
    """Send the load for a while; return the figures."""
    main_pid = slot.context.state(SLOT).main_pid
    pids = slot.context.pids(SLOT)
    programs = max(1, min(slot.context.config.plan.vcpus // CPUS_PER_LOAD, 16))
    settings = {
        "socket": str(slot.context.config.socket(SLOT)), "load": plan.load, "pids": [main_pid, *pids],
        "connections": -(-plan.connections // programs), "warm": WARM_SECONDS, "seconds": plan.seconds,
        "drain": DRAIN_SECONDS,
        "headers": {
            "Host": slot.context.config.health_host, "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http",
            "X-Forwarded-Host": slot.context.config.health_host, "User-Agent": "release-tune",
        },
    }  # fmt: skip
    figures = fire([{**settings, "skip": number} for number in range(programs)], check_lease)
    took = sorted(seconds for one in figures for seconds in one["took"])
    bad: dict[str, int] = {}
    for one in figures:
        for status, times in one["bad"].items():
            bad[status] = bad.get(status, 0) + times
    wrong = sum(bad.values())
    if not took or wrong > BAD_SHARE * (wrong + len(took)):
        names = ", ".join(f"{count} × {status if status != '0' else 'none'}" for status, count in bad.items())
        raise HostError(
            f"under load, with {count(len(pids))}, {wrong} of {wrong + len(took)} answers were not 200 to 399 "
            f"({names or f'none within {plan.seconds:g} s'}): the result would be meaningless"
        )
    sizes = [memory_mib(pid) for pid in pids]
    return {
        "workers": len(pids),
        "requests": len(took),
        "bad": wrong,
        "throughput": round(sum(len(one["took"]) / one["seconds"] for one in figures), 2),
        "p50_ms": round(1000 * took[len(took) // 2], 2),
        "p99_ms": round(1000 * took[min(len(took) - 1, len(took) * 99 // 100)], 2),
        "cpu_ms": round(1000 * figures[0]["cpu"] / len(took), 3),
        "pss_mib": round(memory_mib(main_pid) + sum(sizes), 1),
        "worker_mib": round(max(sizes), 1),
        "load_cpu": round(max(one["own"] for one in figures), 2),
    }


def _check_drained(plan: Measurement, traffic: Traffic) -> None:
    """Raise HostError where traffic has come."""
    requests = traffic.trouble()
    if requests and not plan.while_serving:
        raise HostError(f"this host got traffic again, {requests}: measuring was stopped, the private slot is removed")


def fire(settings: Sequence[dict[str, Any]], check_lease: Callable[[], None]) -> list[dict[str, Any]]:
    """Run load programs side by side; return what each saw. `check_lease` raises where the lease has ended."""
    deadline = time.monotonic() + sum(settings[0][key] for key in ("warm", "seconds", "drain")) + CHANGE_SECONDS
    programs = [
        subprocess.Popen([sys.executable, "-I", "-B", str(LOAD), json.dumps(one)], stdout=subprocess.PIPE, text=True)
        for one in settings
    ]
    try:
        return [json.loads(_output(program, deadline, check_lease)) for program in programs]
    except ValueError as error:
        raise HostError(f"the load program failed: {error}") from error
    finally:
        for program in programs:
            program.kill()


def _output(program: subprocess.Popen[str], deadline: float, check_lease: Callable[[], None]) -> str:
    while True:
        check_lease()
        try:
            return program.communicate(timeout=1)[0]
        except subprocess.TimeoutExpired as error:
            if time.monotonic() > deadline:
                raise HostError("the load program did not end") from error
