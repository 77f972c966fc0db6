"""Requirements files: their lines, and the pins in them.

`packaging` reads one requirement, not the file around it (continuations, comments, hashes), so that is done here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import tomllib
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

#: A requirement that is a path, as in "-e ./lib"; the path is group 1.
LOCAL = re.compile(r"(?:-e\s+)?(?:file:(?://)?)?((?:\.{1,2})?/[^\s;]*|\.)(?:\s*;.*)?$")


@dataclass(frozen=True)
class Pin:
    """One locked requirement: `text` is it with its hashes, as it stands in the lock."""

    name: str
    version: str
    marker: str
    text: str

    @property
    def key(self) -> tuple[str, str]:
        """Name and version."""
        return self.name, self.version

    @property
    def constraint(self) -> str:
        """It without hashes."""
        return f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")


def blocks(text: str) -> list[str]:
    """Split a requirements file into its requirements, continuation lines joined to theirs, comments left out."""
    rows: list[str] = []
    continues = False
    for line in text.splitlines():
        bare = re.sub(r"(^|\s)#.*$", "", line).strip()
        if bare and continues:
            rows[-1] += "\n    " + bare
        elif bare:
            rows.append(bare)
        continues = bare.endswith("\\")
    return rows


def parse_pins(text: str) -> list[Pin]:
    """Return the `name==version` requirements of a lock; other lines (paths, URLs, options) are passed over."""
    return [pin for block in blocks(text) if (pin := _pin(block))]


def _pin(block: str) -> Pin | None:
    try:
        requirement = Requirement(re.split(r"\\|\s--hash", block, maxsplit=1)[0])
        (clause,) = requirement.specifier
        Version(clause.version)
    except (InvalidRequirement, InvalidVersion, ValueError):
        return None
    if clause.operator not in {"==", "==="}:
        return None
    return Pin(canonicalize_name(requirement.name), clause.version, str(requirement.marker or ""), block)


def from_pylock(text: str) -> str:
    """Return the requirements of a pylock.toml (PEP 751), with hashes. Raises ValueError that says what it lacks."""
    rows = []
    for package in tomllib.loads(text).get("packages", []):
        name, files = package.get("name", ""), [*package.get("wheels", []), package.get("sdist", {})]
        if any(key in package for key in ("vcs", "archive")):
            raise ValueError(f"{name} comes from a repository or a file")
        if "directory" in package:
            rows.append(package["directory"].get("path", "."))
            continue
        hashes = [f"--hash=sha256:{file['hashes']['sha256']}" for file in files if file.get("hashes", {}).get("sha256")]
        if not hashes or "version" not in package:
            raise ValueError(f"it has no version or no sha256 for {name}")
        marker = f" ; {package['marker']}" if "marker" in package else ""
        rows.append(" \\\n    ".join([f"{name}=={package['version']}{marker}", *hashes]))
    return "\n".join(rows)


def all_hashed(text: str) -> bool:
    """Whether each requirement of a file is pinned with a hash."""
    rows = blocks(text)
    included = any(row.startswith(("-r", "-c", "--req", "--con")) for row in rows)
    return not included and all("--hash=" in row for row in rows if not row.startswith("-"))
