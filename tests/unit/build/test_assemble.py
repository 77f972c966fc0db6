"""Sources that hosts would refuse are refused before anything is installed."""

import dataclasses
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from plugins.module_utils.build.assemble import build
from plugins.module_utils.build.cache import Cache
from plugins.module_utils.build.request import Platform, Request
from plugins.module_utils.build.uv import BuildError, Uv

ENGINE_FILES = Path(__file__).parents[3] / "roles/release/files"


def source(root: Path) -> Path:
    root.mkdir()
    (root / "requirements.txt").write_text("")
    (root / "main.py").write_text("app = 1\n")
    return root


def no_utf8(root: Path) -> None:
    (root / "\udcff.txt").write_text("")


def through_a_link(root: Path) -> None:
    (root / "storage/v2").mkdir(parents=True)
    (root / "storage/v2/data").write_text("")
    (root / "storage/current").symlink_to("v2")
    (root / "data").symlink_to("storage/current/data")


def through_its_own_name(root: Path) -> None:
    (root / "data").symlink_to(f"../{root.name}/main.py")


def too_deep(root: Path) -> None:
    deep = root / "/".join("f" * 120)
    deep.mkdir(parents=True)
    (deep / "x").write_text("")


def loop(root: Path) -> None:
    (root / "loop").symlink_to("loop")


@pytest.mark.fault(50)
@pytest.mark.parametrize("git", [False, True], ids=["plain", "git"])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_utf8, r"'app/\\udcff\.txt' is no UTF-8\. Hosts would refuse such a release\. Change it"),
        (
            through_a_link,
            "'app/data' is a link to 'storage/current/data', which leads through the link 'app/storage/cur",
        ),
        (through_its_own_name, r"'app/data' is a link to '\.\./shop/main\.py', which leads out of the code part"),
        (too_deep, "lies 121 folders deep; 99 are allowed"),
        (loop, "'loop' is a symlink to 'loop', which is not in the release"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_source_that_hosts_would_refuse_is_refused_at_build(
    tmp_path: Path, spoil: Callable[[Path], None], said: str, git: bool
) -> None:
    """By name, before anything is installed; without what is named, it is built."""
    root = source(tmp_path / "shop")
    spoil(root)
    if git:
        subprocess.run(["git", "init", "-q", root], check=True)
    request = Request("shop", str(root), "main:app", [Platform("3.11", "x86_64")], "gunicorn", ENGINE_FILES, [])
    with pytest.raises(BuildError, match=said):
        build(request, Cache(tmp_path / "cache"), Uv("/no/uv"))
    excluded = ["*.txt", "data", "f", "loop"]
    (root / "pyproject.toml").write_text("[project]\nname = 'shop'\nversion = '1'\n")
    with pytest.raises(BuildError, match="release_uv is /no/uv"):
        build(dataclasses.replace(request, exclude=excluded), Cache(tmp_path / "cache"), Uv("/no/uv"))


def test_source_with_something_that_is_no_file(tmp_path: Path) -> None:
    """Reading a FIFO would wait for ever. git does not see it."""
    root = source(tmp_path / "shop")
    os.mkfifo(root / "pipe")
    request = Request("shop", str(root), "main:app", [Platform("3.11", "x86_64")], "gunicorn", ENGINE_FILES, [])
    with pytest.raises(BuildError, match="'app/pipe' is no file, folder or symlink"):
        build(request, Cache(tmp_path / "cache"), Uv("/no/uv"))


def test_files_have_all_that_ships(tmp_path: Path) -> None:
    (tmp_path / "shop-1.0-py3-none-any.whl").write_text("")
    request = Request(
        "shop", str(tmp_path / "shop-1.0-py3-none-any.whl"), "main:app", [], "gunicorn", ENGINE_FILES, [], include=["d"]
    )
    with pytest.raises(BuildError, match=r"release_include is d, but app_source .* is a file: .* Unset "):
        build(request, Cache(tmp_path / "cache"), Uv("/no/uv"))
