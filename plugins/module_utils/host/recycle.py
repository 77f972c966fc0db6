"""Recycling: a worker that takes too much memory is replaced, one at a time, without losing a request.

The worker stops accepting, so its siblings take what comes, and leaves when its last connection is done
(worker/own_worker.py); the server then starts another one. Nothing has to be cleaned up where this is cut off.
"""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from typing import Any

from . import history
from .config import Config, HostError
from .context import Context
from .gate import POLL_SECONDS, GateError, probe, prove
from .locks import locked
from .slots import keep_settings

VERB = "recycle"
#: What the worker class in worker/own_worker.py takes as: leave. Any other worker ignores it.
RETIRE = signal.SIGWINCH
WORKER_CLASS = b"own_worker."
REPLACED, STOPPED, FAILED = "replaced", "stopped", "failed"


class RecycleError(Exception):
    """Recycling does not go on; the message says why. What serves, serves on."""


@dataclass(frozen=True)
class Worker:
    """A live worker: its memory in MiB of PSS, its age in seconds."""

    pid: int
    mib: float
    age: float


def unit(config: Config) -> str:
    """Return the unit that the timer starts."""
    return f"{config.app}-release-recycle.service"


def timer(config: Config) -> str:
    """Return the timer, which the slots' units want where there is a limit."""
    return f"{config.app}-release-recycle.timer"


def sizes(context: Context) -> list[Worker]:
    """Return the live workers, the largest first."""
    kernel, pids = context.kernel, context.pids(context.config.live_slot())
    return sorted(
        (Worker(pid, kernel.memory_mib(pid), kernel.seconds_old(pid)) for pid in pids), key=lambda worker: -worker.mib
    )


def heavy(context: Context) -> list[Worker]:
    """Return the live workers over the limit, the largest first."""
    return [worker for worker in sizes(context) if worker.mib > context.config.worker_memory_max_mib]


def stopped(config: Config) -> str:
    """Return why recycling has stopped for the live release with the present limit, "" where it has not."""
    lines = history.entries(config, history.RECYCLED)
    last = lines[-1] if lines else {}
    same = (last.get("switch"), last.get("limit")) == (config.live_record().at, config.worker_memory_max_mib)
    return str(last.get("reason")) if same and last.get("result") == STOPPED else ""


def recycle(context: Context, by: str) -> dict[str, Any]:
    """Replace the workers over the limit, one after the other; return what was done.

    Raises RecycleError where it must not go on, HostError where it did not begin. A one-worker slot is not touched:
    `alone` in the result asks the caller to switch to the same release in the other slot instead.
    """
    config = context.config
    if not config.worker_memory_max_mib:
        context.report("off: service_worker_memory_max_mib is 0")
        return {"replaced": []}
    replaced: list[int] = []
    # Looking takes no lock: it is done every minute, and must not stand in the way of a deploy.
    while over := heavy(context):
        with locked(config, VERB, by):
            worker = _check(context, over[0])
            if len(context.pids(config.live_slot())) == 1:
                keep_settings(config, str(config.live_slot()))
                return {"replaced": replaced, "alone": _text(config, worker)}
            _replace(context, worker, by)
        replaced.append(worker.pid)
    if not replaced:
        context.report(f"no worker takes more than {config.worker_memory_max_mib:g} MiB")
    return {"replaced": replaced}


def _text(config: Config, worker: Worker) -> str:
    limit = config.worker_memory_max_mib
    return f"worker {worker.pid} takes {worker.mib:.0f} MiB, more than {limit:g} (service_worker_memory_max_mib)"


def _check(context: Context, worker: Worker) -> Worker:
    """Refuse to replace a worker where that would not help, or would do harm."""
    config = context.config
    slot = str(config.live_slot())
    if reason := stopped(config):
        raise RecycleError(f"stopped: {reason}")
    if config.transaction.exists():
        raise HostError(f"a switch was cut off: {config.app}-release recover")
    if WORKER_CLASS not in config.slot_files(slot)["service"].read_bytes():
        raise RecycleError("the workers that run were started without recycling: deploy")
    if worker.age < config.recycle_least_seconds:
        reason = (
            f"{_text(config, worker)} only {worker.age:.0f} s after it was started: the limit is too small for this "
            "app, or it leaks too fast. Nothing is recycled until the limit is another one or the next deploy"
        )
        _note(config, worker, "", STOPPED, reason)
        raise RecycleError(reason)
    proof = probe(context, slot, config.workers_of(slot))
    if not len(proof.answered) == len(proof.pids) == proof.planned:
        raise RecycleError(
            f"{_text(config, worker)}, but only {len(proof.answered)} of {proof.planned} workers answer: not now"
        )
    return worker


def _replace(context: Context, worker: Worker, by: str) -> None:
    """Have a worker leave, and wait until all workers, the new one included, have answered."""
    config, clock = context.config, context.clock
    slot = str(config.live_slot())
    restarts = context.state(slot).restarts
    context.report(f"replacing one: {_text(config, worker)}")
    began = clock.monotonic()
    try:
        with contextlib.suppress(ProcessLookupError):
            context.kernel.kill(worker.pid, RETIRE)
        wait_until_gone(context, worker.pid)
        left = clock.monotonic() - began
        proof = prove(context, slot, config.workers_of(slot), restarts)
    except GateError as error:
        _note(config, worker, by, FAILED, str(error))
        raise RecycleError(f"worker {worker.pid} was asked to leave, but {error}") from error
    _note(config, worker, by, REPLACED, "", left=round(left, 1), seconds=round(clock.monotonic() - began, 1))
    context.report(f"it left after {left:.1f} s; {proof}")


def wait_until_gone(context: Context, pid: int) -> None:
    """Wait for a worker to leave, as long as that may take; GateError where it does not."""
    config, clock = context.config.of(str(context.config.live_slot())), context.clock
    limit = config.leaving_seconds
    deadline = clock.monotonic() + limit
    while pid in context.pids(config.live_slot()):
        if clock.monotonic() > deadline:
            raise GateError(f"worker {pid} has not left within {limit:g} s")
        clock.sleep(POLL_SECONDS)


def _note(config: Config, worker: Worker, by: str, result: str, reason: str, **more: object) -> None:
    record = config.live_record()
    history.note(
        config,
        {
            "verb": VERB, "by": by, "release": record.release, "switch": record.at,
            "worker": worker.pid, "mib": round(worker.mib), "limit": config.worker_memory_max_mib, "result": result,
            "reason": reason, **more,
        },
        history.RECYCLED,
    )  # fmt: skip
