"""Whether a release on the disk still has all that was unpacked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import read_object

MARKER, MANIFEST = ".complete", "manifest.json"
PARTS = ("app", "lib", "site", MANIFEST)


def count_files(folder: Path) -> dict[str, int]:
    """Return how many files and links each part of a release has. Bytecode, which may be made anew, does not count."""
    return {part: _count(folder / part) for part in PARTS if (folder / part).exists()}


def missing(folder: Path) -> str:
    """Say what of a release is gone, "" where it is whole.

    By number: what was changed and is still there is not seen. Releases of earlier versions have no numbers; of those,
    each folder of their search path has to hold something.
    """
    for path in (folder, folder / MARKER):
        if not path.exists():
            return f"{path} is gone"
    for part, number in _numbers(folder).items():
        there = _count(folder / part)
        if not there and number:
            return f"{folder / part} is gone"
        if there < number:
            return f"{number - there} of {number} files are gone from {folder / part}"
    return ""


def _numbers(folder: Path) -> Mapping[str, int]:
    """Return how many files each part has to have."""
    counted: Any = read_object(folder / MARKER).get("files")
    if isinstance(counted, dict):
        return {str(part): number for part, number in counted.items() if isinstance(number, int)}
    path: Any = read_object(folder / MANIFEST).get("path")
    return {str(part): 1 for part in (MANIFEST, *(path if isinstance(path, list) else ()))}


def _count(path: Path) -> int:
    if path.is_file():
        return 1
    number = 0
    for place, folders, files in os.walk(path):
        if os.path.basename(place) != "__pycache__":
            number += len(files) + sum(os.path.islink(os.path.join(place, name)) for name in folders)
    return number
