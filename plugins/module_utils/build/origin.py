"""Where a release comes from: commit, branch or tag, whether changed. It is no part of the release, nor of its id.

Equal files are one release, whichever commit they are of: so that is told to the hosts beside it, and stands beside
an artifact, in a file of its own, for whoever deploys that elsewhere.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .git import describe, git

SHORT = 7  # digits of a commit in a label
_SHOWN_MAX = 255  # characters
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


def side_file(artifact: Path) -> Path:
    """Return where an artifact's origin stands, on whatever machine it is."""
    return artifact.with_name(f"{artifact.name}.origin.json")


def write_side_file(artifact: Path, release: str, label: str, origin: Mapping[str, Any]) -> None:
    """Write down where an artifact comes from; the same one may be of another commit by now."""
    text = json.dumps({"id": release, "label": label, "origin": dict(origin)}, sort_keys=True, indent=1) + "\n"
    path = side_file(artifact)
    handle, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    with open(handle, "w", encoding="utf-8") as out:
        out.write(text)
    os.replace(name, path)


def read_side_file(artifact: Path, release: str) -> tuple[str, dict[str, Any], str]:
    """Return an artifact's label, its origin, and a note on a file that is not taken; "" and {} where there is none."""
    path = side_file(artifact)
    if not path.exists():
        return "", {}, ""
    try:
        record = json.loads(path.read_text("utf-8"))
        label, origin = record["label"], record["origin"]
        wrong = "" if record["id"] == release else f"is of release {record['id']!r}"
        valid = _is_shown(label) and {"by"} <= set(origin) <= _KINDS.keys()
        valid = valid and all(
            isinstance(value, _KINDS[key]) and not isinstance(value, bool) for key, value in origin.items()
        )
        valid = valid and all(map(_is_shown, map(str, origin.values())))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        valid, wrong = False, f"cannot be read ({type(error).__name__})"
    if valid and not wrong:
        return label, origin, ""
    why = wrong or "is none that a build has written"
    return "", {}, f"{path} {why}, so where the release comes from is not told. Put the build's own file there."


#: What is known of an origin, and of which type it is.
_KINDS = {"commit": str, "name": str, "changes": int, "by": str}


def _is_shown(text: str) -> bool:
    """Whether a text may stand in tables and terminals: short, without control characters."""
    return isinstance(text, str) and len(text) <= _SHOWN_MAX and text.isprintable()
