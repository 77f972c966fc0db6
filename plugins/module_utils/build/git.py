"""Git repositories as sources: fetched whole, submodules included, into a tree that git itself still knows.

A source by URL is a checkout like one that somebody made by hand, not an archive: `export-ignore` leaves nothing out of
it, Git LFS fetches its files where it is installed, and versions that come from tags can be found.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..host.archive import show
from .uv import BuildError, redact, tail

#: What a tree of git's holds at a submodule's place.
_SUBMODULE_MODE = "160000"
#: How `git status` marks it.
_IGNORED = "!!"
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
#: What a git hook has set for the repository that it belongs to, where a deploy is started by one.
_OTHERS = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY"}


def git(*args: str, cwd: Path, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run git in `cwd`, with environment variables of its own; it never asks for a password."""
    own = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C", **variables}
    env = {**{name: value for name, value in os.environ.items() if name not in _OTHERS}, **own}
    try:
        return subprocess.run(
            ["git", *args],
            cwd=cwd,
            env=env,
            input=stdin,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(args, 127, "", "git is not installed")


def parse_git(source: str) -> tuple[str, str, str]:
    """Split `git+URL[@REF][#subdirectory=DIR]` into URL, REF (or "HEAD") and DIR (or "")."""
    rest, _unused, fragment = source.removeprefix("git+").partition("#")
    # An @ that belongs to user:password@host stands before the path.
    url = r"([^/]+://[^/]*/.*?)(?:@([^@]*))?" if "://" in rest else r"(.*?)(?:@([^@/]*))?"
    match = re.fullmatch(url, rest)
    subdirectory = re.sub(r"^subdirectory=", "", fragment).strip("/")
    return (match[1], match[2] or "HEAD", subdirectory) if match else (rest, "HEAD", subdirectory)


@dataclass(frozen=True)
class Submodule:
    """A submodule as its repository names it. `url` is as in .gitmodules, "" where that does not have it."""

    path: str
    commit: str
    url: str


def submodules(root: Path) -> list[Submodule]:
    """Return the submodules of a checkout, those below `root`; not the submodules of these."""
    staged = git("ls-files", "-z", "--stage", cwd=root).stdout.split("\0")
    rows = [row.split(None, 3) for row in staged if row.startswith(_SUBMODULE_MODE)]
    if not rows:
        return []
    prefix = git("rev-parse", "--show-prefix", cwd=root).stdout.strip("\n")
    top = root / git("rev-parse", "--show-cdup", cwd=root).stdout.strip("\n")
    listed = git("config", "-z", "--file", ".gitmodules", "--get-regexp", r"^submodule\..*\.(path|url)$", cwd=top)
    settings = dict(row.partition("\n")[::2] for row in listed.stdout.split("\0") if row)
    urls = {
        path: settings.get(f"{name.removesuffix('.path')}.url", "")
        for name, path in settings.items()
        if name.endswith(".path")
    }
    return [Submodule(path, commit, urls.get(prefix + path, "")) for _mode, commit, _stage, path in rows]


def fetch_git(source: str, cache: Path, into: Path) -> tuple[Path, str]:
    """Put a checkout of a git source into `into`/git; return the app's folder in it, and the ref. Raises BuildError."""
    url, ref, subdirectory = parse_git(source)
    if ".." in subdirectory.split("/") or ref.startswith("-") or url.startswith("-"):
        raise BuildError(f"{redact(source)} is no git source. Write git+URL@REF#subdirectory=DIR")
    tree = into / "git"
    _check_out(url, ref, cache, tree)
    root = tree / subdirectory
    if not root.is_dir():
        raise BuildError(f"{redact(url)} has no folder {subdirectory} at {ref}. Check #subdirectory= in app_source.")
    _fetch_submodules(root, url, cache)
    return root, ref


def _check_out(url: str, ref: str, cache: Path, tree: Path, **variables: str) -> None:
    """Put the tree of a commit into a folder that is not there yet, or empty. Raises BuildError.

    `variables` are git's own for fetching what the cache does not have.
    """
    bare = cache / "git" / hashlib.sha256(url.encode()).hexdigest()[:16]
    commit = _fetch(url, ref, bare, variables)
    # The objects stay in the cache: a clone is as quick as unpacking an archive. Git's own hooks are the user's.
    for step in (
        ("clone", "--quiet", "--shared", "--no-checkout", "--template=", str(bare), str(tree)),
        ("-C", str(tree), "config", "remote.origin.url", url),  # where Git LFS fetches from
        ("-C", str(tree), "-c", "core.hooksPath=/dev/null", "checkout", "--quiet", "--detach", commit),
    ):
        done = git(*step, cwd=cache)
        if done.returncode:
            raise BuildError(f"git could not write {ref} of {redact(url)}.\ngit said:\n{tail(done.stderr)}")


def _fetch(url: str, ref: str, bare: Path, variables: dict[str, str]) -> str:
    """Return the commit of a ref, from the cache where that has it for good. Raises BuildError."""
    if not (bare / "HEAD").exists():
        bare.mkdir(parents=True, exist_ok=True)
        git("init", "--bare", "--quiet", ".", cwd=bare)
    commit = _commit(bare, ref) if _COMMIT.fullmatch(ref) else None
    if not commit:
        spec = ["+refs/heads/*:refs/heads/*", "+HEAD:refs/fleet/head"]
        fetch = ("fetch", "--quiet", "--force", "--prune", "--tags", "--update-head-ok", url)
        done = git(*fetch, *spec, cwd=bare, **variables)
        if done.returncode == 0 and _COMMIT.fullmatch(ref) and not _commit(bare, ref):
            # On no branch, as a submodule's may be: some servers give it where it is asked for by its name.
            git("fetch", "--quiet", url, f"+{ref}:refs/fleet/{ref}", cwd=bare, **variables)
        if done.returncode:
            raise BuildError(
                f"git could not fetch {redact(url)}. Check the URL and its access.\ngit said:\n{tail(done.stderr)}"
            )
        commit = _commit(bare, "refs/fleet/head" if ref == "HEAD" else ref)
    if not commit:
        raise BuildError(f"{redact(url)} has no branch, tag or commit {ref}. Check app_source.")
    return commit


def _commit(bare: Path, ref: str) -> str | None:
    done = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", cwd=bare)
    return done.stdout.strip() if done.returncode == 0 else None


def _fetch_submodules(root: Path, url: str, cache: Path) -> None:
    """Fetch what a checkout's submodules hold, and theirs. Raises BuildError that names the submodule."""
    for submodule in submodules(root):
        own, tree = _absolute(submodule.url, url), root / submodule.path
        if not own or own.startswith("-") or not tree.parent.resolve().is_relative_to(root.resolve()):
            raise BuildError(
                f"{redact(url)} has a submodule {show(submodule.path)}, but its .gitmodules does not say where that "
                "comes from. Add it there, or remove the submodule from the repository (git rm)."
            )
        try:
            # Who wrote the repository chose the URL: git takes it with the rules for such ones, so no local path.
            _check_out(own, submodule.commit, cache, tree, GIT_PROTOCOL_FROM_USER="0")
        except BuildError as error:
            raise BuildError(
                f"The submodule {show(submodule.path)} of {redact(url)} could not be fetched: {error}\n"
                "Or check all of it out by hand, and name that folder as app_source."
            ) from error
        _fetch_submodules(tree, own, cache)


def _absolute(url: str, parent: str) -> str:
    """Return a submodule's URL, which may be relative to that of the repository it is in, as in ../lib.git."""
    if not url.startswith(("./", "../")):
        return url
    base, rest, joint = parent.rstrip("/"), url, "/"
    while rest.startswith(("./", "../")):
        if rest.startswith("../"):
            joint = ":" if base.rfind(":") > base.rfind("/") else "/"  # as in git@host:shop.git
            base = base[: max(base.rfind(":"), base.rfind("/"), 0)]
        rest = rest.partition("/")[2]
    return f"{base}{joint}{rest}"


def prefix_of(root: Path) -> str:
    """Return a folder's place in its repository, as in "services/shop"; "" at its top, and where there is none."""
    return git("rev-parse", "--show-prefix", cwd=root).stdout.strip("\n").rstrip("/")


def changes(root: Path) -> list[str]:
    """Return the names, relative to `root`, of what in it differs from the last commit: changed, new and removed."""
    return [name for state, name in _status(root, "--untracked-files=all") if state != _IGNORED]


def ignored(root: Path) -> list[str]:
    """Return what git ignores below `root`: files, and folders with a slash behind them."""
    return [name for state, name in _status(root, "--ignored=matching") if state == _IGNORED]


def _status(root: Path, option: str) -> list[tuple[str, str]]:
    """Return what git says of each file below `root` that is not as committed: two letters, and its name."""
    words = iter(git("status", "--porcelain", "-z", option, "--", ".", cwd=root).stdout.split("\0"))
    prefix, rows = prefix_of(root), []
    for word in words:
        if word:
            state = word[:2]
            names = [word[3:], *([next(words)] if {"R", "C"}.intersection(state) else [])]  # and where it was before
            rows += [(state, name.removeprefix(f"{prefix}/")) for name in names]
    return rows


def describe(root: Path) -> str:
    """Return git's description of the commit; "" where there is no git."""
    commit = git("describe", "--tags", "--always", cwd=root)
    return "" if commit.returncode else commit.stdout.strip()
