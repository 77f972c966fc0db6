"""What to build: a request for a release, the platforms of the hosts, and whether their Python is the app's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from .uv import GLIBC, BuildError

OLDEST_MINOR = 10  # of Python 3: Ubuntu 22.04's
#: Patch releases that a Python known as X.Y may be of. Not 0: no Ubuntu has that one.
PATCHES = range(1, 50)
SHOWN = 5  # hosts named in a message


@dataclass(frozen=True)
class Platform:
    """A Python (major and minor) on an architecture; `hosts` have it, with these full `versions` where they are known.

    Shown as in "Python 3.12 on x86_64 (web1, web2)".
    """

    python: str
    arch: str
    hosts: Sequence[str] = ()
    versions: Sequence[str] = ()

    @property
    def key(self) -> str:
        """Its name, as in "3.12-x86_64"."""
        return f"{self.python}-{self.arch}"

    @property
    def uv_options(self) -> tuple[str, ...]:
        """Uv's options for it."""
        return ("--python-version", self.python, "--python-platform", f"{self.arch}-{GLIBC}")

    def __str__(self) -> str:
        more = len(self.hosts) - SHOWN
        hosts = ", ".join(self.hosts[:SHOWN]) + (f" and {more} more" if more > 0 else "")
        return f"Python {self.python} on {self.arch}" + (f" ({hosts})" if hosts else "")


@dataclass(frozen=True)
class Request:
    """A release to build: `engine_files` is the folder of engine.in and engine.txt.

    `engine` decides which packages are added; `engines` are all that hosts run the release with. `lock` is a file with
    the requirements of a source that brings no lock; `sdists` lets hosts build source distributions. What `exclude` and
    `include` mean, selection.py says. `by` is who builds; it is no part of the release.
    """

    app: str
    source: str
    module: str
    platforms: Sequence[Platform]
    engine: str
    engine_files: Path
    exclude: Sequence[str]
    lock: str = ""
    sdists: bool = False
    engines: Sequence[str] = ()
    include: Sequence[str] = ()
    by: str = ""

    @property
    def other_engines(self) -> list[str]:
        """Engines that run the release beside the one that it is built for."""
        return sorted({*self.engines} - {self.engine})


def python_meets(python: str, requires: str) -> bool:
    """Whether a Python meets a requires-python (PEP 440); one given as X.Y does where one of its PATCHES does."""
    specifiers = SpecifierSet(requires)
    candidates = [python] if python.count(".") > 1 else [f"{python}.{patch}" for patch in PATCHES]
    return any(specifiers.contains(version, prereleases=True) for version in candidates)


def lowest_python(requires: str) -> str:
    """Return the oldest Python to lock for: the app's own floor, at least Ubuntu 22.04's."""
    minors = (f"3.{minor}" for minor in range(OLDEST_MINOR, 100))
    return next((python for python in minors if python_meets(python, requires)), f"3.{OLDEST_MINOR}")


def minor_of(python: str) -> int:
    """Return the second number of a Python's version."""
    return int(python.split(".")[1])


def oldest_hosts(platforms: Sequence[Platform]) -> Platform:
    """Return the platform with the oldest Python."""
    return min(platforms, key=lambda platform: minor_of(platform.python))


def lock_pythons(requires: str, platforms: Sequence[Platform]) -> list[str]:
    """Return the Pythons from which on a lock is made, in the order of the attempts.

    First all that the app allows, so that the id of a release does not depend on which hosts a deploy names. Many an
    app pins what its oldest Python cannot have and never says so: then from the oldest Python of the hosts on.
    """
    low, hosts = lowest_python(requires), oldest_hosts(platforms).python
    return [low, hosts] if minor_of(hosts) > minor_of(low) else [low]


def check_python(requires: str, platforms: Sequence[Platform]) -> None:
    """Refuse hosts whose Python is not the app's. Raises BuildError."""
    wrong, guessed = [], False
    try:
        for platform in platforms:
            refused = [v for v in platform.versions or [platform.python] if not python_meets(v, requires)]
            exact = [version for version in refused if version != platform.python]
            guessed |= refused != exact
            if refused:
                wrong.append(f"{platform}" + (f", which is {' and '.join(exact)}" if exact else ""))
    except InvalidSpecifier as error:
        raise BuildError(
            f"The app's requires-python is {requires!r}, which is no version specifier. Write it as in >=3.11"
        ) from error
    if wrong:
        raise BuildError(
            f"The app's requires-python is {requires}, but these hosts have another: {'; '.join(wrong)}. "
            + ("X.Y stands for any patch release from X.Y.1 on. " if guessed else "")
            + "Widen requires-python in pyproject.toml and lock again, or use hosts with a newer Ubuntu "
            "(22.04 has Python 3.10, 24.04 has 3.12, 26.04 has 3.14)."
        )
