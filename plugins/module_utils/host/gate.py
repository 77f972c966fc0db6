"""The proof that a slot serves: all its workers run, each has answered, and health stays good."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

from .config import Config
from .systemd import Systemd
from .workers import Answers, ask, be_quiet, release_of, worker_pids

POLL_SECONDS = 0.1
#: Requests at once for each worker: one worker may take several of a burst, so ask for more than one each.
BURST = 4


class GateError(Exception):
    """The slot did not prove itself; the message says what was missing."""


@dataclass(frozen=True)
class Proof:
    """What a slot showed.

    pids: the workers; answered: those that answered; releases: what they run; trouble: why the last request
    got no answer.
    """

    planned: int
    pids: tuple[int, ...]
    answered: tuple[int, ...]
    releases: tuple[str, ...]
    statuses: tuple[int, ...]
    trouble: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the proof as plain data for JSON."""
        return {**asdict(self), "running": len(self.pids), "answering": len(self.answered)}


def look(config: Config, systemd: Systemd, slot: str, planned: int, tries: int = 20) -> Proof:
    """Ask a slot until each of its workers has answered, at most `tries` bursts; changes nothing."""
    main_pid = systemd.state(config.service(slot)).main_pid
    pids = worker_pids(main_pid, config.engine_of(slot)) if main_pid else []
    answered: set[int] = set()
    last = Answers()
    for number in range(tries if pids else 0):
        # On a busy machine a worker may not get the CPU for a moment: all bursts are not to fall into that one.
        time.sleep(min(0.02 * number, 0.2))
        last = burst(config, slot, pids)
        answered |= last.pids & set(pids)
        if last.error or answered == set(pids):
            break
    return Proof(
        planned=planned,
        pids=tuple(pids),
        answered=tuple(sorted(answered)),
        releases=tuple(sorted({release_of(pid) for pid in pids})),
        statuses=tuple(sorted(set(last.statuses))),
        trouble=last.error,
    )


def burst(config: Config, slot: str, pids: list[int], count: int = 0, limit: float = math.inf) -> Answers:
    """Ask for the slot's health several times at once; `limit` (seconds) can shorten the wait for an answer."""
    seconds = max(0.1, min(config.health_timeout, limit))
    count = count or BURST * max(1, len(pids))
    return ask(config.socket(slot), config.health_path, config.health_host, seconds, count, pids)


def wait_until_proven(
    config: Config, systemd: Systemd, slot: str, workers: int, restarts: int = 0, quiet: bool = False
) -> str:
    """Wait until the slot may get traffic; return the proof in plain words.

    In order: the unit stays up (`restarts` are known of already), `workers` workers run (0: as many as there are),
    each of them has answered its health check, `health_successes` more answers in a row are good, and the warm-up
    requests were answered. With `quiet`, it boots with less of the CPU until then. Raises GateError as soon as the
    unit falls over, and otherwise when `boot_timeout` seconds are gone.
    """
    deadline = time.monotonic() + config.boot_timeout

    def left() -> float:
        return deadline - time.monotonic()

    unit = config.service(slot)
    answered: set[int] = set()
    missing = "the unit is not up"
    patience = 1.0
    while True:
        state = systemd.state(unit)
        if state.restarts > restarts or state.down:
            raise GateError(f"{unit} fell over while starting (result: {state.result}, restarts: {state.restarts})")
        pids = worker_pids(state.main_pid, config.engine_of(slot)) if state.main_pid else []
        answered &= set(pids)
        if quiet and state.main_pid:
            be_quiet(state.main_pid, quiet=True)
        if len(pids) != (workers or max(1, len(pids))):
            missing = f"{len(pids)} of {workers or 1} workers run"
        elif not answered and burst(config, slot, pids, 1, min(patience, left())).statuses == [0]:
            # Waiting in the socket's queue takes no CPU from the workers that boot; asking again and again does.
            patience += 1
            missing = f"{config.health_path} gave no answer yet"
        else:
            answers = burst(config, slot, pids, limit=left())
            answered |= answers.pids & set(pids)
            if not answers.good:
                missing = _complaint(config, answers)
            elif len(answered) < len(pids):
                missing = f"only {len(answered)} of {len(pids)} workers have answered {config.health_path}"
            else:
                missing = _good_in_a_row(config, slot, left)
                if not missing:
                    if quiet:
                        be_quiet(state.main_pid, quiet=False)
                    _warm_up(config, slot, pids, left)
                    return f"{len(pids)} workers run and each has answered {config.health_path}"
        if left() <= 0:
            raise GateError(f"not ready within {config.boot_timeout:g} s (service_boot_timeout): {missing}")
        time.sleep(POLL_SECONDS)


def _warm_up(config: Config, slot: str, pids: list[int], left: Callable[[], float]) -> None:
    """Ask each warm-up path several times for each worker, so that caches are full before the first client comes.

    Whatever the app answers will do, but a server error or no answer: that is what clients would get.
    """
    for path in config.warmup_paths:
        count = BURST * max(1, len(pids))
        answers = ask(config.socket(slot), path, config.health_host, max(0.1, left()), count)
        wrong = sorted({status for status in answers.statuses if not 0 < status < HTTPStatus.INTERNAL_SERVER_ERROR})
        if wrong:
            said = answers.error or f"it answers {', '.join(map(str, wrong))}"
            raise GateError(f"the warm-up request {path} (service_warmup_paths) failed: {said}")


def _good_in_a_row(config: Config, slot: str, left: Callable[[], float]) -> str:
    """Ask one at a time; return what went wrong, an empty string where all was good."""
    for _ in range(config.health_successes):
        answers = burst(config, slot, [], 1, left())
        if not answers.good:
            return _complaint(config, answers)
    return ""


def _complaint(config: Config, answers: Answers) -> str:
    bad = sorted({status for status in answers.statuses if status})
    if bad and not answers.error:
        return f"{config.health_path} answers {', '.join(map(str, bad))} (good is 200 to 399)"
    return f"{config.health_path} gave no answer within {config.health_timeout:g} s ({answers.error})"
