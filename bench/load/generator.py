"""The open loop: requests start when they are due, whatever became of those before, and each one is accounted for."""

from __future__ import annotations

import asyncio
import math
import resource
import time
from collections.abc import Coroutine, Iterator

from bench.load.report import Failure, Report, Request, WebSocketSession
from bench.load.settings import Settings
from bench.load.traffic import Answer, Traffic, reason
from bench.load.websockets import hold

LATE = 0.1  # seconds after its time from which a request's start counts as late
BURST = 50  # requests started at most before those started get to run
NAP = 0.2  # seconds after which a sleeping schedule looks whether it shall stop


class Generator:
    """One run. `stop` ends it early, from its own event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rows: list[tuple[str, float, float, float, int, str, int, str]] = []  # what Request names
        self.sockets: list[WebSocketSession] = []
        self.failures: list[Failure] = []
        self.sent = 0
        self.late, self.max_lag = 0, 0.0
        self.stopped_at, self.stopped_by = math.inf, "time"
        self.cut = False
        self.over = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    def stop(self, by: str) -> None:
        """Start no more requests; those that are open may end. The second call does not wait for them either."""
        self.cut = self.stopped_at < math.inf
        self.stopped_at, self.stopped_by = min(self.stopped_at, time.monotonic()), by

    async def run(self) -> Report:
        """Run to the end and return what was counted."""
        used, began, wall = _cpu(), time.monotonic(), time.time()
        async with Traffic(self.settings) as traffic:
            for number in range(self.settings.websockets):
                url = f"{traffic.root}/ws"
                self._start(hold(self.settings, url, f"socket {number}", self.over, self._record_socket))
            await self._schedule(traffic, began)
            self.over.set()
            await self._settle()
            connections = sum(client.opened for client in traffic.clients)
            reconnected = sum(client.reconnected for client in traffic.clients)
        report = Report(
            self.settings.url, self.settings.rate, self.settings.mix, began, time.monotonic(), wall, self.stopped_by,
            self.late, self.max_lag, reconnected, connections, _cpu() - used,
            [Request(*row) for row in self.rows], self.sockets, self.failures,
        )  # fmt: skip
        if self.tasks or len(self.rows) != self.sent or report.sent != report.ok + report.failed:
            raise AssertionError(
                f"{self.sent} requests were started, {len(self.rows)} are known, {self.tasks} are open"
            )
        return report

    async def _schedule(self, traffic: Traffic, began: float) -> None:
        """Start every request that is due until time is up or `stop` was called: all of those due before that."""
        order = _mixed(self.settings.shares)
        end = began + self.settings.seconds
        while (due := began + self.sent / self.settings.rate) <= self.stopped_at:
            early = min(due, end) - time.monotonic()
            if early > 0:
                await asyncio.sleep(min(early, NAP))
                continue
            if due >= end:
                return
            self._start(self._one(traffic, next(order), self.sent, due))
            self.sent += 1
            if self.sent % BURST == 0:
                await asyncio.sleep(0)  # when there is much to catch up with, let what was started go out

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _one(self, traffic: Traffic, kind: str, number: int, due: float) -> None:
        """Make one request and keep what came of it, whatever that is."""
        started, answer, why, detail = time.monotonic(), Answer(), "", ""
        self.max_lag = max(self.max_lag, started - due)
        self.late += started - due > LATE
        try:
            await traffic.ask(kind, number, answer)
        except (asyncio.CancelledError, Exception) as error:  # cancelled only when the grace time is over
            why, detail = reason(error)
        finished = time.monotonic()
        self.rows.append((kind, due, started, finished, answer.status, answer.release, answer.worker, why))
        self._note(finished, kind, why, detail)

    def _record_socket(self, session: WebSocketSession, detail: str) -> None:
        self.sockets.append(session)
        self._note(session.ended, "websocket", session.reason, detail)

    def _note(self, at: float, kind: str, why: str, detail: str) -> None:
        if why and len(self.failures) < self.settings.details:
            self.failures.append(Failure(at, kind, why, detail))

    async def _settle(self) -> None:
        """Wait for what is open; what is still open after the grace time is cancelled and so counts as failed."""
        deadline = time.monotonic() + self.settings.grace
        while self.tasks and time.monotonic() < deadline and not self.cut:
            await asyncio.wait(self.tasks, timeout=NAP)
        while self.tasks:
            for task in self.tasks:
                task.cancel()
            await asyncio.wait(self.tasks)


def _mixed(shares: dict[str, float]) -> Iterator[str]:
    """Yield kinds by their shares, spread evenly and in the same order in every run."""
    credit = dict.fromkeys(shares, 0.0)
    while True:
        for kind, share in shares.items():
            credit[kind] += share
        chosen = max(credit, key=lambda kind: credit[kind])
        credit[chosen] -= sum(shares.values())
        yield chosen


def _cpu() -> float:
    """Return the CPU seconds that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
