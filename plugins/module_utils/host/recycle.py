"""Recycling: a worker that takes too much memory is replaced, one at a time, without losing a request.

The worker stops accepting, so its siblings take what comes, and leaves when its last connection is done
(worker/own_worker.py); the server then starts another one. Nothing has to be cleaned up where this is cut off.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from typing import Any

from . import history
from .config import Config, HostError
from .gate import POLL_SECONDS, GateError, look, wait_until_proven
from .lock import holder, locked
from .switch import Say, keep_settings
from .systemd import Systemd
from .workers import memory_mib, seconds_old, worker_pids

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


def sizes(config: Config, systemd: Systemd) -> list[Worker]:
    """Return the live workers, the largest first."""
    found = [Worker(pid, memory_mib(pid), seconds_old(pid)) for pid in _pids(config, systemd)]
    return sorted(found, key=lambda one: -one.mib)


def heavy(config: Config, systemd: Systemd) -> list[Worker]:
    """Return the live workers over the limit, the largest first."""
    return [one for one in sizes(config, systemd) if one.mib > config.worker_memory_max_mib]


def stopped(config: Config) -> str:
    """Return why recycling has stopped for the live release with the present limit, "" where it has not."""
    lines = history.entries(config, history.RECYCLED)
    last = lines[-1] if lines else {}
    same = (last.get("switch"), last.get("limit")) == (config.live_record().get("at"), config.worker_memory_max_mib)
    return str(last.get("reason")) if same and last.get("result") == STOPPED else ""


def recycle(config: Config, systemd: Systemd, by: str, say: Say) -> dict[str, Any]:
    """Replace the workers over the limit, one after the other; return what was done.

    Raises RecycleError where it must not go on, HostError where it did not begin. A one-worker slot is not touched:
    `alone` in the result asks the caller to switch to the same release in the other slot instead.
    """
    if not config.worker_memory_max_mib:
        say("off: service_worker_memory_max_mib is 0")
        return {"replaced": []}
    replaced: list[int] = []
    # Looking takes no lock: it is done every minute, and must not stand in the way of a deploy.
    while found := heavy(config, systemd):
        with locked(config, VERB, by):
            one = _check(config, systemd, found[0])
            if len(_pids(config, systemd)) == 1:
                keep_settings(config, str(config.live_slot()))
                return {"replaced": replaced, "alone": _text(config, one)}
            _replace(config, systemd, one, by, say)
        replaced.append(one.pid)
    if not replaced:
        say(f"no worker takes more than {config.worker_memory_max_mib:g} MiB")
    return {"replaced": replaced}


def make_way(config: Config, systemd: Systemd) -> None:
    """Let a switch go first: recycling can be cut off at any moment, and goes on by itself later."""
    if (holder(config) or {}).get("what") == VERB:
        systemd.stop(unit(config))


def _text(config: Config, one: Worker) -> str:
    limit = config.worker_memory_max_mib
    return f"worker {one.pid} takes {one.mib:.0f} MiB, more than {limit:g} (service_worker_memory_max_mib)"


def _pids(config: Config, systemd: Systemd) -> list[int]:
    slot = config.live_slot()
    main_pid = systemd.state(config.service(slot)).main_pid if slot else 0
    return worker_pids(main_pid, config.engine_of(str(slot))) if main_pid else []


def _check(config: Config, systemd: Systemd, one: Worker) -> Worker:
    """Refuse to replace a worker where that would not help, or would do harm."""
    slot = str(config.live_slot())
    if reason := stopped(config):
        raise RecycleError(f"stopped: {reason}")
    if config.transaction.exists():
        raise HostError(f"a switch was cut off: {config.app}-release recover")
    if WORKER_CLASS not in config.slot_files(slot)["service"].read_bytes():
        raise RecycleError("the workers that run were started without recycling: deploy")
    if one.age < config.recycle_least_seconds:
        reason = (
            f"{_text(config, one)} only {one.age:.0f} s after it was started: the limit is too small for this app, or "
            "it leaks too fast. Nothing is recycled until the limit is another one or the next deploy"
        )
        _note(config, one, "", STOPPED, reason)
        raise RecycleError(reason)
    proof = look(config, systemd, slot, config.workers_of(slot))
    if not len(proof.answered) == len(proof.pids) == proof.planned:
        raise RecycleError(
            f"{_text(config, one)}, but only {len(proof.answered)} of {proof.planned} workers answer: not now"
        )
    return one


def _replace(config: Config, systemd: Systemd, one: Worker, by: str, say: Say) -> None:
    """Have a worker leave, and wait until all workers, the new one included, have answered."""
    slot = str(config.live_slot())
    restarts = systemd.state(config.service(slot)).restarts
    say(f"replacing one: {_text(config, one)}")
    began = time.monotonic()
    try:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, RETIRE)
        _wait_until_gone(config, systemd, one.pid)
        left = time.monotonic() - began
        proof = wait_until_proven(config, systemd, slot, config.workers_of(slot), restarts)
    except GateError as error:
        _note(config, one, by, FAILED, str(error))
        raise RecycleError(f"worker {one.pid} was asked to leave, but {error}") from error
    _note(config, one, by, REPLACED, "", left=round(left, 1), seconds=round(time.monotonic() - began, 1))
    say(f"it left after {left:.1f} s; {proof}")


def _wait_until_gone(config: Config, systemd: Systemd, pid: int) -> None:
    """Wait for a worker to leave. After the drain time, the server's heartbeat ends what is still in flight."""
    limit = config.drain_timeout + config.worker_timeout + 10
    deadline = time.monotonic() + limit
    while pid in _pids(config, systemd):
        if time.monotonic() > deadline:
            raise GateError(f"worker {pid} has not left within {limit:g} s")
        time.sleep(POLL_SECONDS)


def _note(config: Config, one: Worker, by: str, result: str, reason: str, **more: object) -> None:
    record = config.live_record()
    history.note(
        config,
        {
            "verb": VERB, "by": by, "release": record.get("release"), "switch": record.get("at"),
            "worker": one.pid, "mib": round(one.mib), "limit": config.worker_memory_max_mib, "result": result,
            "reason": reason, **more,
        },
        history.RECYCLED,
    )  # fmt: skip
