"""Running uv on the controller, and what its errors mean to the person who deploys."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import Version

from . import backend

# Oldest uv that understands lock files of revision 3 and the options used here.
MIN_UV = "0.9"
# Ubuntu 22.04, the oldest host, has glibc 2.35: wheels for anything newer would not load there.
GLIBC = "manylinux_2_35"
# 1980-01-01, the oldest time that a wheel (a zip file) can hold: a fixed one makes builds reproducible.
EPOCH = 315532800
# Resolving, for all platforms at once.
COMPILE = ("pip", "compile", "--universal", "--generate-hashes", "--no-header", "--no-annotate", "--quiet")
#: What a module or action is told of uv and its cache, as the documentation fragment `build` has it.
UV_OPTIONS: dict[str, Any] = {
    "cache": {"type": "path"},
    "uv": {"type": "path"},
    "index_url": {"type": "str", "no_log": True},
}

_NO_WHEEL = re.compile(r"\b([A-Za-z0-9._-]+)==([^\s,{}]+) has no (?:usable )?wheels")
_HASH = re.compile(r"Hash mismatch for `([^`]+)`")
_UNKNOWN = re.compile(r"\b([A-Za-z0-9._-]+) was not found in the package registry")
_ABSENT = re.compile(r"there is no version of ([A-Za-z0-9._-]+)(?:\{[^}]*\})?(==[^\s,]+)")
_PYTHON = re.compile(r"does not satisfy Python(\S+) and (?:all of: )?([A-Za-z0-9._-]+)([<>=!~]\S*) depends on")
_NETWORK = re.compile(
    r"error sending request|dns error|[Cc]onnection refused|operation timed out|client error \(Connect\)"
    r"|[Nn]etwork (?:connectivity|is unreachable)|network was disabled|status client error \((401|403)"
)


class BuildError(Exception):
    """A foreseeable refusal; the text says what is wrong, where, and what to do."""


class UnsolvedError(BuildError):
    """No versions go together for the Pythons that were asked for; for newer ones, some may."""


class UvError(Exception):
    """Uv said no; the text is what it wrote to stderr."""


def redact(text: str) -> str:
    """Hide the credentials of every URL in `text`."""
    return re.sub(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@'\"`]+@", r"\1***@", text)


def tail(text: str, lines: int = 12) -> str:
    """Return the last lines of a tool's output, redacted."""
    return redact("\n".join(text.strip().splitlines()[-lines:]))


def explain(stderr: str, doing: str, where: str = "") -> str:
    """Turn uv's stderr into a message that names the thing and says what to do.

    `doing` is what was tried, as in "installing the dependencies"; `where` the platform and its hosts.
    """
    at = f" for {where}" if where else ""
    if backend.failed(stderr):
        text = redact(backend.output(stderr))
        return (
            f"The build backend failed while {doing}{at}: {backend.reason(text)}\n{backend.advice(text)}\n"
            f"Its last lines:\n{tail(text)}"
        )
    return _explain_index(stderr, doing, at)


def _explain_index(stderr: str, doing: str, at: str) -> str:
    """As `explain`, of what has to do with the package index and what is on it."""
    quoted = f"\nuv said:\n{tail(stderr)}"
    # uv wraps its messages at the terminal's width.
    flat = " ".join(stderr.split())
    if match := _HASH.search(flat):
        return (
            f"The file of {match[1]} that the package index serves has another hash than the lock file. "
            "Nothing was built. If the package was republished on purpose, lock again (uv lock); else find out who "
            f"changed it.{quoted}"
        )
    if match := _NO_WHEEL.search(flat):
        return (
            f"{match[1]} {match[2]} has no wheel{at}, and source distributions are not built. Choose a version with "
            "wheels for that platform, or put a wheel of it on an index of yours and set release_index_url; or let a "
            f"host build it from source: release_build_sdists: true.{quoted}"
        )
    if _NETWORK.search(flat):
        return (
            f"The package index could not be reached while {doing}{at}. Check the network, the proxy and "
            f"release_index_url; what is in uv's cache needs no index.{quoted}"
        )
    if match := _PYTHON.search(flat):
        return (
            f"{match[2]}{match[3]} needs Python {match[1]}, but the release is locked{at}. Ask for a version of "
            f"{match[2]} that these hosts can have (without a pin, one is chosen) and lock again, or leave the hosts "
            f"with an older Python out.{quoted}"
        )
    if (match := _UNKNOWN.search(flat)) or (match := _ABSENT.search(flat)):
        name = match[1] + (match[2] if match.re is _ABSENT else "")
        return f"The package index does not have {name}. Check its name and version in the app's requirements.{quoted}"
    return f"uv failed while {doing}{at}.{quoted}"


@contextlib.contextmanager
def explained(doing: str, where: object = "") -> Iterator[None]:
    """Turn UvError into a BuildError that says what was tried, and for which platform."""
    try:
        yield
    except UvError as error:
        raise refusal(str(error), doing, str(where)) from error


def refusal(stderr: str, doing: str, where: str = "") -> BuildError:
    """Return the error for what uv wrote, as `explain` says it."""
    solvable = "No solution found" in stderr or backend.failed(stderr)
    return (UnsolvedError if solvable else BuildError)(explain(stderr, doing, where))


def names_python(stderr: str) -> bool:
    """Whether uv complains that a package needs another Python."""
    return bool(_PYTHON.search(" ".join(stderr.split())))


def lacks_wheel(stderr: str) -> tuple[str, str] | None:
    """Return name and version of a package that uv has found no wheel for, when that is what it complains about."""
    match = _NO_WHEEL.search(" ".join(stderr.split()))
    return (canonicalize_name(match[1]), match[2]) if match else None


def find_uv(path: str | None = None) -> str:
    """Return uv's path: the one given, else next to this Python, else from PATH. Raises BuildError."""
    if path:
        if not os.access(path, os.X_OK):
            raise BuildError(f"release_uv is {path}, which is no program. Install it with: pip install uv")
        return path
    beside = Path(sys.executable).parent / "uv"
    program = str(beside) if os.access(beside, os.X_OK) else shutil.which("uv")
    if not program:
        raise BuildError(
            f"uv was not found, neither next to {sys.executable} nor in PATH. It builds the release on the "
            "controller. Install it with: pip install uv"
        )
    return program


class Uv:
    """One uv program with its settings. Nothing runs before the first call."""

    def __init__(self, path: str | None = None, index_url: str | None = None) -> None:
        self._path, self._index_url = path, index_url

    @functools.cached_property
    def _program(self) -> str:
        path = find_uv(self._path)
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        match = re.match(r"uv ([\d.]+)", done.stdout)
        if not match or Version(match[1].rstrip(".")) < Version(MIN_UV):
            raise BuildError(
                f"{path} is {done.stdout.strip() or 'no uv'}; {MIN_UV} or newer is needed. "
                "Install it with: pip install -U uv"
            )
        return path

    def indexes(self) -> list[str]:
        """Return the URLs of the package indexes that uv is told to use, for the logins in them."""
        names = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")
        urls = " ".join([self._index_url or "", *(os.environ.get(name, "") for name in names)])
        return [re.sub(r"^[\w.-]+=(?=\w+://)", "", url) for url in urls.split()]

    def run(self, *args: str, cwd: Path, indexed: bool = True) -> str:
        """Run uv and return its stdout. Raises UvError. `indexed`: whether the index settings apply."""
        env = {
            **{k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "UV_PROJECT", "UV_PYTHON"}},
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_PROGRESS": "1",
            "NO_COLOR": "1",
            "SOURCE_DATE_EPOCH": str(EPOCH),
        }
        if not indexed:
            # A lock names its own indexes: a mirror given here would make every lock look stale.
            env = {k: v for k, v in env.items() if k not in {"UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"}}
        elif self._index_url:
            env["UV_DEFAULT_INDEX"] = self._index_url  # not in argv: it may hold a password
        done = subprocess.run(
            [self._program, *args, "--python", sys.executable],
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise UvError(done.stderr or done.stdout)
        return done.stdout
