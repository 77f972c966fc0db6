"""What `status` and `verify` say of each state that a host may be in: how bad it is, why, and what helps."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plugins.module_utils.host import history, status
from plugins.module_utils.host.checks.finding import DIFFERS, HURTS_AT_RESTART, HURTS_NOW, NOTE
from plugins.module_utils.host.config import Config
from plugins.module_utils.host.cutover import ACTIVATE, Request
from plugins.module_utils.host.file_set import copies_of_edited
from plugins.module_utils.host.files import write_object
from plugins.module_utils.host.journal import Transaction
from plugins.module_utils.host.log_excerpt import Entry
from plugins.module_utils.host.proc import Pool
from plugins.module_utils.host.proxy import Entrance, Proxy
from plugins.module_utils.host.sockets import Answers
from plugins.module_utils.host.written import RECORD, written_text
from tests.unit.host.fake_systemd import APP, FIRST_PID, Host

UNIT, SOCKET = f"{APP}@blue.service", f"{APP}@blue.socket"
TIMER, RECYCLE = f"{APP}-release-recycle.timer", f"{APP}-release-recycle.service"
TRACEBACK = ["Traceback (most recent call last):", '  File "main.py", line 1, in <module>', "RuntimeError: db is away"]


class FakeProxy(Proxy):
    """An nginx that says what a test wants."""

    def __init__(self, trouble: str = "", status: int = 200) -> None:
        self.trouble, self.status = trouble, status

    def test(self) -> str:
        return self.trouble

    def ask(self, entrance: Entrance, path: str, seconds: float) -> tuple[int, str]:
        return self.status, "" if self.status else "timed out"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host with nginx in front, on which aaa serves from the blue slot."""
    file = tmp_path / "counter.conf"
    file.write_text("server { listen 80; server_name shop.example; }")
    host = Host(tmp_path, proxy_file=str(file))
    host.proxy = FakeProxy()
    host.switch(Request(ACTIVATE, "aaa", "test"))
    host.systemd.shown["nginx.service"] = {"ActiveState": "active"}
    host.systemd.enabled_states["nginx.service"] = "enabled"
    return host


def change(host: Host, **settings: Any) -> None:
    """Give the host other settings."""
    host.config = Config(**{**vars(host.config), **settings})


def down(host: Host, **properties: str) -> None:
    host.systemd.stop(UNIT)
    host.systemd.shown[UNIT] = {"ActiveState": "failed", "ExecMainCode": "1", "ExecMainStatus": "3", **properties}


def nginx_down(host: Host) -> None:
    host.systemd.shown["nginx.service"] = {
        "ActiveState": "failed", "Result": "signal", "ExecMainCode": "2", "ExecMainStatus": "9",
    }  # fmt: skip


def crashed(host: Host) -> None:
    host.systemd.restarted, host.systemd.recent_lines = 4, TRACEBACK
    down(host, Result="start-limit-hit")


def restarting(host: Host) -> None:
    host.systemd.shown[UNIT] = {"NRestarts": "4"}
    host.systemd.restarted, host.systemd.recent_lines = 4, TRACEBACK


def hung(host: Host, **kernel: Callable[[int], Any]) -> None:
    host.trouble["aaa"] = "timed out"
    host.asked_kernel = dict(kernel)


def dying(host: Host, times: int) -> None:
    host.systemd.recent_lines = [
        f"[2026] [7] [ERROR] Worker (pid:{pid}) exited with code 1." for pid in [*range(8, 7 + times), 7]
    ] + TRACEBACK


def without_link(host: Host) -> None:
    host.config.live_link.unlink()


def without_slot_link(host: Host) -> None:
    host.asked_kernel = {"release_of": lambda _: "aaa"}
    host.ask = lambda *_: Answers([200], {FIRST_PID, FIRST_PID + 1, FIRST_PID + 2})  # type: ignore[method-assign]
    (host.config.root / "slots" / "blue").unlink()


def full(host: Host, **disk: int) -> None:
    free = {"f_flag": 0, "f_bavail": 1 << 20, "f_frsize": 4096, "f_files": 1000, "f_favail": 900}
    places = {host.config.root: SimpleNamespace(**{**free, **disk})}
    host.asked_kernel = {"disk": lambda place: places.get(place, SimpleNamespace(**free))}


def another_python(host: Host) -> None:
    write_object(host.config.release_dir("aaa") / ".complete", {"python": "3.1"})
    change(host, python=sys.executable)


def recycling_stopped(host: Host, how: str) -> None:
    change(host, worker_memory_max_mib=100.0)
    if how == "limit":
        line = {"switch": host.config.live_record().at, "limit": 100.0, "result": "stopped", "reason": "it leaks"}
        history.note(host.config, line, history.RECYCLED)
    else:
        host.systemd.shown[TIMER if how == "timer" else RECYCLE] = {"ActiveState": "failed", "Result": "exit-code"}


def cut_off(host: Host) -> None:
    Transaction("activate", "bbb", "me", "aaa", "blue", "green", 1.0).write(host.config)


def edited(host: Host, gone: bool = False) -> None:
    file = host.folder / "counter.conf"
    (host.config.etc / RECORD).write_text(written_text({str(file): "of another content"}))
    if gone:
        file.unlink()
        file.symlink_to(host.folder / "nowhere")
        file.unlink()


def files_gone(host: Host) -> None:
    folder = host.config.release_dir("aaa")
    write_object(folder / ".complete", {"files": {"app": 3, "manifest.json": 1}})


HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
#: For each state: how it comes about, how bad it is, what is said among else.
STATES: dict[str, tuple[Callable[[Host], Any], str, list[str]]] = {
    "nginx down": (nginx_down, HURTS_NOW, ["nginx is down: it was killed by SIGKILL", "systemctl start nginx"]),
    "nginx disabled": (
        lambda host: host.systemd.enabled_states.update({"nginx.service": "disabled"}),
        HURTS_AT_RESTART, ["nginx is disabled", "systemctl enable nginx"],
    ),
    "nginx refuses its files": (
        lambda host: setattr(host, "proxy", FakeProxy("unknown directive in /etc/nginx/conf.d/other.conf:1")),
        HURTS_AT_RESTART, ["would not start", "/etc/nginx/conf.d/other.conf:1"],
    ),
    "nginx does not pass on": (
        lambda host: setattr(host, "proxy", FakeProxy(status=502)),
        HURTS_NOW, ["nginx answers 502 for http://shop.example/health", "the app itself is well"],
    ),
    "slot down": (crashed, HURTS_NOW, [
        "start limit", "exited with status 3", "4 times within the ", "RuntimeError: db is away", "activate aaa",
    ]),
    "socket down": (lambda host: host.systemd.stop(SOCKET), HURTS_NOW, [f"{SOCKET} is down"]),
    "restarts": (restarting, HURTS_NOW, ["started again 4 times within the 0.0", "RuntimeError: db is away"]),
    "main process stopped": (
        lambda host: host.asked_kernel.update(state_of=lambda pid: "T" if pid == 1 else "S"),
        DIFFERS, ["the main process 1", "kill -CONT 1"],
    ),
    "slot disabled": (
        lambda host: host.systemd.disable(UNIT), HURTS_AT_RESTART, [f"{UNIT} is disabled", f"systemctl enable {UNIT}"],
    ),
    "idle slot enabled": (
        lambda host: host.systemd.enable(f"{APP}@green.service"), NOTE, [f"systemctl disable {APP}@green.service"],
    ),
    "needs daemon-reload": (
        lambda host: host.systemd.shown.update({SOCKET: {"NeedDaemonReload": "yes"}}),
        NOTE, [SOCKET, "systemctl daemon-reload"],
    ),
    "workers missing": (lambda host: host.systemd.resize(UNIT, -1), HURTS_NOW, ["3 workers planned, 2 run"]),
    "workers do not answer": (hung, HURTS_NOW, ["3 workers run, 0 answer /health (timed out)"]),
    "workers die": (lambda host: dying(host, 60), HURTS_NOW, [
        "again and again: 60 workers died", "exited with code 1", "RuntimeError: db is away",
    ]),
    "thread pools full": (
        lambda host: host.asked_kernel.update(pool=lambda pid: Pool(40, 40, 7, 12.0 if pid == FIRST_PID else 2.0)),
        HURTS_NOW, ["of 1 of 3 workers is full: 1000 (40 threads, 7 requests wait) for 12 s"],
    ),
    "descriptors used up": (
        lambda host: host.asked_kernel.update(descriptors=lambda pid: (1020 if pid == FIRST_PID + 1 else 20, 1024)),
        HURTS_NOW, [f"worker {FIRST_PID + 1} has 1020 of 1024 file descriptors"],
    ),
    "workers have grown": (
        lambda host: host.asked_kernel.update(memory_mib=lambda pid: 800.0 if pid == FIRST_PID else 40.0),
        NOTE, ["a worker takes 800 MiB, 20 times the 40 that a fresh one took"],
    ),
    "another release runs": (
        lambda host: host.asked_kernel.update(release_of=lambda _: "bbb"),
        DIFFERS, ["release aaa is recorded as live, the workers run bbb"],
    ),
    "release not whole": (
        lambda host: shutil.rmtree(host.config.release_dir("aaa")), HURTS_AT_RESTART, ["releases/aaa is gone"],
    ),
    "slot link gone": (
        without_slot_link, HURTS_AT_RESTART, ["slots/blue is gone"],
    ),
    "another Python": (another_python, HURTS_AT_RESTART, ["was built for Python 3.1", f"the host has {HERE}"]),
    "slot files edited": (
        lambda host: (host.config.units / UNIT).write_text("ExecStart=other --workers ${FLEET_WORKERS}\n"),
        HURTS_AT_RESTART, [UNIT, "was edited since the switch", "activate aaa"],
    ),
    "settings differ": (
        lambda host: change(host, fingerprint="second"), DIFFERS, ["the settings on disk are not those"],
    ),
    "file edited": (edited, NOTE, ["counter.conf was edited since the last deploy wrote it", "keeps this one beside"]),
    "no room": (lambda host: full(host, f_bavail=1), HURTS_AT_RESTART, ["srv is full (4 kB are free): make room"]),
    "wrong clock": (
        lambda host: history.note(host.config, {"at": 4_000_000_000}), DIFFERS, ["the last switch was at 2096"],
    ),
    "recycling stopped": (lambda host: recycling_stopped(host, "limit"), DIFFERS, ["recycling has stopped: it leaks"]),
    "recycling fails": (lambda host: recycling_stopped(host, "service"), DIFFERS, [f"{RECYCLE} failed"]),
    "switch cut off": (cut_off, DIFFERS, ["a switch to release bbb was cut off: counter-release recover"]),
}  # fmt: skip


def found(host: Host) -> list[dict[str, str]]:
    findings: list[dict[str, str]] = status.status(host.context())["findings"]
    return findings


def test_nothing_is_said_of_a_host_that_is_well(host: Host) -> None:
    assert found(host) == []


@pytest.mark.parametrize("state", STATES)
def test_each_state_is_said_once_with_how_bad_it_is_and_why(host: Host, state: str) -> None:
    make, severity, texts = STATES[state]
    make(host)
    (finding,) = [finding for finding in found(host) if finding["state"] == state]
    assert finding["severity"] == severity
    assert [text for text in texts if text not in finding["text"]] == []
    assert [other for other in found(host) if other["severity"] in (HURTS_NOW, severity)] == [finding], "and no other"
    shown = status.verify(host.context())
    assert (finding["text"] in shown["differences"]) == (severity != NOTE)
    assert any(finding["text"] in line for line in status.as_text(shown))


@pytest.mark.parametrize(
    ("kernel", "text"),
    [
        ({"beat_age": lambda _: 42.0}, "whose event loop stands still: 1000 for 42 s, 1001 for 42 s, 1002 for 42 s"),
        ({"threads": lambda _: 44}, "its thread pool seems full: 1000 with 44 threads"),
        ({"state_of": lambda pid: "T" if pid == FIRST_PID else "S"}, "1000 stopped (SIGSTOP): kill -CONT PID"),
        ({"beat_age": lambda _: None, "threads": lambda _: 44}, "(timed out)"),
    ],
    ids=["loops blocked", "pools full", "workers stopped", "a server without signs of life"],
)
def test_why_workers_do_not_answer(host: Host, kernel: dict[str, Callable[[int], Any]], text: str) -> None:
    hung(host, **kernel)
    (finding,) = found(host)
    assert text in finding["text"]


def test_an_app_that_answers_with_an_error_is_quoted(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "ask", lambda *_: Answers([500, 500]))
    host.systemd.recent_lines = TRACEBACK
    (finding,) = found(host)
    assert "0 answer /health (it answers 500); its last exception: RuntimeError: db is away" in finding["text"]


@pytest.mark.parametrize("state", ["down", "answers badly"])
def test_the_last_exception_is_of_the_last_start_and_of_after_the_switch(
    host: Host, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """An earlier one may have ended for another reason, and what was before the switch is of another release."""
    if state == "down":
        down(host, Result="exit-code")
    else:
        monkeypatch.setattr(host, "ask", lambda *_: Answers([500, 500]))
    host.systemd.earlier_starts, host.systemd.recent_lines = [TRACEBACK], ["Started."]
    (finding,) = found(host)
    assert "exception" not in finding["text"]
    host.systemd.recent_lines, host.systemd.ago, host.systemd.restarted = TRACEBACK, 900, 2
    (finding,) = found(host)
    assert "exception" not in finding["text"]
    assert "started again" not in finding["text"]
    host.systemd.ago = 0
    (finding,) = found(host)
    assert "its last exception: RuntimeError: db is away" in finding["text"]


def test_of_a_server_that_was_started_again_the_last_exception_is_of_a_start_that_ended(host: Host) -> None:
    restarting(host)
    host.systemd.earlier_starts, host.systemd.recent_lines = [TRACEBACK], ["Started."]
    (finding,) = found(host)
    assert "its last exception: RuntimeError: db is away" in finding["text"]


def ended(code: str, status: int) -> list[Entry]:
    """What a start logs that serves, answers one request with 500, and ends like this."""
    lines = [Entry(7, line) for line in TRACEBACK]
    return [*lines, Entry(1, f"{UNIT}: Main process exited, code={code}, status={status}/WORD")]


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        ("killed", 9, "the last time it was killed by SIGKILL"),
        ("exited", 3, "the last time it exited with status 3, its last exception: RuntimeError: db is away"),
    ],
)
def test_an_exception_is_no_reason_for_what_a_signal_has_ended(
    host: Host, monkeypatch: pytest.MonkeyPatch, code: str, status: int, text: str
) -> None:
    restarting(host)
    monkeypatch.setattr(host.systemd, "recent", lambda *_: [ended("exited", 1), ended(code, status), [Entry(7, "up")]])
    (finding,) = found(host)
    assert finding["text"].endswith(text)


def test_a_worker_that_a_signal_has_ended_died_of_no_exception(host: Host) -> None:
    host.systemd.recent_lines = [
        *TRACEBACK,
        "[2026] [7] [ERROR] Worker (pid:7) was sent SIGKILL! Perhaps out of memory?",
    ]
    (finding,) = found(host)
    assert "SIGKILL" in finding["text"]
    assert "exception" not in finding["text"]


def test_an_exception_of_another_worker_is_no_reason(host: Host) -> None:
    host.systemd.recent_lines = [*TRACEBACK, "[2026] [7] [ERROR] Worker (pid:8) exited with code 1."]
    (finding,) = found(host)
    assert "exception" not in finding["text"]


def test_a_loop_that_has_ended_is_a_note(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    dying(host, 60)
    recent = host.systemd.recent
    monkeypatch.setattr(host.systemd, "recent", lambda unit, seconds: recent(unit, seconds) if seconds > 120 else [])
    monkeypatch.setattr("plugins.module_utils.host.checks.workers.since_switch", lambda _: 3600.0)
    (finding,) = found(host)
    assert finding["severity"] == NOTE
    restarting(host)
    host.systemd.recent_lines = []
    monkeypatch.setattr(host.systemd, "restarts", lambda _unit, seconds: 4 if seconds > 120 else 0)
    monkeypatch.setattr("plugins.module_utils.host.checks.units.since_switch", lambda _: 3600.0)
    (finding,) = found(host)
    assert (finding["severity"], finding["state"]) == (NOTE, "restarts")


@pytest.mark.parametrize(
    ("holder", "text"),
    [
        ((8691, "python3"), "port 80 is taken by python3 (process 8691), which has to stop first: systemctl start"),
        ((0, ""), "port 80 is taken by a process that hides"), (None, "(result: exit-code): systemctl start nginx"),
    ],
)  # fmt: skip
def test_nginx_that_cannot_start_is_told_with_who_has_its_port(
    host: Host, holder: tuple[int, str] | None, text: str
) -> None:
    nginx = {"ActiveState": "failed", "Result": "exit-code", "ExecMainCode": "0", "ExecMainStatus": "0"}
    host.systemd.shown["nginx.service"] = nginx
    host.asked_kernel = {"listener": lambda port: holder if port == 80 else None}
    (finding,) = found(host)
    assert "nginx is down: it could not be started (result: exit-code)" in finding["text"]
    assert text in finding["text"]


@pytest.mark.parametrize(("result", "given_up"), [("service-start-limit-hit", True), ("success", False)])
def test_that_systemd_starts_it_no_more_is_told(host: Host, result: str, given_up: bool) -> None:
    down(host, Result="exit-code")
    host.systemd.shown[SOCKET] = {"Result": result}
    (finding,) = found(host)
    assert ("systemd has given up: it starts it no more by itself" in finding["text"]) == given_up


def test_the_folder_of_nginxs_logs_can_be_full_by_itself(host: Host, tmp_path: Path) -> None:
    change(host, proxy_log=str(tmp_path / "logs" / "counter.watch.log"))
    (tmp_path / "logs").mkdir()
    free = {"f_flag": 0, "f_bavail": 1 << 20, "f_frsize": 4096, "f_files": 1000, "f_favail": 900}
    disks = {tmp_path / "logs": SimpleNamespace(**{**free, "f_bavail": 0})}
    host.asked_kernel = {"disk": lambda place: disks.get(place, SimpleNamespace(**free))}
    (finding,) = found(host)
    assert finding["text"].startswith(f"{tmp_path / 'logs'} is full (0 kB are free): make room; nginx's logs lie there")


def test_without_a_log_of_nginxs_that_of_all_units_is_told_as_such(host: Host) -> None:
    change(host, proxy_log="")
    free = {"f_flag": 0, "f_bavail": 1 << 20, "f_frsize": 4096, "f_files": 1000, "f_favail": 900}
    disks = {Path("/var/log"): SimpleNamespace(**{**free, "f_bavail": 0})}
    host.asked_kernel = {"disk": lambda place: disks.get(place, SimpleNamespace(**free))}
    (finding,) = found(host)
    assert finding["text"].endswith("logs lie there, of nginx and of all units")


def test_a_slot_that_was_stopped_on_purpose_is_started_again(host: Host) -> None:
    down(host, ActiveState="inactive", Result="success", ExecMainStatus="0")
    (finding,) = found(host)
    assert finding["text"].endswith(f"{UNIT} is down: it was stopped: systemctl start {UNIT}")


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"Result": "exit-code"}, "it exited with status 3"),
        ({"Result": "signal", "ExecMainCode": "2", "ExecMainStatus": "9"}, "killed by SIGKILL"),
        (
            {"Result": "core-dump", "ExecMainCode": "3", "ExecMainStatus": str(int(signal.SIGSEGV))},
            "SIGSEGV, with a core dump",
        ),
        ({"Result": "timeout", "ExecMainCode": "2", "ExecMainStatus": "99"}, "not up, or not down, in time"),
        ({"Result": "oom-kill"}, "the memory was used up"),
        ({"Result": "success", "LoadState": "not-found"}, "there is no such unit: deploy, or"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_how_a_slot_went_down(host: Host, properties: dict[str, str], words: str) -> None:
    down(host, **properties)
    (finding,) = found(host)
    assert words in finding["text"]
    assert "result: success" not in finding["text"]


@pytest.mark.parametrize(("times", "severity"), [(1, NOTE), (5, NOTE), (6, HURTS_NOW)])
def test_a_worker_that_dies_now_and_then_hurts_nobody_for_long(host: Host, times: int, severity: str) -> None:
    dying(host, times)
    (finding,) = found(host)
    assert (finding["severity"], finding["state"]) == (severity, "workers die")


@pytest.mark.parametrize(("make", "state"), [(restarting, "restarts"), (lambda host: dying(host, 60), "workers die")])
def test_what_is_over_is_a_note_for_an_hour_and_nothing_after_a_switch(
    host: Host, make: Callable[[Host], None], state: str
) -> None:
    make(host)
    host.systemd.ago = 900
    assert found(host) == [], "it was before the switch"
    path = host.config.slot_record("blue")
    path.write_text(json.dumps({**json.loads(path.read_text()), "at": 1}))
    (finding,) = found(host)
    assert (finding["severity"], finding["state"]) == (NOTE, state)


@pytest.mark.parametrize(
    ("disk", "text"),
    [({"f_favail": 2}, "is out of inodes (2 are free)"), ({"f_flag": os.ST_RDONLY}, "that is read-only")],
)
def test_no_room_of_other_kinds(host: Host, disk: dict[str, int], text: str) -> None:
    full(host, **disk)
    assert [text in finding["text"] for finding in found(host)] == [True]


@pytest.mark.parametrize(
    ("fresh", "measured", "told"),
    [
        (0, None, "4 times the 100 that were planned"), (30, 100, "4 times the 100 that were planned"),
        (100, 30, "4 times the 100 that a fresh one took"), (101, None, ""), (30, 101, ""), (0, 101, ""),
    ],
)  # fmt: skip
def test_a_worker_has_grown_by_what_a_fresh_one_took_or_was_measured(
    host: Host, fresh: int, measured: int | None, told: str
) -> None:
    path = host.config.slot_record("blue")
    record = json.loads(path.read_text())
    record["plan"]["inputs"] |= {"measured_mib": measured, "worker_mib": "auto"}
    path.write_text(json.dumps({**record, "fresh_mib": fresh}))
    host.asked_kernel.update(memory_mib=lambda pid: 400.0 if pid == FIRST_PID else 40.0)
    assert [told in finding["text"] for finding in found(host)] == [True] * bool(told)


def test_files_of_a_release_that_are_gone_are_counted(host: Host) -> None:
    files_gone(host)
    (finding,) = found(host)
    assert "2 of 3 files are gone from" in finding["text"]


def test_a_link_that_is_gone_is_told_with_the_slot_that_serves(host: Host) -> None:
    without_link(host)
    (finding,) = found(host)
    assert (finding["severity"], finding["state"]) == (HURTS_NOW, "live link gone")
    assert "the blue slot runs release aaa" in finding["text"]
    assert f"ln -sfn {host.config.socket('blue')} {host.config.live_link}" in finding["text"]
    host.systemd.stop(UNIT)
    (finding,) = found(host)
    assert finding["text"].endswith("the blue slot is down, and has release aaa: deploy")
    host.systemd.start(UNIT)
    host.systemd.disable(UNIT)
    (finding,) = found(host)
    assert "the blue slot runs release aaa" in finding["text"], "also where nothing starts it at boot"


def test_a_link_that_leads_elsewhere_is_told(host: Host) -> None:
    without_link(host)
    host.config.live_link.symlink_to("/run/other.sock")
    (finding,) = found(host)
    assert (finding["severity"], finding["state"]) == (HURTS_NOW, "live link altered")


def test_a_host_without_nginx_of_ours_is_asked_nothing_of_it(host: Host) -> None:
    (host.folder / "counter.conf").unlink()
    nginx_down(host)
    host.proxy = FakeProxy("broken", 0)
    assert found(host) == []


@pytest.mark.parametrize("made", ["file", "link", "link that was replaced", "folder"])
def test_what_is_said_of_an_edited_file_is_what_the_next_deploy_does(host: Host, made: str) -> None:
    path = host.folder / "some.conf"
    written = {str(path): "link:elsewhere" if made == "link that was replaced" else "of another content"}
    (host.config.etc / RECORD).write_text(written_text(written))
    if made == "folder":
        path.mkdir()
    elif made == "link":
        path.symlink_to(host.folder / "counter.conf")
    else:
        path.write_text("by hand")
    (finding,) = found(host)
    item = {"path": str(path), "content": "ours", "link": None, "state": "present"}
    link = {"link": "elsewhere"} if made == "link that was replaced" else {}
    copies = copies_of_edited([{**item, **link}], written, None, "now")
    assert (", and keeps this one beside" in finding["text"]) == bool(copies) == (made in {"file", "link"})


def test_settings_that_were_gone_back_to_are_a_note(host: Host) -> None:
    change(host, fingerprint="second")
    path = host.config.slot_record("blue")
    path.write_text(json.dumps({**json.loads(path.read_text()), "settings": "kept"}))
    (finding,) = found(host)
    assert (finding["severity"], finding["state"]) == (NOTE, "settings kept")
