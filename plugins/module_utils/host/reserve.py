"""Room on the disk that is kept for going back: a full disk must not hold a host on a release that is not well.

A deploy is refused on a full disk, but who goes back writes some files, too. So switches leave a few files of some size
behind, beside the app's and below /etc, and each write that finds the disk full removes one of them and tries again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .config import Config
from .files import MAKE_ROOM

NAME = ".reserve"
#: What a switch writes is some kB in a dozen files, each of which needs an inode of its own while it is replaced.
PIECES, PIECE_BYTES = 8, 128 << 10


@contextlib.contextmanager
def usable(config: Config) -> Iterator[None]:
    """Let what is written meanwhile take from the reserve where the disk is full."""
    token = MAKE_ROOM.set(partial(give, config))
    try:
        yield
    finally:
        MAKE_ROOM.reset(token)


def give(config: Config, folder: Path) -> bool:
    """Free a piece on the disk that a folder is on; return whether there was one."""
    with contextlib.suppress(OSError):
        device = folder.stat().st_dev
        for place in (config.root, config.etc):
            pieces = sorted((place / NAME).glob("*"))
            if pieces and pieces[0].stat().st_dev == device:
                pieces[0].unlink()
                return True
    return False


def fill(config: Config, least: int, least_inodes: int = 0) -> None:
    """Make the reserve whole, where more than `least` bytes and `least_inodes` stay free beside it.

    It is best effort: a disk without room for it, or that cannot be written to, is left as it is.
    """
    for place in (config.root, config.etc):
        with contextlib.suppress(OSError):
            disk = os.statvfs(place)
            few = disk.f_files and disk.f_favail < least_inodes + PIECES
            if few or disk.f_bavail * disk.f_frsize < least + PIECES * PIECE_BYTES:
                continue
            (place / NAME).mkdir(mode=0o700, exist_ok=True)
            for number in range(PIECES):
                _make(place / NAME / str(number))


def _make(piece: Path) -> None:
    """Make a file whose blocks are taken. One that is cut off here is as good as none, and is made again."""
    if piece.exists() and piece.stat().st_size == PIECE_BYTES:
        return
    with piece.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, PIECE_BYTES)
