"""Versions that a build backend reads from git's tags: it finds a repository beside the files that it builds.

A copy of what ships is built, not the folder itself. So the copy gets a `.git` of its own, with the source's commit and
tags: setuptools-scm, hatch-vcs and the like work out the same version as in the source, by their own settings.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import tomllib
from packaging.requirements import InvalidRequirement, Requirement

from .git import git
from .uv import BuildError, tail

#: In the names of packages that take a version from git: setuptools-scm, hatch-vcs, uv-dynamic-versioning and so on.
_FROM_GIT = re.compile(r"scm|vcs|git|versioning|versioneer|dunamai|\bpbr\b")
#: Variables by which such packages are told a version, or how to find one.
_VARIABLES = re.compile(r"(SETUPTOOLS_SCM|VCS_VERSIONING|SETUPTOOLS_GIT|HATCH|PDM_BUILD|PBR|\w*DYNAMIC_VERSIONING)_\w+")


def takes_from_git(project: dict[str, Any]) -> bool:
    """Whether a project's version, by its parsed pyproject.toml, may come from git."""
    requires = project.get("build-system", {}).get("requires", [])
    tables = (project.get("project", {}), project.get("tool", {}).get("poetry", {}))
    return not any("version" in table for table in tables) or any(_FROM_GIT.search(_name(row)) for row in requires)


def _name(requirement: str) -> str:
    try:
        return Requirement(requirement).name.lower()
    except InvalidRequirement:
        return requirement


def version_inputs(root: Path, folders: list[str], fetched: bool) -> list[Any]:
    """Return what versions from git depend on, for the cache's key: nothing where no folder's version does."""
    if not any(takes_from_git(_project(root / folder)) for folder in folders):
        return []
    variables = {name: value for name, value in os.environ.items() if _VARIABLES.fullmatch(name)}
    seen = git("describe", "--tags", "--long", "--always", "--abbrev=40", *([] if fetched else ["--dirty"]), cwd=root)
    branch = git("rev-parse", "--abbrev-ref", "HEAD", cwd=root)
    tags = git("tag", "--points-at", "HEAD", cwd=root)
    return [variables, seen.stdout, branch.stdout, tags.stdout]


def _project(folder: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return {}  # the backend says what is wrong with it


def lend_git(root: Path, copy: Path) -> None:
    """Give a copy of what ships from `root` a `.git` that has the commit, branch and tags of root's.

    `copy` stands for the top of the repository. What did not ship does not count as changed. Raises BuildError.
    """
    head = git("rev-parse", "--verify", "--quiet", "HEAD", cwd=root)
    if head.returncode:
        return  # no repository, or one without a commit
    top = Path(git("rev-parse", "--show-toplevel", cwd=root).stdout.strip("\n"))
    own = copy / ".git-lent"
    for step in (
        ("clone", "--quiet", "--shared", "--no-checkout", "--template=", str(top), str(own)),
        ("-C", str(own), "reset", "--quiet", "--soft", head.stdout.strip()),
    ):
        done = git(*step, cwd=copy)
        if done.returncode:
            raise BuildError(
                f"git could not copy the history of {top}, from which the version is taken.\ngit said:\n"
                f"{tail(done.stderr)}"
            )
    (own / ".git").rename(copy / ".git")
    own.rmdir()
    git("read-tree", "HEAD", cwd=copy)
    absent = git("ls-files", "-z", "--deleted", cwd=copy).stdout
    git("update-index", "-z", "--skip-worktree", "--stdin", cwd=copy, stdin=absent)
    git("update-index", "-q", "--refresh", cwd=copy)
