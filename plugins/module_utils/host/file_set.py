"""A set of small files and links that appear on a host together: all of them, or those of before."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .file_state import content_of, mode_of
from .files import link_atomically, write_atomically
from .written import EDITED, changed, is_copied


def secret_file(path: str, content: str) -> dict[str, Any]:
    """Return the item for a file that only the present user, root on a host, can read."""
    user = pwd.getpwuid(os.geteuid())
    owner, group = user.pw_name, grp.getgrgid(user.pw_gid).gr_name
    return {
        "path": path, "content": content, "link": None, "state": "present",
        "owner": owner, "group": group, "mode": "0600",
    }  # fmt: skip


def current_text(path: Path) -> str | None:
    """Return what a regular file holds, None where there is none."""
    if path.is_symlink() or not path.is_file():
        return None
    # newline="": line ends are content, too.
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return stream.read()


def missing_folders(path: Path) -> list[Path]:
    """Return the folders above a path that are not there, the topmost first."""
    return [folder for folder in reversed(path.parents) if not folder.exists()]


@contextlib.contextmanager
def _not_empty_is_left() -> Iterator[None]:
    """Leave a folder that still holds something, a copy of an edited file for example."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise


def put(item: dict[str, Any]) -> None:
    """Make the path what the item describes. A file or link appears whole or not at all."""
    path = Path(item["path"])
    if item["state"] == "absent":
        if path.is_dir() and not path.is_symlink():
            with _not_empty_is_left():
                path.rmdir()
        elif path.exists() or path.is_symlink():
            path.unlink()
        return
    for folder in missing_folders(path):
        folder.mkdir()
        folder.chmod(0o755)  # whatever the umask
    owner = (pwd.getpwnam(item["owner"]).pw_uid, grp.getgrnam(item["group"]).gr_gid)
    if item["state"] == "directory":
        path.mkdir(exist_ok=True)
        os.chown(path, *owner)
        path.chmod(mode_of(item))
        return
    if item["link"]:
        link_atomically(path, item["link"])
    else:
        write_atomically(path, content_of(item), mode_of(item), owner, sync=False)


def copies_of_edited(
    items: list[dict[str, Any]], written: Mapping[str, str], key: bytes | None, stamp: str
) -> dict[str, dict[str, Any]]:
    """Return for each item whose file somebody edited since it was written the item that keeps a copy beside it.

    With its owner and mode.
    """
    paths = [item["path"] for item in items if not item["link"] and item["state"] != "directory"]
    edited = changed({path: written[path] for path in paths if path in written}, key)
    there = [path for path in edited if is_copied(Path(path), written[path])]
    return {path: {**current_item(Path(path)), "path": f"{path}{EDITED}{stamp}"} for path in there}


def put_checked(items: list[dict[str, Any]], *commands: list[str]) -> str:
    """Put all items, then run the commands; where an item or a command fails, put everything back.

    Returns what the first command that failed said. Raises what put() raises.
    """
    before: dict[Path, dict[str, Any]] = {}
    for item in items:
        for path in (*missing_folders(Path(item["path"])), Path(item["path"])):
            before.setdefault(path, current_item(path))
    refused, done = "", False
    try:
        for item in items:
            put(item)
        refused = next(filter(None, map(refusal, commands)), "") if items else ""
        done = not refused
    finally:
        if not done:
            for former in reversed(before.values()):
                put(former)
    return refused


def refusal(command: list[str]) -> str:
    """Run a command; return it with what it says against the files, "" where it succeeds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"{' '.join(command)}: {error}"
    if done.returncode == 0:
        return ""
    return f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip() or f'exit code {done.returncode}'}"


def current_item(path: Path) -> dict[str, Any]:
    """Return the item that would make the path what it is now."""
    item: dict[str, Any] = {"path": str(path), "content": None, "link": None, "state": "present", "mode": None}
    if path.is_symlink():
        return {**item, "link": os.readlink(path), "owner": "root", "group": "root"}
    if not path.exists():
        return {**item, "state": "absent"}
    status = path.stat()
    return {
        **item,
        "state": "directory" if path.is_dir() else "present",
        "content": current_text(path),
        "mode": f"{status.st_mode & 0o7777:04o}",
        "owner": pwd.getpwuid(status.st_uid).pw_name,
        "group": grp.getgrgid(status.st_gid).gr_name,
    }


def difference(item: dict[str, Any]) -> dict[str, str]:
    """Return the two sides of the diff for one item that is not yet as wanted."""
    path = Path(item["path"])
    after = f"link to {item['link']}\n" if item["link"] else item["content"] or ""
    return {
        "before_header": item["path"],
        "after_header": item["path"],
        "before": current_text(path) or "",
        "after": after if item["state"] == "present" else "",
    }
