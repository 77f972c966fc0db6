"""A release's id: by what goes into a release, so the same input has the same id on every controller."""

from __future__ import annotations

from collections.abc import Sequence

from ..host.manifest import Manifest
from .artifact import Entry
from .cache import hash_of

DIGITS = 12


def release_id(manifest: Manifest, app: Sequence[Entry], site: Sequence[Entry], requirements: str) -> str:
    """Return the id in hexadecimal digits.

    Of the app's files, what its own wheel adds, the locked requirements, and what the manifest says of all platforms.
    """
    shapes = [[entry.digest() for entry in entries] for entries in (app, site)]
    return hash_of(manifest.shared(), *shapes, requirements)[:DIGITS]
