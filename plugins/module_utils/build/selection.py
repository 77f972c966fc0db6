"""Which files of a folder ship: what git would, without secrets and junk; and what cannot ship is refused by name."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..host.archive import show
from .git import git, submodules
from .uv import BuildError

JUNK = {
    ".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", ".pytest_cache", ".mypy_cache",
    ".ruff_cache", ".hypothesis", ".tox", ".nox", ".DS_Store",
}  # fmt: skip
#: How a file begins that stands for one that Git LFS keeps elsewhere, and how long it is at most.
POINTER, POINTER_MAX = b"version https://git-lfs.github.com/spec/v1\n", 1024
SHOWN = 3  # names in a message


def list_folder(root: Path) -> list[str]:
    """Return the relative names of what git would ship, or of everything but junk where there is no git.

    A submodule that is not there is named as its folder, with a slash behind it.
    """
    listing = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=root)
    if listing.returncode == 0:
        names = [name for name in listing.stdout.split("\0") if name]
    elif "dubious ownership" in listing.stderr:
        raise BuildError(
            f"git refuses to read {root}: it belongs to another user, so what it ignores is unknown. "
            f"Run: git config --global --add safe.directory {root}"
        )
    else:
        names = _walk(root)
    for name in [name for name in names if (root / name).is_dir() and not (root / name).is_symlink()]:
        names.remove(name)  # a submodule, or a repository that is none; each has a .gitignore of its own
        inner = root / name
        own = list_folder(inner) if (inner / ".git").exists() else _walk(inner)
        names += [f"{name.rstrip('/')}/{file}" for file in own]
    absent = {f"{submodule.path}/" for submodule in submodules(root) if not _has_files(root / submodule.path)}
    return sorted(absent | {name for name in names if name.endswith("/") or os.path.lexists(root / name)})


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def few(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(show(name) for name in names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _walk(root: Path) -> list[str]:
    names: list[str] = []
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        names += [str((here / f).relative_to(root)) for f in [*files, *(d for d in folders if (here / d).is_symlink())]]
        folders[:] = [d for d in folders if d not in JUNK and not (here / d).is_symlink()]
    return names


def list_included(root: Path, include: Sequence[str]) -> dict[str, list[str]]:
    """Return for each pattern the names of what is there, ignored by git or not. Raises BuildError where nothing is.

    A pattern names a file, or a folder with all that is in it, relative to `root`.
    """
    found: dict[str, list[str]] = {}
    for pattern in include:
        if pattern.startswith("/") or ".." in pattern.split("/"):
            raise BuildError(f"release_include has {pattern!r}: name what is in the app's folder, relative to it.")
        names: list[str] = []
        for path in root.glob(pattern.rstrip("/")):
            own = str(path.relative_to(root))
            is_folder = path.is_dir() and not path.is_symlink()
            names += [f"{own}/{name}" for name in _walk(path)] if is_folder else [own]
        if not names:
            raise BuildError(
                f"release_include has {pattern!r}, but there is no such file in {root}. If something builds it, run "
                "that first; a git URL has only what is committed."
            )
        found[pattern] = names
    return found


def select(
    names: Iterable[str], exclude: Sequence[str], holds_secrets: Callable[[str], bool] = lambda _: False
) -> tuple[list[str], list[str]]:
    """Split names into what ships and what was left out as it may hold secrets.

    A pattern of `exclude` matches a whole relative name, or a file's or folder's own name.
    """
    ships: list[str] = []
    secrets: list[str] = []
    for name in names:
        parts = name.rstrip("/").split("/")
        if JUNK.intersection(parts) or name.endswith((".pyc", ".pyo")):
            continue
        steps = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        if any(fnmatch.fnmatchcase(s, p.rstrip("/")) for p in exclude for s in [*steps, *parts]):
            continue
        (secrets if holds_secrets(name) else ships).append(name)
    return ships, secrets


def check_links(root: Path, names: list[str]) -> list[str]:
    """Refuse a symlink that leads out of the tree, or nowhere; return those in dot folders, which no app needs."""
    top = root.resolve()
    tools: list[str] = []
    for name in names:
        path = root / name
        if path.is_symlink():
            target = os.readlink(path)
            # A loop does not exist, either, and cannot be resolved.
            if os.path.isabs(target) or not path.exists() or not path.resolve().is_relative_to(top):
                if any(part.startswith(".") for part in name.split("/")):
                    tools.append(name)
                    continue
                raise BuildError(
                    f"{show(name)} is a symlink to {show(target)}, which is not in the release. Replace it by the "
                    "file, or leave it out with release_exclude."
                )
    return tools


def check_readable(root: Path, names: list[str]) -> None:
    """Refuse a file that this user cannot read."""
    unreadable = [name for name in names if not os.access(root / name, os.R_OK)]
    if unreadable:
        raise BuildError(
            f"{root / unreadable[0]} cannot be read by this user. Give it permission, or use release_exclude."
        )


def check_submodules(root: Path, names: list[str]) -> None:
    """Refuse a submodule that was not checked out: its folder is empty. Raises BuildError."""
    absent = [name.rstrip("/") for name in names if name.endswith("/")]
    if not absent:
        return
    unknown = [submodule.path for submodule in submodules(root) if submodule.path in absent and not submodule.url]
    if unknown:
        raise BuildError(
            f"{root} has a submodule {show(unknown[0])}, but its .gitmodules does not say where that comes from. Add "
            "it there, remove the submodule (git rm), or leave it out with release_exclude."
        )
    raise BuildError(
        f"{root / absent[0]} is a submodule that is not checked out, so nothing of it would ship. Run in {root}: "
        "git submodule update --init --recursive. Or leave it out with release_exclude."
    )


def check_pointers(root: Path, names: list[str], fetched: bool) -> None:
    """Refuse files of Git LFS of which only the pointers are there. `fetched`: by this build, from a git URL."""
    pointers = [name for name in names if _is_pointer(root / name)]
    if not pointers:
        return
    how = "deploy again" if fetched else f"run in {root}: git lfs pull"
    raise BuildError(
        f"Of these files, only the pointers of Git LFS are there, not the content: {few(pointers)}. Install Git LFS on "
        f"the controller (apt install git-lfs; git lfs install), then {how}. Or leave them out with release_exclude."
    )


def _is_pointer(path: Path) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > POINTER_MAX:
        return False
    with path.open("rb") as stream:
        return stream.read(len(POINTER)) == POINTER
