"""The build cache on the controller: every write is atomic, several runs may share it, and its size is bounded."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .uv import BuildError

# Newest of each kind that stay. A build is some 11 MB per platform, a lock some 50 kB. Wheels that hosts have built
# ("built") stay longest: it takes a host to have them again.
KEEP = {
    "builds": 20, "libs": 20, "locks": 100, "wheels": 20, "git": 20,
    "sdists": 100, "tools": 20, "asked": 500, "built": 500,
}  # fmt: skip
_DAY = 86_400  # seconds


class Cache:
    """Entries are folders named by what went into them; one that exists is whole."""

    def __init__(self, root: str | Path | None = None) -> None:
        """Make the folders that are missing. By default it is the user's own, $XDG_CACHE_HOME/fastapi-fleet/builds."""
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self.root = root = Path(root or Path(home, "fastapi-fleet", "builds"))
        try:
            for kind in (*KEEP, "tmp"):
                (root / kind).mkdir(parents=True, exist_ok=True)
            # Builds hold the app's code: other users of the controller have no business in it.
            root.chmod(0o700)
        except OSError as error:
            raise BuildError(
                f"The build cache {root} cannot be written: {error.strerror}. Set release_cache."
            ) from error

    def get(self, kind: str, key: str) -> Path | None:
        """Return an entry's folder when it is there, and mark it as used."""
        path = self.root / kind / key
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def whole(self, kind: str, key: str) -> Path | None:
        """Return an entry whose files have the `sizes` in its about.json; one that a power cut spoilt is removed."""
        entry = self.get(kind, key)
        if entry:
            try:
                if all((entry / n).stat().st_size == size for n, size in load(entry / "about.json")["sizes"].items()):
                    return entry
            except (OSError, ValueError, KeyError):
                pass
            shutil.rmtree(entry, ignore_errors=True)
        return None

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a folder to work in, on the cache's own file system; gone afterwards."""
        path = Path(tempfile.mkdtemp(dir=self.root / "tmp"))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def put(self, kind: str, key: str) -> Iterator[Path]:
        """Give a folder to fill; it becomes the entry when the block ends well."""
        with self.scratch() as work:
            new = work / "entry"
            new.mkdir()
            yield new
            # Someone else may have built the same meanwhile; it has the same content, so theirs stays.
            with contextlib.suppress(OSError):
                new.rename(self.root / kind / key)

    def prune(self) -> None:
        """Remove the oldest entries above the bounds, and what killed runs left behind."""
        for kind, keep in KEEP.items():
            for path in _by_age(self.root / kind)[keep:]:
                # Renamed first, so that nobody finds half an entry.
                with contextlib.suppress(OSError), self.scratch() as work:
                    path.rename(work / "old")
        for path in _by_age(self.root / "tmp"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - _DAY:
                    shutil.rmtree(path, ignore_errors=True)


def _by_age(folder: Path) -> list[Path]:
    """Return a folder's entries, newest first."""
    ages: list[tuple[float, Path]] = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            ages.append((path.stat().st_mtime, path))
    return [path for _unused, path in sorted(ages, reverse=True)]


def hash_of(*parts: Any) -> str:
    """Return the hash of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def save(path: Path, value: Any) -> None:
    """Write JSON, sorted, so that equal values are equal bytes."""
    path.write_text(json.dumps(value, sort_keys=True, indent=1) + "\n", "utf-8")


def load(path: Path) -> Any:
    """Read JSON."""
    return json.loads(path.read_text("utf-8"))
