"""What was switched when, by whom and with what result; and which releases went wrong."""

from __future__ import annotations

import contextlib
import json
import os
import syslog
import time
from typing import Any

from .config import Config
from .files import read_object, write_atomically, write_object
from .records import bad_marks

MOST_LINES, FEWEST_LINES = 1000, 500
SWITCHED, REFUSED, WENT_BACK, STAYS = "switched", "refused", "went back", "kept live although unhealthy"
#: What made its release the live one; the last is how versions before 0.2 wrote STAYS.
LIVE = (SWITCHED, STAYS, "stays, though not well")

#: Files of lines: what was switched; which workers were recycled, which must not push the first out of its file.
SWITCHES, RECYCLED = "history.jsonl", "recycled.jsonl"


def entries(config: Config, name: str = SWITCHES) -> list[dict[str, Any]]:
    """Return the history, oldest first; a line that a power cut tore is passed over."""
    parsed = []
    with contextlib.suppress(OSError):
        for line in (config.root / name).read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    parsed.append(entry)
    return parsed


def note(config: Config, entry: dict[str, Any], name: str = SWITCHES) -> None:
    """Add a line: verb, by, from, to, result, seconds, reason. The same line goes to the system's journal.

    A full disk must not turn a switch that succeeded into a failure: the line is then in the journal only.
    """
    line = json.dumps({"at": int(time.time()), **entry})
    syslog.openlog(f"{config.app}-release")
    syslog.syslog(line)
    with contextlib.suppress(OSError):
        path = config.root / name
        earlier = path.read_bytes() if path.exists() else b""
        if earlier.count(b"\n") >= MOST_LINES:
            kept = earlier.splitlines(keepends=True)[-FEWEST_LINES:]
            write_atomically(path, b"".join(kept), 0o600)
        # A torn last line, from a power cut, would swallow this one.
        start = "" if not earlier or earlier.endswith(b"\n") else "\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as stream:
            stream.write(f"{start}{line}\n")
            stream.flush()
            os.fsync(stream.fileno())


def served(config: Config) -> list[str]:
    """Return the releases that have served, the latest first; some more than once.

    One that was only there until a stopped rollout took it back (`restore`) does not count: to go back to it would be
    to go forward.
    """
    lines = entries(config)
    # Version 0.1 wrote no history, but which release was there before.
    before = config.live_record().previous if not lines else None
    releases = [str(before)] if before else []
    for entry in lines:
        left, to = entry.get("from"), entry.get("to")
        if left and releases[-1:] != [left]:
            releases.append(str(left))
        if entry.get("result") in LIVE:
            if entry.get("verb") == "restore" and left:
                releases.pop()
            releases.append(str(to))
    return releases[::-1]


def is_whole(config: Config, release: str) -> bool:
    """Return whether a release is on the host, whole."""
    return release.isalnum() and (config.release_dir(release) / ".complete").is_file()


def label_of(config: Config, release: str) -> str:
    """Return what people call a release, as in "v1.4.2 (3f2a91c)"; "" where its id is all that is known."""
    label = read_object(config.release_dir(release) / ".complete").get("label") if is_whole(config, release) else ""
    return "" if label == release else str(label or "")


def named(release: str, label: str) -> str:
    """Return a release's id, and what people call it."""
    return f"{release} {label}".rstrip()


def rollback_candidates(config: Config) -> list[str]:
    """Return the releases that may be gone back to, the best first: served before, whole, not bad, not live."""
    excluded = {*bad(config), config.live_record().release}
    return [name for name in dict.fromkeys(served(config)) if name not in excluded and is_whole(config, name)]


def bad(config: Config) -> dict[str, dict[str, Any]]:
    """Return the releases that went wrong once they had traffic: for each when, why, and with which settings."""
    return bad_marks(config.root)


def mark_bad(config: Config, release: str, reason: str, fingerprint: str) -> None:
    """Never choose this release by itself again, nor deploy it again with the same settings."""
    mark = {"at": int(time.time()), "reason": reason, "fingerprint": fingerprint}
    _write_marks(config, {**bad(config), release: mark})


def unmark(config: Config, *releases: str) -> None:
    """Forget that releases went wrong: they serve again, or are gone."""
    marks = bad(config)
    if marks.keys() & set(releases):
        _write_marks(config, {name: mark for name, mark in marks.items() if name not in releases})


def _write_marks(config: Config, marks: dict[str, dict[str, Any]]) -> None:
    """Write the marks down; a full disk costs a mark, not the way back."""
    with contextlib.suppress(OSError):
        write_object(config.root / "bad.json", marks)
