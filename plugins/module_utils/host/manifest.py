"""A release's manifest, `manifest.json` in its code part: written by the build, read by the build and on hosts.

Standard library only, Python >= 3.10: it travels to hosts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

FORMAT = 1
#: What each text must match. Some of it is shown, so it has no control characters.
_PATTERNS = {
    "app": r"[\w.-]{1,255}", "module": r"[\w.:()]{1,255}", "engine": r"\w{1,255}", "id": r"[0-9a-f]{12,64}",
    "python": r"[0-9]+\.[0-9]+", "arch": r"\w{1,255}", "lib_content": r"[0-9a-f]{64}",
}  # fmt: skip
_WORD_MAX = 255  # characters of a version or of a package's name
#: What PYTHONPATH may name, below the release.
_PATH = {"app", "app/src", "site", "lib"}


class ManifestError(ValueError):
    """A manifest that is none of this format; the text says what is wrong with it."""


@dataclass(frozen=True)
class Manifest:
    """What a release says of itself.

    `packages` are versions by name, of those that the engine needs and of a few more; `path` are the folders for
    PYTHONPATH; `source` has `kind` and `version`. From `id` on it is known only once a platform's release is packed:
    `lib_content` is the hash of its lib part, uncompressed.
    """

    app: str
    module: str
    engine: str
    packages: dict[str, str]
    path: list[str]
    requires_python: str
    source: dict[str, str]
    id: str = ""
    python: str = ""
    arch: str = ""
    lib_content: str = ""
    format: int = FORMAT

    @classmethod
    def read(cls, data: bytes | str | Mapping[str, Any]) -> Manifest:
        """Return the manifest in a file's text, or in what JSON gave; all of it may be relied on. Raises ManifestError.

        Names that are not known here are passed over: a later version may add some.
        """
        try:
            record = data if isinstance(data, Mapping) else json.loads(data)
            valid = {
                "format": record["format"] == FORMAT,
                **{key: re.fullmatch(pattern, record[key]) for key, pattern in _PATTERNS.items()},
                "packages": all(_is_word(word) for pair in record["packages"].items() for word in pair),
                "path": isinstance(record["path"], list) and record["path"] and set(record["path"]) <= _PATH,
                "source": _is_word(record["source"]["version"]),
            }
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ManifestError(f"is none of format {FORMAT} ({type(error).__name__}: {error})") from error
        if wrong := [key for key, good in valid.items() if not good]:
            raise ManifestError(f"is none of format {FORMAT} (wrong: {', '.join(wrong)})")
        known = {field.name for field in fields(cls)}
        return cls(**{"requires_python": "", **{key: value for key, value in record.items() if key in known}})

    def text(self) -> bytes:
        """Return the file: equal manifests are equal bytes."""
        return (json.dumps(asdict(self), sort_keys=True, indent=1) + "\n").encode()

    def shared(self) -> dict[str, Any]:
        """Return what is the same for all platforms of a release; its id is made of that."""
        own = {"id", "python", "arch", "lib_content"}
        return {key: value for key, value in asdict(self).items() if key not in own}


def _is_word(text: Any) -> bool:
    return isinstance(text, str) and len(text) <= _WORD_MAX and text.isprintable()
