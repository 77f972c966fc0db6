"""The end of a cutover, by the clock: how long the watch and the drain last, what waits for what, and growing."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.module_utils.host import history
from plugins.module_utils.host.cutover import ACTIVATE, RESTART, RESTORE, ROLLBACK, Request, cut_over
from plugins.module_utils.host.finish import BACK_SECONDS, finish
from plugins.module_utils.host.gate import POLL_SECONDS
from plugins.module_utils.host.journal import GOING_BACK, WATCHING, Transaction
from plugins.module_utils.host.rollback import StaysError, WentBackError, roll_back
from tests.unit.host.fake_systemd import IMPORT_ERROR, Host

BLUE, GREEN = "counter@blue.service", "counter@green.service"
#: Memory for the old workers and one new one.
TIGHT = {"inputs": {"memory_mib": 476, "reserve_mib": 256}}


def host_with(folder: Path, **settings: object) -> Host:
    """Return a host on which aaa is live in the blue slot."""
    Host(folder, watch_seconds=0.0).switch(Request(ACTIVATE, "aaa", "me"))
    return Host(folder, **settings)


class Seen:
    """What a switch reports, each with the seconds since it began, and when the old slot was stopped."""

    def __init__(self, host: Host) -> None:
        self.host, self.began = host, host.clock.now
        self.steps: list[tuple[float, str]] = []

    def __call__(self, step: str) -> None:
        self.steps.append((self.host.clock.now - self.began, step))

    def at(self, part: str) -> float:
        """Return when it was said."""
        return next(seconds for seconds, step in self.steps if part in step)


def switched(host: Host, release: str = "bbb", verb: str = ACTIVATE) -> Seen:
    seen = Seen(host)
    host.switch(Request(verb, release, "me"), seen)
    return seen


def near(seconds: float) -> object:
    return pytest.approx(seconds, abs=3 * POLL_SECONDS)


# --- watch ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, 5.0, 60.0])
def test_the_old_slot_stays_for_the_watch(tmp_path: Path, seconds: float) -> None:
    seen = switched(host_with(tmp_path, watch_seconds=seconds))
    assert seen.at("the blue slot is drained") == near(seconds)


@pytest.mark.parametrize(("verb", "seconds"), [(ACTIVATE, 60.0), (ROLLBACK, BACK_SECONDS), (RESTORE, BACK_SECONDS)])
def test_who_goes_back_watches_for_a_moment_only(tmp_path: Path, verb: str, seconds: float) -> None:
    seen = switched(host_with(tmp_path, watch_seconds=60.0), verb=verb)
    assert seen.at("the blue slot is drained") == near(seconds)


def test_a_watch_does_not_end_while_something_begins_to_go_wrong(tmp_path: Path) -> None:
    """Trouble that shows in the watch's last second is waited out: here it is true."""
    host = host_with(tmp_path, watch_seconds=5.0)

    class Late(dict[str, str]):
        def get(self, key: str, default: object = "") -> str:
            return "not well" if host.clock.now - began > 3.5 and key == "bbb" else ""

    began = host.clock.now
    host.trouble = Late()
    with pytest.raises(WentBackError, match="failed 3 times in a row: not well"):
        host.switch(Request(ACTIVATE, "bbb", "me"))
    assert host.config.live_slot() == "blue"


def test_without_a_watch_and_with_nobody_connected_it_is_done_at_once(tmp_path: Path) -> None:
    host = host_with(tmp_path, watch_seconds=0.0, drain_timeout=30.0)
    before = host.clock.now
    switched(host)
    assert host.clock.now == before


def test_while_the_old_slot_drains_the_new_one_is_still_looked_after(tmp_path: Path) -> None:
    """The way back is one rename as long as it is there."""
    host = host_with(tmp_path, watch_seconds=2.0, drain_timeout=60.0)
    host.clients["blue"] = 1
    began = host.clock.now

    class Late(dict[str, str]):
        def get(self, key: str, default: object = "") -> str:
            return "not well" if host.clock.now - began > 20 and key == "bbb" else ""

    host.trouble = Late()
    seen = Seen(host)
    with pytest.raises(WentBackError, match="not well"):
        host.switch(Request(ACTIVATE, "bbb", "me"), seen)
    assert (host.config.live_slot(), host.systemd.active) == ("blue", {BLUE, "counter@blue.socket"})
    assert 20 < seen.at("going back") < 24


def test_only_who_went_back_by_hand_marks_what_was_left(tmp_path: Path) -> None:
    host = host_with(tmp_path, watch_seconds=0.0)
    switched(host)
    assert history.bad(host.config) == {}, "to deploy the next one says nothing against the one before"
    switched(host, "aaa", ROLLBACK)
    assert set(history.bad(host.config)) == {"bbb"}
    switched(host, "aaa", ROLLBACK)
    assert set(history.bad(host.config)) == {"bbb"}, "never what is live"
    switched(host, "ccc")
    switched(host, "aaa", RESTORE)
    assert set(history.bad(host.config)) == {"bbb"}, "a rollout that was stopped is not this release's fault"


def test_the_first_release_is_not_watched(tmp_path: Path) -> None:
    host = Host(tmp_path, watch_seconds=60.0)
    before = host.clock.now
    host.switch(Request(ACTIVATE, "aaa", "me"))
    assert host.clock.now - before == near(0)


# --- drain ----------------------------------------------------------------------------------------


def test_who_is_connected_to_the_old_slot_is_waited_for_up_to_the_drain_timeout(tmp_path: Path) -> None:
    host = host_with(tmp_path, watch_seconds=1.0, drain_timeout=30.0)
    host.clients["blue"] = 2
    seen = switched(host)
    assert seen.at("2 connections still open in the blue slot after 30 s (service_drain_timeout): closing") == near(30)
    assert host.systemd.active == {GREEN, "counter@green.socket"}


def test_the_old_slot_is_stopped_when_the_last_one_has_gone(tmp_path: Path) -> None:
    host = host_with(tmp_path, watch_seconds=1.0, drain_timeout=30.0)
    connected = host.connections

    def leaves_at_7(path: Path) -> int:
        return connected(path) if host.clock.now < began + 7 else 0

    host.clients["blue"], began = 1, host.clock.now
    host.connections = leaves_at_7  # type: ignore[method-assign]
    assert switched(host).at("the blue slot is drained after 7.") == near(7)
    assert host.config.kept_files("aaa")["environment"].read_text().strip() == "first", "for who goes back to it"


def test_going_back_drains_the_new_slot_likewise(tmp_path: Path) -> None:
    host = host_with(tmp_path, watch_seconds=10.0, drain_timeout=20.0)
    host.trouble["bbb"] = "not well"
    host.clients["green"] = 1
    seen = Seen(host)
    with pytest.raises(WentBackError):
        host.switch(Request(ACTIVATE, "bbb", "me"), seen)
    assert seen.at("1 connections still open in the green slot after 20 s") == near(
        seen.at("traffic goes to the blue") + 20
    )
    assert host.systemd.active == {BLUE, "counter@blue.socket"}


# --- growth ---------------------------------------------------------------------------------------


def test_where_memory_is_short_the_old_slot_goes_before_the_watch_is_over(tmp_path: Path) -> None:
    host = host_with(tmp_path, plan=TIGHT, watch_seconds=60.0)
    seen = switched(host)
    assert seen.at("the blue slot is drained") < 60
    assert seen.at("done in") is not None
    assert len(host.systemd.workers(2)) == 3
    assert host.clock.now - seen.began >= 60, "the new one is watched all the same"


def test_growing_that_memory_does_not_allow_ends_with_a_note(tmp_path: Path) -> None:
    host = host_with(tmp_path, plan=TIGHT, boot_timeout=20.0, drain_timeout=10.0, watch_seconds=1.0)
    host.systemd.resize = lambda *_: None  # type: ignore[method-assign]
    seen = switched(host)
    assert seen.at("note: only 1 of 3 workers run: memory holds no more") == near(30)
    assert "FLEET_WORKERS=3\n" in host.config.slot_environment("green").read_text(), "a restart brings all of them"


# --- what is written down -------------------------------------------------------------------------


def test_the_journal_says_watching_until_the_end(tmp_path: Path) -> None:
    host = host_with(tmp_path)
    transaction = cut_over(host.context(), Request(ACTIVATE, "bbb", "me"))
    steps: list[str] = []

    def report(_: str) -> None:
        under_way = Transaction.read(host.config)
        steps.append(under_way.step if under_way else "gone")

    record = finish(host.context(report), transaction)
    assert steps == [WATCHING, "gone"], "drained, done"
    assert record == host.config.live_record()
    assert [line["result"] for line in history.entries(host.config)] == ["switched", "switched"]


def test_a_first_release_that_fails_stays_as_there_is_none_to_go_back_to(tmp_path: Path) -> None:
    host = Host(tmp_path)
    transaction = cut_over(host.context(), Request(ACTIVATE, "aaa", "me"))
    with pytest.raises(StaysError, match="not well; there is no release to go back to, so it stays live"):
        roll_back(host.context(), transaction, "not well")
    assert (host.config.live_slot(), host.systemd.active) == ("blue", {BLUE, "counter@blue.socket"})


def test_a_release_that_stays_grows_to_its_number_as_far_as_the_boot_timeout_allows(tmp_path: Path) -> None:
    host = Host(tmp_path, boot_timeout=20.0)
    transaction = cut_over(host.context(), Request(ACTIVATE, "aaa", "me"))
    host.systemd.resize(BLUE, -2)
    before = host.clock.now
    with pytest.raises(StaysError):
        roll_back(host.context(), transaction, "not well")
    assert (len(host.systemd.workers(1)), host.clock.now - before) == (3, near(0.2))
    host.systemd.resize(BLUE, -2)
    host.systemd.resize = lambda *_: None  # type: ignore[method-assign]
    before = host.clock.now
    with pytest.raises(StaysError):
        roll_back(host.context(), transaction, "not well")
    assert (len(host.systemd.workers(1)), host.clock.now - before) == (1, near(20))


def test_the_old_slot_that_gave_workers_up_has_all_of_them_again_once_the_new_one_is_gone(tmp_path: Path) -> None:
    host = host_with(tmp_path, plan=TIGHT, watch_seconds=10.0, drain_timeout=30.0)
    transaction = cut_over(host.context(), Request(ACTIVATE, "bbb", "me"))
    host.systemd.resize(BLUE, -2)
    with pytest.raises(WentBackError):
        roll_back(host.context(), transaction, "not well")
    assert (len(host.systemd.workers(1)), host.systemd.active) == (3, {BLUE, "counter@blue.socket"})


def test_trouble_is_in_the_journal_before_the_traffic_goes_back(tmp_path: Path) -> None:
    """Cut off there, recovery goes on with it."""
    host = host_with(tmp_path)
    transaction = cut_over(host.context(), Request(ACTIVATE, "bbb", "me"))
    steps: list[tuple[str, str]] = []

    def report(_: str) -> None:
        under_way = Transaction.read(host.config)
        steps.append((under_way.step, under_way.trouble) if under_way else ("gone", ""))

    with pytest.raises(WentBackError):
        roll_back(host.context(report), transaction, "not well")
    trouble = f"not well; the last exception in its log: {IMPORT_ERROR}"
    assert steps[0] == (GOING_BACK, "not well")
    assert set(steps[1:]) <= {(GOING_BACK, "not well"), (GOING_BACK, trouble)}
    assert history.entries(host.config)[-1].items() >= {"result": "went back", "reason": trouble}.items()
    assert history.bad(host.config)["bbb"]["fingerprint"] == host.config.record_of("green").fingerprint


def test_release_that_serves_on_as_it_was_is_not_marked_by_its_own_restart(tmp_path: Path) -> None:
    host = host_with(tmp_path)
    transaction = cut_over(host.context(), Request(RESTART, "aaa", "me", own=True))
    with pytest.raises(WentBackError):
        roll_back(host.context(), transaction, "not well")
    assert (host.config.live_slot(), history.bad(host.config)) == ("blue", {})
    host.want("second")
    host = Host(tmp_path)
    transaction = cut_over(host.context(), Request(ACTIVATE, "aaa", "me"))
    with pytest.raises(WentBackError):
        roll_back(host.context(), transaction, "not well")
    assert history.bad(host.config)["aaa"]["fingerprint"] == "second", "with those settings it is not to be deployed"


# --- a watch that can count nothing ---------------------------------------------------------------


@pytest.mark.fault(58)
def test_release_of_which_nothing_was_counted_does_not_stay_and_is_not_blamed(tmp_path: Path) -> None:
    conf = tmp_path / "counter.conf"
    host = host_with(tmp_path, proxy_file=str(conf), proxy_log=str(tmp_path / "log" / "none"), watch_seconds=9.0)
    conf.write_text("server { listen 127.0.0.1:1; server_name counter; }")  # nobody listens there
    with pytest.raises(WentBackError, match=r"nothing was counted of the release's requests: nginx gives no answer at"):
        switched(host)
    assert (host.config.live_slot(), history.bad(host.config)) == ("blue", {})
    assert history.entries(host.config)[-1]["result"] == "went back"
    seen = switched(host, verb=ROLLBACK)
    assert any(step.startswith("note: nothing was counted") for _, step in seen.steps), "but going back goes"
    assert host.config.live_slot() == "green"
