"""How a rollout goes on: who switches, when it stops, who goes back, and what is said of every host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from plugins.action.rollout import (
    CannotGoBackError,
    Settings,
    as_if_probed,
    decide,
    failure,
    go_back,
    not_reached,
    reason,
    unfit,
)

OLD, NEW = "old000000000", "new000000000"
LOST = {"unreachable": True, "msg": "Task failed: no route to host\nand more"}
Result = dict[str, Any]


def live(release: str, at: int = 1) -> dict[str, Any]:
    return {"release": release, "slot": "blue", "at": at}


def says(rc: int, **answer: object) -> Result:
    """What `command` keeps of a call of the host's command."""
    return {"rc": rc, "stdout": json.dumps(answer), "stderr": "", "msg": ""}


def prepared(before: str = OLD, wants: bool = True, **more: Any) -> Result:
    """A host that everything has been put on."""
    record = live(before) if before else {}
    probe = {"ansible_facts": {"app_probe": {"live": record}}}
    as_it_is = before == NEW and not wants
    assert wants or as_it_is, "another release is always wanted"
    files = {"needs_switch": not as_it_is}
    return {"service_probe": probe, "service_files": files, "release_id": NEW, **more}


def switched(before: str = OLD, **more: Any) -> Result:
    return prepared(before, service_switch=says(0, outcome="switched", live=live(NEW, 2)), **more)


def refused(**more: Any) -> Result:
    return prepared(service_switch=says(1, outcome="refused", live=live(OLD), error="/health answers 500"), **more)


def decided(said: Mapping[str, Mapping[str, Any]], dropped: tuple[str, ...] = (), **settings: Any) -> dict[str, Any]:
    return dict(decide(list(said), dropped, Settings(**settings), said))


def told(state: Mapping[str, Any], host: str) -> tuple[str, str, str]:
    """A host's line in the table."""
    (row,) = [row for row in state["rows"] if row["host"] == host]
    return row["was"], row["now"], row["what"]


def test_all_hosts_that_need_it_switch() -> None:
    state = decided({"a": prepared(), "b": prepared(NEW, wants=False), "c": prepared("")})
    assert (state["switch"], state["restore"], state["failed"], state["stop"]) == (["a", "c"], [], {}, "")
    assert told(state, "b") == (NEW, NEW, "already up to date")
    assert told(state, "c") == ("none", "none", "to be switched")


@pytest.mark.parametrize(
    ("hosts", "given", "batches"),
    [
        (1, (), [1, "100%"]),
        (4, (), [1, "100%"]),
        (5, (), [1, "25%", "100%"]),
        (5, (2, "50%"), [2, "50%"]),
    ],
)
def test_canary_comes_first_unless_told_otherwise(hosts: int, given: tuple[int | str, ...], batches: list[Any]) -> None:
    state = decided({f"host{number}": prepared() for number in range(hosts)}, batches=list(given))
    assert state["batches"] == batches


@pytest.mark.parametrize(("most", "stops"), [(0, True), (1, True), (2, False)])
def test_every_kind_of_failure_counts_against_the_budget(most: int, stops: bool) -> None:
    said = {"a": {"service_probe": LOST}, "b": refused(), "c": prepared()}
    state = decided(said, max_failures=most)
    assert state["failed"] == {"a": "not reached: no route to host", "b": "refused: /health answers 500"}
    assert bool(state["stop"]) == stops
    assert state["switch"] == ([] if stops else ["c"])
    if stops:
        assert state["stop"] == f"2 of 3 hosts failed, and fleet_max_failures is {most}"
        assert told(state, "c") == (OLD, OLD, "not touched, as the rollout stopped")


@pytest.mark.parametrize(
    ("failing", "what"),
    [
        ({"service_probe": LOST}, "not reached: no route to host"),
        (prepared(fleet_failure="Unpack: the disk is full"), "not prepared: Unpack: the disk is full"),
        (prepared(service_switch=says(2, error="locked", outcome="nothing done")), "nothing done: locked"),
        (prepared(service_switch=says(1, error="p95", outcome="went back", live=live(OLD))), "went back: p95"),
        (prepared(service_switch={"rc": 2, "stdout": "", "stderr": "", "msg": "no such file"}), "failed: no such file"),
        (
            prepared(service_switch=LOST),
            "the connection was lost during the switch; it finishes the switch or goes back by itself",
        ),
    ],
    ids=["unreachable", "unprepared", "nothing done", "went back", "no answer", "lost"],
)
def test_one_failed_host_stops_the_rollout_and_the_others_go_back(failing: Result, what: str) -> None:
    state = decided({"a": switched(), "b": failing, "c": prepared()})
    assert (state["restore"], list(state["failed"])) == (["a"], ["b"])
    assert told(state, "b")[2] == what
    assert told(state, "a") == (OLD, NEW, "switched")
    assert told(state, "c") == (OLD, OLD, "not touched, as the rollout stopped")


def test_host_that_ansible_lost_while_preparing_counts_as_failed() -> None:
    state = decided({"a": prepared(), "b": prepared()}, dropped=("b",))
    assert told(state, "b") == (OLD, OLD, "lost while it was prepared; nothing was switched on it")
    assert state["stop"]


def test_host_that_is_not_back_in_the_load_balancer_counts_as_failed() -> None:
    told_no = {"failed": True, "msg": "timed out waiting for healthy"}
    state = decided({"web1": switched(aws_fleet_target=told_no), "web2": switched(aws_fleet_target={"failed": False})})
    assert state["failed"] == {"web1": "not back in the load balancer: timed out waiting for healthy"}


def test_host_within_the_budget_stops_nobody() -> None:
    state = decided({"a": switched(), "b": refused(), "c": prepared()}, max_failures=1)
    assert (state["stop"], state["restore"]) == ("", [])
    assert list(state["failed"]) == ["b"]


def test_hosts_stay_where_asked_to() -> None:
    state = decided({"a": switched(), "b": refused()}, restore=False)
    assert state["restore"] == []
    assert told(state, "a") == (OLD, NEW, "switched; stays, as fleet_restore is false")


def test_first_release_of_a_host_stays_as_there_is_nothing_before() -> None:
    state = decided({"a": switched(before=""), "b": refused()})
    assert state["restore"] == []
    assert told(state, "a") == ("none", NEW, "switched; stays, as nothing was live before")


def test_host_that_went_back_is_told_and_is_no_failure() -> None:
    back = says(0, outcome="switched", live=live(OLD, 3))
    state = decided({"a": switched(service_restore=back), "b": refused()})
    assert told(state, "a") == (OLD, OLD, "switched; taken back, as the rollout stopped")
    assert (state["restore"], list(state["failed"])) == ([], ["b"])


@pytest.mark.parametrize(
    ("back", "now", "what"),
    [
        (says(1, error="fell over", live=live(NEW, 2)), NEW, "not taken back: fell over"),
        (LOST, "unknown", "not taken back: Task failed: no route to host"),
    ],
)
def test_host_that_could_not_go_back_is_named(back: Result, now: str, what: str) -> None:
    state = decided({"a": switched(service_restore=back), "b": refused()})
    assert told(state, "a") == (OLD, now, what.replace("Task failed: ", ""))
    assert list(state["failed"]) == ["a", "b"]


def test_lost_host_is_asked_again_and_goes_back_where_it_has_switched() -> None:
    lost = prepared(service_switch=LOST)
    assert decided({"a": lost})["lost"] == ["a"]
    assert told(decided({"a": lost}), "a")[1] == "unknown"

    finished = says(0, live=live(NEW, 2), lock=None)
    state = decided({"a": lost | {"service_status": finished}})
    assert (state["lost"], state["restore"]) == ([], ["a"])
    assert told(state, "a") == (OLD, NEW, f"the connection was lost during the switch; it runs {NEW}")

    went_back = says(0, live=live(OLD, 1), lock=None)
    state = decided({"a": lost | {"service_status": went_back}})
    assert (state["lost"], state["restore"]) == ([], [])
    assert told(state, "a")[1] == OLD
    assert list(state["failed"]) == ["a"]


@pytest.mark.parametrize("status", [LOST, says(0, live=live(OLD), lock={"by": "alice"})], ids=["gone", "still at it"])
def test_lost_host_that_is_not_settled_is_unknown(status: Result) -> None:
    state = decided({"a": prepared(service_switch=LOST, service_status=status)})
    assert (state["lost"], state["restore"]) == ([], [])
    assert told(state, "a")[1:] == (
        "unknown",
        "the connection was lost during the switch; it finishes the switch or goes back by itself",
    )


def test_same_release_with_other_settings_was_switched_only_if_it_is_newer() -> None:
    lost = prepared(NEW, service_switch=LOST)
    assert decided({"a": lost | {"service_status": says(0, live=live(NEW, 1))}})["restore"] == []
    assert decided({"a": lost | {"service_status": says(0, live=live(NEW, 2))}})["restore"] == ["a"]


# The migration


def test_migration_runs_on_the_first_good_host_that_gets_another_release() -> None:
    said = {"a": prepared(fleet_failure="disk"), "b": prepared(NEW), "c": prepared(), "d": prepared()}
    state = decided(said, migrate=True, max_failures=1)
    assert state["migrate"] == ["c"]
    assert state["switch"] == ["b", "c", "d"]
    assert decided(said, migrate=False, max_failures=1)["migrate"] == []


@pytest.mark.parametrize("said", [{"a": prepared(NEW)}, {"a": prepared(NEW, wants=False)}, {"a": refused()}])
def test_no_migration_without_a_new_release_or_once_stopped(said: dict[str, Result]) -> None:
    assert decided(said, migrate=True)["migrate"] == []


@pytest.mark.parametrize("run", [says(3), LOST])
def test_failed_migration_stops_all_whatever_the_budget(run: Result) -> None:
    state = decided({"a": prepared(service_run=run), "b": prepared()}, migrate=True, max_failures=9)
    assert (state["switch"], state["stop"]) == ([], "the migration failed on a")
    why = "no route to host" if run is LOST else "exit code 3"
    assert state["failed"] == {"a": f"the migration failed: {why}"}
    assert told(state, "b")[2] == "not touched, as the rollout stopped"


def test_good_migration_goes_on() -> None:
    assert decided({"a": prepared(service_run=says(0)), "b": prepared()}, migrate=True)["switch"] == ["a", "b"]


def test_check_mode_foretells_and_does_nothing() -> None:
    state = decided({"a": prepared(), "b": prepared(NEW, wants=False)}, check=True, migrate=True)
    assert (state["switch"], state["migrate"]) == ([], [])
    assert told(state, "a") == (OLD, OLD, "would switch")
    assert told(state, "b") == (NEW, NEW, "already up to date")
    assert state["notes"] == ["the migration would run once, on a, before any host switches"]


def test_check_mode_foretells_what_a_host_would_refuse() -> None:
    marked = prepared(service_files={"needs_switch": True, "refusal": "release new is marked bad since noon: p95 rose"})
    state = decided({"a": marked, "b": prepared()}, check=True)
    assert told(state, "a")[2] == "would be refused: release new is marked bad since noon: p95 rose"
    assert list(state["failed"]) == ["a"], "it ends as the deploy would"
    assert told(decided({"a": marked, "b": prepared()}, check=True, max_failures=1), "b")[2] == "would switch"


def test_notes_of_hosts_are_passed_on() -> None:
    switch = says(0, live=live(NEW, 2), notes=["began with 2 of 5 workers"])
    assert decided({"a": prepared(service_switch=switch)})["notes"] == ["a: began with 2 of 5 workers"]


# Going back


def status(now: str = NEW, back: str | None = OLD, bad: str = "") -> Result:
    releases = [
        {"id": NEW, "live": now == NEW, "bad": None},
        {"id": OLD, "live": now == OLD, "bad": bad or None},
    ]
    why = "" if back else "no other release has served"
    return says(0, live=live(now), rollback_to=back, no_rollback=why, releases=releases)


def test_all_go_back_to_the_same_release() -> None:
    assert go_back("", {"a": status(), "b": status(), "c": LOST}) == OLD
    assert go_back(OLD, {"a": status(), "b": status(now=OLD, back="other")}) == OLD
    assert go_back("", {"c": LOST}) == ""


@pytest.mark.parametrize(
    ("wanted", "b", "lines"),
    [
        ("", status(back=None), ["b: there is nothing to go back to: no other release has served"]),
        ("", status(back=NEW), ["The hosts would go back to different releases", f"a: {OLD}", f"b: {NEW}"]),
        ("x", status(), ["a: release x is not on this host", "b: release x is not on this host"]),
        (OLD, status(bad="p95 rose"), [f"b: release {OLD} is marked bad: p95 rose"]),
        ("", {"rc": 2, "stdout": "", "msg": "No such file"}, ["b: No such file"]),
    ],
    ids=["nothing", "different", "unknown", "bad", "not deployed"],
)
def test_what_cannot_be_gone_back_to_is_said_before_anything_changes(wanted: str, b: Result, lines: list[str]) -> None:
    with pytest.raises(CannotGoBackError) as caught:
        go_back(wanted, {"a": status(), "b": b})
    said = str(caught.value).splitlines()
    assert said[0] == "Nothing was changed on any host."
    assert [line[: len(start)] for line, start in zip(said[1:], lines, strict=True)] == lines


def test_rollback_leaves_hosts_alone_that_run_it_and_names_those_it_cannot_reach() -> None:
    said = {"a": {"service_status": status()}, "b": {"service_status": status(now=OLD)}, "c": {"service_status": LOST}}
    state = decided(as_if_probed(OLD, said), max_failures=3)
    assert state["switch"] == ["a"]
    assert told(state, "b") == (OLD, OLD, "already up to date")
    assert told(state, "c") == ("unknown", "unknown", "not reached: no route to host")
    assert list(state["failed"]) == ["c"]


def test_rollback_is_told() -> None:
    outcome = says(0, outcome="switched", live=live(OLD, 2))
    said = {"a": {"service_status": status(), "service_switch": outcome}}
    assert told(decided(as_if_probed(OLD, said)), "a") == (NEW, OLD, "switched")


def test_host_whose_live_release_does_not_answer_runs_nothing() -> None:
    serving = {"release": OLD, "answers": False, "trouble": "/health answers 500"}
    dead = prepared(service_switch=says(1, outcome="refused", live=live(OLD), error="why", serving=serving))
    assert told(decided({"a": dead}), "a") == (OLD, "none", "refused: why")
    alive = prepared(
        service_switch=says(1, outcome="refused", live=live(OLD), error="why", serving={**serving, "answers": True})
    )
    assert told(decided({"a": alive}), "a")[1] == OLD


def test_each_reason_is_told_once_with_its_hosts() -> None:
    hosts = {
        "a": refused(), "b": refused(), "c": prepared(service_probe=LOST), "d": switched(),
        "e": prepared(service_run={"rc": 1, "stdout": "Traceback (most recent call last):\nOSError: no table\n"}),
    }  # fmt: skip
    state = {"hosts": list(hosts), **decided(hosts, max_failures=5)}
    assert failure(state) == {
        "failed": True,
        "msg": "4 of 5 hosts failed",
        "why": [
            "a, b: refused: /health answers 500",
            "c: not reached: no route to host",
            "e: the migration failed: exit code 1: OSError: no table",
        ],
    }


def test_a_host_on_which_sudo_refuses_is_told_as_such() -> None:
    message = "Timeout (12s) waiting for privilege escalation prompt:"
    assert not_reached(message).startswith(f"sudo did not make Ansible root: {message}. Allow it without a password")
    assert not_reached("no route to host\nand more") == "not reached: no route to host"


def test_of_hosts_that_cannot_take_the_app_those_are_told_whose_sudo_refused() -> None:
    words = "sudo: interactive authentication is required"
    hosts = {
        "a": {"service_probe": {"failed": True, "msg": "it has systemd 245"}},
        "b": {"service_probe": {"failed": True, "msg": "MODULE FAILURE", "module_stderr": f"{words}\n"}},
        "c": prepared(),
    }
    first, *more = unfit(hosts).splitlines()
    assert first == "a, b cannot take the app, for the reasons above. Nothing was changed on any host."
    assert [line[: len(f"b: sudo did not make Ansible root: {words}.")] for line in more] == [
        f"b: sudo did not make Ansible root: {words}."
    ]
    assert unfit({"c": prepared()}) == ""


def altered(host: Result) -> Result:
    """A host whose live slot was down when the run began."""
    host["service_probe"]["ansible_facts"]["app_probe"]["altered"] = "shop@blue.service is down"
    return host


def test_repair_is_told_of_hosts_that_switched_or_will_and_of_no_others() -> None:
    hosts = {"a": altered(switched(NEW)), "b": altered(refused()), "c": altered(prepared(NEW))}
    hosts |= {"d": altered(prepared(NEW, fleet_failure="disk")), "e": altered(prepared(NEW, service_switch=LOST))}
    down = "shop@blue.service is down"
    told_now = {"a": "; a switch repaired it", "b": "", "c": "; a switch is to repair it", "d": "", "e": ""}
    assert decided(hosts, max_failures=5)["notes"] == [f"{name}: {down}{more}" for name, more in told_now.items()]
    stopped = {**told_now, "c": ""}
    assert decided(hosts)["notes"] == [f"{name}: {down}{more}" for name, more in stopped.items()]
    assert decided({"c": hosts["c"]}, check=True)["notes"] == [f"c: {down}; a switch would repair it"]


# Whatever a host says


@pytest.mark.parametrize("stdout", ["", "[]", "null", "Traceback", '{"outcome": "refused"}', "{"])
def test_strange_answers_still_give_a_reason(stdout: str) -> None:
    assert reason({"rc": 1, "stdout": stdout, "stderr": "", "msg": ""}) == "exit code 1"
    state = decided({"a": prepared(service_switch={"rc": 1, "stdout": stdout, "stderr": "", "msg": ""})})
    assert told(state, "a")[1] == OLD


def test_settings_may_be_texts() -> None:
    args = {"batches": [1], "max_failures": "2", "restore": "no", "migrate": ""}
    assert Settings.of(args, check=False) == Settings([1], 2, restore=False, migrate=False, check=False)


def test_releases_are_named_as_people_call_them() -> None:
    """As the host knows its own, and this run's build its one; an id alone where there is no other name."""
    releases = [{"id": OLD, "label": "v1 (1111111)"}, {"id": NEW, "label": "before (2222222)"}]
    host = switched(release_label="v2 (3333333)")
    host["service_probe"]["ansible_facts"]["app_probe"]["releases"] = releases
    state = decided({"a": host, "b": prepared("other0000000", release_label="v2 (3333333)"), "c": prepared("")})
    named = {row["host"]: (row["was_named"], row["now_named"]) for row in state["rows"]}
    assert named == {
        "a": (f"{OLD} v1 (1111111)", f"{NEW} v2 (3333333)"),
        "b": ("other0000000", "other0000000"),
        "c": ("none", "none"),
    }
    assert state["label"] == f"{NEW} v2 (3333333)"
    back = as_if_probed(OLD, {"a": {"service_status": says(0, live=live(NEW), releases=releases)}})
    assert decided(back)["rows"][0]["was_named"] == f"{NEW} before (2222222)"
    assert decided(back)["label"] == f"{OLD} v1 (1111111)"
