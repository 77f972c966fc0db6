"""The repository that a copy of a source is given, for versions from its tags."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.build.git import prefix_of
from plugins.module_utils.build.versions import lend_git, takes_from_git, version_inputs
from tests.unit.repositories import commit, git, make, repository

STATIC = '[project]\nname = "shop"\nversion = "1"\n'


@pytest.mark.parametrize(
    ("project", "want"),
    [
        ({"project": {"version": "1"}, "build-system": {"requires": ["hatchling>=1.2"]}}, False),
        ({"project": {"version": "1"}}, False),
        ({"project": {"dynamic": ["version"]}}, True),
        ({"tool": {"poetry": {"version": "1"}}, "build-system": {"requires": ["poetry-core>=2"]}}, False),
        ({}, True),  # setup.py, which may do anything
        ({"project": {"version": "0"}, "build-system": {"requires": ["poetry-dynamic-versioning>=1"]}}, True),
        ({"project": {"version": "0"}, "build-system": {"requires": ["Setuptools_SCM[toml]", "x y"]}}, True),
    ],
)
def test_whose_version_may_come_from_git(project: dict[str, Any], want: bool) -> None:
    assert takes_from_git(project) is want


def test_key_follows_what_decides_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    static, tagged = make(tmp_path / "a", **{"pyproject.toml": STATIC}), repository(tmp_path / "b", "v1")
    assert version_inputs(static, ["."], False) == []
    seen = [version_inputs(tagged, ["."], False)]
    (tagged / "main.py").write_text("app = 2\n")
    assert version_inputs(tagged, ["."], fetched=True) == seen[0]
    seen.append(version_inputs(tagged, ["."], False))
    commit(tagged)
    seen.append(version_inputs(tagged, ["."], False))
    git(tagged, "tag", "v2")
    seen.append(version_inputs(tagged, ["."], False))
    git(tagged, "tag", "v3")
    seen.append(version_inputs(tagged, ["."], False))
    git(tagged, "checkout", "-b", "release")
    seen.append(version_inputs(tagged, ["."], False))
    monkeypatch.setenv("SETUPTOOLS_SCM_PRETEND_VERSION_FOR_SHOP", "7")
    seen.append(version_inputs(tagged, ["."], False))
    assert all(other != one for i, one in enumerate(seen) for other in seen[:i])


@pytest.mark.fault(70)
def test_copy_has_commit_branch_and_tags_and_no_changes_for_what_did_not_ship(tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", "v1.4.2", **{"services/shop/main.py": "", "services/shop/tests/x.py": ""})
    root, copy = repo / "services/shop", tmp_path / "copy"
    shutil.copytree(root, copy / prefix_of(root), ignore=shutil.ignore_patterns("tests"))
    lend_git(root, copy)
    assert git(copy, "describe", "--tags", "--dirty") == "v1.4.2"
    assert git(copy, "rev-parse", "--abbrev-ref", "HEAD") == "main"
    assert git(copy, "status", "--porcelain") == ""
    (copy / "services/shop/main.py").write_text("changed = 1\n")
    assert git(copy, "describe", "--tags", "--dirty") == "v1.4.2-dirty"
    assert git(repo, "status", "--porcelain") == ""
    worktree = tmp_path / "worktree"
    git(repo, "worktree", "add", "--detach", str(worktree))
    commit(worktree, "v1.5")
    lend_git(worktree, make(tmp_path / "second"))
    assert git(tmp_path / "second", "describe", "--tags", "HEAD") == "v1.5"


def test_folder_without_commits_lends_nothing(tmp_path: Path) -> None:
    git(make(tmp_path / "repo"), "init")
    lend_git(tmp_path / "repo", make(tmp_path / "copy"))
    assert not (tmp_path / "copy/.git").exists()
