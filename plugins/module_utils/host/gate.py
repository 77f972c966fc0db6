"""The gate: the proof that a slot serves. All its workers run, each has answered, and health stays good."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any, NoReturn

from ..workers.plan import count
from .context import Context
from .endings import how_it_fell
from .log_excerpt import cut, plain
from .sockets import Answers
from .systemd import UnitState
from .verdict import CERTAIN, Verdict

POLL_SECONDS = 0.1
#: The longest pause between two looks at a slot that answers with errors: each may log hundreds of lines of traceback,
#: and journald drops what a unit logs beyond 10,000 lines in 30 s: the very lines that say what is wrong.
LONGEST_PAUSE = 1.0
#: Requests at once for each worker: one worker may take several of a burst, so ask for more than one each.
BURST = 4
#: Seconds that the first request to a slot that boots waits for an answer; the next ones wait longer and longer.
FIRST_PATIENCE = 1.0


class GateError(Exception):
    """The slot did not prove itself; the message says what was missing.

    silent: no answer had come when the time was up. died: how many workers have died meanwhile.
    """

    silent: bool = False
    died: int = 0


class CrashError(GateError):
    """The slot's unit fell over. `how` says how its main process ended, as far as systemd told."""

    def __init__(self, what: str, how: str) -> None:
        super().__init__(f"{what}: it {how}")
        self.what, self.how = what, how


class AnswerError(GateError):
    """The health path gave an answer that is not good: `status`, the worst one that was seen last, and what it said."""

    def __init__(self, message: str, status: int, said: str = "") -> None:
        super().__init__(message)
        self.status, self.said = status, said


@dataclass(frozen=True)
class _Missing:
    """What a slot lacks.

    status: of a bad answer; said: its text; open: an answer was not waited for as long as it may take; workers: what
    lacks are workers, which says nothing more once they run.
    """

    text: str
    status: int = 0
    open: bool = False
    workers: bool = False
    said: str = ""


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


def probe(context: Context, slot: str, planned: int, tries: int = 20) -> Proof:
    """Ask a slot until each of its workers has answered, at most `tries` bursts; changes nothing."""
    pids = context.pids(slot)
    answered: set[int] = set()
    last = Answers()
    for number in range(tries if pids else 0):
        # On a busy machine a worker may not get the CPU for a moment: all bursts are not to fall into that one.
        context.clock.sleep(min(0.02 * number, 0.2))
        last = burst(context, slot, pids)
        answered |= last.pids & set(pids)
        if last.error or answered == set(pids):
            break
    return Proof(
        planned=planned,
        pids=tuple(pids),
        answered=tuple(sorted(answered)),
        releases=tuple(sorted({context.kernel.release_of(pid) for pid in pids})),
        statuses=tuple(sorted(set(last.statuses))),
        trouble=last.error,
    )


def burst(context: Context, slot: str, pids: list[int], count: int = 0, limit: float = math.inf) -> Answers:
    """Ask for the slot's health several times at once; `limit` (seconds) can shorten the wait for an answer."""
    config = context.config.of(slot)
    seconds = max(0.1, min(config.health_timeout, limit))
    return context.request(slot, config.health_path, seconds, count or BURST * len(pids), pids)


def prove(context: Context, slot: str, workers: int, restarts: int = 0, low_priority: bool = False) -> str:
    """Wait until the slot may get traffic; return the proof in plain words.

    In order: the unit stays up (`restarts` are known of already), `workers` workers run (0: as many as there are),
    each of them has answered its health check, `health_successes` more answers in a row are good, and the warm-up
    requests were answered. With `low_priority`, it boots with less of the CPU until then. Raises GateError as soon as
    the unit falls over, and otherwise when `boot_timeout` seconds are gone.
    """
    return _Gate(context, slot, workers, restarts, low_priority).pass_through()


class _Gate:
    """One slot at the gate, until it is through."""

    def __init__(self, context: Context, slot: str, workers: int, restarts: int, low_priority: bool) -> None:
        self.context, self.config, self.slot = context, context.config.of(slot), slot
        self.workers, self.restarts, self.low_priority = workers, restarts, low_priority
        self.began = context.clock.monotonic()
        self.deadline = self.began + self.config.boot_timeout
        self.answered: set[int] = set()
        self.patience = FIRST_PATIENCE
        self.pause = POLL_SECONDS
        #: Seconds after which each worker gave its first good answer; workers that run; how many were seen to die.
        self.up_after: dict[int, float] = {}
        self.running: set[int] = set()
        self.died = 0
        #: The last thing that was missing for certain, and how sure it is that no later answer will be another one.
        self.known: _Missing | None = None
        self.verdict = Verdict()

    def left(self) -> float:
        """Return the seconds that are left of the boot timeout."""
        return self.deadline - self.context.clock.monotonic()

    def pass_through(self) -> str:
        while True:
            state = self._require_up()
            pids = self.context.workers(self.slot, state)
            if self.low_priority and state.main_pid:
                self.context.kernel.set_priority(state.main_pid, True)
            missing = self._missing(pids)
            if missing is None:
                break
            self.known = self.known if missing.open and self.known else missing
            if self.verdict.is_certain(pids):
                raise AnswerError(f"{missing.text}: {self.verdict.advice(self.config)}", missing.status)
            if self.left() <= 0:
                self._give_up(self.known, len(pids))
            broken = missing.status and missing.status not in CERTAIN
            self.pause = min(2 * self.pause, LONGEST_PAUSE) if broken else POLL_SECONDS
            self.context.clock.sleep(min(self.pause, max(POLL_SECONDS, self.left())))
        if self.low_priority:
            self.context.kernel.set_priority(state.main_pid, False)
        self._warm_up(len(pids))
        verb = "runs and" if len(pids) == 1 else "run and each"
        return f"{count(len(pids))} {verb} has answered {self.config.health_path}"

    def _give_up(self, missing: _Missing, running: int) -> NoReturn:
        """Say what was missing when the time was up, and what is known of each worker."""
        message = f"not ready within {self.config.boot_timeout:g} s (service_boot_timeout): {missing.text}"
        up = [self.up_after[pid] for pid in self.answered]
        if 0 < len(up) < (self.workers or running):
            after = ", ".join(f"{seconds:.0f} s" for seconds in sorted(up))
            message += f"; {len(up)} of {self.workers or running} workers up, after {after}"
        if self.died:
            message += f"; workers that died meanwhile: {self.died}"
        error = (
            AnswerError(message, missing.status, self._shown(missing.said)) if missing.status else GateError(message)
        )
        error.silent, error.died = missing.open, self.died
        raise error

    def _shown(self, said: str) -> str:
        """Return what an answer said, on one line, without secrets: they are looked for before anything is cut off."""
        return cut(" ".join(self.context.systemd.mask(plain(said)).split()))

    def _require_up(self) -> UnitState:
        state = self.context.state(self.slot)
        if state.restarts > self.restarts or state.down:
            how = how_it_fell(state, self.restarts, state.down)
            raise CrashError(f"{self.config.service(self.slot)} failed while starting", how)
        return state

    def _missing(self, pids: list[int]) -> _Missing | None:
        """Return what the slot still lacks, None where it lacks nothing."""
        self.died += len(self.running - set(pids))
        self.running = set(pids)
        # One that died has to be replaced by one that answers.
        self.answered &= self.running
        if len(pids) != (self.workers or max(1, len(pids))):
            return _Missing(f"{len(pids)} of {self.workers or 1} workers run", workers=True)
        if self.known and self.known.workers and not self.died:
            self.known = None
        if not self.answered:
            first = self._burst(1, min(self.patience, self.left()))
            if first.statuses == [0]:
                # Waiting in the socket's queue takes no CPU from the workers that boot; asking again and again does.
                self.patience += 1
                return _Missing(f"{self.config.health_path} gave no answer yet", open=True)
            if first.bad:
                self.known = self._complaint(first, self.left())
                if first.bad[-1] not in CERTAIN:
                    # The others would say the same, as long as nobody has answered well: one traceback is enough.
                    return self.known
        limit = self.left()
        answers = burst(self.context, self.slot, pids, limit=limit)
        self._note(answers)
        if not answers.good:
            return self._complaint(answers, limit)
        if len(self.answered) < len(pids):
            return _Missing(f"only {len(self.answered)} of {len(pids)} workers have answered {self.config.health_path}")
        return self._successes()

    def _note(self, answers: Answers) -> None:
        """Keep which workers have answered, and how."""
        self.answered |= answers.pids & self.running
        seconds = self.context.clock.monotonic() - self.began
        for pid in answers.pids:
            self.up_after.setdefault(pid, seconds)
        self.verdict.note(answers)

    def _burst(self, count: int, limit: float) -> Answers:
        return burst(self.context, self.slot, [], count, limit)

    def _successes(self) -> _Missing | None:
        """Ask one at a time; return what went wrong, None where all was good."""
        for _unused in range(self.config.health_successes):
            limit = self.left()
            answers = self._burst(1, limit)
            if not answers.good:
                return self._complaint(answers, limit)
        return None

    def _warm_up(self, workers: int) -> None:
        """Ask each warm-up path several times for each worker, so that caches are full before the first client comes.

        Whatever the app answers will do, but a server error or no answer: that is what clients would get.
        """
        for path in self.config.warmup_paths:
            answers = self.context.request(self.slot, path, max(0.1, self.left()), BURST * workers)
            bad = sorted({code for code in answers.statuses if not code or code >= HTTPStatus.INTERNAL_SERVER_ERROR})
            if bad:
                reason = answers.error or f"it answers {', '.join(map(str, bad))}"
                raise GateError(f"the warm-up request {path} (service_warmup_paths) failed: {reason}")

    def _complaint(self, answers: Answers, limit: float) -> _Missing:
        """Say what was wrong. One bad answer says more than others that did not come in time."""
        path, seconds = self.config.health_path, self.config.health_timeout
        if answers.bad:
            text = f"{path} answers {', '.join(map(str, answers.bad))}"
            return _Missing(text, status=answers.bad[-1], said=answers.said)
        return _Missing(f"{path} gave no answer within {seconds:g} s ({answers.error})", open=limit < seconds)
