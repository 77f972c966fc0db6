"""Write a part of an artifact to a host's disk, so that the kernel, too, keeps it in its folder."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from .archive import Rules, TarMember
from .tar import read_part

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


class Tree:
    """Writes below one folder, one component at a time from it: whatever a name says, no link is followed on the way.

    Folders stay open while what is written lies in them. Names go to the kernel as bytes: a host's locale may know no
    UTF-8. Raises OSError.
    """

    def __init__(self, root: Path) -> None:
        self._open = [(b"", os.open(root, _FOLDER))]

    def close(self) -> None:
        """Close all folders."""
        while self._open:
            os.close(self._open.pop()[1])

    def folder(self, parts: list[bytes]) -> int:
        """Return a folder's descriptor; make what is missing of it."""
        same = 0
        while same < min(len(parts), len(self._open) - 1) and self._open[same + 1][0] == parts[same]:
            same += 1
        while len(self._open) > same + 1:
            os.close(self._open.pop()[1])
        for part in parts[same:]:
            if part in {b"", b".", b".."}:  # `release_archive` has refused it already
                raise OSError(errno.EINVAL, "leads out of the release")
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=self._open[-1][1])
            self._open.append((part, os.open(part, _FOLDER, dir_fd=self._open[-1][1])))
        return self._open[-1][1]

    def put(self, member: TarMember, data: Iterable[bytes]) -> None:
        """Write what is not there yet. Modes are 0755 or 0644 whatever the archive says."""
        *above, last = _bytes(member.name).split(b"/")
        try:
            if member.kind == "folder":
                self.folder([*above, last])
            elif member.kind == "link":
                os.symlink(_bytes(member.target), last, dir_fd=self.folder(above))
            else:
                with open(os.open(last, _FILE, 0o600, dir_fd=self.folder(above)), "wb", 0) as out:
                    for chunk in data:
                        view = memoryview(chunk)
                        while view:
                            view = view[out.write(view) :]
                    os.fchmod(out.fileno(), 0o755 if member.executable else 0o644)
        except OSError as error:  # which names only the last component
            raise OSError(error.errno, error.strerror, member.name) from error


def extract(stream: IO[bytes], into: Path, rules: Rules) -> None:
    """Unpack one part; the owner is who runs this. Raises ArchiveError and OSError; then `into` holds some of it.

    Links are made last, once all of them were judged: nothing is written where one is. Each lies in a folder that was
    reached without a link, so even one that should have been refused would let nothing be written elsewhere.
    """
    links: list[TarMember] = []
    with contextlib.closing(Tree(into)) as tree:
        for member, data in read_part(stream, rules):
            if member.kind == "link":
                links.append(member)
            else:
                tree.put(member, data)
        rules.finish()
        for member in links:
            tree.put(member, ())
