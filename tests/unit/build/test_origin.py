"""Where a release comes from, as people call it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.build.origin import Origin, read_origin, read_side_file, side_file, write_side_file
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


RELEASE = "0123456789ab"
ORIGIN = {"commit": COMMIT, "name": "v1.4.2", "changes": 2, "by": "octocat (GitHub run 77)"}


def test_origin_goes_along_in_a_file_beside_the_artifact(tmp_path: Path) -> None:
    artifact = tmp_path / "shop.tar.gz"
    assert read_side_file(artifact, RELEASE) == ("", {}, "")
    write_side_file(artifact, RELEASE, "v1.4.1 (3f2a91c)", ORIGIN)
    write_side_file(artifact, RELEASE, "v1.4.2 (3f2a91c)", ORIGIN)
    moved = side_file(artifact).rename(tmp_path / "mine.tar.gz.origin.json")
    assert read_side_file(tmp_path / "mine.tar.gz", RELEASE) == ("v1.4.2 (3f2a91c)", ORIGIN, "")
    assert [*tmp_path.iterdir()] == [moved], "nothing else is left"


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"id": "ffffffffffff"}, "is of release 'ffffffffffff'"),
        ({"label": "v1\x1b[31m"}, "is none that a build has written"),
        ({"label": 7}, "is none that a build has written"),
        ({"label": "x" * 256}, "is none that a build has written"),
        ({"origin": {**ORIGIN, "by": "a\nb"}}, "is none that a build has written"),
        ({"origin": {**ORIGIN, "changes": "2"}}, "is none that a build has written"),
        ({"origin": {**ORIGIN, "more": "x"}}, "is none that a build has written"),
        ({"origin": {}}, "is none that a build has written"),
        ({"origin": None}, "cannot be read (TypeError)"),
        (None, "cannot be read (TypeError)"),
        ([], "cannot be read (TypeError)"),
    ],
)
def test_file_of_another_release_or_that_could_not_be_shown_is_told_and_not_taken(
    tmp_path: Path, record: Any, why: str
) -> None:
    artifact = tmp_path / "shop.tar.gz"
    whole = {"id": RELEASE, "label": "v1", "origin": ORIGIN, **record} if isinstance(record, dict) else record
    side_file(artifact).write_text(json.dumps(whole))
    label, origin, note = read_side_file(artifact, RELEASE)
    assert (label, origin) == ("", {})
    assert note.startswith(f"{side_file(artifact)} {why}, so where the release comes from is not told. ")
