"""Where a release comes from: commit, branch or tag, whether changed. It is no part of the release, nor of its id.

Equal files are one release, whichever commit they are of: so that is told to the hosts beside it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from .git import describe, git

SHORT = 7  # digits of a commit in a label
#: Variables in which CI systems have the commit that they checked out, and the branch or tag that they did so for.
_CI = (
    ("GITHUB_SHA", "GITHUB_REF_NAME"), ("CI_COMMIT_SHA", "CI_COMMIT_REF_NAME"),
    ("BUILDKITE_COMMIT", "BUILDKITE_BRANCH"), ("CIRCLE_SHA1", "CIRCLE_BRANCH"),
)  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """A commit; `name` is its tag, else the branch, else git's description; `changes` is how many files differ."""

    commit: str = ""
    name: str = ""
    changes: int = 0

    @property
    def label(self) -> str:
        """What people call it, as in "v1.4.2 (3f2a91c)"; "" where there is no git."""
        if not self.commit:
            return ""
        changed, short = "+changes" if self.changes else "", self.commit[:SHORT]
        return f"{short}{changed}" if self.name == short else f"{self.name}{changed} ({short})"


def read_origin(root: Path, changes: int, ref: str = "") -> Origin:
    """Return where a folder's files come from; `ref` is what was asked for, where it was fetched from a URL."""
    commit = git("rev-parse", "--verify", "--quiet", "HEAD", cwd=root).stdout.strip()
    if not commit:
        return Origin()
    asked_for = "" if ref == "HEAD" or commit.startswith(ref) else ref
    exact = git("describe", "--tags", "--exact-match", cwd=root).stdout.strip()
    # Of several tags, git tells one: the one that was asked for says more.
    name = asked_for or exact or _branch(root) or _of_ci(commit) or describe(root)
    return Origin(commit, commit[:SHORT] if re.fullmatch("[0-9a-f]{7,64}", name) else name, changes)


def _branch(root: Path) -> str:
    name = git("rev-parse", "--abbrev-ref", "HEAD", cwd=root).stdout.strip()
    return "" if name == "HEAD" else name


def _of_ci(commit: str) -> str:
    """Return the branch or tag that a CI system has checked out this commit for: it does so by the commit alone."""
    return next((os.environ.get(ref, "") for sha, ref in _CI if os.environ.get(sha) == commit), "")
