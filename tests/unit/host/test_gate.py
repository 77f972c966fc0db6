"""The gate: what a slot has to show before it may have traffic, in which order, and how long it may take."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.host.config import Config
from plugins.module_utils.host.context import Clock, Context, Kernel
from plugins.module_utils.host.gate import (
    BURST,
    FIRST_PATIENCE,
    LONGEST_PAUSE,
    POLL_SECONDS,
    AnswerError,
    GateError,
    probe,
    prove,
)
from plugins.module_utils.host.sockets import Answers
from plugins.module_utils.host.systemd import Systemd, UnitState
from plugins.module_utils.workers.plan import WorkerPlan

MAIN = 7
PROVED = "3 workers run and each has answered /health"


class Slot(Systemd):
    """A green slot that boots: its unit, its workers, and what they answer. Only asking and sleeping take time.

    A burst is answered by as many workers as `reach` says, another part of them each time.
    """

    def __init__(self, **settings: Any) -> None:
        self.unit = UnitState("active", "success", MAIN, 0)
        self.pids = [11, 12, 13]
        self.status, self.error, self.reach, self.said = 200, "", 3, ""
        self.now, self.answer_seconds = 100.0, 0.0
        #: What was asked for: path, how many at once, seconds to wait.
        self.asked: list[tuple[str, int, float]] = []
        self.priorities: list[bool] = []
        self.mask = lambda text: text.replace("hunter2", "***")
        #: What happens at a moment: the time, then what is to be called.
        self.later: list[tuple[float, dict[str, object]]] = []
        plan = WorkerPlan(3)
        self.config = Config(
            "counter", Path(), Path("/run/counter"), Path(), Path(), plan, "",
            **{"boot_timeout": 10.0, "health_timeout": 5.0, "health_successes": 2, **settings},
        )  # fmt: skip

    def at(self, seconds: float, change: dict[str, object]) -> None:
        """Change the slot so many seconds from now."""
        self.later.append((self.now + seconds, change))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < 1000, "this would not end"
        for moment, change in [entry for entry in self.later if entry[0] <= self.now]:
            self.later.remove((moment, change))
            vars(self).update(change)

    def state(self, unit: str) -> UnitState:
        assert unit == "counter@green.service"
        return self.unit

    def ask(self, path: Path, url: str, host: str, timeout: float, count: int, pids: Iterable[int]) -> Answers:
        assert (path, host) == (Path("/run/counter/green.sock"), "localhost")
        self.asked.append((url, count, timeout))
        self.pass_time(self.answer_seconds)
        if self.error:
            self.pass_time(timeout)
            return Answers([0] * count, error=self.error)
        turn = len(self.asked) % max(1, len(self.pids))
        reached = [*self.pids, *self.pids][turn : turn + min(self.reach, len(self.pids))] if list(pids) else []
        if not 200 <= self.status < 400:
            return Answers([self.status] * count, refused=dict.fromkeys(reached, self.status), said=self.said)
        return Answers([self.status] * count, set(reached))

    def context(self) -> Context:
        kernel = Kernel(
            worker_pids=lambda main_pid, _: {MAIN: list(self.pids)}[main_pid],
            set_priority=lambda _, low: self.priorities.append(low),
            release_of=lambda pid: "aaa" if pid != 99 else "bbb",
        )
        return Context(
            self.config, self, clock=Clock(lambda: self.now, self.pass_time), kernel=kernel, ask=self.ask
        )  # fmt: skip

    def prove(self, workers: int = 3, restarts: int = 0, low_priority: bool = False) -> str:
        return prove(self.context(), "green", workers, restarts, low_priority)


@pytest.fixture
def slot() -> Slot:
    return Slot()


def fails(slot: Slot, message: str, workers: int = 3, restarts: int = 0) -> float:
    """Check that the slot does not get through, and why; return the seconds that it took."""
    began = slot.now
    with pytest.raises(GateError, match=message):
        slot.prove(workers, restarts)
    return slot.now - began


def test_a_slot_that_is_well_gets_through_at_once(slot: Slot) -> None:
    assert slot.prove() == PROVED
    assert slot.now == 100.0


def test_what_is_asked_one_patient_request_then_a_burst_then_one_at_a_time(slot: Slot) -> None:
    slot.prove()
    counts = [count for _, count, _ in slot.asked]
    assert counts == [1, 12, 1, 1], "four for each of three workers"
    assert slot.asked[0][2] == FIRST_PATIENCE
    assert {url for url, _, _ in slot.asked} == {"/health"}
    assert slot.asked[1][2] == 5.0


# --- the unit -------------------------------------------------------------------------------------


@pytest.mark.parametrize("active", ["failed", "inactive"])
def test_a_unit_that_fell_over_ends_it_at_once(slot: Slot, active: str) -> None:
    slot.unit = UnitState(active, "exit-code", 0, 0, exit_code=1, exit_status=3)
    assert fails(slot, "^counter@green.service failed while starting: it exited with status 3$") == 0


def test_a_unit_that_is_about_to_start_is_waited_for(slot: Slot) -> None:
    slot.unit = UnitState("inactive", "success", 0, 0, queued=True)
    slot.at(2, {"unit": UnitState("active", "success", MAIN, 0)})
    assert slot.prove() == PROVED
    assert 102 <= slot.now < 103


def test_a_unit_that_systemd_started_anew_fell_over_but_for_restarts_of_before(slot: Slot) -> None:
    slot.unit = dataclasses.replace(slot.unit, restarts=2)
    assert fails(slot, "it ended and was started again once", restarts=1) == 0
    assert slot.prove(restarts=2) == PROVED
    slot.at(1, {"unit": dataclasses.replace(slot.unit, restarts=3)})
    slot.pids = []
    assert fails(slot, "it ended and was started again once", restarts=2) < 2


def test_unless_told_no_restart_is_known_of_and_nobody_else_needs_the_cpu(slot: Slot) -> None:
    assert prove(slot.context(), "green", 3) == PROVED
    assert slot.priorities == []
    slot.unit = dataclasses.replace(slot.unit, restarts=1)
    with pytest.raises(GateError, match="ended and was started again once"):
        prove(slot.context(), "green", 3)


# --- the workers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("pids", [[], [11], [11, 12], [11, 12, 13, 14]])
def test_exactly_the_planned_number_of_workers_has_to_run(slot: Slot, pids: list[int]) -> None:
    slot.pids = pids
    assert 10 <= fails(slot, rf"not ready within 10 s \(service_boot_timeout\): {len(pids)} of 3 workers run") < 10.2
    assert slot.asked == [], "nobody is asked before"


def test_without_a_number_as_many_as_there_are_will_do_but_not_none(slot: Slot) -> None:
    slot.pids = [11]
    assert slot.prove(workers=0) == "1 worker runs and has answered /health"
    slot.pids = []
    fails(slot, "0 of 1 workers run", workers=0)


def test_each_worker_has_to_answer_not_only_some(slot: Slot) -> None:
    slot.reach = 2
    assert slot.prove() == PROVED
    assert slot.now > 100, "one burst did not do"
    hidden = Slot()
    hidden.reach = 0
    fails(hidden, "only 0 of 3 workers have answered /health")


def test_a_worker_that_answered_and_died_is_not_counted_for_the_one_in_its_place(slot: Slot) -> None:
    """11 and 12 have answered; then 11 dies, and who comes for it never answers."""
    slot.reach = 2
    answered = {11, 12}

    def ask(path: Path, url: str, host: str, timeout: float, count: int, pids: Iterable[int]) -> Answers:
        slot.pass_time(0.05)
        return Answers([200] * count, answered & set(pids))

    slot.ask = ask  # type: ignore[method-assign]
    slot.at(1, {"pids": [12, 13, 14]})
    fails(slot, "only 1 of 3 workers have answered /health")


# --- health ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "good"), [(199, False), (200, True), (399, True), (400, False), (503, False)])
def test_good_is_200_to_399(slot: Slot, status: int, good: bool) -> None:
    slot.status = status
    if good:
        assert slot.prove() == PROVED
    else:
        fails(slot, f"/health answers {status}")


def test_no_request_waits_longer_than_is_left_of_the_boot_timeout_but_a_tenth_of_a_second(slot: Slot) -> None:
    slot.status, slot.answer_seconds = 404, 3.0
    slot.reach = 0
    fails(slot, "not ready within 10 s .*: /health answers 404")
    assert slot.asked[:2] == [("/health", 1, 1.0), ("/health", 12, 5.0)]
    path, count, seconds = slot.asked[-1]
    assert (path, count) == ("/health", 12)
    assert seconds == pytest.approx(0.9), "asked 9.1 s after it began"
    late = Slot(warmup_paths=("/a",))
    late.answer_seconds = 4.0
    assert late.prove() == PROVED
    assert [each for _, _, each in late.asked] == [1.0, 5.0, 2.0, 0.1, 0.1], "it is well, only late"


def test_a_boot_timeout_is_over_when_none_of_it_is_left() -> None:
    slot = Slot(boot_timeout=1.0)
    slot.error = "timed out"
    assert fails(slot, r"not ready within 1 s \(service_boot_timeout\): /health gave no answer yet") == 1
    assert len(slot.asked) == 1


def test_workers_that_run_by_now_are_not_what_is_missing() -> None:
    slot = Slot(boot_timeout=3.0)
    slot.pids, slot.error = [11], "timed out"
    slot.at(0.5, {"pids": [11, 12, 13]})
    assert fails(slot, r"not ready within 3 s \(service_boot_timeout\): /health gave no answer yet$") < 3.2


def test_workers_that_stop_answering_are_told_of_with_the_reason() -> None:
    """The first request was answered, so it is no slot that boots."""
    slot = Slot(boot_timeout=6.0)
    slot.answer_seconds = 0.5
    slot.at(0.6, {"error": "refused"})
    fails(slot, r"not ready within 6 s .*: /health gave no answer within 5 s \(refused\)")


def test_an_app_that_becomes_well_in_time_gets_through(slot: Slot) -> None:
    slot.status = 503
    slot.at(9, {"status": 200})
    assert slot.prove() == PROVED
    assert 109 <= slot.now < 109 + LONGEST_PAUSE + POLL_SECONDS


def test_who_answers_with_an_error_is_asked_once_a_second_and_by_one_request(slot: Slot) -> None:
    """Each of 20 requests at once, ten times a second, would log a traceback: journald would drop the most of them."""
    slot.status = 500
    fails(slot, "not ready within 10 s .*: /health answers 500")
    assert {count for _, count, _ in slot.asked} == {1}
    assert 10 <= len(slot.asked) <= 15


def test_who_gives_no_answer_is_asked_with_growing_patience_and_one_request(slot: Slot) -> None:
    slot.error = "timed out"
    assert fails(slot, "not ready within 10 s .*: /health gave no answer yet") <= 10 + 2 * POLL_SECONDS
    assert {count for _, count, _ in slot.asked} == {1}, "workers that boot are not to be kept from it"
    waits = [seconds for _, _, seconds in slot.asked]
    assert waits[:3] == [1.0, 2.0, 3.0]
    assert waits[-1] < 4, "no longer than is left"


def test_no_answer_waits_no_longer_than_the_health_timeout() -> None:
    slot = Slot(health_timeout=1.5, boot_timeout=60.0)
    slot.error = "timed out"
    slot.at(20, {"error": ""})
    slot.prove()
    assert max(seconds for _, _, seconds in slot.asked) == 1.5


@pytest.mark.parametrize("successes", [1, 2, 5])
def test_health_has_to_be_good_so_many_times_more_in_a_row(successes: int) -> None:
    slot = Slot(health_successes=successes)
    slot.prove()
    assert [count for _, count, _ in slot.asked] == [1, BURST * 3, *[1] * successes]


def test_one_bad_answer_in_the_row_begins_it_anew(slot: Slot) -> None:
    slot.answer_seconds = 0.5
    # The fourth request, the second one of the row, falls into this moment.
    slot.at(1.9, {"status": 500})
    slot.at(2.4, {"status": 200})
    assert slot.prove() == PROVED
    assert len(slot.asked) > 4
    assert slot.asked[-2:] == [("/health", 1, 5.0), ("/health", 1, 5.0)]


def test_a_burst_with_one_bad_answer_is_not_good(slot: Slot) -> None:
    def ask(path: Path, url: str, host: str, timeout: float, count: int, pids: Iterable[int]) -> Answers:
        slot.pass_time(0.05)
        return Answers([200] * (count - 1) + [500 if count > 1 else 200], set(pids))

    slot.ask = ask  # type: ignore[method-assign]
    fails(slot, "/health answers 500$")


# --- what is said when the time is up -------------------------------------------------------------


@pytest.mark.fault(53)
@pytest.mark.parametrize("boot", [5.0, 15.0, 20.0, 60.0])
@pytest.mark.parametrize("answer_seconds", [0.01, 0.7, 2.0])
def test_a_500_is_told_whatever_the_boot_timeout_cuts_off(boot: float, answer_seconds: float) -> None:
    """The last burst gets what is left of the time, and so no answer: what was seen before says more."""
    slot = Slot(boot_timeout=boot)

    def ask(path: Path, url: str, host: str, timeout: float, count: int, pids: Iterable[int]) -> Answers:
        took = answer_seconds * (1 if count == 1 else 2)
        slot.pass_time(min(took, timeout))
        return Answers([0] * count, error="timed out") if took > timeout else Answers([500] * count)

    slot.ask = ask  # type: ignore[method-assign]
    assert (
        boot <= fails(slot, rf"^not ready within {boot:g} s \(service_boot_timeout\): /health answers 500$") < boot + 1
    )


def test_what_a_bad_answer_has_in_it_is_told_without_secrets(slot: Slot) -> None:
    def told(said: str) -> str:
        slot.status, slot.said = 503, said
        with pytest.raises(AnswerError, match="answers 503") as refused:
            slot.prove()
        return refused.value.said

    assert told('{"detail":"redis:hunter2 is away"}') == '{"detail":"redis:*** is away"}'
    assert told('{"detail":\n "redis is\x1b[31m away"}') == '{"detail": "redis is away"}', "one line"
    assert told("x" * 9000) == f"{'x' * 300} …"
    assert told(f"{'x' * 297}hunter2") == f"{'x' * 297}***", "no half of a secret is left where it is cut"


def test_one_bad_answer_says_more_than_others_that_did_not_come(slot: Slot) -> None:
    def ask(path: Path, url: str, host: str, timeout: float, count: int, pids: Iterable[int]) -> Answers:
        slot.pass_time(timeout)
        return Answers([503, *[0] * (count - 1)], error="timed out")

    slot.ask = ask  # type: ignore[method-assign]
    fails(slot, r"service_boot_timeout\): /health answers 503$")


def test_who_hangs_for_as_long_as_an_answer_may_take_is_told_although_it_answered_before(slot: Slot) -> None:
    slot.status = 503
    slot.config = dataclasses.replace(slot.config, boot_timeout=20.0)
    slot.at(1, {"error": "timed out"})
    fails(slot, r"/health answers 503")
    slot = Slot(boot_timeout=20.0)
    slot.at(1.5, {"error": "timed out"})
    slot.reach = 2
    slot.answer_seconds = 0.6
    fails(slot, r"/health gave no answer within 5 s \(timed out\); [12] of 3 workers up, after 1 s")


@pytest.mark.fault(53)
@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (404, "the app has no such path; set service_health_path"), (405, "the app takes no GET there"),
        (401, "the app wants a login there"), (403, "the app wants a login there"), (422, "wants parameters"),
        (400, "names the host localhost; service_health_host can name another one"),
    ],
)  # fmt: skip
def test_what_no_waiting_changes_is_refused_once_each_worker_has_said_it_twice(
    slot: Slot, status: int, advice: str
) -> None:
    slot.status, slot.reach = status, 1
    with pytest.raises(AnswerError, match=f"^/health answers {status}: .*{advice}") as refused:
        slot.prove()
    assert refused.value.status == status
    assert slot.now < 103


def test_a_404_is_waited_for_while_another_worker_answers_otherwise(slot: Slot) -> None:
    def ask(path: Path, url: str, host: str, timeout: float, count: int, pids: Iterable[int]) -> Answers:
        slot.pass_time(0.05)
        return Answers([404] * (count - 1) + [200 if slot.now < 104 else 404], refused=dict.fromkeys(pids, 404))

    slot.ask = ask  # type: ignore[method-assign]
    assert 4 < fails(slot, "/health answers 404: the app has no such path") < 5


def test_a_404_of_workers_that_hide_is_believed_after_many(slot: Slot) -> None:
    slot.status, slot.reach = 404, 0
    assert 1 < fails(slot, "^/health answers 404: ") < 5


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_what_waiting_may_change_is_waited_for(slot: Slot, status: int) -> None:
    slot.status = status
    slot.at(9, {"status": 200})
    assert slot.prove() == PROVED


def test_slow_workers_are_told_with_the_time_that_the_others_took() -> None:
    slot = Slot(boot_timeout=60.0)
    up: set[int] = set()

    def ask(path: Path, url: str, host: str, timeout: float, count: int, pids: Iterable[int]) -> Answers:
        slot.pass_time(0.05)
        up.update({11} if slot.now >= 131 else (), {12} if slot.now >= 148 else ())
        if not up:
            slot.pass_time(timeout)
            return Answers([0] * count, error="timed out")
        return Answers([200] * count, up & set(pids))

    slot.ask = ask  # type: ignore[method-assign]
    fails(slot, "only 2 of 3 workers have answered /health; 2 of 3 workers up, after 3[1-6] s, 48 s")


@pytest.mark.fault(64)
def test_workers_that_die_again_and_again_are_counted(slot: Slot) -> None:
    for second in range(1, 9):
        slot.at(second, {"pids": [] if second % 2 else [second, second + 1, second + 2]})
    slot.at(8.5, {"pids": []})
    slot.error = "timed out"
    fails(slot, r"0 of 3 workers run; workers that died meanwhile: \d+")


def test_of_a_burst_in_which_one_got_no_answer_that_is_told(slot: Slot) -> None:
    def ask(path: Path, url: str, host: str, timeout: float, count: int, pids: Iterable[int]) -> Answers:
        slot.pass_time(0.05)
        return Answers([200] * (count - 1) + [0], set(pids), "timed out") if count > 1 else Answers([200])

    slot.ask = ask  # type: ignore[method-assign]
    fails(slot, r"/health gave no answer within 5 s \(timed out\)")


# --- warm-up and priority -------------------------------------------------------------------------


def test_each_warm_up_path_is_asked_for_once_health_is_proved() -> None:
    slot = Slot(warmup_paths=("/a", "/b"))
    assert slot.prove() == PROVED
    assert slot.asked[-2:] == [("/a", 12, 10.0), ("/b", 12, 10.0)], "each may take all that is left to boot"


def test_a_warm_up_that_gets_no_answer_says_why(slot: Slot) -> None:
    slot = Slot(warmup_paths=("/a",))
    health = slot.ask

    def ask(path: Path, url: str, host: str, timeout: float, count: int, pids: Iterable[int]) -> Answers:
        refused = Answers([0] * count, error="timed out")
        return refused if url == "/a" else health(path, url, host, timeout, count, pids)

    slot.ask = ask  # type: ignore[method-assign]
    fails(slot, r"the warm-up request /a \(service_warmup_paths\) failed: timed out$")


@pytest.mark.parametrize(("status", "refused"), [(200, False), (404, False), (499, False), (500, True), (0, True)])
def test_a_warm_up_that_clients_would_see_fail_refuses_it(status: int, refused: bool) -> None:
    slot = Slot(warmup_paths=("/a",))
    health = slot.ask

    def ask(path: Path, url: str, host: str, timeout: float, count: int, pids: Iterable[int]) -> Answers:
        return Answers([200] * (count - 1) + [status]) if url == "/a" else health(path, url, host, timeout, count, pids)

    slot.ask = ask  # type: ignore[method-assign]
    if refused:
        fails(slot, r"the warm-up request /a \(service_warmup_paths\) failed: it answers")
    else:
        assert slot.prove() == PROVED


def test_a_slot_boots_with_less_of_the_cpu_until_it_is_proved(slot: Slot) -> None:
    slot.status = 503
    slot.at(1, {"status": 200})
    slot.prove(low_priority=True)
    assert slot.priorities[0] is True
    assert slot.priorities[-1] is False
    assert slot.priorities.count(False) == 1
    other = Slot()
    other.prove()
    assert other.priorities == [], "nobody else serves: it may take all there is"


# --- a probe of a slot that serves ----------------------------------------------------------------


def test_a_probe_asks_until_all_have_answered(slot: Slot) -> None:
    slot.reach = 1
    proof = probe(slot.context(), "green", 3)
    assert (proof.pids, proof.answered, proof.releases, proof.trouble) == ((11, 12, 13), (11, 12, 13), ("aaa",), "")
    assert proof.as_dict()["running"] == proof.as_dict()["answering"] == 3


def test_a_probe_gives_up_after_its_tries_and_at_once_where_there_is_no_answer(slot: Slot) -> None:
    slot.reach = 0
    assert probe(slot.context(), "green", 3, tries=5).answered == ()
    assert len(slot.asked) == 5
    slot.error = "refused"
    proof = probe(slot.context(), "green", 3)
    assert (proof.trouble, proof.statuses, len(slot.asked)) == ("refused", (0,), 6)


def test_a_probe_spreads_its_tries_over_three_seconds_the_first_at_once(slot: Slot) -> None:
    """On a busy machine a worker may not get the CPU for a moment."""
    slot.reach = 0
    moments: list[float] = []
    ask = slot.ask

    def asked(path: Path, url: str, host: str, timeout: float, count: int, pids: Iterable[int]) -> Answers:
        moments.append(slot.now - 100)
        return ask(path, url, host, timeout, count, pids)

    slot.ask = asked  # type: ignore[method-assign]
    proof = probe(slot.context(), "green", 3)
    assert (len(moments), proof.planned, proof.statuses) == (20, 3, (200,))
    assert moments[:4] == pytest.approx([0, 0.02, 0.06, 0.12])
    assert moments[-2:] == pytest.approx([2.7, 2.9]), "no longer than a fifth of a second between two"


def test_a_probe_counts_only_workers_that_still_run(slot: Slot) -> None:
    slot.pids = [11]
    slot.ask = lambda *_: Answers([200], {11, 12})  # type: ignore[method-assign]
    assert probe(slot.context(), "green", 1).answered == (11,)


def test_a_probe_of_a_slot_that_is_down_asks_nobody(slot: Slot) -> None:
    slot.unit = UnitState("failed", "exit-code", 0, 0)
    assert probe(slot.context(), "green", 3).pids == ()
    assert slot.asked == []


def test_a_probe_tells_of_workers_that_run_another_release(slot: Slot) -> None:
    slot.pids = [11, 99]
    assert probe(slot.context(), "green", 2).releases == ("aaa", "bbb")
