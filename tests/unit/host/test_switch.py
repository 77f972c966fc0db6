"""The host's switch against a fake systemd: what happens in which order, and what is left when it fails."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.host import cutover, history, preflight
from plugins.module_utils.host.config import HostError
from plugins.module_utils.host.cutover import ACTIVATE, RESTORE, ROLLBACK, RefusedError, Request
from plugins.module_utils.host.finish import BACK_SECONDS
from plugins.module_utils.host.records import SlotRecord
from plugins.module_utils.host.rollback import StaysError, WentBackError
from plugins.module_utils.host.systemd import SystemdError
from tests.unit.host.fake_systemd import Host

BLUE, GREEN = "counter@blue.service", "counter@green.service"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path)


def do(
    host: Host, release: str, verb: str = ACTIVATE, said: list[str] | None = None, force: bool = False
) -> SlotRecord:
    """Switch, as the command does."""
    report = (said if said is not None else []).append
    return host.switch(Request(verb, release, "alice@laptop", force), report)


def test_the_first_release_goes_to_blue_and_the_next_to_green(host: Host) -> None:
    do(host, "aaa")
    assert (host.config.live_slot(), host.live["release"]) == ("blue", "aaa")
    do(host, "bbb")
    assert (host.config.live_slot(), host.live["release"], host.live["previous"]) == ("green", "bbb", "aaa")
    assert (host.config.root / "slots" / "green").readlink() == host.config.release_dir("bbb")


def test_the_old_slot_is_stopped_only_after_traffic_has_moved(host: Host) -> None:
    do(host, "aaa")
    host.systemd.calls.clear()
    host.systemd.link_at_call.clear()
    do(host, "bbb")
    seen = list(zip(host.systemd.calls, host.systemd.link_at_call, strict=True))
    assert (("stop", BLUE, "counter@blue.socket"), "green.sock") in seen
    assert all(link == "green.sock" for call, link in seen if BLUE in call)
    assert (("enable", GREEN), "blue.sock") in seen, "a reboot right after the link must find it"


def test_what_an_interrupted_switch_left_in_the_idle_slot_is_stopped_first(host: Host) -> None:
    do(host, "aaa")
    host.systemd.calls.clear()
    do(host, "bbb")
    calls = [call for call in host.systemd.calls if GREEN in call]
    assert calls[0] == ("stop", GREEN, "counter@green.socket")
    assert [call[0] for call in calls[1:3]] == ["enable", "start"], "enabled before systemd reads the files"


def test_a_release_boots_with_less_of_the_cpu_where_another_one_serves(host: Host) -> None:
    do(host, "aaa")
    assert host.priorities == []
    do(host, "bbb")
    assert host.priorities == [(2, True), (2, False)]


def test_a_refused_release_never_gets_the_link(host: Host) -> None:
    do(host, "aaa")
    host.systemd.calls.clear()
    host.broken.add("bbb")
    with pytest.raises(RefusedError, match="not ready within") as refused:
        do(host, "bbb")
    assert refused.value.log == ["ModuleNotFoundError: No module named 'nothing'"]
    assert (host.config.live_slot(), host.live["release"]) == ("blue", "aaa")
    assert host.systemd.calls[-1] == ("stop", GREEN, "counter@green.socket")
    assert not any(BLUE in call for call in host.systemd.calls)
    assert not host.config.transaction.exists()
    assert "bbb" not in history.bad(host.config), "it may be the settings' fault, and nobody was hurt"


def test_the_slot_is_told_its_release_and_search_path(host: Host) -> None:
    do(host, "aaa")
    folder = host.config.release_dir("aaa")
    assert (host.config.root / "slots" / "blue.env").read_text().splitlines() == [
        "FLEET_RELEASE=aaa",
        "FLEET_MODULE=main:app",
        "FLEET_APP=main:app",
        f"PYTHONPATH={folder}/app:{folder}/lib",
        "FLEET_WORKERS=3",
        "FLEET_ENGINE=gunicorn",
    ]


def test_the_same_release_with_new_settings_keeps_what_was_before_it(host: Host) -> None:
    for release in ("aaa", "bbb", "bbb"):
        do(host, release)
    assert host.live["previous"] == "aaa"


@pytest.mark.parametrize("release", ["ddd", "../aaa", "", "-x"])
def test_an_unknown_release_changes_nothing(host: Host, release: str) -> None:
    with pytest.raises(HostError, match="is not on this host; there are: aaa, bbb"):
        do(host, release)
    assert host.systemd.calls == []


def test_a_refused_deploy_leaves_the_files_of_the_slot_that_serves_alone(host: Host) -> None:
    do(host, "aaa")
    host.want("bad")
    host.broken.add("bbb")
    with pytest.raises(RefusedError):
        do(host, "bbb")
    assert host.config.slot_files("blue")["environment"].read_bytes() == b"first\r\n"
    assert host.config.slot_files("green")["environment"].read_bytes() == b"bad\r\n"


def test_secrets_stay_readable_by_root_only(host: Host) -> None:
    do(host, "aaa")
    do(host, "bbb")
    config = host.config
    secret = [config.etc / "environment.blue", config.etc / "hooks.blue.json", config.slot_record("blue")]
    secret += [config.root / "history.jsonl", *(config.kept_files("aaa")[kind] for kind in ("environment", "hooks"))]
    assert {path.stat().st_mode & 0o777 for path in secret} == {0o600}
    assert config.kept_files("aaa")["environment"].parent.stat().st_mode & 0o777 == 0o700


def test_what_is_no_secret_can_be_read_by_all_and_changed_by_root_only_whatever_the_umask(host: Host) -> None:
    before = os.umask(0)
    try:
        do(host, "aaa")
    finally:
        os.umask(before)
    config = host.config
    readable = [config.slot_files("blue")["service"], config.slot_files("blue")["socket"]]
    assert {path.stat().st_mode & 0o777 for path in readable} == {0o644}
    assert (config.root / "slots").stat().st_mode & 0o777 == 0o755


def test_a_switch_that_could_not_write_down_what_it_does_is_not_begun(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "ROOM_BYTES", 1 << 62)
    with pytest.raises(HostError, match="the disk is full"):
        do(host, "aaa")
    assert host.systemd.calls == []


def test_a_live_link_that_the_command_did_not_create_is_not_overwritten(host: Host, tmp_path: Path) -> None:
    host.config.live_link.symlink_to(tmp_path / "other.sock")
    with pytest.raises(HostError, match=r"a link to .*other\.sock, which .* did not create; nothing was changed"):
        do(host, "aaa")
    assert host.systemd.calls == []


def test_a_slot_record_says_what_runs_with_which_settings_since_when(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(host, "aaa")
    monkeypatch.setattr(host.clock, "time", lambda: 4_000_000_000.9)
    newer = Host(host.folder, engine="asgi", plan={"workers": 2, "reason": "2 workers as set"})
    newer.clock = host.clock
    do(newer, "bbb")
    record = newer.config.live_record()
    assert (record.release, record.slot, record.previous, record.settings) == ("bbb", "green", "aaa", "wanted")
    assert (record.plan.workers, record.engine, record.fingerprint) == (2, "asgi", "first")
    assert (record.plan.reason, record.at, record.closes_kept) == ("2 workers as set", 4_000_000_000, False)
    files = {Path(path).name for path in record.files}
    assert files == {path.name for path in newer.config.slot_files("green").values()} | {"green.env"}
    kinds = {kind for kind, path in newer.config.slot_files("green").items() if record.files[str(path)][:6] == "keyed:"}
    assert kinds == {"environment", "hooks"}, "no plain hash of secrets"


def test_when_the_link_cannot_move_everything_is_as_before(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    do(host, "aaa")
    before = host.live

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(cutover, "link_atomically", full)
    with pytest.raises(RefusedError, match="No space left"):
        do(host, "bbb")
    assert (host.live, host.config.live_slot()) == (before, "blue")
    assert host.systemd.calls[-2:] == [("disable", GREEN), ("stop", GREEN, "counter@green.socket")]


def test_a_slot_that_cannot_be_stopped_does_not_undo_the_switch(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    do(host, "aaa")
    said: list[str] = []

    def fail(unit: str) -> None:
        raise SystemdError(f"cannot disable {unit}")

    monkeypatch.setattr(host.systemd, "disable", fail)
    do(host, "bbb", said=said)
    assert (host.live["release"], host.config.live_slot()) == ("bbb", "green")
    assert any(f"could not be stopped: cannot disable {BLUE}" in line for line in said)


def test_a_refusal_keeps_its_reason_when_its_slot_cannot_be_stopped(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(host, "aaa")
    host.broken.add("bbb")
    monkeypatch.setattr(host.systemd, "disable", lambda _: (_ for _ in ()).throw(SystemdError("no bus")))
    with pytest.raises(RefusedError, match="not ready within"):
        do(host, "bbb")


# --- going back -----------------------------------------------------------------------------------


def test_a_release_that_fails_with_traffic_goes_back_and_is_marked(host: Host) -> None:
    do(host, "aaa")
    host.trouble["bbb"] = "7 of 9 requests ended in a server error"
    with pytest.raises(WentBackError, match="7 of 9") as back:
        do(host, "bbb")
    assert back.value.log
    assert (host.live["release"], host.config.live_slot()) == ("aaa", "blue")
    assert host.systemd.enabled == {BLUE}
    assert host.systemd.active == {BLUE, "counter@blue.socket"}
    assert "7 of 9" in history.bad(host.config)["bbb"]["reason"]
    assert history.entries(host.config)[-1]["result"] == "went back"


def test_going_back_is_one_rename_while_the_old_slot_is_still_up(host: Host) -> None:
    do(host, "aaa")
    host.systemd.calls.clear()
    host.trouble["bbb"] = "not well"
    with pytest.raises(WentBackError):
        do(host, "bbb")
    assert not any(BLUE in call for call in host.systemd.calls if call[0] in ("start", "stop"))


def test_the_old_release_is_started_again_where_it_was_stopped_already(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drain is over before the watch is where memory is short; the way back is then longer, but there is one."""
    tight = Host(host.folder, watch_seconds=5.0, plan={"inputs": {"memory_mib": 456, "reserve_mib": 256}})
    do_first = Host(host.folder)
    do(do_first, "aaa")
    monkeypatch.setattr(tight, "trouble", _After(tight))
    with pytest.raises(WentBackError):
        do(tight, "bbb")
    assert ("start", "counter@blue.socket", BLUE) in tight.systemd.calls
    assert (tight.live["release"], tight.systemd.enabled) == ("aaa", {BLUE})


class _After(dict[str, str]):
    """Trouble that shows once the old slot is gone."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.host = host

    def get(self, key: str, default: Any = "") -> Any:
        return "not well" if BLUE not in self.host.systemd.active else default


def test_where_nothing_else_starts_the_new_release_stays(host: Host) -> None:
    do(host, "aaa")
    host.broken.add("aaa")
    host.trouble["bbb"] = "not well"
    with pytest.raises(StaysError, match="release aaa does not start either"):
        do(host, "bbb")
    assert host.systemd.enabled == {GREEN}, "a reboot brings only what is live"
    assert (host.live["release"], host.config.live_slot()) == ("bbb", "green")
    assert not host.config.transaction.exists()


def test_a_bad_release_needs_other_settings_or_force(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    do(host, "aaa")
    host.trouble["bbb"] = "not well"
    with pytest.raises(WentBackError):
        do(host, "bbb")
    host.trouble.clear()
    calls = len(host.systemd.calls)
    with pytest.raises(HostError, match=r"bbb is marked bad .*: not well.*service_force"):
        do(host, "bbb")
    assert len(host.systemd.calls) == calls
    host.want("second")
    other = Host(host.folder)
    do(other, "bbb")
    assert other.live["release"] == "bbb"
    assert history.bad(other.config) == {}, "it serves, so it is not bad any more"


def test_force_takes_a_bad_release(host: Host) -> None:
    do(host, "aaa")
    history.mark_bad(host.config, "bbb", "not well", host.config.fingerprint)
    with pytest.raises(HostError, match="bbb is marked bad"):
        host.switch(Request(ACTIVATE, "bbb", "alice@laptop"))
    do(host, "bbb", force=True)
    assert host.live["release"] == "bbb"


def test_rollback_brings_the_settings_of_that_time_and_marks_what_it_leaves(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(host, "aaa")
    host.want("second", workers=4)
    newer = Host(host.folder, plan={"workers": 4})
    do(newer, "bbb")
    do(newer, "aaa", ROLLBACK)
    assert newer.config.slot_files("blue")["environment"].read_bytes() == b"first\r\n"
    assert (newer.live["workers"], newer.live["fingerprint"], newer.live["settings"]) == (3, "first", "kept")
    assert "alice@laptop went back from it to aaa" in history.bad(newer.config)["bbb"]["reason"]
    assert history.rollback_candidates(newer.config) == []


def test_going_back_to_workers_that_cannot_hand_kept_connections_over_takes_the_present_settings(host: Host) -> None:
    """nginx would go on asking them, over connections that it keeps, until they are stopped."""
    do(host, "aaa")
    assert host.live["closes_kept"] is False
    wanted = host.config.wanted_files()["service"]
    wanted.write_text(f"[Service]\nEnvironment=FLEET_LIVE_LINK=/srv/live.sock\n{wanted.read_text()}")
    do(host, "bbb")
    said: list[str] = []
    do(host, "aaa", ROLLBACK, said)
    assert (host.live["closes_kept"], host.live["settings"]) == (True, "wanted")
    assert any("proxy_keepalive" in line for line in said)
    do(host, "ccc")
    do(host, "aaa", RESTORE)
    assert (host.live["closes_kept"], host.live["settings"]) == (True, "kept")


def test_slots_may_run_different_engines_and_going_back_brings_the_one_of_that_time(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(host, "aaa")
    record = host.config.slot_record("blue")
    record.write_text(record.read_text().replace('"engine": "gunicorn",', ""))
    host.want("second")
    newer = Host(host.folder, engine="uvicorn")
    do(newer, "bbb")
    engines = {slot: newer.config.engine_of(slot).name for slot in ("blue", "green")}
    assert engines == {"blue": "gunicorn", "green": "uvicorn"}, "version 0.2, which had only one, wrote none down"
    do(newer, "aaa", ROLLBACK)
    assert (newer.live["engine"], newer.live["settings"]) == ("gunicorn", "kept")


def test_release_whose_gunicorn_parses_badly_is_no_deploy_but_a_way_back(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was built before the floor, or for an engine that does not use that parser."""
    manifest = host.config.release_dir("aaa") / "manifest.json"
    built = {**json.loads(manifest.read_text()), "packages": {"gunicorn": "27.0.1", "uvicorn-worker": "0.4"}}
    asgi = Host(host.folder, engine="asgi")
    manifest.write_text(json.dumps(built))
    do(asgi, "aaa")
    do(asgi, "bbb")
    manifest.write_text(json.dumps({**built, "packages": {**built["packages"], "gunicorn": "26.1.0"}}))
    before = asgi.live
    with pytest.raises(
        HostError, match=r"has gunicorn 26\.1\.0, whose parser .* 27 or newer is needed.*\. Nothing was"
    ):
        do(asgi, "aaa")
    assert asgi.live == before
    said: list[str] = []
    do(asgi, "aaa", ROLLBACK, said)
    assert asgi.live["release"] == "aaa"
    assert any(line.startswith("note: the release has gunicorn 26.1.0") for line in said)
    do(asgi, "bbb", force=True)
    do(asgi, "aaa", force=True)
    gunicorn = Host(host.folder)
    do(gunicorn, "aaa")


def test_release_that_lacks_what_the_engine_needs_is_refused_before_anything_changes(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(host, "aaa")
    newer = Host(host.folder, engine="uvicorn")
    manifest = newer.config.release_dir("bbb") / "manifest.json"
    built = {**json.loads(manifest.read_text()), "engine": "asgi", "packages": {"gunicorn": "27.0.1"}}
    manifest.write_text(json.dumps(built))
    with pytest.raises(HostError, match=r"bbb was built for the engine asgi and lacks uvicorn, which uvicorn \("):
        do(newer, "bbb")
    assert (newer.live["release"], newer.config.transaction.exists()) == ("aaa", False)
    manifest.write_text(json.dumps({**built, "packages": {"uvicorn": "0.54.0", "uvicorn-worker": "0.4.0"}}))
    do(newer, "bbb")


def test_restore_marks_nothing(host: Host) -> None:
    do(host, "aaa")
    do(host, "bbb")
    do(host, "aaa", RESTORE)
    assert (host.live["release"], history.bad(host.config)) == ("aaa", {})


def test_rollback_after_a_restore_does_not_go_forward_to_what_was_taken_back(host: Host) -> None:
    for release in ("aaa", "bbb", "ccc"):
        do(host, release)
    do(host, "bbb", RESTORE)
    assert history.rollback_candidates(host.config) == ["aaa"]
    do(host, "ccc")
    assert history.rollback_candidates(host.config) == ["bbb", "aaa"]


def test_going_back_is_watched_for_a_moment_only(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who goes back is in a hurry, and the release has served before."""
    do(host, "aaa")
    do(host, "bbb")
    long = Host(host.folder, watch_seconds=3600.0)
    before = long.clock.now
    do(long, "aaa", ROLLBACK)
    assert BACK_SECONDS <= long.clock.now - before < BACK_SECONDS + 1
    assert long.live["release"] == "aaa"


def test_going_back_to_what_was_not_kept_takes_the_present_settings_and_says_so(host: Host) -> None:
    do(host, "aaa")
    said: list[str] = []
    do(host, "bbb", ROLLBACK, said)
    assert any("were not kept" in line for line in said)
    assert host.live["settings"] == "wanted"


# --- hooks ----------------------------------------------------------------------------------------


def test_hooks_run_as_the_app_before_and_after_the_link_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path, hook_before="before $X", hook_after="after", user="shop")
    do(host, "aaa")
    runs = [
        (call[-1], link)
        for call, link in zip(host.systemd.calls, host.systemd.link_at_call, strict=True)
        if call[0] == "run"
    ]
    assert runs == [("before $X", ""), ("after", "blue.sock")]
    first = host.systemd.commands[0]
    assert (first.user, first.environment_file.name) == ("shop", "environment.blue")
    assert "FLEET_RELEASE=aaa" in first.words


def test_a_hook_that_fails_before_the_switch_refuses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path, hook_before="false")
    host.systemd.hook_result = (3, "no such table")
    with pytest.raises(RefusedError, match="service_hook_before failed with exit code 3: no such table"):
        do(host, "aaa")
    assert host.config.live_slot() is None


def test_a_hook_that_fails_after_the_switch_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path, hook_after="false")
    host.systemd.hook_result = (3, "no such host")
    said: list[str] = []
    do(host, "aaa", said=said)
    assert any(line.startswith("note: the release is live, but service_hook_after failed") for line in said)
    assert host.live["release"] == "aaa"


# --- memory ---------------------------------------------------------------------------------------


def test_where_memory_holds_one_set_only_the_new_one_starts_small_and_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Host(tmp_path)
    host = Host(tmp_path, plan={"inputs": {"memory_mib": 476, "reserve_mib": 256}})
    do(host, "aaa")
    said: list[str] = []
    do(host, "bbb", said=said)
    assert any("with 1 worker of 3, as memory does not hold both sets" in line for line in said), said
    assert len(host.systemd.workers(2)) == 3
    assert "FLEET_WORKERS=3\n" in host.config.slot_environment("green").read_text(), "a restart brings all of them"
    grown = [call for call in host.systemd.calls if call[0] == "resize" and GREEN in call]
    assert len(grown) == 2


def test_memory_that_is_used_up_does_not_keep_a_host_from_going_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that leaks is the very one to go back from."""
    do(Host(tmp_path), "aaa")
    host = Host(tmp_path, plan={"inputs": {"memory_mib": 416, "reserve_mib": 256}})
    do(host, "bbb", RESTORE)
    do(host, "aaa", ROLLBACK)
    assert host.live["release"] == "aaa"
    assert len(host.systemd.workers(1)) == 3
