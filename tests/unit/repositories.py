"""App folders and git repositories for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

_WHO = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")


def git(root: Path, *args: str) -> str:
    """Run git as somebody, with submodules from this machine allowed; return what it printed."""
    allowed = ("-c", "protocol.file.allow=always")
    return subprocess.run(
        ["git", *_WHO, *allowed, *args], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


def make(root: Path, **files: str) -> Path:
    """Make an app's folder, with more files by name."""
    for name, text in {"requirements.txt": "fastapi\n", "main.py": "app = 1\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def repository(root: Path, tag: str = "", **files: str) -> Path:
    """Make an app's folder, with all of it in a first commit, which may have a tag."""
    make(root, **files)
    git(root, "init")
    return commit(root, tag)


def commit(root: Path, tag: str = "") -> Path:
    """Commit all that is there."""
    git(root, "add", "--all")
    git(root, "commit", "--allow-empty", "-m", "x")
    if tag:
        git(root, "tag", tag)
    return root
