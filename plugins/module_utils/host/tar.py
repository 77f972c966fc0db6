"""Read a part of an artifact: one gzip member with a tar in it, bounded in everything that is read of it.

Only the form that `write_member` writes is taken: GNU tar, without PAX headers and sparse files. Python's tarfile would
read headers of any size into memory and let them change a member's name, type and size, and hosts have whatever tarfile
came with their distribution. Standard library only, Python >= 3.10: it travels to hosts.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any

from .archive import ALWAYS, PATH_MAX, RATIO_MAX, ArchiveError, Limits, Rules, TarMember, ceiling, refuse, show

_CHUNK = 1 << 18  # bytes
_SHORT = "it ends too early"
_ZEROS = bytes(512)
_PADDING_MAX = 1 << 16  # bytes behind the end: tar fills up its last record, of 10 KiB
_HEADER = struct.Struct("100s8s16x12s12x8s1s100s5s3x80x155s12x")
_KINDS = {b"0": "file", b"2": "link", b"5": "folder"}
_REFUSED = {
    b"1": "a hard link", b"3": "a device", b"4": "a device", b"6": "a FIFO", b"S": "a sparse file",
    b"x": "a member with a PAX header", b"g": "a PAX header for the whole archive",
}  # fmt: skip
#: What a part says of itself, as the comment of its gzip header: readable before anything is inflated.
_DECLARED = "unpacks to %015d bytes, %09d files"
_DECLARATION = re.compile(rb"\x1f\x8b\x08\x10.{6}unpacks to (\d{15}) bytes, (\d{9}) files\0", re.DOTALL)


def gzip_header(size: int, files: int) -> bytes:
    """Return the header of a part that unpacks to so much; its length is always the same."""
    return b"\x1f\x8b\x08\x10\0\0\0\0\0\xff" + (_DECLARED % (size, files)).encode() + b"\0"


def limits_of(stream: IO[bytes], size: int, part: str) -> Limits:
    """Return the limits of the part that begins here, of `size` packed bytes or less. Raises ArchiveError.

    Parts that earlier versions wrote say nothing of themselves.
    """
    most, start = ceiling(size), stream.tell()
    declaration = _DECLARATION.match(stream.read(len(gzip_header(0, 0))))
    stream.seek(start)
    if not declaration:
        return most
    declared = Limits(int(declaration[1]), int(declaration[2]), exact=True)
    if declared.bytes > most.bytes or declared.files > most.files:
        raise ArchiveError(
            f"its {part} part says that it unpacks to {declared.bytes:,} bytes and {declared.files:,} files; so few "
            f"packed bytes may unpack to {most.bytes:,} and {most.files:,}"
        )
    return declared


class GzipMember(io.RawIOBase):
    """The gzip member that begins where `stream` stands. Inflates no more than it is asked for, and checks its CRC.

    `excess` are the bytes of a stretch beyond RATIO_MAX times what they were packed into. What is packed less densely
    makes up for what came before, never for what follows: zeros here and there in a large library do not add up, and no
    bomb hides behind one.
    """

    def __init__(self, stream: IO[bytes], digest: Any = None) -> None:
        self._stream, self._digest, self._data, self.excess = stream, digest, b"", 0
        self._engine = zlib.decompressobj(31)  # with a gzip header

    def readable(self) -> bool:
        """Return True: BufferedReader asks."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Inflate into `buffer`. Raises ArchiveError."""
        while not self._engine.eof:
            self._data = self._data or self._stream.read(_CHUNK)
            if not self._data:
                raise ArchiveError(_SHORT)
            try:
                chunk = self._engine.decompress(self._data, len(buffer))
            except zlib.error as error:
                raise ArchiveError(f"it is damaged: {error}") from error
            packed = len(self._data) - len(self._engine.unconsumed_tail)
            self.excess = max(0, self.excess + len(chunk) - RATIO_MAX * packed)
            self._data = self._engine.unconsumed_tail
            if chunk:
                buffer[: len(chunk)] = chunk
                if self._digest:
                    self._digest.update(chunk)
                return len(chunk)
        return 0

    def end(self) -> int:
        """Return where in the file it has ended, once all of it was read."""
        return self._stream.tell() - len(self._engine.unused_data)


def read_part(stream: IO[bytes], rules: Rules, digest: Any = None) -> Iterator[tuple[TarMember, Iterator[bytes]]]:
    """Yield what a part holds, each member judged, with its data in chunks; data that is not taken is passed over.

    The stream stands behind the part afterwards. `rules.finish()` is for the caller: links count for nothing before.
    Raises ArchiveError.
    """
    packed = GzipMember(stream, digest)
    with io.BufferedReader(packed, _CHUNK) as raw:
        while (member := _next(raw)) is not None:
            rules.take(member)
            data = _checked(_data(raw, member.size), packed, member.name)
            yield member, data
            for _unused in data:
                pass
    stream.seek(packed.end())


def _checked(data: Iterator[bytes], packed: GzipMember, name: str) -> Iterator[bytes]:
    """Yield a member's data, as long as it is not packed as a bomb is."""
    while packed.excess <= ALWAYS:
        if (chunk := next(data, None)) is None:
            return
        yield chunk
    refuse(name, f"is packed as a bomb is: {ALWAYS >> 20} MiB more than {RATIO_MAX} times what they were packed into")


def _next(raw: IO[bytes]) -> TarMember | None:
    """Return the next member, None at the end."""
    long = {b"L": b"", b"K": b""}
    while (header := _header(raw)) is not None:
        name, mode, size, kind, target = header
        if kind in long and not long[kind]:
            if not 1 < size <= PATH_MAX + 1:
                refuse(
                    _text(raw.read(100).rstrip(b"\0")),
                    f"is a name or a target of {size - 1} bytes; 1 to {PATH_MAX} are allowed",
                )
            long[kind] = b"".join(_data(raw, size)).removesuffix(b"\0")
            continue
        name, target = long[b"L"] or name, long[b"K"] or target
        if kind in {b"x", b"g"}:
            refuse(_text(_pax_name(raw, size, name)), f"is {_REFUSED[kind]}, which no release build writes")
        if kind not in _KINDS:
            what = _REFUSED.get(kind, f"of type {show(_text(kind))}")
            refuse(_text(name), f"is {what}; allowed are files, folders and symlinks")
        plain = _text(name.removesuffix(b"/") if _KINDS[kind] == "folder" else name)
        if mode & 0o7000:
            refuse(plain, f"has mode {mode:o}: set-user-id, set-group-id or sticky")
        return TarMember(plain, _KINDS[kind], size, _text(target), bool(mode & 0o100))
    return None


def _header(raw: IO[bytes]) -> tuple[bytes, int, int, bytes, bytes] | None:
    """Return a header's name, mode, size, type and target; None at the end, behind which there may only be zeros."""
    block = raw.read(512)
    if not block:
        return None  # of the two parts of an archive, only the last has an end of its own
    if block == _ZEROS:
        if any(rest := raw.read(_PADDING_MAX)) or len(rest) == _PADDING_MAX:
            raise ArchiveError("there is something behind its end")
        return None
    if len(block) < len(_ZEROS):
        raise ArchiveError(_SHORT)
    name, mode, size, checksum, kind, target, magic, prefix = _HEADER.unpack(block)
    name = name.rstrip(b"\0")
    if magic != b"ustar" or _number(checksum) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        raise ArchiveError(f"it has a damaged header, near {show(_text(name))}")
    if prefix := prefix.rstrip(b"\0"):
        name = prefix + b"/" + name
    numbers = []
    for what, field in (("mode", mode), ("size", size)):
        if (number := _number(field)) is None:
            refuse(_text(name), f"has a {what} that is no octal number, as one of 8 GiB has: {field!r}")
        numbers.append(number)
    return name, numbers[0], numbers[1], kind, target.rstrip(b"\0")


def _number(field: bytes) -> int | None:
    """Return an octal number, None for what is none. Python's own int() would take signs and underscores, too."""
    digits = field.strip(b" \0")
    return int(digits, 8) if re.fullmatch(rb"[0-7]+", digits) else None


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _pax_name(raw: IO[bytes], size: int, name: bytes) -> bytes:
    """Return the name of the member that a PAX header is for, else the header's own."""
    data = raw.read(min(size, 2 * PATH_MAX))
    if path := re.search(rb"^\d+ (?:GNU\.sparse\.name|path)=(.*)$", data, re.MULTILINE):
        return path[1]
    raw.read(-size % 512)
    following = _header(raw) if size == len(data) else None
    return following[0] if following else name


def _data(raw: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield a member's data, and read what fills up its last block."""
    left = size
    while left:
        chunk = raw.read(min(left, _CHUNK))
        if not chunk:
            raise ArchiveError(_SHORT)
        left -= len(chunk)
        yield chunk
    raw.read(-size % 512)
