"""The live workers: how many run and answer, what keeps the others, how often they die, what they take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ...workers.engines import Engine
from ...workers.plan import WORKER_MIB
from .. import log_signs
from ..log_excerpt import Entry, last_exception
from ..records import SlotRecord
from ..sockets import is_good
from .finding import DIFFERS, HURTS_NOW, NOTE, Finding, Snapshot
from .units import CALM, RECENT, last_exception_of_last_start, since_switch, span

#: A worker gives a sign of life each second; after so many without one, its event loop stands still.
STILL_SECONDS = 5.0
#: Starlette's and anyio's default of threads for `def` routes, of one worker.
POOL_THREADS = 40
#: All threads busy and requests waiting for so long is no burst.
FULL_SECONDS = 3.0
#: Descriptors of 100 in use from which on accepting fails any moment.
FULL_PERCENT = 95
#: A worker that takes so many times what was planned for one has grown.
GROWN = 4.0


def do_not_match(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that not as many workers run as were planned, or not all that run answer."""
    if snapshot.is_down:
        return
    proof, path = snapshot.proof, snapshot.context.config.health_path
    running, answering = len(proof.pids), len(proof.answered)
    if running != proof.planned:
        yield Finding(HURTS_NOW, "workers missing", f"{proof.planned} workers planned, {running} run")
    if answering != running:
        bad = sorted({status for status in proof.statuses if status and not is_good(status)})
        trouble = proof.trouble or (f"it answers {', '.join(map(str, bad))}" if bad else "")
        text = f"{running} workers run, {answering} answer {path}" + (f" ({trouble})" if trouble else "")
        reasons = [*_stuck(snapshot), *_excuse(snapshot, bool(bad))]
        yield Finding(HURTS_NOW, "workers do not answer", "; ".join([text, *reasons]))


def _stuck(snapshot: Snapshot) -> Iterator[str]:
    """Say what keeps the workers that do not answer; one sentence for all that are kept by the same."""
    kernel, kinds = snapshot.context.kernel, dict[str, list[str]]()
    for pid in sorted({*snapshot.proof.pids} - {*snapshot.proof.answered}):
        still = kernel.beat_age(pid)
        threads = kernel.threads(pid)
        if kernel.state_of(pid) == "T":
            kinds.setdefault("stopped (SIGSTOP): kill -CONT PID", []).append(str(pid))
        elif still is not None and still >= STILL_SECONDS:
            kinds.setdefault("whose event loop stands still", []).append(f"{pid} for {still:.0f} s")
        elif still is not None and threads >= POOL_THREADS:
            kinds.setdefault("whose event loop turns: its thread pool seems full", []).append(
                f"{pid} with {threads} threads"
            )
    for kind, pids in kinds.items():
        yield f"{kind}: {', '.join(pids)}" if "whose" in kind else f"{', '.join(pids)} {kind}"


def _excuse(snapshot: Snapshot, answers_badly: bool) -> Iterator[str]:
    """Say what the app itself has logged, where it answers with an error."""
    if answers_badly:
        unit = snapshot.context.config.service(snapshot.slot)
        if last := last_exception_of_last_start(snapshot.context, unit, since_switch(snapshot)):
            yield f"its last exception: {last}"


def have_full_pools(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that `def` routes wait for a thread, though an `async` health route answers."""
    pools = [(pid, pool) for pid in snapshot.proof.pids if (pool := snapshot.context.kernel.pool(pid))]
    full = [(pid, pool) for pid, pool in pools if pool.seconds >= FULL_SECONDS]
    if full:
        config = snapshot.context.config
        workers = ", ".join(
            f"{pid} ({pool.busy} threads, {pool.waiting} requests wait) for {pool.seconds:.0f} s" for pid, pool in full
        )
        text = f"the thread pool of {len(full)} of {len(snapshot.proof.pids)} workers is full: {workers}"
        helps = f"find what their `def` routes wait for; {config.app}-release activate {snapshot.record.release}"
        yield Finding(HURTS_NOW, "thread pools full", f"{text}: {helps} starts new ones")


def die(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that workers end by themselves and are replaced: each takes with it what it had in flight."""
    context, config = snapshot.context, snapshot.context.config
    unit, engine = config.service(snapshot.slot), config.engine_of(snapshot.slot)
    seconds = since_switch(snapshot)
    starts = context.systemd.recent(unit, seconds)
    ends = _deaths(starts, engine)
    if not ends or snapshot.is_down:
        return
    lately = _deaths(context.systemd.recent(unit, min(seconds, RECENT)), engine)
    last = _exception_of_the_dead([start for start in starts if _deaths([start], engine)][-1], ends[-1])
    count = "one worker" if len(ends) == 1 else f"{len(ends)} workers"
    text = f"{count} died within {span(seconds)}; the last one: {log_signs.message(ends[-1])}"
    many = len(lately) >= max(5, 2 * snapshot.proof.planned)
    many = many and bool(_deaths(context.systemd.recent(unit, min(seconds, CALM)), engine))
    text = f"workers die again and again: {text}" if many else text
    yield Finding(HURTS_NOW if many else NOTE, "workers die", text + (f"; its last exception: {last}" if last else ""))


def _exception_of_the_dead(start: Iterable[Entry], death: str) -> str:
    """Return the last exception of the worker that a line says has ended; "" where a signal has ended it."""
    worker = re.search(r"(?:pid: ?|process \[)(\d+)", death)
    if worker is None or "was sent SIG" in death:
        return ""
    return last_exception(entry for entry in start if entry.pid == int(worker[1]))


def _deaths(starts: Iterable[Iterable[Entry]], engine: Engine) -> list[str]:
    return [entry.text for start in starts for entry in start if re.search(engine.death, entry.text)]


def lack_descriptors(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that a worker has nearly all the files and connections open that it may have."""
    for pid in snapshot.proof.pids:
        used, limit = snapshot.context.kernel.descriptors(pid)
        if limit and 100 * used >= FULL_PERCENT * limit:
            text = f"worker {pid} has {used} of {limit} file descriptors in use (LimitNOFILE): it can accept nobody"
            helps = f"kill {pid}, or {snapshot.context.config.app}-release activate {snapshot.record.release}"
            yield Finding(HURTS_NOW, "descriptors used up", f"{text}: {helps}")


def have_grown(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that a worker takes several times what a fresh one did, or the plan counts with."""
    usual, origin = usual_mib(snapshot.record)
    largest = max((snapshot.context.kernel.memory_mib(pid) for pid in snapshot.proof.pids), default=0.0)
    if largest >= GROWN * usual:
        config = snapshot.context.config
        text = f"a worker takes {largest:.0f} MiB, {largest / usual:.0f} times the {usual:.0f} that {origin}"
        limit = f"; service_worker_memory_max_mib is {config.worker_memory_max_mib:g}"
        helps = f"{config.app}-release activate {snapshot.record.release} starts new ones"
        yield Finding(NOTE, "workers have grown", f"{text}{limit if config.worker_memory_max_mib else ''}: {helps}")


def usual_mib(record: SlotRecord) -> tuple[float, str]:
    """Return what a worker of a slot is taken for, in MiB, and how that is known.

    What was set or measured under load says what a worker grows to; a fresh one may take more than that.
    """
    inputs = record.plan.inputs
    sizes = (inputs.get("worker_mib"), inputs.get("measured_mib"))
    planned = next((float(size) for size in sizes if isinstance(size, (int, float)) and size), 0.0)
    if record.fresh_mib > planned:
        return float(record.fresh_mib), "a fresh one took"
    return planned or float(WORKER_MIB), "were planned"


def run_another_release(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that the workers were started with another release than the link's slot has on record."""
    # Of one that has just ended, nobody knows.
    others = sorted({*snapshot.proof.releases} - {"", snapshot.record.release})
    if others:
        text = f"release {snapshot.record.release} is recorded as live, the workers run {', '.join(others)}"
        yield Finding(DIFFERS, "another release runs", text)
