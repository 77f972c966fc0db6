"""What deploys have written on a host, so that what somebody made of it by hand is seen and not lost.

`/etc/APP/files.json` has a digest for each path. A host that an earlier version deployed to has none: nothing counts as
edited there.
"""

from __future__ import annotations

import glob
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .digests import PREFIX, keyed, sha256
from .file_state import content_of
from .files import environment_content, read_environment, read_object, write_atomically
from .records import WORKERS, SlotRecord

RECORD = "files.json"
#: Between a file's name and the time, in the name of the copy that is kept of what somebody made of it. No program
#: takes such a name for a file of its own: nginx loads *.conf, systemd goes by suffixes.
EDITED = ".edited-"
#: So many copies of one file are kept, the newest.
COPIES = 3
#: Before the target of a link.
LINK = "link:"


def read_written(record: Path) -> dict[str, str]:
    """Return the digests of what deploys have written, by path."""
    return {path: str(digest) for path, digest in read_object(record).items()}


def written_text(digests: Mapping[str, str]) -> str:
    """Return the text of the record, which is for root only."""
    return json.dumps(dict(sorted(digests.items())), indent=1) + "\n"


def updated(written: Mapping[str, str], items: Iterable[Mapping[str, Any]], key: bytes | None = None) -> dict[str, str]:
    """Return the record once these items of host_files are in place; with a key, they are secret."""
    digests = dict(written)
    for item in items:
        digests.pop(item["path"], None)
        if item.get("link"):
            digests[item["path"]] = f"{LINK}{item['link']}"
        elif item.get("state", "present") == "present":
            content = content_of(item)
            digests[item["path"]] = f"{PREFIX}{keyed(key, content)}" if key else sha256(content)
    return digests


def digest_of(path: Path, like: str, key: bytes | None) -> str | None:
    """Return a path's digest, of the kind of another one; None where nothing is there, or the key is gone."""
    try:
        if path.is_symlink():
            return f"{LINK}{os.readlink(path)}"
        content = path.read_bytes()
    except OSError:
        return None
    if like.startswith(PREFIX):
        return f"{PREFIX}{keyed(key, content)}" if key else None
    return sha256(content)


def changed(digests: Mapping[str, str], key: bytes | None) -> list[str]:
    """Return the paths that are not what their digests say; a secret's, without its key, cannot be told."""
    told = {path: digest for path, digest in digests.items() if key or not digest.startswith(PREFIX)}
    return [path for path, digest in told.items() if digest_of(Path(path), digest, key) != digest]


def slot_changes(record: SlotRecord, key: bytes | None) -> list[str]:
    """Return the paths of a slot's files that are not as the switch made them.

    The number of workers in its environment is the slot's own, and no change: where memory is short, it starts with
    fewer.
    """
    return [path for path in changed(record.files, key) if not _differs_in_number(record, path)]


def _differs_in_number(record: SlotRecord, path: str) -> bool:
    variables = read_environment(Path(path)) if path.endswith(".env") else {}
    as_switched = environment_content({**variables, WORKERS: str(record.plan.workers)})
    return WORKERS in variables and sha256(as_switched) == record.files[path]


def edited(written: Mapping[str, str], key: bytes | None) -> dict[str, str]:
    """Return the paths that are not as they were written, each with what happened to it."""
    return {path: "was edited" if os.path.lexists(path) else "is gone" for path in changed(written, key)}


def is_copied(path: Path, digest: str) -> bool:
    """Return whether a copy is kept of what somebody made of a path.

    Not of what replaced a link: in a folder of systemd's, the copy would count. Nor of a folder.
    """
    return os.path.lexists(path) and not path.is_dir() and not digest.startswith(LINK)


def copy_beside(path: Path, now: float) -> Path | None:
    """Keep a copy of an edited file, with its mode; None where the newest copy is the same. `now`: Unix time."""
    content, copies = path.read_bytes(), sorted(path.parent.glob(f"{glob.escape(path.name)}{EDITED}*"))
    if copies and copies[-1].read_bytes() == content:
        return None
    copy = path.with_name(f"{path.name}{EDITED}{time.strftime('%Y%m%dT%H%M%S', time.localtime(now))}")
    write_atomically(copy, content, path.stat().st_mode & 0o777)
    remove_old_copies(path)
    return copy


def remove_old_copies(path: Path) -> None:
    """Remove all but the newest copies that were kept of a file."""
    for old in sorted(path.parent.glob(f"{glob.escape(path.name)}{EDITED}*"))[:-COPIES]:
        old.unlink(missing_ok=True)
