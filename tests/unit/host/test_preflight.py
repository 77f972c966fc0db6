"""What stops the command before it changes anything: states nobody made, a full disk, a lock, wrong words."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plugins.module_utils.host import commands, finish, history, locks, preflight
from plugins.module_utils.host.cli import main, read_words
from plugins.module_utils.host.config import Config, HostError
from plugins.module_utils.host.context import Context
from plugins.module_utils.host.digests import FINGERPRINT
from plugins.module_utils.host.files import write_atomically
from plugins.module_utils.host.locks import holder, locked
from plugins.module_utils.host.rollback import WentBackError
from plugins.module_utils.host.systemd import SystemdError
from plugins.module_utils.workers.plan import WorkerPlan
from tests.unit.host.fake_systemd import Host

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path, keep_releases=9)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    write_settings(made)
    return made


def write_settings(host: Host, **changed: object) -> None:
    """Write the settings' file, as the service role does."""
    host.config = dataclasses.replace(host.config, **{"fingerprint": host.wanted(), **changed})  # type: ignore[arg-type]
    settings = {**dataclasses.asdict(host.config), **changed}
    (host.folder / "release.json").write_text(json.dumps(settings, default=str))
    host.config = Config.read(host.folder / "release.json")


class Result:
    """What the command printed, and its exit code."""

    def __init__(self, code: int, printed: str) -> None:
        self.code, self.printed = code, printed
        self.json: dict[str, Any] = json.loads(printed) if printed.startswith("{") else {}


Run = Callable[..., Result]


@pytest.fixture
def run(host: Host, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str, as_json: bool = True) -> Result:
        in_unit = ["--in-unit", "--by", "alice"] if words[0] in commands.IN_UNIT else []
        more = [*in_unit, *(["--json"] if as_json else [])]
        code = main(["--config", str(host.folder / "release.json"), *words, *more], host.connect)
        return Result(code, capsys.readouterr().out)

    return call


def tree(folder: Path) -> str:
    """Return a hash of all that is in a folder: names, kinds, modes, contents. The lock's file does not count."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.name in (".lock", "history.jsonl"):
            continue
        mode = path.lstat().st_mode
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        found.update(repr((str(path), mode, content)).encode())
    return found.hexdigest()


# --- states that nobody made ----------------------------------------------------------------------


def make_file(path: Path) -> None:
    path.write_text("mine")


def make_folder(path: Path) -> None:
    path.mkdir()


def make_link(path: Path) -> None:
    path.symlink_to("/srv/elsewhere/blue.sock")


STRANGE = [(make_file, "no link"), (make_folder, "a folder"), (make_link, "a link to /srv/elsewhere/blue.sock")]


@pytest.mark.parametrize(("make", "what"), STRANGE)
@pytest.mark.parametrize("place", ["live.sock", "slots/blue", "slots/green"])
def test_what_no_switch_makes_is_neither_trusted_nor_overwritten(
    host: Host, run: Run, place: str, make: Callable[[Path], None], what: str
) -> None:
    assert run("activate", "aaa").code == 0
    path = host.config.root / place
    path.unlink(missing_ok=True)
    make(path)
    before, calls = tree(host.folder), len(host.systemd.calls)
    for words in (("activate", "bbb"), ("rollback",), ("restore", "aaa"), ("recover",)):
        found = run(*words)
        assert (found.code, found.json["outcome"]) == (2, "nothing done")
        assert f"{path} is {what}, which counter-release did not create; nothing was changed" in found.json["error"]
    assert (tree(host.folder), len(host.systemd.calls)) == (before, calls)


@pytest.mark.parametrize(("make", "_what"), STRANGE)
def test_the_advice_for_the_live_link_works(host: Host, make: Callable[[Path], None], _what: str) -> None:
    path = host.config.live_link
    make(path)
    with pytest.raises(HostError) as refused:
        preflight.check_state(host.config)
    said = str(refused.value)
    if "remove it and point it" in said:
        shutil.rmtree(path)
    subprocess.run(said.partition("green: ")[2].split(), check=True)
    preflight.check_state(host.config)
    assert host.config.live_slot() == "blue"


def test_the_advice_for_a_slots_link_works(host: Host, run: Run) -> None:
    place = host.config.root / "slots"
    place.mkdir()
    (place / "blue").write_text("")
    assert run("activate", "aaa").json["error"].endswith("Remove it")
    (place / "blue").unlink()
    assert run("activate", "aaa").code == 0


def test_what_switches_make_is_fine(host: Host) -> None:
    preflight.check_state(host.config)
    (host.config.root / "slots").mkdir()
    for slot in ("blue", "green"):
        host.config.live_link.unlink(missing_ok=True)
        host.config.live_link.symlink_to(host.config.socket(slot))
        (host.config.root / "slots" / slot).symlink_to(host.config.release_dir("gone"))
        preflight.check_state(host.config)


# --- releases -------------------------------------------------------------------------------------


def half_unpacked(folder: Path) -> None:
    (folder / ".complete").unlink()


def no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def torn_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"path": ["app"')


def other_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"path": "app", "module": null}')


def unreadable_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (half_unpacked, "release bbb is only half unpacked; deploy it again"),
        (no_manifest, "release bbb has no readable manifest.json; deploy it again"),
        (torn_manifest, "release bbb has no readable manifest.json; deploy it again"),
        (other_manifest, "release bbb has no readable manifest.json; deploy it again"),
        (unreadable_manifest, "release bbb has no readable manifest.json; deploy it again"),
        (shutil.rmtree, "release 'bbb' is not on this host; there are: aaa, ccc"),
    ],
)
def test_a_release_that_is_not_whole_changes_nothing(
    host: Host, run: Run, damage: Callable[[Path], None], said: str
) -> None:
    run("activate", "aaa")
    damage(host.config.release_dir("bbb"))
    before, calls = tree(host.folder), len(host.systemd.calls)
    for verb in ("activate", "rollback", "restore"):
        found = run(verb, "bbb")
        assert (found.code, found.json["outcome"], found.json["error"]) == (2, "nothing done", said)
        assert found.json["live"]["release"] == "aaa"
    assert (tree(host.folder), len(host.systemd.calls)) == (before, calls)


def test_without_any_release_it_says_so(host: Host) -> None:
    shutil.rmtree(host.config.root / "releases")
    with pytest.raises(HostError, match="there are: none"):
        preflight.check_release(host.config, "aaa")


# --- disk and clock -------------------------------------------------------------------------------


def disk(kib: int = 1 << 20, files: int = 10**6, free: int = 10**5) -> SimpleNamespace:
    return SimpleNamespace(f_bavail=kib, f_frsize=1024, f_files=files, f_favail=free)


@pytest.mark.parametrize("place", ["root", "etc", "units", "run"])
@pytest.mark.parametrize(
    ("full", "said"),
    [
        (disk(kib=2047), "2047 kB and 100000 inodes free"),
        (disk(kib=0), "0 kB and 100000 inodes free"),
        (disk(free=49), "1048576 kB and 49 inodes free"),
    ],
)
def test_on_a_full_disk_no_switch_begins(
    host: Host, run: Run, monkeypatch: pytest.MonkeyPatch, place: str, full: SimpleNamespace, said: str
) -> None:
    run("activate", "aaa")
    before, calls = tree(host.folder), len(host.systemd.calls)
    where = getattr(host.config, place)
    monkeypatch.setattr(preflight.os, "statvfs", lambda path: full if path == where else disk())  # type: ignore[attr-defined]
    found = run("activate", "bbb")
    assert (found.code, found.json["outcome"]) == (2, "nothing done")
    unchanged = "nothing was changed" if place == "run" else "what serves was not changed"
    assert found.json["error"] == f"the disk is full: {where} has {said}; {unchanged}. Make room"
    assert (tree(host.folder), len(host.systemd.calls)) == (before, calls)


def test_as_much_room_as_is_needed_will_do_and_a_disk_that_counts_no_inodes(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    for enough in (disk(kib=2048, free=50), disk(files=0, free=0)):
        monkeypatch.setattr("plugins.module_utils.host.preflight.os.statvfs", lambda _, enough=enough: enough)
        assert preflight.room_trouble(host.config) == ""


def at(host: Host, *seconds: float) -> None:
    """Have switches been noted so many seconds from now."""
    lines = [json.dumps({"at": int(time.time() + when), "to": "aaa", "from": "bbb"}) for when in seconds]
    (host.config.root / "history.jsonl").write_text("\n".join(lines) + "\n")


def test_with_a_clock_behind_the_last_switch_no_deploy_begins(host: Host, run: Run) -> None:
    run("activate", "aaa")
    at(host, 3600)
    before = tree(host.folder)
    found = run("activate", "bbb")
    assert (found.code, found.json["outcome"]) == (2, "nothing done")
    assert "one of the two is wrong (timedatectl). Nothing was changed. Set the clock" in found.json["error"]
    assert tree(host.folder) == before


def test_going_back_works_with_any_clock_and_says_what_it_saw(host: Host, run: Run) -> None:
    run("activate", "aaa")
    run("activate", "bbb")
    at(host, 3600)
    found = run("rollback", "aaa")
    assert (found.code, found.json["live"]["release"]) == (0, "aaa")
    assert "one of the two is wrong" in found.json["notes"][0]


def test_with_force_a_wrong_clock_is_no_hindrance(host: Host, run: Run) -> None:
    at(host, 3600)
    assert run("activate", "aaa", "--force").code == 0


def test_a_clock_that_was_wrong_once_is_not_held_against_all_later_switches(host: Host) -> None:
    at(host, 10 * 365 * 86400, 0)
    assert preflight.clock_trouble(host.config, time.time()) == ""


@pytest.mark.parametrize("odd", ['{"at": "noon"}', '{"at": null}', "{}", "torn"])
def test_a_line_without_a_time_says_nothing_of_the_clock(host: Host, odd: str) -> None:
    (host.config.root / "history.jsonl").write_text(f"{odd}\n")
    assert preflight.clock_trouble(host.config, time.time()) == ""


def test_a_clock_that_is_set_by_seconds_is_fine(host: Host) -> None:
    at(host, 200)
    assert preflight.clock_trouble(host.config, time.time()) == ""


# --- the lock -------------------------------------------------------------------------------------

HOLDER = """
    import sys, time
    from pathlib import Path
    from plugins.module_utils.host.config import Config
    from plugins.module_utils.host.locks import locked
    from plugins.module_utils.workers.plan import WorkerPlan
    folder = Path(sys.argv[1])
    with locked(Config("counter", folder, folder, folder, folder, WorkerPlan(0), ""), "activate aaa", "bob@laptop"):
        print("held", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for nobody who only looks at the lock."""
    assert sum(locks.READER_PAUSES) < 0.5, "a held lock is said at once"
    monkeypatch.setattr(locks, "READER_PAUSES", ())


@pytest.fixture
def held(host: Host, impatient: None) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    command = [sys.executable, "-S", "-c", textwrap.dedent(HOLDER), str(host.config.root)]
    environment = {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_held_lock_refuses_with_who_since_when_and_until_when(
    host: Host, run: Run, held: subprocess.Popen[str]
) -> None:
    before = tree(host.folder)
    for words in (("activate", "aaa"), ("rollback", "aaa"), ("recover",), ("prune",)):
        found = run(*words)
        assert (found.code, found.json["outcome"]) == (2, "nothing done")
        said = found.json["error"]
        assert f"the lock is held: activate aaa by bob@laptop (process {held.pid}) since 20" in said
        assert "it ends by itself, at 20" in said
        assert said.endswith("Nothing was done")
    assert (tree(host.folder), host.systemd.calls) == (before, [])


def test_who_holds_the_lock_can_be_asked_without_taking_it(host: Host, held: subprocess.Popen[str]) -> None:
    about = holder(host.config)
    assert about
    assert (about["what"], about["by"], about["pid"]) == ("activate aaa", "bob@laptop", held.pid)
    expiry = Config("counter", Path(), Path(), Path(), Path(), WorkerPlan(0), "").expiry
    assert abs(about["expires"] - about["since"] - expiry) <= 1


def test_a_holder_that_is_killed_has_let_go(host: Host, run: Run, held: subprocess.Popen[str]) -> None:
    held.send_signal(signal.SIGKILL)
    held.wait()
    assert holder(host.config) is None
    assert run("activate", "aaa").code == 0
    assert holder(host.config) is None


def test_nobody_holds_a_lock_that_was_never_taken(host: Host) -> None:
    assert holder(host.config) is None


def test_a_command_that_fails_lets_go(host: Host) -> None:
    with pytest.raises(HostError, match="mine"), locked(host.config, "x", "y"):
        raise HostError("mine")
    assert holder(host.config) is None


def test_the_locks_file_is_readable_by_root_only(host: Host) -> None:
    with locked(host.config, "x", "y"):
        pass
    assert (host.config.root / ".lock").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\xff\xfe\x00", b"{", b"[1]", b'{"since": 1}', b'{"since": "x", "what": 1}', b"\x00" * 5000],
)
def test_garbage_in_the_locks_file_harms_nobody(host: Host, impatient: None, garbage: bytes) -> None:
    path = host.config.root / ".lock"
    path.write_bytes(garbage)
    with path.open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert holder(host.config) == {}
        with pytest.raises(HostError, match="held: by a switch that has just begun"), locked(host.config, "x", "y"):
            pass
    with locked(host.config, "activate aaa", "me"):
        about = holder(host.config)
        assert about
        assert (about["what"], about["pid"]) == ("activate aaa", os.getpid())


def test_who_only_looks_at_the_lock_does_not_stop_a_switch(host: Host) -> None:
    """`status` and monitoring take it for a moment, to see whether it is free."""
    path = host.config.root / ".lock"
    path.touch()
    reader = path.open("rb")
    fcntl.flock(reader, fcntl.LOCK_SH)
    threading.Timer(0.03, reader.close).start()
    with locked(host.config, "x", "y"):
        pass


def test_the_lock_can_be_taken_on_a_full_disk_so_that_prune_can_make_room(
    host: Host, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("activate", "aaa")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("plugins.module_utils.host.locks.os.pwrite", full)
    assert run("prune", "ccc").json["removed"] == ["ccc"]
    with locked(host.config, "x", "y"):
        assert holder(host.config) == {}, "nothing false is said of it"


# --- the command ----------------------------------------------------------------------------------


def test_a_switch_says_what_is_live_and_each_of_its_steps(run: Run) -> None:
    found = run("activate", "aaa")
    assert (found.code, found.json["outcome"]) == (0, "switched")
    assert (found.json["live"]["release"], found.json["live"]["slot"]) == ("aaa", "blue")
    assert "traffic goes to the blue slot" in found.json["steps"]
    assert found.json["notes"] == []
    assert "error" not in found.json


def test_a_refusal_is_1_and_comes_with_the_log(host: Host, run: Run) -> None:
    run("activate", "aaa")
    host.broken.add("bbb")
    found = run("activate", "bbb")
    assert (found.code, found.json["outcome"], found.json["live"]["release"]) == (1, "refused", "aaa")
    assert found.json["log"] == ["ModuleNotFoundError: No module named 'nothing'"]
    assert found.json["error"].startswith("not ready within 0.2 s (service_boot_timeout): /health answers 500")
    assert set(found.json) == {"outcome", "error", "log", "live", "serving", "steps", "notes"}
    assert found.json["serving"] == {"release": "aaa", "answers": True, "trouble": ""}


def test_a_refusal_beside_a_dead_release_says_that_nothing_serves(host: Host, run: Run) -> None:
    run("activate", "aaa")
    host.broken |= {"aaa", "bbb"}
    last = run("activate", "bbb", as_json=False).printed.splitlines()[-1]
    assert last == "nothing serves now: release aaa is live, but /health answers 500"


def test_going_back_is_1_too_and_says_so(host: Host, run: Run) -> None:
    run("activate", "aaa")
    host.trouble["bbb"] = "not well"
    found = run("activate", "bbb")
    assert (found.code, found.json["outcome"], found.json["live"]["release"]) == (1, "went back", "aaa")
    host.trouble["ccc"] = "not well"
    assert "went back: /health failed 3 times in a row: not well" in run("activate", "ccc", as_json=False).printed


def test_with_nothing_to_go_back_to_nothing_is_done(host: Host, run: Run) -> None:
    run("activate", "aaa")
    before = tree(host.folder)
    for verb in ("rollback", "restore"):
        found = run(verb)
        assert (found.code, found.json["outcome"]) == (2, "nothing done")
        assert found.json["error"].startswith("there is nothing to go back to: no other release has served")
        assert set(found.json) == {"outcome", "error", "live", "serving", "steps", "notes"}
        assert (found.json["live"]["release"], found.json["steps"], found.json["notes"]) == ("aaa", [], [])
    assert tree(host.folder) == before


def test_with_only_a_bad_one_to_go_back_to_it_is_named(host: Host, run: Run) -> None:
    for words in (("activate", "aaa"), ("activate", "bbb"), ("rollback",)):
        assert run(*words).code == 0
    assert run("rollback").json["error"].endswith("marked bad: bbb")


def test_rollback_without_a_name_takes_the_one_before_and_marks(host: Host, run: Run) -> None:
    for release in ("aaa", "bbb", "ccc"):
        run("activate", release)
    assert run("rollback").json["live"]["release"] == "bbb"
    assert run("rollback").json["live"]["release"] == "aaa"
    assert set(history.bad(host.config)) == {"bbb", "ccc"}
    assert history.entries(host.config)[-1]["by"] == "alice"


@pytest.mark.parametrize(
    ("release", "said"),
    [
        ("nope", "release 'nope' is not on this host; there are: aaa, bbb, ccc"),
        ("../aaa", "release '../aaa' is not on this host"),
        ("bbb", "release bbb is marked bad on this host since "),
        ("aaa", "release aaa is live already: there is nothing to go back from"),
    ],
)
def test_rollback_to_what_it_cannot_be_does_nothing(host: Host, run: Run, release: str, said: str) -> None:
    run("activate", "aaa")
    history.mark_bad(host.config, "bbb", "not well", "other settings")
    before, calls = tree(host.folder), len(host.systemd.calls)
    found = run("rollback", release)
    assert (found.code, found.json["outcome"], found.json["live"]["release"]) == (2, "nothing done", "aaa")
    assert said in found.json["error"]
    assert (tree(host.folder), len(host.systemd.calls)) == (before, calls)


def test_activate_of_an_empty_id_is_not_a_way_back(host: Host, run: Run) -> None:
    """A script with an unset variable."""
    run("activate", "aaa")
    run("activate", "bbb")
    found = run("activate", "")
    assert (found.code, found.json["live"]["release"]) == (2, "bbb")
    assert "release '' is not on this host" in found.json["error"]


@pytest.mark.parametrize("verb", ["activate", "rollback", "restore"])
def test_measuring_gives_way_to_a_switch_and_is_said_to(
    host: Host, run: Run, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = ("stop", "counter-release-tune.service")
    with locked(host.config, "activate bbb", "alice"):
        run(verb, "bbb")
    assert stop not in host.systemd.calls
    with locked(host.config, "tune", "alice"):
        found = run(verb, "bbb")
    assert stop in host.systemd.calls
    assert "note: measuring by alice was ended, as a switch goes first" in found.printed + capsys.readouterr().err


def test_a_bad_release_is_refused_until_settings_change_or_it_is_forced(host: Host, run: Run) -> None:
    run("activate", "aaa")
    history.mark_bad(host.config, "bbb", "not well", host.config.fingerprint)
    before = tree(host.folder)
    found = run("activate", "bbb")
    assert (found.code, found.json["outcome"]) == (2, "nothing done")
    assert "release bbb is marked bad on this host since" in found.json["error"]
    assert "not well. Nothing was changed. Change the code or a setting" in found.json["error"]
    assert tree(host.folder) == before
    assert run("activate", "bbb", "--force").code == 0
    history.mark_bad(host.config, "ccc", "not well", host.config.fingerprint)
    host.want("second")
    write_settings(host)
    assert run("activate", "ccc").code == 0
    assert history.bad(host.config) == {}


def test_what_is_told_of_the_live_slot_has_no_hash_of_its_files(host: Host, run: Run) -> None:
    told = [run("activate", "aaa").json["live"], run("verify").json["live"], run("status").json["live"]]
    host.broken.add("bbb")
    told.append(run("activate", "bbb").json["live"])
    for live in told:
        assert live["release"] == "aaa"
        assert not {"files", "fingerprint"} & live.keys(), "the fake host has a plain text as its fingerprint"
    write_settings(host, fingerprint="0" * 16)
    assert FINGERPRINT.fullmatch(run("activate", "aaa", "--wanted").json["live"]["fingerprint"])


def test_settings_on_disk_that_were_edited_are_told(host: Host, run: Run) -> None:
    run("activate", "aaa")
    edited = "the settings on disk are not those that the workers run with: deploy"
    assert edited not in run("verify").json["differences"]
    (host.config.etc / "environment").write_text("another\n")
    assert edited in run("verify").json["differences"]


@pytest.mark.parametrize(
    ("release", "said"),
    [
        ("bbb", "release bbb cannot be removed: it is live. Nothing was removed"),
        ("aaa", "cannot be removed: it is the one to go back to"),
        ("nope", "release 'nope' is not on this host"),
    ],
)
def test_prune_of_what_is_needed_removes_nothing(host: Host, run: Run, release: str, said: str) -> None:
    run("activate", "aaa")
    run("activate", "bbb")
    before = tree(host.folder)
    found = run("prune", "ccc", release)
    assert (found.code, found.json["outcome"]) == (2, "nothing done")
    assert said in found.json["error"]
    assert set(found.json) == {"outcome", "error", "steps", "notes"}
    assert tree(host.folder) == before


@pytest.mark.parametrize("keep", ["0", "-3", "1"])
def test_prune_never_removes_all(host: Host, run: Run, keep: str) -> None:
    """Here no release is live, so none is in use."""
    for age, release in enumerate(("aaa", "bbb", "ccc")):
        os.utime(host.config.release_dir(release) / ".complete", (9 - age, 9 - age))
    found = run("prune", "--keep", keep)
    assert (found.code, found.json["removed"]) == (0, ["bbb", "ccc"])
    assert history.is_whole(host.config, "aaa")


def test_prune_with_a_wrong_name_leaves_a_switch_that_was_cut_off_alone(
    host: Host, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the caller got wrong is said before anything is touched."""
    run("activate", "aaa")
    touched: list[Config] = []
    monkeypatch.setattr(commands, "recover", lambda context: touched.append(context.config))
    assert (run("prune", "nope").code, touched) == (2, [])
    assert run("prune", "bbb").code == 0
    assert touched == [host.config]


def test_old_releases_that_cannot_be_removed_do_not_make_a_switch_fail(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> list[str]:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(commands, "prune", broken)
    found = run("activate", "aaa")
    assert (found.code, found.json["outcome"]) == (0, "switched")
    assert "Read-only file system" in found.json["notes"][0]


def test_a_switch_that_was_cut_off_is_told_when_the_next_one_is_done(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def back(context: Context) -> None:
        raise WentBackError("7 of 9 requests failed", ["log"])

    monkeypatch.setattr(commands, "recover", back)
    found = run("activate", "aaa")
    assert (found.code, found.json["notes"]) == (0, ["7 of 9 requests failed"])
    found = run("recover")
    assert (found.code, found.json["outcome"], found.json["log"]) == (1, "went back", ["log"])


def test_a_switch_that_broke_off_after_traffic_moved_is_not_called_nothing(
    run: Run, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("activate", "aaa")

    def no_bus(*_: object, **__: object) -> None:
        raise SystemdError("Failed to connect to bus")

    with monkeypatch.context() as patched:
        patched.setattr(finish, "retire", no_bus)
        told = run("activate", "bbb")
    assert (told.code, told.json["outcome"], told.json["live"]["release"]) == (3, "unfinished", "bbb")
    assert "Failed to connect to bus; the host finishes the switch or takes it back now" in told.json["error"]
    assert run("recover").code == 0
    assert host.systemd.enabled == {"counter@green.service"}


def test_a_hook_that_a_killed_switch_left_running_is_stopped_first(run: Run, host: Host) -> None:
    run("activate", "aaa")
    host.config.transaction.write_text("{")
    run("recover")
    assert ("stop", "counter-release-hook.service") in host.systemd.calls


def test_only_root_may(run: Run, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    before = tree(host.folder)
    for words in (("status",), ("activate", "aaa"), ("history",), ("run", "aaa", "id")):
        found = run(*words)
        assert (found.code, found.json["outcome"]) == (2, "nothing done")
        assert found.json["error"] == "only root can see and change the slots: use sudo"
    assert tree(host.folder) == before


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"app": "counter"}', "\x00", '{"root": 1}', "unknown"])
def test_broken_settings_are_said_with_what_helps(host: Host, run: Run, content: str) -> None:
    path = host.folder / "release.json"
    if content == "unknown":
        content = path.read_text()[:-1] + ', "of_a_newer_version": 1}'
    path.write_text(content)
    for words in (("activate", "aaa"), ("verify",), ("prune",)):
        found = run(*words)
        assert (found.code, found.json["outcome"]) == (2, "nothing done")
        assert found.json["error"].startswith(f"cannot read the settings in {path}: ")
        assert found.json["error"].endswith("deploy once more to write them")
    assert host.systemd.calls == []


def test_missing_settings_are_said_likewise(host: Host, run: Run) -> None:
    (host.folder / "release.json").unlink()
    assert "No such file" in run("activate", "aaa").json["error"]


def test_in_words_a_failure_is_not_done(host: Host, run: Run) -> None:
    found = run("rollback", as_json=False)
    assert (found.code, found.printed.startswith("not done: there is nothing to go back to")) == (2, True)
    host.broken.add("aaa")
    assert "  | ModuleNotFoundError" in run("activate", "aaa", as_json=False).printed


class Deaf:
    """A terminal whose other end is gone, a disk that is full, a terminal of another alphabet."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def write(self, text: str) -> None:
        raise self.error

    def flush(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ENOSPC, "No space left on device"),
        UnicodeEncodeError("latin-1", "…", 0, 1, "no such character"),
    ],
)
def test_who_does_not_listen_any_more_does_not_stop_a_switch(
    host: Host, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(sys, "stdout", Deaf(error))
    words = ["--config", str(host.folder / "release.json"), "activate", "aaa", "--in-unit", "--by", "me"]
    assert main(words, host.connect) == 0
    assert host.live["release"] == "aaa"


def test_a_switch_runs_in_a_unit_of_its_own_that_cleans_up_after_it(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Replaced(BaseException):
        """This process is systemd-run now."""

    called: list[list[str]] = []

    def execute(program: str, words: list[str]) -> None:
        called.append(words)
        raise Replaced

    monkeypatch.setattr("plugins.module_utils.host.cli.os.execvp", execute)
    monkeypatch.setenv("SUDO_USER", "carol")
    given = ["--config", str(host.folder / "release.json"), "rollback", "--json"]
    with pytest.raises(Replaced):
        main(given)
    words = called[0]
    assert words[words.index("--config") :] == [*given, "--in-unit", "--by", "carol"]
    after = [word for word in words if word.startswith("--property=ExecStopPost=")]
    assert after[0].startswith("--property=ExecStopPost=-"), "its result is not the switch's"
    assert after[0].endswith(f" --config {given[1]} recover --in-unit --by=recovery --json'")
    assert f"--property=RuntimeMaxSec={host.config.expiry:g}" in words


def test_a_full_run_is_named_before_systemd_fails_on_it(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("plugins.module_utils.host.cli.UNIT_BYTES", 1 << 62)
    code = main(["--config", str(host.folder / "release.json"), "restart"])
    assert code == commands.EXIT_NOTHING_DONE
    full = rf"the disk is full: {host.config.run.parent}\S* has \d+ kB and \d+ inodes free"
    assert re.search(f"{full}; systemd can start no unit there", capsys.readouterr().out)


# --- words ----------------------------------------------------------------------------------------

WORDS = [
    (["run", "aaa", "--", "sh", "-c", "x"], ["sh", "-c", "x"], False),
    (["run", "aaa", "--", "-x", "--json"], ["-x", "--json"], False),
    (["run", "aaa", "--json", "--", "sh", "-c", "x --json"], ["sh", "-c", "x --json"], True),
    (["run", "--json", "aaa", "--", "--help"], ["--help"], True),
    (["run", "aaa", "--", "git", "log", "--", "path"], ["git", "log", "--", "path"], False),
    (["run", "aaa", "--", "--", "--"], ["--", "--"], False),
    (["run", "aaa", "python3", "x.py"], ["python3", "x.py"], False),
    (["run", "aaa", "--", "", "placeholder"], ["", "placeholder"], False),
]


def test_the_command_itself_reads_its_words_so(host: Host, run: Run) -> None:
    run("run", "aaa", "--", "git", "log", "--", "path", as_json=False)
    assert host.systemd.commands[0].words[-4:] == ("git", "log", "--", "path")


@pytest.mark.parametrize(("given", "words", "as_json"), WORDS)
def test_a_command_keeps_its_words(given: list[str], words: list[str], as_json: bool) -> None:
    found = read_words(["--config", "c", *given])
    assert (found.release, found.words, found.json) == ("aaa", words, as_json)


@pytest.mark.parametrize("given", [["run", "aaa"], ["run", "aaa", "--"], ["run"], ["run", "aaa", "--json"], ["nope"]])
def test_a_command_without_words_is_a_question_back(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_words(["--config", "c", *given])
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def pythons() -> list[str]:
    """Other Pythons of this machine that hosts may have, too."""
    places = [*Path("/usr/bin").glob("python3.*"), *Path.home().glob(".pyenv/versions/3.*/bin/python3.*")]
    known = {f"python3.{minor}" for minor in range(10, 15)}
    found = {path.name: str(path) for path in places if path.name in known}
    return sorted(found.values())


@pytest.mark.parametrize("python", pythons())
def test_every_python_on_this_machine_reads_the_words_alike(python: str) -> None:
    """argparse has dealt with -- in several ways."""
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from plugins.module_utils.host.cli import read_words\n"
        "print(json.dumps([read_words(['--config', 'c', *w]).words for w in json.loads(sys.argv[2])]))"
    )
    given = json.dumps([given for given, _, _ in WORDS])
    done = subprocess.run([python, "-ISBc", code, str(REPOSITORY), given], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [words for _, words, _ in WORDS]


def test_run_gives_the_commands_own_code_and_output(host: Host, run: Run) -> None:
    host.systemd.hook_result = (7, "half\n")
    found = run("run", "aaa", "--json", "--", "sh", "-c", "exit 7", as_json=False)
    assert (found.code, found.json["code"], found.json["output"]) == (7, 7, "half\n")
    command = host.systemd.commands[0]
    assert command.words[-3:] == ("sh", "-c", "exit 7")
    assert "FLEET_RELEASE=aaa" in command.words
    assert run("run", "nope", "--json", "--", "id", as_json=False).code == 2


# --- what the command asks systemd for ------------------------------------------------------------


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for programs that stand in for systemd's."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_run_reads_a_shell_command_where_that_is_asked(
    host: Host, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So it is in no command line of a shell, of sudo, of ssh."""
    text = "echo a\necho 'b c' $HOME\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert run("run", "aaa", "--shell", as_json=False).code == 0
    assert host.systemd.commands[0].words[-3:] == ("sh", "-c", text)
    with pytest.raises(SystemExit):
        read_words(["--config", "c", "run", "aaa", "--shell", "--", "id"])
    assert "it takes no words" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "shown"), [((), "DB is ***"), (("--show-secrets",), "DB is canary-1")])
def test_run_shows_secrets_only_where_that_is_asked(
    host: Host, run: Run, programs: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], shown: str
) -> None:
    host.want('DB="canary-1"')
    program(programs, "systemd-run", "echo DB is canary-1")
    monkeypatch.setattr(host, "connect", Context)
    assert run("run", "aaa", *options, "--", "id", as_json=False).printed == f"{shown}\n"


# --- kept settings --------------------------------------------------------------------------------


def test_kept_settings_are_of_one_time_or_none(host: Host, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full in the middle of keeping them: half of the new ones and half of the old would be a third kind."""
    run("activate", "aaa")
    run("activate", "bbb")
    kept = host.config.kept_files("aaa")
    assert (kept["service"].parent / "record.json").exists()
    host.want("second")
    write_settings(host)
    run("activate", "aaa")

    def full(path: Path, content: bytes, mode: int = 0o644) -> None:
        if path == kept["environment"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomically(path, content, mode)

    monkeypatch.setattr("plugins.module_utils.host.slots.write_atomically", full)
    assert run("activate", "bbb").code == 0
    assert not (kept["service"].parent / "record.json").exists()
