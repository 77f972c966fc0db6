"""The watch over a release that has traffic: which requests count, and what makes the host go back."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils.host.config import Config
from plugins.module_utils.host.context import Clock, Context, Kernel
from plugins.module_utils.host.files import write_object
from plugins.module_utils.host.proxy import Entrance, Proxy
from plugins.module_utils.host.sockets import Answers
from plugins.module_utils.host.systemd import Systemd, UnitState
from plugins.module_utils.host.watch import (
    BAD_PROBES,
    BEFORE_BYTES,
    BEFORE_SECONDS,
    LEAST_ERRORS,
    UNCOUNTED,
    Count,
    ProxyLog,
    Watch,
)
from plugins.module_utils.workers.plan import WorkerPlan

MAIN = 77
SWITCHED = 1_700_000_000.0
Line = tuple[float, float, str]


def text(*lines: Line) -> str:
    """Write requests as nginx does: when it began, how long it took, what the app gave."""
    return "".join(f"{SWITCHED + began + seconds:.3f} {seconds:.3f} {status}\n" for began, seconds, status in lines)


def add(path: Path, content: str) -> None:
    with path.open("a") as stream:
        stream.write(content)


def counts(log: ProxyLog) -> tuple[int, int, int, int]:
    """Read on; return requests and errors before, then after."""
    log.read()
    return log.before.requests, log.before.errors, log.after.requests, log.after.errors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "counter.watch.log"


# --- the figures ----------------------------------------------------------------------------------


def test_errors_are_counted_in_percent_of_all_requests() -> None:
    count = Count()
    assert count.percent == 0
    for status in (200, 499, 500, 599, 302):
        count.add(status)
    assert (count.requests, count.errors, count.percent) == (5, 2, 40)


def test_what_is_usual_is_that_of_two_minutes_and_a_quarter_of_a_mebibyte() -> None:
    """So many requests show what is usual, and are read in a moment."""
    assert (BEFORE_SECONDS, BEFORE_BYTES) == (120, 262_144)


# --- what nginx noted -----------------------------------------------------------------------------


def test_a_request_belongs_to_the_release_that_was_live_when_it_began(path: Path) -> None:
    path.write_text(text((-1, 0.1, "200"), (-2, 9, "500"), (1, 0.1, "200"), (2, 0.1, "503")))
    assert counts(ProxyLog(path, SWITCHED)) == (2, 1, 2, 1)


def test_what_is_long_ago_is_not_compared_with(path: Path) -> None:
    path.write_text(text((-BEFORE_SECONDS - 1, 0, "500"), (-BEFORE_SECONDS, 0, "200"), (-BEFORE_SECONDS + 1, 0, "200")))
    assert counts(ProxyLog(path, SWITCHED)) == (2, 0, 0, 0)


def test_a_request_that_began_at_the_very_moment_is_the_new_releases(path: Path) -> None:
    path.write_text(text((0, 0, "500")))
    assert counts(ProxyLog(path, SWITCHED)) == (0, 0, 1, 1)


def test_of_a_long_file_only_the_end_is_read(path: Path) -> None:
    one = text((-1, 0.1, "200"))
    path.write_text(one * (4 * BEFORE_BYTES // len(one)))
    before = counts(ProxyLog(path, SWITCHED))[0]
    assert before in (BEFORE_BYTES // len(one) - 1, BEFORE_BYTES // len(one)), "all of the end, but a torn line"


@pytest.mark.parametrize(
    ("status", "found"),
    [
        ("200", (1, 0)),
        ("404", (1, 0)),
        ("499", (1, 0)),
        ("500", (1, 1)),
        ("504", (1, 1)),
        ("-", (0, 0)),
        ("502, 200", (1, 0)),
        ("200, 502", (1, 1)),
        ("502 : 200", (1, 0)),
        ("502, -", (0, 0)),
    ],
)
def test_the_last_status_is_what_the_client_got(path: Path, status: str, found: tuple[int, int]) -> None:
    path.write_text(text((1, 0.1, status)))
    assert counts(ProxyLog(path, SWITCHED))[2:] == found


@pytest.mark.parametrize("line", ["", "x y z", "1700000001.0 0.1", "nan nan 500", "1700000001.0 - 500", "\x00" * 40])
def test_a_line_that_says_nothing_is_passed_over(path: Path, line: str) -> None:
    path.write_text(f"{line}\n" + text((1, 0.1, "200")))
    assert counts(ProxyLog(path, SWITCHED)) == (0, 0, 1, 0)


def test_a_line_that_nginx_has_not_ended_yet_counts_once_it_has(path: Path) -> None:
    whole = text((1, 0.1, "200"), (2, 0.1, "500"))
    path.write_text(whole[:-2])
    log = ProxyLog(path, SWITCHED)
    assert counts(log)[2:] == (1, 0)
    add(path, whole[-2:])
    assert counts(log)[2:] == (2, 1)


def test_nothing_is_counted_twice(path: Path) -> None:
    path.write_text(text((1, 0.1, "500")))
    log = ProxyLog(path, SWITCHED)
    assert counts(log) == counts(log) == (0, 0, 1, 1)


def test_after_a_rotation_the_new_file_is_read_from_its_start(path: Path) -> None:
    path.write_text(text(*[(-1, 0.1, "200")] * 5))
    log = ProxyLog(path, SWITCHED)
    log.read()
    path.rename(path.with_suffix(".1"))
    path.write_text(text(*[(1, 0.1, "500")] * 9))
    assert path.stat().st_size > path.with_suffix(".1").stat().st_size, "its size must not be what shows it"
    assert counts(log) == (5, 0, 9, 9)


def test_after_a_truncation_the_file_is_read_from_its_start(path: Path) -> None:
    path.write_text(text(*[(-1, 0.1, "200")] * 5) + "1700000001.000 0.1")
    log = ProxyLog(path, SWITCHED)
    log.read()
    os.truncate(path, 0)
    add(path, text((1, 0.1, "500")))
    assert counts(log) == (5, 0, 1, 1), "and the torn line of before is not put before its first one"


def test_a_file_that_comes_later_is_read_whole(path: Path) -> None:
    log = ProxyLog(path, SWITCHED)
    assert counts(log) == (0, 0, 0, 0)
    path.write_text(text((1, 0.1, "500"), (2, 0.1, "200")))
    assert counts(log) == (0, 0, 2, 1)


def test_a_file_that_goes_away_changes_nothing(path: Path) -> None:
    path.write_text(text((1, 0.1, "500")))
    log = ProxyLog(path, SWITCHED)
    log.read()
    path.unlink()
    assert counts(log) == (0, 0, 1, 1)


def test_when_the_clock_is_set_back_nobody_is_blamed(path: Path) -> None:
    """What is noted then looks as if it had begun before: it may not count against the new release."""
    log = ProxyLog(path, SWITCHED)
    path.write_text(text((-60, 0.1, "500"), (-3600, 0.1, "500")))
    assert counts(log)[2:] == (0, 0)


lines = st.lists(
    st.tuples(
        st.floats(-BEFORE_SECONDS + 1, 60).map(lambda began: round(began, 3)),
        st.floats(0, 30).map(lambda seconds: round(seconds, 3)),
        st.sampled_from(["200", "302", "404", "500", "502, 200", "200, 503", "-"]),
    ).filter(lambda line: abs(line[0]) > 0.01),
    max_size=12,
)


@given(content=lines, cuts=st.lists(st.integers(0, 600), max_size=6), rotate=st.integers(0, 6))
def test_in_whatever_pieces_the_file_comes_each_request_counts_once(
    tmp_path_factory: pytest.TempPathFactory, content: list[Line], cuts: list[int], rotate: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_text("")
    log = ProxyLog(path, SWITCHED)
    whole = text(*content)
    # A rotation comes at a line's end: nginx writes whole lines.
    ends = [0, *(at + 1 for at, character in enumerate(whole) if character == "\n")]
    border = ends[min(rotate, len(ends) - 1)]
    places = sorted({0, border, len(whole), *(cut for cut in cuts if cut < len(whole))})
    for start, end in itertools.pairwise(places):
        if start == border:
            path.rename(path.with_suffix(".1"))
        add(path, whole[start:end])
        log.read()
    counted = [(began, int(status.split()[-1])) for began, _, status in content if status != "-"]
    after = [status for began, status in counted if began > 0]
    assert (log.after.requests, log.after.errors) == (len(after), sum(status >= 500 for status in after))
    assert log.before.requests == len(counted) - len(after)


# --- trouble --------------------------------------------------------------------------------------


class Nginx(Proxy):
    """Answers as the slot does, and notes it, or something else."""

    def __init__(self, slot: Slot) -> None:
        self.slot, self.answer, self.notes, self.asked = slot, (200, ""), True, 0

    def ask(self, entrance: Entrance, path: str, seconds: float) -> tuple[int, str]:
        assert (entrance.name, path, seconds) == ("counter.example", "/health", 3.0)
        self.asked += 1
        if self.notes:
            self.slot.log((self.asked, 0.01, str(self.answer[0])))
        return self.answer


class Slot(Systemd):
    """A live slot: its unit's state, its workers, what health answers, and a clock."""

    def __init__(self, folder: Path, workers: int = 4) -> None:
        self.now = UnitState("active", "success", MAIN, 2)
        self.pids = list(range(1, workers + 1))
        self.health = Answers([200])
        self.clock = 1000.0
        self.probes = 0
        self.proxy = Nginx(self)
        self.said: list[str] = []
        self.config = Config(
            "counter", folder, folder, folder, folder, WorkerPlan(workers), "first", proxy_log=str(folder / "log")
        )

    def state(self, unit: str) -> UnitState:
        assert unit == "counter@green.service"
        return self.now

    def ask(self, path: Path, url: str, host: str, timeout: float, count: int, pids: Iterable[int]) -> Answers:
        assert (path.stem, url, count, timeout) == ("green", "/health", 1, 3.0)
        self.probes += 1
        return self.health

    def watch(self) -> Watch:
        kernel = Kernel(worker_pids=lambda main_pid, _: self.pids if main_pid == MAIN else [])
        clock = Clock(monotonic=lambda: self.clock)
        context = Context(self.config, self, self.said.append, clock, kernel, self.ask, self.proxy)
        return Watch(context, "green", SWITCHED)

    def behind_nginx(self) -> None:
        """Have nginx in front, by a file that says where."""
        path = self.config.root / "counter.conf"
        path.write_text("server { listen 80; server_name counter.example; }")
        self.config = dataclasses.replace(self.config, proxy_file=str(path))

    def log(self, *content: Line) -> None:
        add(Path(self.config.proxy_log), text(*content))


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    return Slot(tmp_path)


def look(slot: Slot, watched: Watch, seconds: float = 1.0) -> str:
    """Let time pass, and look."""
    slot.clock += seconds
    return watched.trouble()


def test_a_release_that_is_well_stays(slot: Slot) -> None:
    watched = slot.watch()
    slot.log(*[(1, 0.1, "200")] * 50)
    assert [look(slot, watched) for _ in range(10)] == [""] * 10


@pytest.mark.parametrize("active", ["failed", "inactive"])
def test_a_unit_that_fell_over_is_trouble(slot: Slot, active: str) -> None:
    watched = slot.watch()
    slot.now = UnitState(active, "exit-code", 0, 2, exit_code=1, exit_status=3)
    assert look(slot, watched) == "counter@green.service failed: it exited with status 3"


def test_a_unit_that_systemd_has_started_anew_is_trouble(slot: Slot) -> None:
    watched = slot.watch()
    slot.now = dataclasses.replace(slot.now, restarts=3)
    assert look(slot, watched).endswith("failed: it ended and was started again once")


def test_restarts_of_before_are_not_held_against_it(slot: Slot) -> None:
    assert look(slot, slot.watch()) == ""


def test_half_of_the_workers_may_die_and_more_may_not(slot: Slot) -> None:
    watched = slot.watch()
    slot.pids = [1, 2, 11, 12]
    assert look(slot, watched) == ""
    slot.pids = [1, 11, 12, 13]
    assert look(slot, watched) == "3 workers of 4 died"


def test_workers_that_die_one_by_one_add_up_also_the_ones_that_took_a_dead_ones_place(slot: Slot) -> None:
    watched = slot.watch()
    for generation in (5, 6):
        slot.pids = [1, 2, 3, generation]
        assert look(slot, watched) == ""
    slot.pids = [1, 2, 3, 7]
    assert "3 workers of 4 died" in look(slot, watched)


def test_workers_that_come_are_no_trouble(slot: Slot) -> None:
    """Where memory is short, the slot grows while it is watched."""
    slot.pids = [1]
    watched = slot.watch()
    for count in range(2, 6):
        slot.pids = list(range(1, count))
        assert look(slot, watched) == ""


def test_workers_are_counted_of_what_the_slot_runs_not_of_the_present_settings(slot: Slot) -> None:
    """Who went back runs as many as it had then."""
    (slot.config.root / "slots").mkdir()
    write_object(slot.config.slot_record("green"), {"workers": 2})
    slot.pids = [1, 2]
    watched = slot.watch()
    slot.pids = [3, 4]
    assert look(slot, watched) == "2 workers of 2 died"


def test_health_bad_three_times_in_a_row_is_trouble(slot: Slot) -> None:
    watched = slot.watch()
    slot.health = Answers([503])
    assert [look(slot, watched) for _ in range(BAD_PROBES - 1)] == [""] * (BAD_PROBES - 1)
    assert look(slot, watched) == "/health failed 3 times in a row: it answers 503"


def test_no_answer_is_bad_health_and_the_reason_is_said(slot: Slot) -> None:
    watched = slot.watch()
    slot.health = Answers([0], error="timed out")
    assert [look(slot, watched) for _ in range(BAD_PROBES)][-1] == "/health failed 3 times in a row: timed out"


def test_health_bad_twice_then_good_is_forgiven(slot: Slot) -> None:
    watched = slot.watch()
    for status in (503, 503, 200, 503, 503, 200):
        slot.health = Answers([status])
        assert look(slot, watched) == ""


def test_after_a_good_answer_it_takes_three_bad_ones_again(slot: Slot) -> None:
    watched = slot.watch()
    said = []
    for status in (503, 503, 200, 503, 503, 503):
        slot.health = Answers([status])
        said.append(look(slot, watched))
    assert said == ["", "", "", "", "", "/health failed 3 times in a row: it answers 503"]


def test_it_is_stable_where_the_last_answer_was_good(slot: Slot) -> None:
    watched = slot.watch()
    stable = [watched.is_stable]
    for status in (200, 503, 503, 200):
        slot.health = Answers([status])
        look(slot, watched)
        stable.append(watched.is_stable)
    assert stable == [True, True, False, False, True]


def test_the_first_look_asks_for_health_at_once(slot: Slot) -> None:
    watched = slot.watch()
    look(slot, watched, 0)
    assert slot.probes == 1
    look(slot, watched, 0.99)
    assert slot.probes == 1
    look(slot, watched, 0.01)
    assert slot.probes == 2


def test_each_of_unit_health_and_clients_is_trouble_enough(slot: Slot) -> None:
    watched = slot.watch()
    slot.log(*[(1, 0.1, "500")] * 9)
    assert "9 of 9 requests" in look(slot, watched)
    slot.now = dataclasses.replace(slot.now, restarts=3)
    assert "service failed" in look(slot, watched), "and the unit comes first: it says why"


def test_errors_where_nothing_was_before_may_be_as_many_as_are_allowed(slot: Slot) -> None:
    watched = slot.watch()
    slot.log(*[(1, 0.1, "500")] * 5, *[(1, 0.1, "200")] * 95)
    assert look(slot, watched) == ""
    slot.log((2, 0.1, "500"))
    assert "6 of 101 requests ended in a server error (6 %, before the switch 0 %;" in look(slot, watched)


def test_health_is_asked_for_once_a_second_however_often_one_looks(slot: Slot) -> None:
    watched = slot.watch()
    for _ in range(40):
        look(slot, watched, 0.25)
    assert slot.probes == 10


def test_errors_of_clients_above_what_was_usual_are_trouble(slot: Slot) -> None:
    slot.log(*[(-1, 0.1, "500")] * 10, *[(-1, 0.1, "200")] * 90)
    watched = slot.watch()
    slot.log(*[(1, 0.1, "500")] * 16, *[(1, 0.1, "200")] * 84)
    said = look(slot, watched)
    assert said.startswith("16 of 100 requests ended in a server error (16 %, before the switch 10 %; allowed: ")
    assert "service_watch_errors, 5 % more" in said


def test_errors_as_many_as_were_usual_and_the_allowed_more_are_not(slot: Slot) -> None:
    slot.log(*[(-1, 0.1, "500")] * 10, *[(-1, 0.1, "200")] * 90)
    watched = slot.watch()
    slot.log(*[(1, 0.1, "500")] * 15, *[(1, 0.1, "200")] * 85)
    assert look(slot, watched) == ""


def test_fewer_errors_than_show_something_are_not_trouble_even_when_they_are_all(slot: Slot) -> None:
    watched = slot.watch()
    slot.log(*[(1, 0.1, "500")] * (LEAST_ERRORS - 1))
    assert look(slot, watched) == ""
    slot.log((2, 0.1, "500"))
    assert "3 of 3 requests" in look(slot, watched)


def test_without_a_proxy_log_its_errors_are_not_looked_for(slot: Slot) -> None:
    slot.log(*[(1, 0.1, "500")] * 50)
    slot.config = dataclasses.replace(slot.config, proxy_log="")
    assert look(slot, slot.watch()) == ""


# --- whether anything is counted ------------------------------------------------------------------


def test_where_nobody_asks_the_watch_asks_through_nginx_until_that_is_noted(slot: Slot) -> None:
    slot.behind_nginx()
    watched = slot.watch()
    assert not watched.is_stable, "a watch that has counted nothing yet does not end"
    assert [look(slot, watched) for _ in range(20)] == [""] * 20
    assert watched.is_stable
    assert slot.proxy.asked == 1


def test_where_others_ask_the_watch_does_not(slot: Slot) -> None:
    slot.behind_nginx()
    watched = slot.watch()
    slot.log(*[(1, 0.1, "200")] * 3)
    assert [look(slot, watched) for _ in range(9)] == [""] * 9
    assert (slot.proxy.asked, watched.is_stable) == (0, True)


@pytest.mark.fault(58)
@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("not written to", "nginx answers, but does not write to .*: nginx -s reopen has it open the file again"),
        ("not there", r"cannot be read \(.*No such file.*\): where it is not there, nginx -s reopen makes it"),
        ("full", "the disk of .* is full: make room"),
        ("down", r"nginx gives no answer at http://counter.example \(refused\): systemctl status nginx"),
    ],
)
def test_watch_that_can_count_nothing_says_so_and_why(
    slot: Slot, case: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot.behind_nginx()
    slot.proxy.notes = False
    if case != "not there":
        slot.log((-9, 0.1, "200"))
    if case == "full":
        full = types.SimpleNamespace(f_bavail=0, f_files=9, f_favail=9)
        monkeypatch.setattr(os, "statvfs", lambda _: full)
    if case == "down":
        slot.proxy.answer = (0, "refused")
    watched = slot.watch()
    trouble = [look(slot, watched) for _ in range(6)]
    assert trouble[:4] == [""] * 4, "nginx may take a moment to note a request"
    assert re.search(f"^{UNCOUNTED}: .*{why}", next(filter(None, trouble)))
    assert not watched.is_stable
    watched.count_no_more("nothing")
    assert (look(slot, watched), watched.is_stable, slot.said) == ("", True, ["note: nothing"])


def test_where_nginx_answers_by_itself_nothing_can_be_expected_to_be_noted(slot: Slot) -> None:
    """A password that nginx asks for, say: no request of ours reaches the app."""
    slot.behind_nginx()
    slot.proxy.answer, slot.proxy.notes = (401, ""), False
    watched = slot.watch()
    assert [look(slot, watched) for _ in range(9)] == [""] * 9
    assert slot.said == ["note: nginx answers /health with 401, not as the app does: nothing is counted"]
    assert watched.is_stable


@pytest.mark.parametrize("off", [{"watch_seconds": 0}, {"proxy_file": "/nonexistent"}])
def test_without_a_watch_or_an_nginx_of_ours_nothing_is_expected(slot: Slot, off: dict[str, Any]) -> None:
    slot.behind_nginx()
    slot.proxy.notes = False
    slot.config = dataclasses.replace(slot.config, **off)
    watched = slot.watch()
    assert (look(slot, watched, 60), watched.is_stable, slot.proxy.asked) == ("", True, 0)


# --- how long answers take ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "percent", "told"),
    [
        ([0.1] * 50, [0.41] * 50, 400, True),
        ([0.1] * 50, [0.39] * 50, 400, False),
        ([0.1] * 50, [0.41] * 50, 0, False),
        ([0.1] * 50, [0.41] * 49, 400, False),
        ([0.1] * 49, [0.41] * 50, 400, False),
        ([0.1] * 50, [0.09] * 26 + [9.0] * 24, 400, False),
        ([0.001] * 50, [0.05] * 50, 400, False),
        ([0.001] * 50, [0.06] * 50, 400, True),
    ],
)
def test_answers_that_take_many_times_as_long_are_trouble_where_there_are_enough(
    slot: Slot, before: list[float], after: list[float], percent: int, told: bool
) -> None:
    slot.config = dataclasses.replace(slot.config, watch_latency=percent)
    slot.log(*[(-10, seconds, "200") for seconds in before], *[(-10, 30, "500")] * 60)
    watched = slot.watch()
    slot.log(*[(1, seconds, "200") for seconds in after])
    message = look(slot, watched)
    assert bool(message) is told
    if told:
        assert re.match(
            r"half of 50 answers took more than \d+ ms, before the switch \d+ ms \(allowed: service_watch_latency, 400",
            message,
        )


@given(
    before=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    after=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    allowed=st.integers(0, 100),
)
def test_going_back_needs_enough_errors_and_a_worse_share(
    before: tuple[int, int], after: tuple[int, int], allowed: int
) -> None:
    """Checked against the rule in whole numbers, over a denominator that both shares have."""
    slot = Watch.__new__(Watch)
    slot.config = Config("counter", Path(), Path(), Path(), Path(), WorkerPlan(0), "", watch_errors=allowed)
    slot.log = ProxyLog(Path("/nonexistent/log"), SWITCHED)
    slot.log.before.errors, slot.log.before.requests = before[0], sum(before)
    slot.log.after.errors, slot.log.after.requests = after[0], sum(after)
    base, total = max(1, sum(before)), max(1, sum(after))
    more = 100 * after[0] * base - 100 * before[0] * total - allowed * base * total
    if more:  # at the border itself, floats may differ in their last digit
        assert bool(slot._errors(slot.log)) == (after[0] >= LEAST_ERRORS and more > 0)
