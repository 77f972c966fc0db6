"""An artifact that was built before: judged as hosts will judge it, then split into the parts that they are sent."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..host.archive import MANIFEST, NOT_OURS, PARTS, ArchiveError, Rules
from ..host.tar import limits_of, read_part
from .artifact import CHUNK, FORMAT, Member
from .uv import BuildError

#: What a manifest says, as regular expressions. Some of it is shown, so it has no control characters.
_MANIFEST = {
    "app": r"[\w.-]{1,255}", "module": r"[\w.:()]{1,255}", "engine": r"\w{1,255}", "id": r"[0-9a-f]{12,64}",
    "python": r"[0-9]+\.[0-9]+", "arch": r"\w{1,255}", "lib_content": r"[0-9a-f]{64}",
}  # fmt: skip
_WORD_MAX = 255  # characters of a version or of a package's name
#: What PYTHONPATH may name, below the release.
_PATH = {"app", "app/src", "site", "lib"}


@dataclass(frozen=True)
class Piece:
    """Where a part is in an artifact, the hash of its bytes uncompressed, and what it unpacks to."""

    begin: int
    end: int
    content: str
    bytes: int
    files: int


def judge(artifact: Path) -> tuple[list[Piece], dict[str, Any]]:
    """Return an artifact's two parts, and its manifest.

    It is inflated no further than it says of itself, and than so many bytes may be. Raises BuildError.
    """
    try:
        with artifact.open("rb") as stream:
            return _judge(stream, artifact.stat().st_size)
    except ArchiveError as error:
        if error.name:
            raise BuildError(f"{artifact} is refused: {error}. No host was changed. {NOT_OURS}") from error
        raise BuildError(f"{artifact} is no whole artifact of a release build: {error}. Build it again.") from error
    except OSError as error:
        raise BuildError(f"{artifact} cannot be read: {error.strerror}.") from error


def _judge(stream: IO[bytes], size: int) -> tuple[list[Piece], dict[str, Any]]:
    pieces, text = [], b""
    for part in PARTS:
        begin, digest = stream.tell(), hashlib.sha256()
        rules = Rules(part, limits_of(stream, size - begin, part))
        for member, data in read_part(stream, rules, digest):
            if member.name == MANIFEST:
                text = b"".join(data)
        rules.finish()
        pieces.append(Piece(begin, stream.tell(), digest.hexdigest(), rules.bytes, rules.files))
    if stream.read(1):
        raise ArchiveError("there is something behind its end")
    manifest = read_manifest(text)
    if manifest["lib_content"] != pieces[0].content:
        raise ArchiveError(f"its {MANIFEST} was written for other dependencies")
    return pieces, manifest


def split(artifact: Path, into: Path) -> tuple[Member, Member, dict[str, Any]]:
    """Split an artifact into `lib.tar.gz` and `code.tar.gz`; return both and its manifest. Raises BuildError."""
    pieces, manifest = judge(artifact)
    members = []
    with artifact.open("rb") as stream:
        for part, piece in zip(PARTS, pieces, strict=True):
            digest = hashlib.sha256()
            stream.seek(piece.begin)
            with (into / f"{part}.tar.gz").open("wb") as out:
                while chunk := stream.read(min(CHUNK, piece.end - stream.tell())):
                    digest.update(chunk)
                    out.write(chunk)
            size = piece.end - piece.begin
            members.append(Member(digest.hexdigest(), piece.content, size, piece.bytes, piece.files))
    return members[0], members[1], manifest


def read_manifest(text: bytes) -> dict[str, Any]:
    """Return an artifact's manifest, all of which may be relied on. Raises ArchiveError."""
    try:
        found = json.loads(text)
        right = {
            "format": found["format"] == FORMAT,
            **{key: re.fullmatch(pattern, found[key]) for key, pattern in _MANIFEST.items()},
            "packages": all(_is_word(word) for pair in found["packages"].items() for word in pair),
            "path": isinstance(found["path"], list) and found["path"] and set(found["path"]) <= _PATH,
            "source": _is_word(found["source"]["version"]),
        }
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ArchiveError(f"its {MANIFEST} is none of format {FORMAT} ({type(error).__name__}: {error})") from error
    if wrong := [key for key, good in right.items() if not good]:
        raise ArchiveError(f"its {MANIFEST} is none of format {FORMAT} (wrong: {', '.join(wrong)})")
    return dict(found)


def _is_word(text: Any) -> bool:
    return isinstance(text, str) and len(text) <= _WORD_MAX and text.isprintable()
