"""What a host does with a release: it is whole or it is not there."""

import ctypes
import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plugins.module_utils.build.artifact import Entry, describe, write_member
from plugins.module_utils.host import locks
from plugins.module_utils.host import unpack as unpack_module
from plugins.module_utils.host.unpack import (
    Order,
    UnpackError,
    is_renamed,
    needs,
    read_marker,
    rename,
    unpack,
    valid_id,
)
from tests.unit.rendering import value


def build(
    tmp_path: Path, release: str = "0123456789ab", code: bytes = b"app = 1\n", lib: bytes = b"y = 1\n", **extra: Any
) -> tuple[Order, dict[str, Path]]:
    """Return an order and the files of a small release."""
    parts = tmp_path / f"parts-{release}"
    parts.mkdir(exist_ok=True)
    deps = [Entry("lib/dep/__init__.py", data=lib), Entry("lib/dep/tool", data=b"#!", executable=True)]
    first = write_member(deps, parts / "lib.tar.gz", last=False)
    rest = [Entry("app/link.py", link="main.py"), Entry("app/main.py", data=code), Entry("manifest.json", data=b"{}")]
    second = write_member(rest, parts / "code.tar.gz", last=True)
    sha256 = hashlib.sha256(code + lib).hexdigest()
    artifact = describe(first, second, sha256, "3.11", "x86_64")
    order = Order("shop", tmp_path / "srv", release, artifact, python=sys.executable, **extra)
    return order, {"lib": parts / "lib.tar.gz", "code": parts / "code.tar.gz"}


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p.relative_to(root)): (p.stat().st_mode, p.read_bytes()) for p in root.rglob("*") if p.is_file()}


def test_release_is_whole(tmp_path: Path) -> None:
    order, files = build(tmp_path)
    assert needs(order) == ["lib", "code"]
    old = os.umask(0o077)
    try:
        assert unpack(order, files) == []
    finally:
        os.umask(old)
    marker = read_marker(order.folder)
    assert marker
    assert (marker["id"], marker["lib_sha256"]) == (order.release, order.artifact["lib_sha256"])
    modes = {str(p.relative_to(order.folder)): oct(p.lstat().st_mode & 0o777) for p in order.folder.rglob("*")}
    assert set(modes.values()) == {"0o644", "0o755", "0o777"}  # the last is the symlink's
    assert modes["lib/dep/tool"] == "0o755"
    assert modes["app"] == modes["lib/dep/__pycache__"] == "0o755"
    assert any(name.startswith("app/__pycache__/main.") for name in modes)
    assert needs(order) == []
    assert [p.name for p in order.folder.parent.iterdir() if p.name != ".lock"] == [order.release]


def test_same_dependencies_are_shared_not_sent(tmp_path: Path) -> None:
    first, files = build(tmp_path)
    unpack(first, files)
    second, files = build(tmp_path, "ba9876543210", b"app = 2\n")
    assert needs(second) == ["code"]
    assert unpack(second, {"code": files["code"]}) == []
    for name in (
        "lib/dep/__init__.py",
        *(str(p.relative_to(first.folder)) for p in first.folder.glob("lib/dep/__pycache__/*")),
    ):
        assert (first.folder / name).samefile(second.folder / name)
    assert (second.folder / "app/main.py").read_bytes() == b"app = 2\n"


def test_wrong_guess_about_dependencies_is_answered(tmp_path: Path) -> None:
    order, files = build(tmp_path)
    assert unpack(order, {"code": files["code"]}) == ["lib"]
    assert not order.root.exists()


@pytest.mark.fault(14)
@pytest.mark.parametrize("part", ["lib", "code"])
def test_changed_on_the_way(tmp_path: Path, part: str) -> None:
    order, files = build(tmp_path)
    data = bytearray(files[part].read_bytes())
    data[len(data) // 2] ^= 1
    files[part].write_bytes(data)
    with pytest.raises(UnpackError, match=f"The {part} part of shop 0123456789ab changed on its way"):
        unpack(order, files)
    assert not order.root.exists()


@pytest.mark.fault(12)
def test_half_a_release_is_built_anew(tmp_path: Path) -> None:
    order, files = build(tmp_path)
    (order.folder / "lib").mkdir(parents=True)
    (order.folder / "lib/half").write_text("x")
    left = order.folder.parent / f".{order.release}.tmp-killed"
    left.mkdir()
    assert needs(order) == ["lib", "code"]
    unpack(order, files)
    assert read_marker(order.folder)
    assert not (order.folder / "lib/half").exists()
    assert [p.name for p in order.folder.parent.iterdir() if p.name != ".lock"] == [order.release]


@pytest.mark.fault(12)
@pytest.mark.parametrize("step", ["extract", "compile_bytecode", "sync_folder"])
def test_death_at_any_step_leaves_no_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    order, files = build(tmp_path)

    def die(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(unpack_module, step, die)
        with pytest.raises(KeyboardInterrupt):
            unpack(order, files)
    assert not order.folder.exists()
    assert unpack(order, files) == []


@pytest.mark.fault(13)
@pytest.mark.parametrize(("field", "word"), [("f_bavail", "MiB free"), ("f_favail", "inodes free")])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, word: str) -> None:
    order, files = build(tmp_path)
    disk = {"f_bavail": 10**9, "f_frsize": 4096, "f_files": 10**9, "f_favail": 10**9, field: 5}
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(**disk))
    with pytest.raises(UnpackError, match=f"{word}.* Make room; old releases are in {order.root}/releases"):
        needs(order)
    with pytest.raises(UnpackError, match=word):
        unpack(order, files)
    assert not order.root.exists()


def test_disk_that_fills_up_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order, files = build(tmp_path)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unpack_module, "extract", full)
    with pytest.raises(UnpackError, match="is full"):
        unpack(order, files)
    assert [p.name for p in (order.root / "releases").iterdir()] == [".lock"]


def test_same_id_with_other_content(tmp_path: Path) -> None:
    order, files = build(tmp_path)
    unpack(order, files)
    other, files = build(tmp_path, lib=b"y = 2\n", live=(order.release,))
    before = tree(order.folder)
    with pytest.raises(UnpackError, match="is live and has other content"):
        unpack(other, files)
    assert tree(order.folder) == before
    idle, files = build(tmp_path, lib=b"y = 2\n")
    assert unpack(idle, files) == []
    assert (order.folder / "lib/dep/__init__.py").read_bytes() == b"y = 2\n"


@pytest.mark.parametrize(("key", "value"), [("python", "3.12"), ("arch", "aarch64")])
def test_live_release_for_what_the_host_was_before_its_upgrade_is_replaced(
    tmp_path: Path, key: str, value: str
) -> None:
    order, files = build(tmp_path)
    unpack(order, files)
    other, files = build(tmp_path, lib=b"y = 2\n", live=(order.release,))
    other.artifact[key] = value
    assert needs(other) == ["lib", "code"]
    assert unpack(other, files) == []
    assert (order.folder / "lib/dep/__init__.py").read_bytes() == b"y = 2\n"
    marker = read_marker(order.folder)
    assert marker
    assert marker[key] == value


def test_same_content_in_other_bytes_is_the_same_release(tmp_path: Path) -> None:
    order, files = build(tmp_path)
    unpack(order, files)
    order.artifact["sha256"] = "another compressor"
    assert needs(order) == []


@pytest.mark.parametrize(("key", "there"), [("sha256", True), ("lib_sha256", True), ("content", False), ("id", False)])
def test_role_leaves_the_same_content_alone(tmp_path: Path, key: str, there: bool) -> None:
    """As after an upgrade of this bundle, which packs the same files into other bytes."""
    order, files = build(tmp_path)
    unpack(order, files)
    marker = {**(read_marker(order.folder) or {}), key: "another"}
    facts = {"app_probe": {"releases": [{"id": "ba9876543210"}, marker]}}
    given = {"ansible_facts": facts, "release_id": order.release, "release_artifact": order.artifact}
    assert value("release", "_release_installed", **given) is there


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"id": "other"})])
def test_marker_that_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / ".complete").write_text(text)
    assert read_marker(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "good"), [("0123456789ab", True), ("../../../x", False), ("", False), ("ABCDEF012345", False)]
)
def test_ids(text: str, good: bool) -> None:
    assert valid_id(text) is good


def test_release_that_another_controller_unpacks_meanwhile_is_not_unpacked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be live by then: nothing of it may be replaced. The other one had the lock while this one waited."""
    order, files = build(tmp_path)
    lock = locks.releases_locked

    def other_comes_first(root: Path) -> Any:
        monkeypatch.setattr(unpack_module, "releases_locked", lock)
        assert unpack(order, files) == []
        places.append(order.folder.stat().st_ino)
        return lock(root)

    places: list[int] = []
    monkeypatch.setattr(unpack_module, "releases_locked", other_comes_first)
    assert unpack(order, files) == []
    assert [order.folder.stat().st_ino] == places


@pytest.mark.fault(12)
@pytest.mark.parametrize("works", [True, False])
def test_release_is_on_the_disk_before_it_is_marked_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    order, files = build(tmp_path)
    marked: list[tuple[str, str]] = []

    def note(call: str) -> int:
        (marker,) = order.folder.parent.glob(".*/.complete")
        assert (marker.parent / "app/main.py").exists()
        marked.append((call, marker.read_text()))
        return 0 if works else -1

    def syncfs(descriptor: int) -> int:
        assert os.fstat(descriptor).st_dev == order.root.stat().st_dev
        return note("syncfs")

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(syncfs=syncfs))
    monkeypatch.setattr(os, "sync", lambda: note("sync"))
    assert unpack(order, files) == []
    assert marked == [("syncfs", "")] + [("sync", "")] * (not works)
    assert read_marker(order.folder)


def test_same_files_of_another_commit_get_its_name_and_nothing_else_changes(tmp_path: Path) -> None:
    order, files = build(tmp_path)
    first = replace(order, label="main (1111111)", origin={"commit": "1" * 40, "by": "ann@ci"})
    unpack(first, files)
    marker = read_marker(order.folder)
    assert marker
    assert (marker["label"], marker["origin"]["by"]) == ("main (1111111)", "ann@ci")
    assert not is_renamed(first)
    assert not is_renamed(replace(first, label="1.0", origin={"by": "bob@ci"}))  # an artifact: it does not know
    tagged = replace(first, label="v1 (2222222)", origin={"commit": "2" * 40, "by": "bob@ci"})
    assert is_renamed(tagged)
    rename(tagged)
    assert not is_renamed(tagged)
    assert read_marker(order.folder) == {**marker, "label": tagged.label, "origin": tagged.origin}
    assert (order.folder / ".complete").stat().st_mode & 0o777 == 0o644
