"""Sources by git URL: what is fetched is a checkout, whole, or refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plugins.module_utils.build.git import (
    Submodule,
    _absolute,
    changes,
    describe,
    fetch_git,
    ignored,
    parse_git,
    submodules,
)
from plugins.module_utils.build.git import git as run_git
from plugins.module_utils.build.uv import BuildError
from tests.unit.repositories import commit, git, make, repository


@pytest.fixture
def file_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let git fetch submodules from this machine: by default it refuses that for URLs of others."""
    for name, value in {"COUNT": "1", "KEY_0": "protocol.file.allow", "VALUE_0": "always"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("git+https://h/o/r", ("https://h/o/r", "HEAD", "")),
        ("git+https://h/o/r@v1", ("https://h/o/r", "v1", "")),
        ("git+https://u:p@h/o/r.git@f/x#subdirectory=a/b", ("https://u:p@h/o/r.git", "f/x", "a/b")),
        ("git+https://u:p@h/o/r", ("https://u:p@h/o/r", "HEAD", "")),
        ("git+ssh://git@h/o/r@main", ("ssh://git@h/o/r", "main", "")),
        ("git+file:///srv/r@HEAD", ("file:///srv/r", "HEAD", "")),
        ("git+git@h:o/r", ("git@h:o/r", "HEAD", "")),
        ("git+git@h:o/r@v1#subdirectory=a/", ("git@h:o/r", "v1", "a")),
        ("git+ssh://git@h/o/r@", ("ssh://git@h/o/r", "HEAD", "")),
        ("git+file:///srv/a@b/r@v1", ("file:///srv/a@b/r", "v1", "")),
    ],
)
def test_git_sources(source: str, want: tuple[str, str, str]) -> None:
    assert parse_git(source) == want


def test_git_ref_is_fetched(tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", "v1", **{"sub/requirements.txt": "fastapi\n"})
    (repo / "main.py").write_text("later = 1\n")
    git(repo, "commit", "-am", "y")
    cache = tmp_path / "cache"
    cache.mkdir()
    root, ref = fetch_git(f"git+file://{repo}@v1", cache, tmp_path / "one")
    assert ref == "v1"
    assert (root / "main.py").read_text() == "app = 1\n"
    assert describe(root) == "v1"
    assert (fetch_git(f"git+file://{repo}", cache, tmp_path / "two")[0] / "main.py").read_text() == "later = 1\n"
    assert fetch_git(f"git+file://{repo}#subdirectory=sub", cache, tmp_path / "three")[0].name == "sub"
    with pytest.raises(BuildError, match="no branch, tag or commit v9"):
        fetch_git(f"git+file://{repo}@v9", cache, tmp_path / "four")
    with pytest.raises(BuildError, match="could not fetch file:///nowhere"):
        fetch_git("git+file:///nowhere", cache, tmp_path / "five")


def test_commit_changes_and_ignored_files_by_their_names(tmp_path: Path) -> None:
    make(tmp_path, **{"app/.gitignore": "dist\n", "app/a.py": "", "app/b.py": ""})
    app = tmp_path / "app"
    assert (describe(app), changes(app), ignored(app)) == ("", [], [])
    repository(tmp_path, "v3")
    assert (describe(app), changes(app)) == ("v3", [])
    make(app, **{"dist/x.js": "", "front/dist/y.js": "", "new name.py": ""})
    (tmp_path / "main.py").write_text("elsewhere = 1\n")
    git(tmp_path, "mv", "app/a.py", "app/c.py")
    (app / "b.py").unlink()
    assert sorted(changes(app)) == ["a.py", "b.py", "c.py", "main.py", "new name.py", "requirements.txt"]
    assert ignored(app) == ["dist/", "front/dist/"]


def nested(root: Path) -> Path:
    """Make a repository with a submodule that has one itself, by relative URLs."""
    repository(root / "deep", **{"deep.py": ""})
    repository(root / "inner", **{".gitignore": "*.log\n"})
    git(root / "inner", "submodule", "add", "../deep", "more")
    commit(root / "inner")
    outer = repository(root / "outer", **{"sub/requirements.txt": ""})
    git(outer, "submodule", "add", "../inner", "lib")
    git(outer, "submodule", "add", "../deep", "sub/mine")
    return commit(outer)


@pytest.mark.fault(70)
@pytest.mark.usefixtures("file_allowed")
def test_submodules_are_fetched_with_theirs_and_once(tmp_path: Path) -> None:
    outer, cache = nested(tmp_path), tmp_path / "cache"
    cache.mkdir()
    root = fetch_git(f"git+file://{outer}", cache, tmp_path / "one")[0]
    assert (root / "lib/main.py").exists()
    assert (root / "lib/more/deep.py").exists()
    (tmp_path / "deep").rename(tmp_path / "away")  # the commits are known: nothing is fetched for them again
    again = fetch_git(f"git+file://{outer}#subdirectory=sub", cache, tmp_path / "two")[0]
    assert (again / "mine/deep.py").exists()
    assert not (again.parent / "lib/main.py").exists()  # not asked for


@pytest.mark.fault(70)
def test_submodule_that_cannot_be_fetched_is_named(tmp_path: Path) -> None:
    """As from a path of this machine, which whoever wrote .gitmodules could choose."""
    outer, cache = nested(tmp_path), tmp_path / "cache"
    cache.mkdir()
    with pytest.raises(
        BuildError, match=r"submodule 'lib' of file://\S+outer could not be fetched: [^\n]*\n.*\n.*'file' not"
    ):
        fetch_git(f"git+file://{outer}", cache, tmp_path / "one")
    git(outer, "rm", "-f", "--cached", ".gitmodules")
    commit(outer)
    (outer / ".gitmodules").unlink()
    commit(outer)
    assert submodules(outer)[0] == Submodule("lib", git(outer / "lib", "rev-parse", "HEAD"), "")
    with pytest.raises(BuildError, match=r"has a submodule 'lib', but its \.gitmodules does not say where"):
        fetch_git(f"git+file://{outer}", cache, tmp_path / "two")


@pytest.mark.fault(70)
def test_attributes_of_archives_leave_nothing_out(tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", **{".gitattributes": "main.py export-ignore\n"})
    (tmp_path / "cache").mkdir()
    assert (fetch_git(f"git+file://{repo}", tmp_path / "cache", tmp_path / "one")[0] / "main.py").exists()


def test_hooks_and_the_callers_repository_have_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = repository(tmp_path / "repo")
    other = repository(tmp_path / "other", "other")
    (tmp_path / "cache").mkdir()
    hook = make(tmp_path / "hooks", **{"post-checkout": f"#!/bin/sh\ntouch {tmp_path}/ran\n"}) / "post-checkout"
    hook.chmod(0o755)
    for name, value in {"COUNT": "1", "KEY_0": "core.hooksPath", "VALUE_0": str(hook.parent)}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    fetch_git(f"git+file://{repo}", tmp_path / "cache", tmp_path / "one")
    assert not (tmp_path / "ran").exists()
    assert run_git("tag", cwd=repo).stdout == ""
    assert "GIT_DIR" in os.environ


@pytest.mark.parametrize(
    ("url", "parent", "want"),
    [
        ("../lib.git", "https://u:p@h/o/r.git", "https://u:p@h/o/lib.git"),
        ("../../x/lib", "https://h/o/r/", "https://h/x/lib"),
        ("./lib", "file:///srv/r", "file:///srv/r/lib"),
        ("../lib.git", "git@h:o/r.git", "git@h:o/lib.git"),
        ("../lib.git", "git@h:r.git", "git@h:lib.git"),
        ("https://h/lib", "git@h:r.git", "https://h/lib"),
        ("", "git@h:r.git", ""),
    ],
)
def test_relative_url_of_a_submodule(url: str, parent: str, want: str) -> None:
    assert _absolute(url, parent) == want
