"""One app's settings and places on this host."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SLOTS = ("blue", "green")


class HostError(Exception):
    """Something that stops the command before it changes anything; the message says what to do."""


@dataclass(frozen=True)
class Config:
    """What Ansible wrote for this app. Times are in seconds; `plan` is the worker plan with its reason."""

    app: str
    root: Path
    run: Path
    etc: Path
    units: Path
    plan: dict[str, Any]
    fingerprint: str
    health_path: str = "/health"
    health_host: str = "localhost"
    health_timeout: float = 5.0
    health_successes: int = 3
    boot_timeout: float = 60.0
    drain_timeout: float = 30.0

    @classmethod
    def read(cls, path: Path) -> Config:
        """Read the JSON file that the service role writes; HostError where it is missing or damaged."""
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            places = {name: Path(data[name]) for name in ("root", "run", "etc", "units")}
            return cls(**{**data, **places})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise HostError(f"cannot read the settings in {path}: {error}; deploy once more to write them") from error

    @property
    def workers(self) -> int:
        """How many workers a slot runs."""
        return int(self.plan["workers"])

    @property
    def live_link(self) -> Path:
        """The symbolic link that nginx connects through; it names the live slot's socket."""
        return self.root / "live.sock"

    def socket(self, slot: str) -> Path:
        """Return the path of the slot's own socket, which PID 1 holds."""
        return self.run / f"{slot}.sock"

    def service(self, slot: str) -> str:
        """Return the slot's service unit."""
        return f"{self.app}@{slot}.service"

    def socket_unit(self, slot: str) -> str:
        """Return the slot's socket unit."""
        return f"{self.app}@{slot}.socket"

    def slot_files(self, slot: str) -> dict[Path, Path]:
        """Map each file that a slot runs from to the wanted one that it is a copy of.

        A slot keeps its copies: what a later, refused deploy wants can then never reach the slot that serves,
        not by a restart and not by a reboot.
        """
        return {
            self.units / self.service(slot): self.units / f"{self.app}@.service",
            self.units / self.socket_unit(slot): self.units / f"{self.app}@.socket",
            self.etc / f"environment.{slot}": self.etc / "environment",
        }

    def release_dir(self, release: str) -> Path:
        """Where a release is unpacked."""
        return self.root / "releases" / release

    def live_slot(self) -> str | None:
        """Return the slot that gets traffic, None before the first release."""
        try:
            name = Path(os.readlink(self.live_link)).stem
        except OSError:
            return None
        return name if name in SLOTS else None

    def idle_slot(self) -> str:
        """Return the slot that a new release may use."""
        return SLOTS[1] if self.live_slot() == SLOTS[0] else SLOTS[0]


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one where the file is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def stage(path: Path, content: bytes, mode: int = 0o644) -> Path:
    """Write what a file shall become beside it, down to the disk; a rename then needs no room and cannot be half."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return new


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace a file whole or not at all, also when the power goes."""
    stage(path, content, mode).replace(path)
    sync_folder(path.parent)


def link_atomically(path: Path, target: Path) -> None:
    """Point a symbolic link at something else with one rename(); no moment without a link."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(path)
    with contextlib.suppress(OSError):
        # It has moved: what fails from here on must not look as if it had not.
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames in a folder last over a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
