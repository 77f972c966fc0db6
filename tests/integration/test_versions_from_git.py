"""Projects whose version comes from git's tags, built with their real backends."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from plugins.module_utils.build.cache import Cache
from plugins.module_utils.build.local import site_tree
from plugins.module_utils.build.source import read_folder
from plugins.module_utils.build.uv import Uv, UvError
from tests.unit.repositories import commit, git, repository

BACKENDS = {
    "setuptools-scm": '[build-system]\nrequires = ["setuptools", "setuptools-scm"]\n'
    'build-backend = "setuptools.build_meta"\n[tool.setuptools_scm]\nroot = "{root}"\n',
    "hatch-vcs": '[build-system]\nrequires = ["hatchling", "hatch-vcs"]\nbuild-backend = "hatchling.build"\n'
    '[tool.hatch.version]\nsource = "vcs"\nraw-options = {{root = "{root}"}}\n',
}


def index_answers() -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "one.in").write_text("h11\n")
        try:
            Uv().run("pip", "compile", "--quiet", "--refresh", "one.in", cwd=Path(scratch))
        except UvError:
            return False
    return True


pytestmark = pytest.mark.skipif(not index_answers(), reason="no package index is reachable")


def project(root: Path, backend: str, folder: str = "") -> Path:
    """Make a repository whose first commit is v1.4.2, with a project in one of its folders."""
    inside = f"{folder}/" if folder else ""
    text = BACKENDS[backend].format(root=".." if folder else ".")
    repository(
        root,
        **{
            f"{inside}pyproject.toml": f'[project]\nname = "shop"\ndynamic = ["version"]\n{text}',
            f"{inside}shop/__init__.py": "app = 1\n",
            f"{inside}shop/prices.csv": "1\n",
            f"{inside}tests/test_shop.py": "\n",
            f"{inside}.gitignore": "*.log\n",
        },
    )
    (root / "main.py").unlink()
    (root / "requirements.txt").unlink()
    git(root, "commit", "--all", "--amend", "--no-edit")
    git(root, "tag", "v1.4.2")
    return root / folder


def version(root: Path, cache: Path) -> str:
    """Build the project's wheel without its tests; return the version in it."""
    source = read_folder(root, ["tests"])
    names = [entry.name for entry in site_tree(source, [], "shape", ["tests"], Cache(cache), Uv())]
    info = next(name for name in names if name.endswith("/METADATA"))
    return info.split("/")[1].removeprefix("shop-").removesuffix(".dist-info")


@pytest.mark.fault(70)
@pytest.mark.parametrize(("backend", "folder"), [("setuptools-scm", ""), ("hatch-vcs", "services")])
def test_version_is_the_tags_and_follows_it(
    backend: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where files do not ship, in a folder of the repository, and with the same files at another commit."""
    root = project(tmp_path / "repo", backend, folder)
    assert version(root, tmp_path / "cache") == "1.4.2"
    commit(tmp_path / "repo", "v1.5")
    assert version(root, tmp_path / "cache") == "1.5"
    monkeypatch.setenv("SETUPTOOLS_SCM_PRETEND_VERSION", "7.0")
    assert version(root, tmp_path / "cache") == "7.0"
    monkeypatch.undo()
    assert version(root, tmp_path / "cache") == "1.5"
    (root / "shop/__init__.py").write_text("app = 2\n")
    assert version(root, tmp_path / "cache").startswith("1.6.dev0+")
