"""Whether a release on the disk has all that was unpacked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from plugins.module_utils.host.files import write_object
from plugins.module_utils.host.whole import MANIFEST, MARKER, count_files, missing


@pytest.fixture(params=["counted", "of an earlier version"])
def release(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path / "abc"
    for name in ("app/main.py", "app/__pycache__/main.pyc", "lib/x/a.py", "lib/x/b.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    (folder / "lib" / "link").symlink_to("x")
    write_object(folder / MANIFEST, {"path": ["app", "lib"]})
    marker = {"files": count_files(folder)} if request.param == "counted" else {}
    write_object(folder / MARKER, {"id": "abc", **marker})
    return folder


def test_a_whole_release(release: Path) -> None:
    assert count_files(release) == {"app": 1, "lib": 3, MANIFEST: 1}
    assert missing(release) == ""
    shutil.rmtree(release / "app" / "__pycache__")
    assert missing(release) == "", "bytecode may be made anew"


@pytest.mark.parametrize(
    ("remove", "text"),
    [
        (shutil.rmtree, "abc is gone"),
        (lambda folder: (folder / MARKER).unlink(), f"{MARKER} is gone"),
        (lambda folder: (folder / MANIFEST).unlink(), f"{MANIFEST} is gone"),
        (lambda folder: shutil.rmtree(folder / "lib"), "lib is gone"),
        (lambda folder: (folder / "app" / "main.py").unlink(), "app is gone"),
    ],
)
def test_a_release_that_lacks_something(release: Path, remove: Callable[[Path], object], text: str) -> None:
    remove(release)
    assert missing(release).endswith(text)


@pytest.mark.parametrize("release", ["counted"], indirect=True)
@pytest.mark.parametrize("name", ["lib/x/a.py", "lib/link"])
def test_one_file_of_many(release: Path, name: str) -> None:
    (release / name).unlink()
    assert missing(release) == f"1 of 3 files are gone from {release / 'lib'}"
