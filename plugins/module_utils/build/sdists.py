"""Source distributions on the controller: located with uv, checked against the lock, looked into, and never run.

uv has no command that downloads one without building it, so the download is ours, with the index's login.
"""

from __future__ import annotations

import contextlib
import netrc
import re
import shutil
import tarfile
import urllib.parse
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomllib
from packaging.requirements import InvalidRequirement, Requirement

from ..host.fetch import Server, download
from .artifact import file_sha256
from .cache import Cache, load, save
from .request import Platform
from .requirements import Pin
from .uv import BuildError, Uv, explained, redact

# What PEP 517 says of a source distribution that says nothing.
_BACKEND = "setuptools.build_meta:__legacy__"
_REQUIRES = ["setuptools>=40.8.0"]
_COMPILED = re.compile(r".*\.(?:c|cc|cpp|cxx|pyx|rs|f|f90|m)")
#: What a requirement by name is written with: neither a URL, nor an option of uv or a variable that it would expand.
_PLAIN = re.compile(r"[A-Za-z0-9_.\[\], \t()<>=!~*+;'\"-]+")


@dataclass(frozen=True)
class Sdist:
    """A source distribution in the cache, and how it says that it is to be built."""

    name: str
    version: str
    sha256: str
    file: str
    requires: list[str]
    backend: str
    backend_path: list[str]


def fetch(pin: Pin, platform: Platform, indexes: list[str], cache: Cache, uv: Uv) -> Sdist:
    """Return a locked package's source distribution, downloaded when it is not in the cache. Raises BuildError."""
    hashes = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", pin.text))
    for sha256 in sorted(hashes):
        if sdist := stored(sha256, cache):
            return sdist
    with cache.scratch() as work:
        (work / "requirements.txt").write_text(pin.text + "\n", "utf-8")
        with explained(f"looking for the source of {pin.name}", platform):
            # Neither asks for metadata nor builds anything: the versions are given, and dependencies are not looked at.
            arguments = ("pip", "compile", "--quiet", "--no-deps", "--no-header", "--format", "pylock.toml")
            uv.run(*arguments, *platform.uv_options, *indexes, "-o", "pylock.toml", "requirements.txt", cwd=work)
        locked = tomllib.loads((work / "pylock.toml").read_text("utf-8"))["packages"][0].get("sdist")
        if not locked:
            raise BuildError(
                f"{pin.name} {pin.version} has neither a wheel for {platform} nor a source distribution on the "
                "package index. Choose another version."
            )
        name = urllib.parse.unquote(urllib.parse.urlsplit(locked.get("url") or locked["path"]).path).rpartition("/")[2]
        folder = work / "file"
        folder.mkdir()
        _copy(pin, locked, folder / name, uv, indexes)
        sha256 = file_sha256(folder / name)
        if sha256 not in hashes:
            raise BuildError(
                f"The file of {pin.name}=={pin.version} that the package index serves has another hash than the lock "
                f"file (sha256 {sha256[:12]}…). Nothing was built. If the package was republished on purpose, lock "
                "again (uv lock); else find out who changed it."
            )
        sdist = Sdist(pin.name, pin.version, sha256, str(folder / name), *build_system(folder / name, pin))
        with cache.put("sdists", sha256) as new:
            shutil.copytree(folder, new / "file")
            save(new / "about.json", {key: value for key, value in asdict(sdist).items() if key != "file"})
    return stored(sha256, cache) or sdist


def stored(sha256: str, cache: Cache) -> Sdist | None:
    """Return a source distribution that is in the cache."""
    entry = cache.get("sdists", sha256)
    return Sdist(**load(entry / "about.json"), file=str(next((entry / "file").iterdir()))) if entry else None


def _copy(pin: Pin, locked: dict[str, Any], target: Path, uv: Uv, indexes: list[str]) -> None:
    """Download a source distribution, or copy it from a folder. Raises BuildError."""
    url = urllib.parse.urlsplit(locked.get("url", ""))
    try:
        if url.scheme in {"http", "https"}:
            with target.open("w+b") as out:
                server = Server(url.geturl(), login_for(url, uv.indexes() + indexes), setting="release_index_url")
                download(server.url, int(locked.get("size") or 0), server, out)
        else:
            shutil.copyfile(urllib.parse.unquote(url.path) or target.parent.parent / locked["path"], target)
    except (ValueError, OSError) as error:
        where = redact(url.geturl() or locked["path"])
        raise BuildError(
            f"The source of {pin.name} {pin.version} could not be fetched from {where}: {error}. Check the "
            "package index and the way to it."
        ) from error


def login_for(url: urllib.parse.SplitResult, indexes: list[str]) -> str:
    """Return the login that an index on the same server has, as "USER:PASSWORD", else the one in ~/.netrc."""
    for index in map(urllib.parse.urlsplit, indexes):
        if index.username and (index.scheme, index.hostname, index.port) == (url.scheme, url.hostname, url.port):
            return index.netloc.rpartition("@")[0]
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        if entry := netrc.netrc().authenticators(url.hostname or ""):
            return ":".join(urllib.parse.quote(part or "", safe="") for part in (entry[0], entry[2]))
    return ""


def build_system(file: Path, pin: Pin) -> tuple[list[str], str, list[str]]:
    """Read how a source distribution is to be built: requirements, backend, and where that is. Raises BuildError."""
    unstated = {"requires": _REQUIRES}
    try:
        system = tomllib.loads(_pyproject(file)).get("build-system", unstated)
        requires = [str(requirement) for requirement in system["requires"]]
        path = [str(folder) for folder in system.get("backend-path", [])]
    except (OSError, EOFError, ValueError, LookupError, TypeError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise BuildError(
            f"{file.name}, the source of {pin.name} {pin.version}, cannot be read ({error}). Choose another version."
        ) from error
    check_requirements(requires, f"{pin.name} {pin.version}")
    return requires, str(system.get("build-backend", _BACKEND)), path


def to_compile(file: Path) -> list[str]:
    """Return the files of a source distribution that a compiler is for, apart from tests and examples."""
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    else:
        with tarfile.open(file) as packed:
            names = [info.name for info in packed if info.isreg()]
    aside = re.compile(r"(?:.*/)?(?:tests?|docs?|examples?|benchmarks?)/")
    return [name for name in names if _COMPILED.fullmatch(name) and not aside.match(name.lower())]


def _pyproject(file: Path) -> str:
    """Return the text of a source distribution's pyproject.toml, nothing where it has none. Unpacks nothing."""
    pyproject = re.compile(r"(\./)?[^/]+/pyproject\.toml")
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            inside = [name for name in archive.namelist() if pyproject.fullmatch(name)]
            return archive.read(inside[0]).decode("utf-8") if inside else ""
    with tarfile.open(file) as packed:
        for info in packed:
            if pyproject.fullmatch(info.name) and info.isreg():
                return packed.extractfile(info).read().decode("utf-8")  # type: ignore[union-attr]
    return ""


def check_requirements(requires: list[str], of: str) -> None:
    """Refuse a build requirement that is more than a name with versions."""
    for requirement in requires:
        try:
            plain = Requirement(requirement) and _PLAIN.fullmatch(requirement)
        except InvalidRequirement:
            plain = None
        if not plain:
            raise BuildError(
                f"{of} cannot be built from source: its build requirement {redact(requirement)!r} is not a name with "
                "versions. Put a wheel of it on an index of yours and set release_index_url."
            )
