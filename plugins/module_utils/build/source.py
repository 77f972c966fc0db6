"""What a release is made of: the files of a folder, of a git commit, or of a wheel."""

from __future__ import annotations

import email.parser
import fnmatch
import hashlib
import os
import re
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ..host.archive import show
from .pyproject import describes, index_options, is_package, read_pyproject
from .uv import BuildError, redact, tail

if TYPE_CHECKING:
    from .workspace import Workspace

JUNK = {
    ".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", ".pytest_cache", ".mypy_cache",
    ".ruff_cache", ".hypothesis", ".tox", ".nox", ".DS_Store",
}  # fmt: skip
DESCRIPTIONS = ("uv.lock", "pyproject.toml", "requirements.txt")


@dataclass
class Source:
    """A source that was looked at. `files` maps relative names to what is on disk."""

    kind: str  # uv.lock, pyproject.toml, requirements.txt or wheel
    root: Path
    files: dict[str, Path]
    label: str
    notes: list[str] = field(default_factory=list)
    project: dict[str, Any] = field(default_factory=dict)  # parsed pyproject.toml
    wheel: Path | None = None  # the source itself, when it is a wheel
    requires: list[str] = field(default_factory=list)  # and what that wheel requires, as in its metadata
    extras: list[str] = field(default_factory=list)  # with these of its extras
    workspace: Workspace | None = None  # of uv, whose root or member it is

    @property
    def name(self) -> str:
        """The project's name as the index spells it, or nothing."""
        return canonicalize_name(str(self.project.get("project", {}).get("name", "")))

    @property
    def version(self) -> str:
        """The project's version, or nothing."""
        return str(self.project.get("project", {}).get("version", ""))

    @property
    def requires_python(self) -> str:
        """The app's own requirement, as in ">=3.11", or nothing."""
        return str(self.project.get("project", {}).get("requires-python", ""))

    @property
    def packaged(self) -> bool:
        """Whether the project is one to be built as a wheel."""
        return is_package(self.project)

    @property
    def indexes(self) -> list[str]:
        """Uv's options for the package indexes that the project names; hashes decide which file is the right one."""
        return index_options(self.project)


def git(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run git in `cwd`; it never asks for a password."""
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        return subprocess.run(
            ["git", *args], cwd=cwd, env=env, capture_output=True, text=True, errors="surrogateescape", check=False
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(args, 127, "", "git is not installed")


def list_folder(root: Path) -> list[str]:
    """Return the relative names of what git would ship, or of everything but junk where there is no git."""
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
        names.remove(name)  # a submodule
        names += [f"{name.rstrip('/')}/{inner}" for inner in _walk(root / name)]
    return sorted({name for name in names if (root / name).is_symlink() or (root / name).exists()})


def _walk(root: Path) -> list[str]:
    names: list[str] = []
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        names += [str((here / f).relative_to(root)) for f in [*files, *(d for d in folders if (here / d).is_symlink())]]
        folders[:] = [d for d in folders if d not in JUNK and not (here / d).is_symlink()]
    return names


def select(names: list[str], exclude: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split names into what ships and the secrets (`.env` files) that were left out.

    A pattern of `exclude` matches a whole relative name, or a file's or folder's own name.
    """
    ships: list[str] = []
    secrets: list[str] = []
    for name in names:
        parts = name.split("/")
        if JUNK.intersection(parts) or name.endswith((".pyc", ".pyo")):
            continue
        steps = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        if any(fnmatch.fnmatchcase(s, p.rstrip("/")) for p in exclude for s in [*steps, *parts]):
            continue
        (secrets if parts[-1] == ".env" or parts[-1].startswith(".env.") else ships).append(name)
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


def read_folder(root: Path, exclude: Sequence[str], label: str = "") -> Source:
    """Look at an app's folder. Raises BuildError when it is none."""
    if not os.access(root, os.R_OK | os.X_OK):
        raise BuildError(
            f"The folder {root} cannot be read by this user. Give it permission, or name another app_source."
        )
    kind = next((name for name in DESCRIPTIONS if (root / name).is_file()), None)
    if not kind:
        raise BuildError(
            f"{root} is no app folder: it has none of {', '.join(DESCRIPTIONS)}. Point app_source to the folder that "
            "has one, or create it there with: uv init --bare && uv add fastapi"
        )
    if kind == "pyproject.toml" and not describes(read_pyproject(root)):
        kind = "requirements.txt"
        if not (root / kind).is_file():
            raise BuildError(
                f"{root / 'pyproject.toml'} has neither [project] nor [tool.poetry], so what the app requires is not "
                "known. Add a requirements.txt beside it, or a [project]."
            )
    names, secrets = select(list_folder(root), exclude)
    if kind not in names:
        raise BuildError(
            f"{root / kind} is ignored by git or by release_exclude, so nothing would ship. Do not ignore it."
        )
    tools = check_links(root, names)
    names = [name for name in names if name not in tools]
    project = read_pyproject(root) if "pyproject.toml" in names else {}
    if kind == "uv.lock" and not project:
        raise BuildError(f"{root} has a uv.lock, but no pyproject.toml that it belongs to. Add it, or remove uv.lock.")
    notes = (
        [f"Left out because they may hold secrets: {', '.join(secrets)}. Set service_env instead."] if secrets else []
    )
    if tools:
        notes.append(f"Left out because they lead to nothing in the release: {', '.join(map(show, tools))}.")
    unreadable = [n for n in names if not os.access(root / n, os.R_OK)]
    if unreadable:
        raise BuildError(
            f"{root / unreadable[0]} cannot be read by this user. Give it permission, or use release_exclude."
        )
    return Source(kind, root, {n: root / n for n in names}, label or describe(root, project), notes, project)


def describe(root: Path, project: dict[str, Any]) -> str:
    """Return a name for people: git's description, "+changes" when dirty, else the version, else nothing."""
    commit = git("describe", "--tags", "--always", cwd=root)
    if commit.returncode == 0:
        dirty = git("status", "--porcelain", "--", ".", cwd=root).stdout.strip()
        return commit.stdout.strip() + ("+changes" if dirty else "")
    return str(project.get("project", {}).get("version", ""))


def parse_git(source: str) -> tuple[str, str, str]:
    """Split `git+URL[@REF][#subdirectory=DIR]` into URL, REF (or "HEAD") and DIR (or "")."""
    rest, _unused, fragment = source.removeprefix("git+").partition("#")
    # An @ that belongs to user:password@host stands before the path.
    url = r"([^/]+://[^/]*/.*?)(?:@([^@]*))?" if "://" in rest else r"(.*?)(?:@([^@/]*))?"
    match = re.fullmatch(url, rest)
    subdirectory = re.sub(r"^subdirectory=", "", fragment).strip("/")
    return (match[1], match[2] or "HEAD", subdirectory) if match else (rest, "HEAD", subdirectory)


def fetch_git(source: str, cache: Path, into: Path) -> tuple[Path, str]:
    """Put the tree of a git source under `into`; return the app's folder and a label. Raises BuildError."""
    url, ref, subdirectory = parse_git(source)
    if ".." in subdirectory.split("/") or ref.startswith("-") or url.startswith("-"):
        raise BuildError(f"{redact(source)} is no git source. Write git+URL@REF#subdirectory=DIR")
    bare = cache / "git" / hashlib.sha256(url.encode()).hexdigest()[:16]
    if not (bare / "HEAD").exists():
        bare.mkdir(parents=True, exist_ok=True)
        git("init", "--bare", "--quiet", ".", cwd=bare)
    commit = _commit(bare, ref) if re.fullmatch(r"[0-9a-f]{40}", ref) else None
    if not commit:
        spec = ["+refs/heads/*:refs/heads/*", "+HEAD:refs/fleet/head"]
        done = git("fetch", "--quiet", "--force", "--prune", "--tags", "--update-head-ok", url, *spec, cwd=bare)
        if done.returncode:
            raise BuildError(
                f"git could not fetch {redact(url)}. Check the URL and its access.\ngit said:\n{tail(done.stderr)}"
            )
        commit = _commit(bare, "refs/fleet/head" if ref == "HEAD" else ref)
    if not commit:
        raise BuildError(f"{redact(url)} has no branch, tag or commit {ref}. Check app_source.")
    tree = into / "git"
    tree.mkdir(parents=True)
    done = git(
        "--work-tree", str(tree), "--git-dir", str(bare), "archive", "-o", str(into / "git.tar"), commit, cwd=into
    )
    if done.returncode == 0:
        done = subprocess.run(
            ["tar", "-xf", str(into / "git.tar"), "-C", str(tree)], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise BuildError(f"git could not write {ref} of {redact(url)}.\n{tail(done.stderr)}")
    root = tree / subdirectory
    if not root.is_dir():
        raise BuildError(f"{redact(url)} has no folder {subdirectory} at {ref}. Check #subdirectory= in app_source.")
    label = git("describe", "--tags", "--always", commit, cwd=bare).stdout.strip()
    return root, label or commit[:7]


def _commit(bare: Path, ref: str) -> str | None:
    done = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", cwd=bare)
    return done.stdout.strip() if done.returncode == 0 else None


def read_wheel(path: Path, extras: list[str] | None = None) -> Source:
    """Look at a wheel, of which some extras may be wanted. Raises BuildError."""
    try:
        with zipfile.ZipFile(path) as wheel:
            name = next(n for n in wheel.namelist() if n.count("/") == 1 and n.endswith(".dist-info/METADATA"))
            meta = email.parser.HeaderParser().parsestr(wheel.read(name).decode("utf-8"))
        requires = [str(row) for row in meta.get_all("Requires-Dist", [])]
        if not extras:
            requires = [row for row in requires if "extra ==" not in str(Requirement(row).marker)]
    except (OSError, zipfile.BadZipFile, StopIteration, UnicodeDecodeError, InvalidRequirement) as error:
        raise BuildError(
            f"{path} is not a readable wheel: {str(error) or 'it has no METADATA'}. Build it with: uv build --wheel"
        ) from error
    check_pure(path)
    version, python = str(meta["Version"]), meta["Requires-Python"] or ""
    known = [str(e) for e in meta.get_all("Provides-Extra", [])]
    for extra in extras or []:
        if canonicalize_name(extra) not in map(canonicalize_name, known):
            raise BuildError(f"{path.name} has no extra {extra!r}; it has: {', '.join(known) or 'none'}.")
    project = {"project": {"name": str(meta["Name"]), "version": version, "requires-python": python}}
    return Source("wheel", path.parent, {}, version, [], project, path, requires, extras or [])


def check_pure(wheel: Path) -> None:
    """Refuse a wheel with compiled code as the app itself: one release serves several platforms."""
    if not wheel.name.endswith("-none-any.whl"):
        raise BuildError(
            f"{wheel.name} holds compiled code for one platform. Put such code into a package of its own on an index, "
            "and let the app require it."
        )
