"""What systemd is asked for, word by word, and what is read from its answers: programs of its names are in its place.

How the real one takes the words is shown by every Molecule scenario.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from plugins.module_utils.host.log_excerpt import OTHER_LINES, Excerpt, last_exception
from plugins.module_utils.host.mask import mask
from plugins.module_utils.host.systemd import (
    JOURNAL_LINES,
    PROPERTIES,
    Command,
    Systemd,
    SystemdError,
    UnitState,
    in_unit,
    transient,
)
from tests.unit.host.fake_systemd import Host

UNIT = "counter@blue.service"
SOCKET = "counter@blue.socket"
COMMAND = Command(("x",), "counter", "shop", Path("/srv/a"), Path("/etc/e"), 1)


class Programs:
    """A folder at the front of PATH, for programs that stand in for systemd's and note how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, folder / "calls"

    def add(self, name: str, script: str) -> None:
        """Put a shell script in a program's place; the words of each call are noted before it begins."""
        (self.folder / name).write_text(f'#!/bin/sh\necho "${{0##*/}} $*" >> {self.calls}\n{script}\n')
        (self.folder / name).chmod(0o755)

    def shows(self, **properties: object) -> None:
        """Have `systemctl show` print properties, and any other call succeed."""
        lines = "\n".join(f"{name}={value}" for name, value in properties.items())
        self.add("systemctl", f'[ "$1" != show ] || cat <<"EOF"\n{lines}\nEOF')

    @property
    def called(self) -> list[str]:
        """The calls so far, without the looks at a unit, each as it would be typed."""
        return [call for call in self.calls.read_text().splitlines() if " show " not in call]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Programs(tmp_path)


# --- units ----------------------------------------------------------------------------------------


def test_a_start_reads_the_files_anew_forgets_failures_and_does_not_wait(programs: Programs) -> None:
    programs.shows()
    Systemd(str).start(SOCKET, UNIT)
    assert programs.called == [
        "systemctl daemon-reload",
        f"systemctl reset-failed {SOCKET} {UNIT}",
        f"systemctl start --no-block {SOCKET} {UNIT}",
    ]


def test_a_unit_that_was_never_loaded_has_no_failures_to_forget(programs: Programs) -> None:
    programs.add("systemctl", '[ "$1" != reset-failed ] || { echo "Unit not loaded." >&2; exit 5; }')
    Systemd(str).start(UNIT)
    Systemd(str).stop(UNIT)
    assert programs.called[-2:] == [f"systemctl stop {UNIT}", f"systemctl reset-failed {UNIT}"]


@pytest.mark.parametrize(
    ("wait", "words"),
    [
        (True, [f"stop {UNIT}", f"stop {SOCKET}", f"reset-failed {UNIT} {SOCKET}"]),
        (False, [f"stop --no-block {UNIT}", f"stop --no-block {SOCKET}"]),
    ],
)
def test_a_stop_waits_only_where_it_is_to(programs: Programs, wait: bool, words: list[str]) -> None:
    programs.shows(ActiveState="active")
    Systemd(str).stop(UNIT, SOCKET, wait=wait)
    assert programs.called == [f"systemctl {call}" for call in words]


def test_a_unit_that_is_down_is_not_stopped_but_a_failed_one_is(programs: Programs) -> None:
    programs.shows(ActiveState="inactive")
    Systemd(str).stop(UNIT)
    assert programs.called == [f"systemctl reset-failed {UNIT}"]
    programs.shows(ActiveState="failed")
    Systemd(str).stop(UNIT)
    assert f"systemctl stop {UNIT}" in programs.called, "what is left of its processes goes too"
    Systemd(str).stop(UNIT, wait=False)
    assert programs.called[-2:] == [f"systemctl stop --no-block {UNIT}", f"systemctl reset-failed {UNIT}"]


def test_a_slot_is_enabled_and_disabled_without_a_reload(programs: Programs) -> None:
    programs.shows()
    Systemd(str).enable(UNIT)
    Systemd(str).disable(UNIT)
    words = ["--root=/ enable --quiet", "--root=/ disable --quiet"]
    assert programs.called == [f"systemctl {each} {UNIT}" for each in words]


@pytest.mark.parametrize(
    ("script", "reason"),
    [("echo about; echo 'Access denied' >&2; exit 1", "Access denied"), ("echo 'only here'; exit 4", "only here")],
)
def test_a_call_that_fails_says_which_and_why(programs: Programs, script: str, reason: str) -> None:
    programs.add("systemctl", script)
    with pytest.raises(SystemdError) as caught:
        Systemd(str).enable(UNIT)
    assert str(caught.value) == f"systemctl --root=/ enable --quiet {UNIT}: {reason}"


def test_properties_of_many_units_are_asked_in_one_call(programs: Programs) -> None:
    blocks = f"Id={UNIT}\nMainPID=7\nResult=exit-code\n\nId={SOCKET}\nActiveState=active"
    programs.add("systemctl", f'cat <<"EOF"\n{blocks}\nEOF\nexit 1')
    assert Systemd(str).show(UNIT, SOCKET, "nothing.service") == {
        UNIT: {"Id": UNIT, "MainPID": "7", "Result": "exit-code"},
        SOCKET: {"Id": SOCKET, "ActiveState": "active"},
    }
    assert programs.calls.read_text() == (
        f"systemctl show --property={','.join(PROPERTIES)} {UNIT} {SOCKET} nothing.service\n"
    )


def test_whether_a_unit_is_enabled_is_asked_for_as_it_stands_on_the_disk(programs: Programs) -> None:
    programs.add("systemctl", "echo disabled; exit 1")
    assert Systemd(str).enabled_state(UNIT) == "disabled"
    assert programs.called == [f"systemctl is-enabled {UNIT}"]


def test_the_last_hour_of_a_unit_is_counted_and_read_without_secrets(programs: Programs) -> None:
    programs.add("journalctl", f"echo '{record('a secret')}'; echo '{record('b')}'")
    systemd = Systemd(lambda text: text.replace("secret", "***"))
    assert systemd.restarts(UNIT, 3600.0) == 2
    assert [[entry.text for entry in start] for start in systemd.recent(UNIT, 90.4)] == [["a ***", "b"]]
    asked = programs.calls.read_text().splitlines()
    assert "--since=-3600s" in asked[0]
    assert f"MESSAGE_ID=5eb03494b6584870a536b337290809b3 UNIT={UNIT}" in asked[0]
    assert asked[1].endswith(f" --since=-90s --lines={JOURNAL_LINES}")


def test_a_units_state_is_what_systemd_shows(programs: Programs) -> None:
    programs.shows(ActiveState="active", Result="success", MainPID=4711, NRestarts=2, Job=0)
    assert Systemd(str).state(UNIT) == UnitState("active", "success", 4711, 2, queued=False)
    asked = "ActiveState,Result,MainPID,NRestarts,Job,ExecMainCode,ExecMainStatus"
    assert programs.calls.read_text() == f"systemctl show --property={asked} {UNIT}\n"
    programs.shows(ActiveState="inactive", Result="a=b", MainPID="", NRestarts="", Job=88)
    assert Systemd(str).state(UNIT) == UnitState("inactive", "a=b", 0, 0, queued=True)
    programs.shows(ActiveState="failed", Result="exit-code", ExecMainCode=1, ExecMainStatus=3)
    assert Systemd(str).state(UNIT) == UnitState("failed", "exit-code", 0, 0, exit_code=1, exit_status=3)
    programs.shows(ActiveState="failed", Job="")
    assert Systemd(str).state(UNIT) == UnitState("failed", "unknown", 0, 0, queued=False)


def test_what_systemd_does_not_say_is_unknown_and_nothing_runs(programs: Programs) -> None:
    programs.add("systemctl", "echo 'no property'")
    assert Systemd(str).state(UNIT) == UnitState("unknown", "unknown", 0, 0, queued=False)


@pytest.mark.parametrize(
    ("active", "queued", "down"),
    [
        ("failed", False, True),
        ("inactive", False, True),
        ("inactive", True, False),
        ("failed", True, False),
        ("active", False, False),
        ("activating", False, False),
        ("deactivating", False, False),
        ("unknown", False, False),
    ],
)
def test_a_unit_is_down_where_nothing_runs_and_nothing_is_about_to(active: str, queued: bool, down: bool) -> None:
    assert UnitState(active, "success", 0, 0, queued).down is down
    assert queued or UnitState(active, "success", 0, 0).down is down


@pytest.mark.parametrize(("change", "number"), [(1, signal.SIGTTIN), (-1, signal.SIGTTOU)])
def test_a_server_is_asked_for_one_worker_more_or_less_by_a_signal(
    programs: Programs, change: int, number: signal.Signals
) -> None:
    received: list[int] = []
    programs.shows(MainPID=os.getpid())
    before = signal.signal(number, lambda *_: received.append(number))
    try:
        Systemd(str).resize(UNIT, change)
    finally:
        signal.signal(number, before)
    assert received == [number]


def test_a_server_that_is_gone_is_asked_for_nothing(programs: Programs) -> None:
    """0 would be this whole group of processes, and a number above what the kernel gives is nobody's."""
    for main_pid in ("0", "", 2**30):
        programs.shows(MainPID=main_pid)
        Systemd(str).resize(UNIT, -1)


# --- the journal ----------------------------------------------------------------------------------


TRACE = ["Traceback (most recent call last):", '  File "main.py", line 1, in <module>', "RuntimeError: db is away "]


def record(text: object, pid: int = 7, **fields: str) -> str:
    """Return a record as `journalctl --output=json` prints it."""
    return json.dumps({"MESSAGE": text, "_PID": str(pid), "__CURSOR": "s=1", **fields})


def log(programs: Programs, folder: Path, *records: str) -> None:
    """Put a journalctl there that prints these records."""
    (folder / "journal.json").write_text("".join(f"{line}\n" for line in records))
    programs.add("journalctl", f"case $1 in --sync) ;; *) cat {folder}/journal.json;; esac")


def test_a_cursor_is_the_journals_end_and_what_follows_it_is_read(programs: Programs) -> None:
    """With --lines, journalctl gives the first lines after a cursor, not the last."""
    programs.add("journalctl", "echo '-- cursor: s=1;i=2'")
    assert Systemd(str).cursor() == "s=1;i=2"
    Systemd(str).journal(UNIT, "s=1;i=2")
    Systemd(str).journal(UNIT, "")
    read = (
        f"journalctl --quiet --no-pager --all --output=json --unit={UNIT} "
        "--output-fields=MESSAGE,_PID,EXIT_CODE,EXIT_STATUS,UNIT_RESULT,INVOCATION_ID,_SYSTEMD_INVOCATION_ID"
    )
    assert programs.called == [
        "journalctl --quiet --lines=0 --show-cursor",
        "journalctl --sync",
        f"{read} --after-cursor=s=1;i=2",
        "journalctl --sync",
        read,
    ]


def test_what_several_starts_and_processes_logged_is_kept_apart(programs: Programs, tmp_path: Path) -> None:
    torn = [(pid, line) for lines in zip(TRACE, TRACE, strict=True) for pid, line in zip((7, 8), lines, strict=True)]
    log(
        programs,
        tmp_path,
        record("before any is known"),
        record("Started u.", pid=1, INVOCATION_ID="one", _SYSTEMD_INVOCATION_ID="of systemd"),
        *(
            record(f"{line}{pid}" if "Error" in line else line, pid=pid, _SYSTEMD_INVOCATION_ID="one")
            for pid, line in torn
        ),
        record("Started u.", pid=1, INVOCATION_ID="two"),
        record("well", pid=9, _SYSTEMD_INVOCATION_ID="two"),
        record("Failed", pid=1, INVOCATION_ID="two"),
    )
    starts = Systemd(str).recent(UNIT, 60)
    assert [len(start) for start in starts] == [1, 7, 3]
    assert [last_exception(start) for start in starts] == ["", "RuntimeError: db is away 8", ""]


def test_of_a_long_log_the_end_is_kept(programs: Programs, tmp_path: Path) -> None:
    log(programs, tmp_path, *(record(f"line {number}") for number in range(JOURNAL_LINES + 100)))
    lines = Systemd(str).journal(UNIT, "").lines
    assert lines == tuple(f"line {n}" for n in range(JOURNAL_LINES + 100 - OTHER_LINES, JOURNAL_LINES + 100))


def test_messages_that_are_no_text_or_several_are_read(programs: Programs, tmp_path: Path) -> None:
    coloured = list(b"\x1b[31mred\x1b[0m caf\xe9")
    log(programs, tmp_path, record(coloured), record(["one", "two\nthree"]), record(None), "broken", "[]")
    assert Systemd(str).journal(UNIT, "").lines == ("red caf\N{REPLACEMENT CHARACTER}", "one", "two", "three")


def test_how_the_main_process_ended_is_what_systemd_noted_last(programs: Programs, tmp_path: Path) -> None:
    log(
        programs,
        tmp_path,
        record("u: Main process exited", pid=1, EXIT_CODE="killed", EXIT_STATUS="9"),
        record("u: Main process exited", pid=1, EXIT_CODE="exited", EXIT_STATUS="3"),
        record("made up", EXIT_CODE="exited", EXIT_STATUS="99"),
    )
    assert Systemd(str).journal(UNIT, "").ended == "exited with status 3"


@pytest.mark.parametrize(
    ("last", "ended", "by_result"),
    [
        ("oom-kill", "was ended by the kernel, as the memory was used up", True),
        ("timeout", "was ended by systemd, as it was not up, or not down, in time", True),
        ("exit-code", "was killed by SIGKILL", False),
    ],
)
def test_a_units_own_result_is_how_it_ended_where_that_is_the_reason(
    programs: Programs, tmp_path: Path, last: str, ended: str, by_result: bool
) -> None:
    log(
        programs,
        tmp_path,
        record("u: Failed with result", pid=1, UNIT_RESULT="oom-kill"),
        record("u: Main process exited", pid=1, EXIT_CODE="killed", EXIT_STATUS="9"),
        record("u: Failed with result", pid=1, UNIT_RESULT=last),
        record("made up", UNIT_RESULT="timeout"),
    )
    excerpt = Systemd(str).journal(UNIT, "")
    assert (excerpt.ended, excerpt.by_result) == (ended, by_result)


def test_bytes_that_are_no_text_do_not_end_a_switch(programs: Programs) -> None:
    for name in ("systemd-run", "journalctl", "systemctl"):
        programs.add(name, "printf 'caf\\351\\n'")
    systemd = Systemd(str)
    assert systemd.run(COMMAND) == (0, "caf\N{REPLACEMENT CHARACTER}\n")
    assert systemd.journal(UNIT, "") == Excerpt()
    assert systemd.cursor() == ""


def test_no_program_waits_for_what_somebody_could_type(programs: Programs) -> None:
    programs.add("journalctl", f"cat; echo '{record('end')}'")
    reading, writing = os.pipe()
    kept = os.dup(0)
    os.dup2(reading, 0)
    try:
        os.write(writing, b"typed\n")
        os.close(writing)
        assert Systemd(str).journal(UNIT, "").lines == ("end",)
    finally:
        os.dup2(kept, 0)
        for each in (kept, reading):
            os.close(each)


# --- commands -------------------------------------------------------------------------------------


def test_a_commands_dollars_reach_it_although_systemd_has_its_own_meaning_of_them(programs: Programs) -> None:
    programs.add("systemd-run", """for word; do printf '%s\\n' "$word"; done""")
    words = ("sh", "-c", 'for f in a; do echo "${f}" $f $$; done')
    _, output = Systemd(str).run(Command(words, "counter", "shop", Path("/srv/a"), Path("/etc/e"), 300))
    assert output.partition("\n--\n")[2] == 'sh\n-c\nfor f in a; do echo "$${f}" $$f $$$$; done\n'
    assert "--property=User=shop" in output.splitlines()


def test_a_command_runs_in_a_unit_that_is_waited_for(programs: Programs) -> None:
    programs.add("systemd-run", "echo out; echo err >&2; exit 3")
    assert Systemd(str).run(Command(("id",), "counter", "shop", Path("/srv"), Path("/e"), 2.5, (), "a.service")) == (
        3,
        "out\nerr\n",
    )
    assert programs.called == [
        "systemd-run --quiet --wait --pipe --collect --description=A command of counter --unit=a.service "
        "--property=User=shop --property=Group=shop --property=WorkingDirectory=/srv --property=EnvironmentFile=/e "
        "--property=RuntimeMaxSec=2.5 -- id"
    ]


@pytest.mark.fault(51)
def test_what_the_app_prints_comes_in_without_its_secrets(programs: Programs, tmp_path: Path) -> None:
    """By whichever way: its log, and what a command of it says."""
    host, database = Host(tmp_path / "host"), "postgresql://shop:hunter2canary@db/shop"
    host.want(f'DB="{database}"')
    lines = (record(f"{number} {database}") for number in range(70))
    log(programs, tmp_path, *lines, record(f"RuntimeError: {database}", pid=8))
    programs.add("systemd-run", f"echo 'no connection to {database}'; echo 'hunter2canary' >&2; exit 3")
    systemd = Systemd(functools.partial(mask, host.config))
    assert systemd.run(COMMAND) == (3, "no connection to ***\n***\n")
    found = systemd.journal(UNIT, "")
    assert found.lines == (*(f"{number} ***" for number in range(71 - OTHER_LINES, 70)), "RuntimeError: ***")
    assert found.last_line == "RuntimeError: ***"


def test_secret_that_begins_above_the_first_line_that_is_shown_is_hidden(programs: Programs, tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    host.want('DB="begins-here-and-ends-there"')
    log(programs, tmp_path, *map(record, ["begins-here", "-and-ends-there", *["x"] * (OTHER_LINES - 1)]))
    shown = Systemd(functools.partial(mask, host.config)).journal(UNIT, "")
    assert "ends" not in "".join(shown.lines)


# --- units of our own -----------------------------------------------------------------------------


def test_a_transient_unit_is_collected_and_only_waited_for_where_it_is_to() -> None:
    properties = (("User", "shop"), ("RuntimeMaxSec", 9))
    start = ["systemd-run", "--quiet"]
    tail = ["--collect", "--description=about", "--property=User=shop", "--property=RuntimeMaxSec=9"]
    assert transient("about", properties) == [*start, "--wait", "--pipe", *tail]
    assert transient("about", properties, wait=False) == [*start, *tail]
    assert transient("about", (), "a.service")[-1] == "--unit=a.service"


def test_this_program_runs_in_a_unit_and_again_when_that_has_ended(tmp_path: Path) -> None:
    words = in_unit("a.service", "about", Path("/etc/c.json"), ["restore", "aaa"], ["recover"], 90)
    cut = words.index(sys.executable)
    program = words[cut + 3]
    assert words[cut:] == [sys.executable, "-I", "-B", program, "restore", "aaa"]
    assert Path(program) == Path(__file__).parents[3] / "plugins", "on a host: where __main__.py lies"
    assert words[:cut] == [
        "systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--description=about", "--unit=a.service",
        "--property=RuntimeMaxSec=90", "--property=TimeoutStopSec=90",
        f"--property=ExecStopPost=-{sys.executable} -I -B {program} --config /etc/c.json recover",
    ]  # fmt: skip
    log = tmp_path / "log"
    detached = in_unit("a.service", "about", Path("/c"), ["x"], ["recover"], 90, output=log, unless="[ -e /done ]")
    assert "--wait" not in detached
    assert f"--property=StandardOutput=append:{log}" in detached
    again = f"-/bin/sh -c '[ -e /done ] || exec {sys.executable} -I -B {program} --config /c recover'"
    assert f"--property=ExecStopPost={again}" in detached
