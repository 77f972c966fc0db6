"""Where a release comes from, as people call it."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.module_utils.build.origin import Origin, read_origin
from tests.unit.repositories import commit, git, make, repository

COMMIT = "3f2a91c" + "0" * 33


@pytest.mark.parametrize(
    ("origin", "label"),
    [
        (Origin(COMMIT, "v1.4.2"), "v1.4.2 (3f2a91c)"),
        (Origin(COMMIT, "main", 2), "main+changes (3f2a91c)"),
        (Origin(COMMIT, "3f2a91c", 1), "3f2a91c+changes"),
        (Origin(), ""),
    ],
)
def test_label(origin: Origin, label: str) -> None:
    assert origin.label == label


def test_name_is_the_tag_else_the_branch_else_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_SHA", "CI_COMMIT_SHA", "BUILDKITE_COMMIT", "CIRCLE_SHA1"):
        monkeypatch.delenv(name, raising=False)
    assert read_origin(make(tmp_path), 0) == Origin()
    root = repository(tmp_path)
    short = git(root, "rev-parse", "--short=7", "HEAD")
    assert read_origin(root, 0).label == f"main ({short})"
    git(root, "checkout", "--detach")
    assert read_origin(root, 0).label == short
    monkeypatch.setenv("GITHUB_SHA", git(root, "rev-parse", "HEAD"))
    monkeypatch.setenv("GITHUB_REF_NAME", "release/7")
    assert read_origin(root, 0).label == f"release/7 ({short})"
    git(root, "tag", "v1")
    git(root, "tag", "v1.0")
    assert read_origin(root, 3) == Origin(git(root, "rev-parse", "HEAD"), read_origin(root, 0).name, 3)
    assert read_origin(root, 0).name in {"v1", "v1.0"}
    assert read_origin(root, 0, "v1").label == f"v1 ({short})"
    commit(root)
    later = git(root, "rev-parse", "HEAD")
    assert read_origin(root, 0, later).label == f"v1-1-g{later[:7]} ({later[:7]})".replace("v1-", git_tag(root))


def git_tag(root: Path) -> str:
    """Return the tag that git takes where a commit has several, with the dash behind it."""
    return git(root, "describe", "--tags").partition("-")[0] + "-"
