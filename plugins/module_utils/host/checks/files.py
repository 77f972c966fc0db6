"""Files of the bundle that somebody edited, and settings on the disk that are not those that serve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..digests import KEY, read_key
from ..written import RECORD, edited, is_copied, read_written, slot_changes
from .finding import DIFFERS, HURTS_AT_RESTART, NOTE, Finding, Snapshot


def slot_was_edited(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that the slot's copies are not what the switch proved: its workers would start otherwise than they run."""
    config, record = snapshot.context.config, snapshot.record
    if paths := slot_changes(record, read_key(config.etc / KEY)):
        gone = [path for path in paths if not Path(path).exists()]
        what = f"{', '.join(gone)} is gone" if gone else f"{', '.join(paths)} was edited since the switch"
        text = f"{what}: a restart is not what was proved: deploy, or "
        text += f"{config.app}-release activate {record.release} --wanted"
        yield Finding(HURTS_AT_RESTART, "slot files edited", text)


def settings_are_not_live(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that a deploy was refused or cut off, the environment edited, or that somebody went back on purpose."""
    config, record = snapshot.context.config, snapshot.record
    if record.fingerprint == config.fingerprint:
        return
    if record.settings == "kept":
        text = f"release {record.release} serves with the settings of its own time, not with those on disk"
        yield Finding(NOTE, "settings kept", f"{text}: it was gone back to")
    else:
        text = "the settings on disk are not those that the workers run with: deploy"
        yield Finding(DIFFERS, "settings differ", text)


def were_edited(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that files that a deploy wrote are other ones now; the next deploy keeps a copy beside and writes its own."""
    config = snapshot.context.config
    written = read_written(config.etc / RECORD)
    for path, what in edited(written, read_key(config.etc / KEY)).items():
        text = f"{path} {what} since the last deploy wrote it; the next one writes its own"
        kept = ", and keeps this one beside" if is_copied(Path(path), written[path]) else ""
        yield Finding(NOTE, "file edited", text + kept)
