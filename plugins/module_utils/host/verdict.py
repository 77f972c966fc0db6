"""Answers that no waiting will change: all workers say that the health path is not one of the app's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .config import Config
from .sockets import Answers

#: What an app answers by its routes and its rules, not by its state, and what is to be done about it.
CERTAIN = {
    400: "the app does not take the request, which names the host {host}; service_health_host can name another one",
    401: "the app wants a login there; set service_health_path to a path that needs none",
    403: "the app wants a login there; set service_health_path to a path that needs none",
    404: "the app has no such path; set service_health_path to one that it has",
    405: "the app takes no GET there; set service_health_path to a path that does",
    410: "the app has no such path any more; set service_health_path to one that it has",
    422: "the app wants parameters there; set service_health_path to a path that needs none",
}
#: So often each worker has to have said it; and so many bursts in a row, where it is not known which worker answered.
TIMES, BURSTS = 2, 20


@dataclass
class Verdict:
    """Counts how often each worker has given such an answer, and in how many bursts in a row nobody gave another."""

    status: int = 0
    times: dict[int, int] = field(default_factory=dict)
    bursts: int = 0

    def note(self, answers: Answers) -> None:
        """Count a burst. Any answer of another kind begins all anew: somebody may become well."""
        if len(answers.bad) != 1 or set(answers.statuses) != set(answers.bad) or answers.bad[0] not in CERTAIN:
            self.times, self.bursts = {}, 0
            return
        self.status = answers.bad[0]
        self.bursts += 1
        for pid in answers.refused:
            self.times[pid] = self.times.get(pid, 0) + 1

    def is_certain(self, pids: Sequence[int]) -> bool:
        """Return whether all workers have said it often enough."""
        by_all = bool(pids) and all(self.times.get(pid, 0) >= TIMES for pid in pids)
        return bool(self.bursts) and (by_all or self.bursts >= BURSTS)

    def advice(self, config: Config) -> str:
        """Say what it means, and what to do."""
        return CERTAIN[self.status].format(host=config.health_host)
