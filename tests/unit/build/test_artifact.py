"""The artifact: the same bytes from the same files, one ordinary tar.gz in two parts, and what is checked in it."""

import os
import tarfile
import zipfile
from pathlib import Path
from typing import IO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.module_utils.build.artifact import (
    Entry,
    check_entries,
    lib_tree,
    tree,
    wheel_tree,
    write_member,
    write_part,
)
from plugins.module_utils.build.split import split
from plugins.module_utils.build.uv import BuildError
from tests.unit.artifacts import manifest_of

PART = st.from_regex(r"[a-z][a-z0-9_.é]{0,60}", fullmatch=True)


FILES = st.dictionaries(st.tuples(PART, PART).map("/".join), st.binary(max_size=2000), min_size=1, max_size=6)


@settings(max_examples=25)
@given(FILES)
def test_two_parts_are_one_archive(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    tmp_path = tmp_path_factory.mktemp("artifact")
    lib = [Entry(f"lib/{name}", data=data) for name, data in files.items()]
    first = write_member(lib, tmp_path / "lib.tar.gz", last=False)
    manifest = manifest_of(first.content)
    code = [Entry(f"app/{name}", data=data) for name, data in files.items()]
    second = write_member([*code, Entry("manifest.json", data=manifest)], tmp_path / "code.tar.gz", last=True)
    artifact = tmp_path / "whole.tar.gz"
    artifact.write_bytes((tmp_path / "lib.tar.gz").read_bytes() + (tmp_path / "code.tar.gz").read_bytes())
    with tarfile.open(artifact) as tar:
        members = tar.getmembers()
        contents = {info.name: cast("IO[bytes]", tar.extractfile(info)).read() for info in members if info.isreg()}
    assert contents == {f"{top}/{n}": d for n, d in files.items() for top in ("lib", "app")} | {
        "manifest.json": manifest
    }
    assert {(info.uid, info.gid, info.uname, info.mtime) for info in members} == {(0, 0, "", 315532800)}
    (tmp_path / "out").mkdir()
    assert split(artifact, tmp_path / "out")[:2] == (first, second)
    assert (tmp_path / "out/lib.tar.gz").read_bytes() == (tmp_path / "lib.tar.gz").read_bytes()


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_bytes_do_not_depend_on_umask_or_time(tmp_path: Path, mask: int) -> None:
    old = os.umask(mask)
    try:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "a.py").write_text("x = 1\n")
            (tmp_path / name / "run").write_text("#!/bin/sh\n")
            (tmp_path / name / "run").chmod(0o777 & ~mask)
            (tmp_path / name / "link").symlink_to("a.py")
    finally:
        os.umask(old)
    os.utime(tmp_path / "two/a.py", (1, 1))
    found = {
        write_member(tree(tmp_path / n, ["run", "a.py", "link"], "app/"), tmp_path / "x", last=True)
        for n in ("one", "two")
    }
    assert {member.sha256 for member in found} == {next(iter(found)).sha256}
    with tarfile.open(tmp_path / "x") as tar:
        assert [(i.name, oct(i.mode)) for i in tar if i.isreg()] == [("app/a.py", "0o644"), ("app/run", "0o755")]


def test_lib_leaves_out_what_differs_between_installations(tmp_path: Path) -> None:
    info = tmp_path / "foo-1.dist-info"
    for path in (info, tmp_path / "bin", tmp_path / "foo/bin", tmp_path / "foo/__pycache__"):
        path.mkdir(parents=True, exist_ok=True)
    for name in ("bin/foo", "foo/__init__.py", "foo/bin/tool", "foo/__pycache__/x.pyc", ".lock"):
        (tmp_path / name).write_text("")
    for name in ("INSTALLER", "METADATA", "direct_url.json", "REQUESTED"):
        (info / name).write_text(str(tmp_path))
    rows = ["bin/foo,sha256=1,1", "foo/__init__.py,,", "foo-1.dist-info/INSTALLER,,", "foo-1.dist-info/RECORD,,"]
    (info / "RECORD").write_text("\n".join(rows))
    entries = {entry.name: entry for entry in lib_tree(tmp_path)}
    assert sorted(entries) == [
        "lib/foo-1.dist-info/METADATA",
        "lib/foo-1.dist-info/RECORD",
        "lib/foo/__init__.py",
        "lib/foo/bin/tool",
    ]
    assert entries["lib/foo-1.dist-info/RECORD"].read() == b"foo-1.dist-info/RECORD,,\nfoo/__init__.py,,\n"


def test_wheel_is_unpacked_as_installed(tmp_path: Path) -> None:
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name in ("a/b.py", "a-1.data/purelib/c.py", "a-1.data/scripts/run", "a-1.dist-info/RECORD"):
            wheel.writestr(name, "x")
        wheel.writestr("a-1.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: backend 9\nTag: py3-none-any\n")
    found = {entry.name: entry.read() for entry in wheel_tree(path)}
    assert sorted(found) == ["site/a-1.dist-info/WHEEL", "site/a/b.py", "site/c.py"]
    assert b"Generator" not in found["site/a-1.dist-info/WHEEL"]
    with zipfile.ZipFile(path, "a") as wheel:
        wheel.writestr("../evil.py", "x")
    with pytest.raises(BuildError, match="leads out"):
        wheel_tree(path)


@pytest.mark.fault(50)
@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a/" + "n" * 256], "'a/n.*' has a component of 256 bytes"),
        (["a", "a/b"], "'site/a/b' lies below the file 'site/a'"),
        (["a/./b"], r"'a/\./b' is no plain name"),
    ],
)
def test_wheel_that_hosts_would_refuse_is_refused_at_build(tmp_path: Path, names: list[str], said: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        for name in names:
            wheel.writestr(name, "x")
    with pytest.raises(BuildError, match=said):
        check_entries([*wheel_tree(tmp_path / "a.whl"), Entry("manifest.json")], "code")


@pytest.mark.fault(50)
def test_wheel_that_is_a_bomb_is_not_read_into_memory(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w", zipfile.ZIP_DEFLATED) as wheel, wheel.open("zeros", "w") as out:
        for _ in range(160):
            out.write(bytes(1 << 20))
    with pytest.raises(BuildError, match=r"a\.whl would unpack to 160 MiB in 1 files; of its \d+ KiB, hosts take"):
        wheel_tree(tmp_path / "a.whl")


@pytest.mark.fault(50)
def test_release_that_hosts_would_take_for_a_bomb_is_refused_at_build(tmp_path: Path) -> None:
    entries = [Entry("app/zeros.bin", data=bytes(120 << 20)), Entry("app/main.py"), Entry("manifest.json", data=b"{}")]
    with pytest.raises(
        BuildError, match=r"'app/zeros\.bin' goes beyond .* Hosts would refuse such a release\. Change it"
    ):
        write_part(entries, tmp_path / "code.tar.gz", "code")
    write_part(entries[1:], tmp_path / "code.tar.gz", "code")


def test_file_that_no_tar_header_can_describe_is_refused_at_build(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").touch()
    os.truncate(tmp_path / "weights.bin", 8 << 30)
    with pytest.raises(BuildError, match=r"'app/weights\.bin' is a file of 8589934592 bytes, which is too large"):
        check_entries(tree(tmp_path, ["weights.bin"], "app/"), "code")
