"""Texts that have to be UTF-8, read so that another encoding is named, with a way out."""

from __future__ import annotations

import codecs
import shlex
from pathlib import Path

from .uv import BuildError

#: Bytes that are letters in one encoding, and nothing that a text holds in the other.
_CONTROLS = frozenset(range(0x80, 0xA0))


def read_text(path: Path) -> str:
    """Return the text of a file. Raises BuildError where it is no UTF-8, OSError where it cannot be read."""
    data = path.read_bytes()
    marked = data.startswith(codecs.BOM_UTF8)
    if marked and path.suffix in {".toml", ".lock"}:  # which begins no TOML; in a requirements file it is harmless
        raise BuildError(
            f"{path} begins with a byte order mark, which TOML does not allow. Run in its folder: "
            f"sed -i '1s/^\\xef\\xbb\\xbf//' {shlex.quote(path.name)}"
        )
    try:
        return data.decode("utf-8-sig" if marked else "utf-8")
    except UnicodeDecodeError as error:
        name, encoding = shlex.quote(path.name), _guess(data)
        raise BuildError(
            f"{path} is not UTF-8 (byte {error.start + 1}), but {encoding} by its looks. Run in its folder: "
            f"iconv -f {encoding} -t UTF-8 {name} > {name}.utf8 && mv {name}.utf8 {name}"
        ) from error


def _guess(data: bytes) -> str:
    """Return iconv's name of an encoding: PowerShell's `>` writes UTF-16, older editors one byte a letter."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    if b"\0" in data:
        return "UTF-16LE" if data[1:2] == b"\0" else "UTF-16BE"
    return "WINDOWS-1252" if _CONTROLS.intersection(data) else "ISO-8859-1"
