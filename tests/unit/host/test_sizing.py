"""The number of workers of a release, by what one of them takes; and live ones that make room for it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.host import recycle
from plugins.module_utils.host.config import HostError
from plugins.module_utils.host.cutover import ACTIVATE, ROLLBACK, RefusedError, Request
from plugins.module_utils.host.digests import sha256
from plugins.module_utils.host.journal import STARTING, Transaction
from plugins.module_utils.host.recover import recover
from plugins.module_utils.host.sizing import Sizing
from plugins.module_utils.host.systemd import SystemdError
from plugins.module_utils.workers.engines import ENGINES
from plugins.module_utils.workers.plan import plan_workers
from tests.unit.host.fake_systemd import Host

BLUE, GREEN = "counter@blue.service", "counter@green.service"
#: What there is for workers on a host of 2 GiB, less the default reserve.
LIMIT = 2048 - 256


def host_of(folder: Path, memory_mib: int = 2048, **plan: Any) -> Host:
    """Return a host of 2 vCPUs; `plan` is what else the plan is made with."""
    made = plan_workers(vcpus=2, memory_mib=memory_mib, **plan)
    return Host(folder, plan=made.as_dict(), watch_seconds=0.0, boot_timeout=5.0)


def go(host: Host, release: str, verb: str = ACTIVATE) -> list[str]:
    """Switch; return what was said."""
    said: list[str] = []
    host.switch(Request(verb, release, "me"), said.append)
    return said


def resized(host: Host, unit: str) -> list[str]:
    return [call[2] for call in host.systemd.calls if call[:2] == ("resize", unit)]


# --- the first release ----------------------------------------------------------------------------


@pytest.mark.fault(62)
def test_release_whose_workers_are_larger_than_planned_gets_fewer_before_traffic_and_the_next_one_goes(
    tmp_path: Path,
) -> None:
    host = host_of(tmp_path)
    host.sizes = {"aaa": 400.0, "bbb": 400.0}
    assert host.config.workers == 5
    said = go(host, "aaa")
    total = "5 workers of 400 MiB take 2,000 MiB, 2 sets of them 4,000; 1,792 are there (2,048 less 256 for the system)"
    assert f"{total}: 2 instead of 5 workers" in said
    record = host.config.live_record()
    assert (record.plan.workers, len(host.workers(1)), record.fresh_mib) == (2, 2, 400)
    assert record.plan.reason.startswith("2 workers: 2048 MiB less 256 for the system hold 2 sets of 2 × 400 MiB as")
    env = host.config.slot_environment("blue")
    assert "FLEET_WORKERS=2\n" in env.read_text()
    assert record.files[str(env)] == sha256(env.read_bytes()), "a second deploy finds the slot as it was made"
    assert host.most <= LIMIT, "nor were there more while it started"
    assert record.plan.measured_mib is None, "by that, the same release is planned as before, and nothing is replaced"
    # The next release is planned with what was seen; the same one, with another setting, is not.
    for planned, release in ((400, "bbb"), (None, "bbb"), (400, "aaa")):
        again = host_of(tmp_path, fresh_mib=planned)
        again.sizes = host.sizes
        go(again, release)
        assert again.live["workers"] == 2
        assert again.most <= LIMIT


def test_release_with_smaller_workers_than_the_one_before_gets_all_again(tmp_path: Path) -> None:
    host = host_of(tmp_path)
    host.sizes["aaa"] = 400.0
    go(host, "aaa")
    again = host_of(tmp_path, fresh_mib=400)
    again.sizes["aaa"] = 400.0
    said = go(again, "bbb")
    assert again.config.workers == 2
    assert "a worker takes 40 MiB, less than those before: 5 workers, not 2" in said
    assert (again.live["workers"], len(again.workers(2)), again.live["fresh_mib"]) == (5, 5, 40)
    assert again.most <= LIMIT


def test_engine_that_cannot_grow_from_one_worker_keeps_it_until_the_next_deploy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is recorded is what runs: nobody waits for workers that never come."""
    monkeypatch.setattr(type(ENGINES["gunicorn"]), "least_workers", 2)
    host = host_of(tmp_path, fresh_mib=900)
    host.sizes["aaa"] = 40.0
    go(host, "aaa")
    assert (host.config.workers, host.live["workers"], len(host.workers(1)), host.live["fresh_mib"]) == (1, 1, 1, 40)


def test_first_release_starts_with_one_worker_and_has_all_before_traffic(tmp_path: Path) -> None:
    """More at once might be more than there is, as nobody knows yet what one takes."""
    host = host_of(tmp_path)
    said = go(host, "aaa")
    assert any("with 1 worker of 5, to see what one takes; the rest follows" in line for line in said)
    calls = zip(host.systemd.calls, host.systemd.link_at_call, strict=True)
    assert [link for call, link in calls if call[0] == "resize"] == [""] * 4
    assert "5 workers run and each has answered /health" in said
    assert (host.live["workers"], host.live["fresh_mib"]) == (5, 40)


@pytest.mark.parametrize("known", [{"workers": 5}, {"worker_mib": 40}, {"measured_mib": 50}])
def test_where_the_size_or_the_number_is_known_all_start_at_once(tmp_path: Path, known: dict[str, Any]) -> None:
    host = host_of(tmp_path, **known)
    go(host, "aaa")
    assert resized(host, BLUE) == []
    assert len(host.workers(1)) == 5


def test_number_that_was_set_by_hand_stays_and_the_sum_is_told(tmp_path: Path) -> None:
    host = host_of(tmp_path, workers=5)
    host.sizes["aaa"] = 400.0
    said = go(host, "aaa")
    assert host.live["workers"] == 5
    assert any(line.startswith("note: 5 workers of 400 MiB take 2,000") for line in said), said


def test_size_that_was_set_too_small_does_not_hide_what_workers_take(tmp_path: Path) -> None:
    host = host_of(tmp_path, worker_mib=100)
    host.sizes["aaa"] = 400.0
    go(host, "aaa")
    assert (host.live["workers"], len(host.workers(1)), resized(host, BLUE)) == (2, 2, ["-1"] * 3)


def test_what_other_programs_take_counts_for_a_first_release_too(tmp_path: Path) -> None:
    host = host_of(tmp_path)
    host.sizes["aaa"] = 90.0
    host.available = 80.0  # beside the first worker
    said = go(host, "aaa")
    assert "1 of 5 workers: 80 MiB are left, one more takes 90" in said
    assert (host.live["workers"], len(host.workers(1))) == (1, 1)
    plan = host.config.live_record().plan
    assert (plan.bound_by, plan.reason.partition(" (")[0]) == (
        "memory", "1 worker: memory has held no more when they started",
    )  # fmt: skip


def test_who_goes_back_gets_the_number_of_that_time(tmp_path: Path) -> None:
    host = host_of(tmp_path, worker_mib=40)
    for release in ("aaa", "bbb"):
        go(host, release)
    host.sizes["aaa"] = 400.0
    go(host, "aaa", ROLLBACK)
    assert host.live["workers"] == 5


# --- live workers that have grown -----------------------------------------------------------------


def grown(folder: Path, mib: float, worker_class: str = "own_worker.EvenWorker") -> Host:
    """Return a host whose five live workers took 40 MiB at first, and take so much now."""
    host = host_of(folder)
    unit = host.config.wanted_files()["service"]
    unit.write_text(f"{unit.read_text()}# -k {worker_class}\n")
    go(host, "aaa")
    host.grown = dict.fromkeys(host.workers(1), mib)
    host.systemd.calls.clear()
    host.systemd.link_at_call.clear()
    host.most = 0
    return host


@pytest.mark.fault(61)
def test_live_workers_that_have_grown_leave_room_for_fresh_ones(tmp_path: Path) -> None:
    """Five of 200 MiB take 1,000 of 1,792; five of 40 fit beside them, five of 200 would not."""
    host = grown(tmp_path, 200.0)
    said = go(host, "bbb")
    assert any("in the green slot with 5 workers" in line for line in said), said
    assert not host.replaced


@pytest.mark.fault(61)
@pytest.mark.parametrize("release", ["bbb", "aaa"])
def test_overfull_live_workers_are_replaced_one_by_one_until_a_new_one_fits(tmp_path: Path, release: str) -> None:
    host = grown(tmp_path, 790.0)
    said = go(host, release)
    assert len(host.replaced) == 3, "2,238 are too much, and each gives 750"
    assert sum("with 790 MiB leaves, for a fresh one" in line for line in said) == 3
    assert (host.live["release"], host.live["workers"], len(host.workers(2))) == (release, 5, 5)
    moved = host.systemd.link_at_call.index("green.sock")
    assert not [call for call in host.systemd.calls[:moved] if call[:2] == ("resize", BLUE)], "none was missing"


@pytest.mark.fault(61)
def test_workers_that_cannot_be_replaced_are_ended_while_idle_and_come_back_when_it_is_refused(tmp_path: Path) -> None:
    host = grown(tmp_path, 800.0, "uvicorn_worker.UvicornWorker")
    host.broken.add("bbb")
    with pytest.raises(RefusedError, match="not ready within"):
        go(host, "bbb")
    assert resized(host, BLUE)[:3] == ["-1"] * 3
    assert not host.replaced
    host.grown.clear()
    host.broken.clear()
    go(host, "bbb")
    assert len(host.workers(2)) == 5


def test_busy_workers_are_not_ended_for_room_and_it_is_said_what_to_do(tmp_path: Path) -> None:
    host = grown(tmp_path, 800.0, "uvicorn_worker.UvicornWorker")
    host.clients["blue"] = 5
    with pytest.raises(
        RefusedError,
        match=r"^the live blue slot was to make room for a new worker, but it has not within 5 s: 5 of 5 workers have "
        r"clients .* Deploy when fewer are connected$",
    ):
        go(host, "bbb")
    assert resized(host, BLUE) == []
    host.clients.clear()
    go(host, "bbb")


def test_workers_that_stay_without_clients_are_not_called_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = grown(tmp_path, 800.0, "uvicorn_worker.UvicornWorker")
    monkeypatch.setattr(host.systemd, "resize", lambda *_: None)
    with pytest.raises(RefusedError, match=r"within 5 s: 5 workers, none with clients, take what is missing$"):
        go(host, "bbb")


def test_live_slot_that_falls_over_while_it_makes_room_is_not_laid_on_the_new_release(tmp_path: Path) -> None:
    host = grown(tmp_path, 790.0)
    host.broken.add("aaa")
    with pytest.raises(RefusedError) as refused:
        go(host, "bbb")
    assert str(refused.value) == (
        "the live blue slot was to make room for a new worker, but not ready within 5 s (service_boot_timeout): "
        "/health answers 500"
    )
    assert refused.value.log == [], "the new release has not been started, and logged nothing"
    assert ("start", "counter@green.socket", GREEN) not in host.systemd.calls
    assert not host.config.transaction.exists()


def test_live_slot_whose_unit_file_is_gone_makes_room_by_ending_idle_workers(tmp_path: Path) -> None:
    host = grown(tmp_path, 800.0)
    host.config.slot_files("blue")["service"].unlink()
    go(host, "bbb")
    assert not host.replaced
    assert resized(host, BLUE)[:3] == ["-1"] * 3


@pytest.mark.parametrize("number", [1, 4, 7])
def test_number_that_a_plan_asks_for_is_kept_and_nothing_is_planned_anew(tmp_path: Path, number: int) -> None:
    made = {**plan_workers(vcpus=2, memory_mib=2048).as_dict(), "workers": number}
    host = Host(tmp_path, plan=made, watch_seconds=0.0, boot_timeout=5.0)
    said = go(host, "aaa")
    assert (host.live["workers"], len(host.workers(1))) == (number, number)
    assert not any("instead of" in line or "less than those" in line for line in said)


def test_where_memory_does_not_hold_two_sets_the_new_one_begins_with_fewer_and_has_all_in_the_end(
    tmp_path: Path,
) -> None:
    go(host_of(tmp_path), "aaa")
    made = plan_workers(vcpus=2, memory_mib=2048).as_dict()
    made["inputs"]["reserve_mib"] = 2048 - 330  # one set takes 220
    host = Host(tmp_path, plan=made, watch_seconds=0.0, boot_timeout=5.0)
    said = go(host, "bbb")
    assert any("with 2 workers of 5, as memory does not hold both sets" in line for line in said), said
    assert (host.live["workers"], len(host.workers(2))) == (5, 5)
    assert host.most <= 330


def test_where_room_cannot_be_made_nothing_changes_and_what_is_advised_works(tmp_path: Path) -> None:
    def tight(reserve: int) -> Host:
        return host_of(tmp_path, memory_mib=400, reserve_mib=reserve)

    host = tight(0)
    go(host, "aaa")
    crowded = tight(300)
    with pytest.raises(HostError) as refused:
        go(crowded, "bbb")
    assert str(refused.value) == (
        "memory does not hold even one new worker beside the fewest live ones (40 MiB given up): 40 MiB are left, one "
        "takes 40 and its main process 20. Nothing was changed. Lower service_reserve_memory_mib (300 now) to 280 or "
        "less, or use a host with 20 MiB more"
    )
    assert crowded.live["release"] == "aaa"
    assert not crowded.config.transaction.exists()
    assert [call for call in crowded.systemd.calls if call[0] == "resize"] == []
    not_enough = tight(281)
    with pytest.raises(HostError, match="to 280 or less"):
        go(not_enough, "bbb")
    lower = tight(280)
    go(lower, "bbb")
    assert lower.live["release"] == "bbb"


def test_host_that_is_as_much_larger_as_was_said_holds_it(tmp_path: Path) -> None:
    go(host_of(tmp_path, memory_mib=400, reserve_mib=0), "aaa")
    full = host_of(tmp_path, memory_mib=400, reserve_mib=300)
    full.available = 10.0  # for lack of that, a lower reserve would not do
    with pytest.raises(HostError, match=r"Nothing was changed\. Use a host with 20 MiB more$"):
        go(full, "bbb")
    larger = host_of(tmp_path, memory_mib=420, reserve_mib=300)
    larger.available = 30.0 + 40.0  # what is given up, too
    go(larger, "bbb")


def test_limit_of_a_control_group_is_named_as_such(tmp_path: Path) -> None:
    def limited(mib: int, available: float = math.inf) -> Host:
        made = host_of(tmp_path, memory_mib=4000, memory_limit_mib=mib, reserve_mib=0)
        made.available = available
        return made

    go(host_of(tmp_path, memory_mib=400, reserve_mib=0), "aaa")
    group = r"raise the (?:memory )?limit of its control group \(100 MiB"
    with pytest.raises(HostError, match=rf"changed\. R{group[1:]} now\) by 20$"):
        go(limited(100), "bbb")
    with pytest.raises(HostError, match=rf"changed\. Use a host with 20 MiB more, and {group}\) by as many$"):
        go(limited(100, 15.0), "bbb")
    go(limited(120), "bbb")


def test_memory_that_others_have_is_named_as_such(tmp_path: Path) -> None:
    host = host_of(tmp_path, memory_mib=400, reserve_mib=0)
    go(host, "aaa")
    full = host_of(tmp_path, memory_mib=400, reserve_mib=0)
    full.available = 0.0
    with pytest.raises(
        HostError,
        match=r"Nothing was changed\. Other programs of the host take the rest: end some that take 20 MiB, or",
    ):
        go(full, "bbb")
    full.available = 300.0
    go(full, "bbb")


def test_slot_that_gave_up_workers_for_a_switch_that_was_cut_off_gets_them_back(tmp_path: Path) -> None:
    host = grown(tmp_path, 40.0)
    for _ in range(2):
        host.systemd.resize(BLUE, -1)
    Transaction(ACTIVATE, "bbb", "me", "aaa", "blue", "green", host.clock.time(), step=STARTING).write(host.config)
    recover(host.context())
    assert len(host.workers(1)) == 5
    assert not host.config.transaction.exists()


def test_time_limit_of_a_switch_holds_live_workers_that_leave_at_the_last_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = grown(tmp_path, 790.0)
    host.config = dataclasses.replace(host.config, boot_timeout=40.0, drain_timeout=5.0, worker_timeout=300.0)
    monkeypatch.setattr(recycle, "wait_until_gone", lambda *_: host.clock.pass_time(host.config.leaving_seconds))
    monkeypatch.setattr(host, "leave", lambda *_: None)
    began = host.clock.now
    with pytest.raises(RefusedError, match="was to make room"):
        go(host, "bbb")
    took = host.clock.now - began
    assert took > 300, "one of them was waited for"
    assert took + 120 <= host.config.expiry


def test_time_limit_of_a_switch_has_what_settling_and_giving_back_may_take_too(tmp_path: Path) -> None:
    """At worst each of these takes the whole boot timeout: room, a worker's proof, the gate, two of settling, back."""
    slow, quick = (host_of(tmp_path / name) for name in ("slow", "quick"))
    slow.config = dataclasses.replace(slow.config, boot_timeout=100.0)
    quick.config = dataclasses.replace(quick.config, boot_timeout=0.0)
    assert slow.config.expiry - quick.config.expiry >= 6 * 100


def test_time_limit_of_a_switch_has_what_draining_both_slots_may_take(tmp_path: Path) -> None:
    """Room, a worker that leaves, the old slot's drain and stop; going back, the new slot's drain and stop."""
    slow, quick = (host_of(tmp_path / name) for name in ("slow", "quick"))
    slow.config, quick.config = (
        dataclasses.replace(host.config, drain_timeout=seconds) for host, seconds in ((slow, 100.0), (quick, 0.0))
    )
    assert slow.config.expiry - quick.config.expiry >= 6 * 100


def unwilling(*words: str) -> None:
    raise SystemdError(f"systemctl {words[0]}: no connection to the bus")


def test_switch_ends_though_the_live_slot_cannot_be_given_its_workers_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = grown(tmp_path, 800.0, "uvicorn_worker.UvicornWorker")
    host.broken.add("bbb")
    real = host.systemd.resize
    monkeypatch.setattr(
        host.systemd, "resize", lambda unit, number: real(unit, number) if number < 0 else unwilling("kill")
    )
    original = Sizing.give_back

    def given_back(sizing: Sizing) -> None:
        host.grown.clear()
        original(sizing)

    monkeypatch.setattr(Sizing, "give_back", given_back)
    said: list[str] = []
    with pytest.raises(RefusedError, match="not ready within"):
        host.switch(Request(ACTIVATE, "bbb", "me"), said.append)
    assert not host.config.transaction.exists()
    assert "note: the blue slot may run fewer than its 5 workers: systemctl kill: no connection to the bus" in said


@pytest.mark.parametrize("fails", ["state", "resize"])
def test_recovery_ends_though_the_live_slot_cannot_be_given_its_workers_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    host = grown(tmp_path, 40.0)
    host.systemd.resize(BLUE, -1)
    Transaction(ACTIVATE, "bbb", "me", "aaa", "blue", "green", host.clock.time(), step=STARTING).write(host.config)
    monkeypatch.setattr(host.systemd, fails, unwilling)
    recover(host.context())
    assert not host.config.transaction.exists()
