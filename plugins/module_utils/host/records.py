"""Records on a host's disk: one class, one reader and one writer for each.

A reader takes what earlier versions wrote, and a writer keeps their names: a host may go back to an older command.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..workers.plan import WorkerPlan
from .digests import FINGERPRINT
from .files import read_object, write_object
from .settings import Settings

SLOTS = ("blue", "green")
FIRST_ENGINE = "gunicorn"
#: The slot's number of workers, in its environment file: the unit's ExecStart takes it from there.
WORKERS = "FLEET_WORKERS"
#: What may hold secrets, by its kind: the file below /etc/APP that the last deploy wrote, and a slot's own copy of it.
SECRET_FILES = {"environment": ("environment", "environment.{slot}"), "hooks": ("hooks.json", "hooks.{slot}.json")}
#: Settings that have a file of their own.
HOOKS = ("hook_before", "hook_after")
#: Settings that are one for the host, or that a slot has in its units, its other files or its record anyway.
_NOT_RECORDED = {*HOOKS, "engine", "keep_releases", "worker_memory_max_mib", "writable_paths"}
#: How a slot is asked, watched and drained, and as which user its commands run: what a refused deploy wants of these is
#: not to reach the slot that serves.
OF_A_SLOT = tuple(field.name for field in fields(Settings) if field.name not in _NOT_RECORDED)


@dataclass(frozen=True)
class SlotRecord:
    """What a switch wrote down of a slot: `slots/SLOT.json`, for root only.

    settings: `wanted` (by the last deploy) or `kept` (of the time when the release served). closes_kept: whether its
    workers have nginx leave connections that it keeps open. files: what the slot runs from, with digests. fresh_mib:
    what its largest worker took (PSS) before it had served anybody, 0 where that is not known. proved_with: settings of
    the host's command by their names, see OF_A_SLOT; earlier versions wrote none. at: Unix time.
    """

    release: str = ""
    slot: str = ""
    plan: WorkerPlan = field(default_factory=lambda: WorkerPlan(0))
    fingerprint: str = ""
    engine: str = FIRST_ENGINE
    settings: str = "wanted"
    closes_kept: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    at: int = 0
    previous: str | None = None
    fresh_mib: int = 0
    proved_with: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> SlotRecord:
        """Return the record in a file; an empty one where there is none that can be read."""
        try:
            return cls.parse(read_object(path))
        except (TypeError, ValueError, AttributeError):
            return cls()

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> SlotRecord:
        """Read a record. Raises ValueError, TypeError and AttributeError where a field is something else."""
        # Version 0.1 wrote the number of workers alone.
        plan = {"workers": int(data.get("workers") or 0), **(data.get("plan") or {})}
        return cls(
            release=str(data.get("release") or ""),
            slot=str(data.get("slot") or ""),
            plan=WorkerPlan.parse(plan),
            fingerprint=str(data.get("fingerprint") or ""),
            engine=str(data.get("engine") or FIRST_ENGINE),  # earlier records have none: there was only one
            settings=str(data.get("settings") or "wanted"),
            closes_kept=bool(data.get("closes_kept")),
            files={str(path): str(digest) for path, digest in (data.get("files") or {}).items()},
            at=int(data.get("at") or 0),
            previous=data.get("previous") or None,
            fresh_mib=int(data.get("fresh_mib") or 0),
            proved_with={name: value for name, value in (data.get("proved_with") or {}).items() if name in OF_A_SLOT},
        )

    def __bool__(self) -> bool:
        """Whether there is such a record."""
        return bool(self.release)

    def write(self, path: Path) -> None:
        """Write it down."""
        write_object(path, self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Return the record as plain data for JSON, an empty object where there is none."""
        return {**asdict(self), "workers": self.plan.workers, "plan": self.plan.as_dict()} if self else {}

    def public(self) -> dict[str, Any]:
        """Return what may leave the host: no digests of files, and no plain hash of secrets."""
        hidden = {"files", "proved_with"} | (set() if FINGERPRINT.fullmatch(self.fingerprint) else {"fingerprint"})
        return {name: value for name, value in self.as_dict().items() if name not in hidden}


def fleet_of(etc: Path) -> str:
    """Return the fleet that a host remembers for an app; "" where it remembers none, as after an earlier version."""
    try:
        return (etc / "fleet").read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def live_slot(root: Path) -> str | None:
    """Return the slot that gets traffic, None before the first release. The link alone decides."""
    try:
        name = Path(os.readlink(root / "live.sock")).stem
    except OSError:
        return None
    return name if name in SLOTS else None


def slot_record(root: Path, slot: str) -> SlotRecord:
    """Return what was written down of a slot when it was last switched to; an empty record before."""
    record = SlotRecord.read(root / "slots" / f"{slot}.json")
    # Version 0.1 kept one record for the host.
    former = SlotRecord() if record else SlotRecord.read(root / "live.json")
    return former if former.slot == slot else record


def live_record(root: Path) -> SlotRecord:
    """Return what was written down of the live slot; an empty record before the first release."""
    slot = live_slot(root)
    return slot_record(root, slot) if slot else SlotRecord()


def bad_marks(root: Path) -> dict[str, dict[str, Any]]:
    """Return the releases that went wrong once they had traffic: for each when, why, and with which settings."""
    return {name: mark for name, mark in read_object(root / "bad.json").items() if isinstance(mark, dict)}


def bad_reason(release: str, mark: Mapping[str, Any]) -> str:
    """Say why a release is not switched to by itself, in the host's own time: to a switch, and to who foretells it."""
    when = time.strftime("%F %T %Z", time.localtime(mark.get("at", 0)))
    return (
        f"release {release} is marked bad on this host since {when}: {mark.get('reason')}. Nothing was changed. "
        "Change the code or a setting, or try the same once more with service_force (on the host: --force)"
    )
