"""What a load has counted, as a value: from and to JSON, with its figures and a table for people."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from bench.load.settings import KINDS, SHORT

Window = tuple[float, float]  # [start, end) in monotonic seconds


class Request(NamedTuple):
    """One request. Times are monotonic seconds; `reason` is empty where the answer was right."""

    kind: str
    scheduled: float
    started: float  # later than scheduled by what the generator itself was late
    finished: float
    status: int  # 0: no answer
    release: str  # header X-Release, empty without
    worker: int  # header X-Worker-Pid, 0 without
    reason: str

    @property
    def latency(self) -> float:
        """Seconds from when it was due to the last byte of its answer."""
        return self.finished - self.scheduled


class WebSocketSession(NamedTuple):
    """One WebSocket from handshake to end. Times are monotonic seconds."""

    began: float
    opened: float  # 0: the handshake failed
    ended: float
    release: str
    worker: int
    sent: int
    echoed: int
    closed_by: str  # "client", "server" (with a close frame), or "" where it just broke off
    code: int  # of the close frame; 1006: there was none
    reason: str  # empty: nothing was lost, and who closed it said so


class Failure(NamedTuple):
    """Details of one failed request or WebSocket."""

    at: float  # monotonic seconds
    kind: str  # a kind of request, or "websocket"
    reason: str
    detail: str


class Seen(NamedTuple):
    """When a release answered: monotonic seconds of its first and last answer, and how many there were."""

    first: float
    last: float
    answers: int


@dataclass(frozen=True)
class Report:
    """A finished run. A WebSocket session counts as one in `sent`, `ok` and `failed`."""

    url: str
    rate: float
    mix: str
    began: float  # monotonic
    ended: float
    began_epoch: float  # the wall clock at `began`
    stopped_by: str  # "time", "signal", "stdin"
    late: int  # requests started more than LATE seconds after their time
    max_lag: float  # seconds, of the request that started latest
    reconnected: int  # keep-alive connections that the server closed while idle, found closed before use
    connections: int  # TCP connections made for requests
    cpu_seconds: float
    requests: list[Request]
    websockets: list[WebSocketSession]
    failures: list[Failure]  # the first ones, with details

    @property
    def everything(self) -> list[Request | WebSocketSession]:
        """All that was started."""
        return [*self.requests, *self.websockets]

    @property
    def sent(self) -> int:
        """Requests and WebSockets started."""
        return len(self.everything)

    @property
    def failed(self) -> int:
        """Those without a right answer, for whatever reason."""
        return sum(1 for each in self.everything if each.reason)

    lost = failed

    @property
    def ok(self) -> int:
        """Those with a right answer."""
        return sum(1 for each in self.everything if not each.reason)

    @property
    def unfinished(self) -> int:
        """Those of the failed ones that were still open when the grace time was over."""
        return self.reasons["unfinished"]

    @property
    def reasons(self) -> Counter[str]:
        """How many failed for which reason."""
        return Counter(each.reason for each in self.everything if each.reason)

    def latency(self, part: float, window: Window | None = None, kinds: Collection[str] = SHORT) -> float:
        """Return a quantile (0 to 1) of the seconds that right answers took, counted from when they were due.

        With a window, of the requests due in it. By default of the short kinds; a long request says nothing here.
        Failed ones are not in it, so look at `failed` first. ValueError where there is no answer.
        """
        found = sorted(
            each.latency
            for each in self.requests
            if each.kind in kinds and not each.reason and (not window or window[0] <= each.scheduled < window[1])
        )
        if not found:
            raise ValueError(f"no answer to any of {', '.join(kinds)} in {window or 'the run'}")
        return found[max(0, math.ceil(part * len(found)) - 1)]

    def p50(self, window: Window | None = None) -> float:
        """Return the median latency in seconds."""
        return self.latency(0.5, window)

    def p90(self, window: Window | None = None) -> float:
        """Return the latency in seconds that 90 % do not exceed."""
        return self.latency(0.9, window)

    def p99(self, window: Window | None = None) -> float:
        """Return the latency in seconds that 99 % do not exceed."""
        return self.latency(0.99, window)

    def max(self, window: Window | None = None) -> float:
        """Return the longest latency in seconds."""
        return self.latency(1, window)

    @property
    def releases(self) -> dict[str, Seen]:
        """When each release answered, in the order of their first answers."""
        found: dict[str, Seen] = {}
        for each in sorted(self.requests, key=lambda each: each.finished):
            if each.release:
                before = found.get(each.release, Seen(each.finished, 0, 0))
                found[each.release] = Seen(before.first, each.finished, before.answers + 1)
        return found

    def per_second(self) -> list[Counter[str]]:
        """Return, for each second since `began`, how many answers of which release came."""
        seconds: list[Counter[str]] = [Counter() for _ in range(int(self.ended - self.began) + 1)]
        for each in self.requests:
            if each.status:
                seconds[int(each.finished - self.began)][each.release] += 1
        return seconds

    def started_after(self, moment: float, release: str) -> list[Request]:
        """Return the requests started after a moment and yet answered by that release: an old one, say."""
        return [each for each in self.requests if each.started > moment and each.release == release]

    @property
    def cpu_per_1000(self) -> float:
        """The generator's own CPU seconds per 1000 requests."""
        return self.cpu_seconds / max(self.sent, 1) * 1000

    def summary(self) -> dict[str, Any]:
        """Return the figures that are computed; JSON has them for readers without this class."""
        shorts = [each for each in self.requests if each.kind in SHORT and not each.reason]
        quantiles = {"p50": self.p50(), "p90": self.p90(), "p99": self.p99(), "max": self.max()} if shorts else {}
        return {
            "sent": self.sent, "ok": self.ok, "failed": self.failed, "unfinished": self.unfinished,
            "reasons": self.reasons, "latency": {name: round(value, 6) for name, value in quantiles.items()},
            "releases": {release: seen._asdict() for release, seen in self.releases.items()},
            "per_second": self.per_second(), "cpu_per_1000": round(self.cpu_per_1000, 4),
        }  # fmt: skip

    def write(self, path: Path) -> None:
        """Write all of it as JSON."""
        shallow = {**asdict(replace(self, requests=[])), "requests": self.requests}  # asdict copies deeply
        path.write_text(json.dumps({"summary": self.summary(), **shallow, "columns": Request._fields}) + "\n")

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read what `write` has written. ValueError where the file is not whole."""
        found = json.loads(path.read_text())
        summary = found.pop("summary")
        del found["columns"]
        for name, kind in (("requests", Request), ("websockets", WebSocketSession), ("failures", Failure)):
            found[name] = [kind(*each) for each in found[name]]
        report = cls(**found)
        if summary["sent"] != report.sent or summary["failed"] != report.failed:
            raise ValueError(f"{path} is not whole")
        return report

    def table(self) -> str:
        """Return the figures for people."""
        lines = [f"{self.url}: {self.ended - self.began:.1f} s, {self.rate:g} requests/s, ended by {self.stopped_by}"]
        lines.append(f"{'KIND':10}{'SENT':>8}{'OK':>8}{'FAILED':>8}{'P50':>9}{'P90':>9}{'P99':>9}{'MAX':>9}  ms")
        for kind in KINDS:
            lines += self._row(kind, [each for each in self.requests if each.kind == kind])
        lines += self._row("websocket", self.websockets)
        for release, seen in self.releases.items():
            first, last = seen.first - self.began, seen.last - self.began
            lines.append(f"release {release}: {seen.answers} answers, {first:.2f} to {last:.2f} s")
        codes = Counter(f"{each.closed_by or 'nobody'} {each.code}" for each in self.websockets)
        if codes:
            lines.append("WebSockets closed by: " + ", ".join(f"{code} ×{count}" for code, count in codes.items()))
        lines.append(
            f"{self.connections} connections, {self.reconnected} found closed while idle; "
            f"{self.cpu_per_1000:.2f} CPU s per 1000 requests; largest lag {self.max_lag * 1000:.0f} ms"
        )
        if self.late:
            lines.append(f"THE GENERATOR FELL BEHIND: {self.late} requests started late. Latencies include that.")
        lines += [f"failed: {count} × {reason}" for reason, count in self.reasons.most_common()]
        lines += [
            f"  {each.at - self.began:.3f} s {each.kind}: {each.reason} {each.detail}" for each in self.failures[:5]
        ]
        lines.append(f"sent {self.sent} = ok {self.ok} + failed {self.failed}")
        return "\n".join(lines)

    def _row(self, kind: str, members: Sequence[Request | WebSocketSession]) -> list[str]:
        """Return a kind's row, or none where nothing of the kind was sent."""
        failed = sum(1 for each in members if each.reason)
        if not members:
            return []
        row = f"{kind:10}{len(members):8}{len(members) - failed:8}{failed:8}"
        if kind in KINDS and failed < len(members):
            row += "".join(f"{self.latency(part, kinds=[kind]) * 1000:9.1f}" for part in (0.5, 0.9, 0.99, 1))
        return [row]
