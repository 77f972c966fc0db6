"""Going back on a full disk: what it writes takes what was kept for that. No refused release keeps a disk full."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plugins.module_utils.host import files, history, reserve
from plugins.module_utils.host.journal import GOING_BACK, Transaction
from plugins.module_utils.host.preflight import ROOM_BYTES, ROOM_INODES
from tests.unit.host.fake_systemd import Host
from tests.unit.host.test_commands import call

BOX = reserve.NAME


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return Host(tmp_path, watch_seconds=0.0)


class FullDisk:
    """A disk on which nothing new fits but in the place of what was removed from the reserve."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host, self.full = host, True
        self.room = self.pieces()
        real_open, real_link = os.open, Path.symlink_to
        status = SimpleNamespace(f_bavail=0, f_frsize=4096, f_files=1000, f_favail=0)
        real_status = os.statvfs
        monkeypatch.setattr(os, "statvfs", lambda path: status if self.full else real_status(path))

        def opened(path: Any, flags: int, *more: Any, **named: Any) -> int:
            if flags & os.O_CREAT and not os.path.exists(path):
                self.take()
            return real_open(path, flags, *more, **named)

        def linked(path: Path, target: Any) -> None:
            self.take()
            real_link(path, target)

        monkeypatch.setattr(os, "open", opened)
        monkeypatch.setattr(Path, "symlink_to", linked)

    def pieces(self) -> int:
        places = self.host.config.root, self.host.config.etc
        return sum(len(list((place / BOX).glob("*"))) for place in places)

    def take(self) -> None:
        """A file takes an inode: of a piece that was removed since, and of what was replaced; else there is none."""
        if not self.full:
            return
        if self.pieces() == self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room = self.pieces()


@pytest.fixture
def full(host: Host, monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    for release in ("aaa", "bbb"):
        assert call(host, "activate", release, "--wanted") == 0
    return FullDisk(host, monkeypatch)


def test_a_switch_leaves_a_reserve_and_only_where_there_is_room(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    call(host, "activate", "aaa", "--wanted")
    for place in (host.config.root, host.config.etc):
        sizes = [piece.stat().st_blocks * 512 for piece in (place / BOX).iterdir()]
        assert sizes == [reserve.PIECE_BYTES] * reserve.PIECES, "their blocks are taken"
        (place / BOX / "3").write_bytes(b"cut off")
    reserve.fill(host.config, ROOM_BYTES)
    assert {path.stat().st_size for path in host.config.root.glob(f"{BOX}/*")} == {reserve.PIECE_BYTES}
    (host.config.root / BOX / "3").unlink()
    free = ROOM_BYTES + reserve.PIECES * reserve.PIECE_BYTES
    inodes = ROOM_INODES + reserve.PIECES
    for small in (
        SimpleNamespace(f_bavail=free - 1, f_frsize=1, f_files=1000, f_favail=inodes),
        SimpleNamespace(f_bavail=free, f_frsize=1, f_files=1000, f_favail=inodes - 1),
    ):
        monkeypatch.setattr(os, "statvfs", lambda _, small=small: small)
        reserve.fill(host.config, ROOM_BYTES, ROOM_INODES)
        assert not (host.config.root / BOX / "3").exists()
    enough = SimpleNamespace(f_bavail=free, f_frsize=1, f_files=1000, f_favail=inodes)
    monkeypatch.setattr(os, "statvfs", lambda _: enough)
    reserve.fill(host.config, ROOM_BYTES, ROOM_INODES)
    assert (host.config.root / BOX / "3").exists()


@pytest.mark.parametrize("fails", ["mkdir", "open"])
def test_reserve_that_cannot_be_written_fails_no_switch(
    host: Host, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    real = getattr(Path, fails)

    def no_room(path: Path, *more: Any, **named: Any) -> Any:
        if BOX in path.parts:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *more, **named)

    monkeypatch.setattr(Path, fails, no_room)
    assert call(host, "activate", "aaa", "--wanted") == 0
    assert call(host, "activate", "bbb", "--wanted") == 0
    assert call(host, "rollback") == 0


@pytest.mark.fault(59)
@pytest.mark.parametrize("words", [["rollback"], ["restore", "aaa"], ["restart"]])
def test_going_back_goes_on_a_full_disk(full: FullDisk, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    host = full.host
    target = "bbb" if words == ["restart"] else "aaa"
    assert call(host, *words) == 0
    assert "going back writes takes what is kept for that" in capsys.readouterr().out
    assert (host.live["release"], host.config.live_slot()) == (target, "blue")
    assert history.entries(host.config)[-1]["to"] == target, "by the history it is known what can be gone back to"
    assert not host.config.transaction.exists()
    assert full.pieces() < 2 * reserve.PIECES
    full.full = False
    assert call(host, "activate", "ccc", "--wanted") == 0
    assert full.pieces() == 2 * reserve.PIECES, "it is whole again once there is room"


@pytest.mark.parametrize("words", [["prune"], ["restart"], ["recover"]])
def test_whoever_comes_next_ends_a_way_back_that_was_cut_off_on_a_full_disk(
    host: Host, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    for release in ("aaa", "bbb"):
        assert call(host, "activate", release, "--wanted") == 0
    cut_off = Transaction("activate", "bbb", "me", "aaa", "blue", "green", host.clock.time(), "", GOING_BACK, "slow")
    cut_off.write(host.config)
    FullDisk(host, monkeypatch)
    assert call(host, *words) == (1 if words == ["recover"] else 0), "recover itself has the word of the switch"
    assert host.live["release"] == "aaa"
    assert not host.config.transaction.exists()
    assert "bbb" in history.bad(host.config)


def test_deploy_on_a_full_disk_takes_nothing_of_the_reserve(full: FullDisk) -> None:
    before = full.pieces()
    assert call(full.host, "activate", "ccc") == 2
    assert full.pieces() == before
    assert full.host.config.release_dir("ccc").exists(), "it was there before, and nobody has deployed it"


@pytest.mark.fault(59)
def test_release_of_a_refused_deploy_goes_where_the_disk_has_no_room_for_it(
    full: FullDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    host = full.host
    assert call(host, "activate", "ccc", "--wanted") == 2
    printed = capsys.readouterr().out
    assert "release ccc was removed from the host: the disk has no room for it" in printed
    assert "what serves was not changed" in printed
    assert "othing was changed" not in printed, "the release was"
    assert not host.config.release_dir("ccc").exists()
    for served in ("aaa", "bbb"):
        assert call(host, "activate", served, "--wanted") == 2
        assert host.config.release_dir(served).exists(), "one that has served stays"


def test_refusal_for_another_reason_leaves_the_release_on_a_full_disk(
    full: FullDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says that nothing was changed."""
    host = full.host
    full.full = False
    history.mark_bad(host.config, "ccc", "it was slow", host.config.fingerprint)
    with pytest.MonkeyPatch.context() as patch:
        # Full from just after it was looked at.
        patch.setattr("plugins.module_utils.host.commands.room_trouble", lambda _: "the disk is full")
        assert call(host, "activate", "ccc", "--wanted") == 2
    assert "it was slow. Nothing was changed" in capsys.readouterr().out
    assert host.config.release_dir("ccc").exists()


@pytest.mark.parametrize("words", [["activate", "ccc", "--wanted"], ["rollback"]])
def test_full_run_costs_no_release_and_nothing_of_the_reserve(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    for release in ("aaa", "bbb"):
        call(host, "activate", release, "--wanted")
    places = [place / BOX for place in (host.config.root, host.config.etc)]
    before = sum(len(list(place.iterdir())) for place in places)
    real = os.statvfs
    none = SimpleNamespace(f_bavail=0, f_frsize=4096, f_files=1000, f_favail=0)
    monkeypatch.setattr(os, "statvfs", lambda path: none if path == host.config.run else real(path))
    capsys.readouterr()
    assert call(host, *words) == (2 if "activate" in words else 0)
    printed = capsys.readouterr().out
    assert ("nothing was changed" in printed) == ("activate" in words)
    assert "was removed" not in printed
    assert "kept for that" not in printed
    assert host.config.release_dir("ccc").exists()
    assert sum(len(list(place.iterdir())) for place in places) == before


def test_release_that_was_refused_stays_where_there_is_room(host: Host) -> None:
    call(host, "activate", "aaa", "--wanted")
    host.broken.add("bbb")
    assert call(host, "activate", "bbb", "--wanted") == 1
    assert host.config.release_dir("bbb").exists()


def test_refused_release_in_the_idle_slot_goes_with_its_link(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    call(host, "activate", "aaa", "--wanted")
    host.broken.add("bbb")
    answers = iter(["", "the disk is full"])
    for module in ("preflight", "commands"):
        monkeypatch.setattr(f"plugins.module_utils.host.{module}.room_trouble", lambda _: next(answers))
    assert call(host, "activate", "bbb", "--wanted") == 1
    assert not host.config.release_dir("bbb").exists()
    assert not (host.config.root / "slots" / "green").is_symlink()
    host.unpack("bbb")
    host.broken.clear()
    monkeypatch.undo()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert call(host, "activate", "bbb", "--wanted") == 0


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_only_a_full_disk_is_written_to_once_more(tmp_path: Path, error: int) -> None:
    freed: list[Path] = []
    tried: list[int] = []

    def write() -> str:
        tried.append(1)
        if len(tried) < 3:
            raise OSError(error, "no")
        return "written"

    def free(folder: Path) -> bool:
        freed.append(folder)
        return True

    token = files.MAKE_ROOM.set(free)
    try:
        attempt: Callable[[], str] = lambda: files.with_room(tmp_path, write)  # noqa: E731
        if error == errno.EROFS:
            with pytest.raises(OSError, match="no"):
                attempt()
        else:
            assert attempt() == "written"
    finally:
        files.MAKE_ROOM.reset(token)
    assert freed == [] if error == errno.EROFS else freed == [tmp_path] * 2
