"""One app's settings and places on this host."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..workers.engines import Engine, engine
from ..workers.plan import WorkerPlan
from . import digests, records
from .files import read_environment
from .records import HOOKS, OF_A_SLOT, SECRET_FILES, SLOTS, SlotRecord
from .settings import Settings


class HostError(Exception):
    """Something that stops the command before it changes anything; the message says what to do."""


@dataclass(frozen=True)
class Config(Settings):
    """What Ansible wrote for this app. `plan` is the worker plan with its reason."""

    app: str
    root: Path
    run: Path
    etc: Path
    units: Path
    plan: WorkerPlan
    #: Of what the workers depend on: units and what goes with them, then the environment, with the host's own key.
    fingerprint: str
    #: Where nginx notes what became of each request; see watch.py.
    proxy_log: str = ""
    #: nginx's file for the app, which says where it is reached; "" before there was such a setting.
    proxy_file: str = ""
    #: A worker that is over the limit so soon after its start would be so again: the limit is wrong, not the worker.
    recycle_least_seconds: float = 300.0

    @classmethod
    def read(cls, path: Path) -> Config:
        """Read the JSON file that the service role writes; HostError where it is missing or damaged."""
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            places = {name: Path(data[name]) for name in ("root", "run", "etc", "units")}
            lists = {
                field.name: tuple(data[field.name])
                for field in fields(Settings)
                if isinstance(field.default, tuple) and field.name in data
            }
            plan = WorkerPlan.parse(data["plan"])
            commands = _commands(path.with_name("hooks.json").read_bytes()) if "hook_before" not in data else {}
            whole = f"{data['fingerprint']}-{_environment(places['etc'])}"
            return cls(**{**data, **places, **lists, **commands, "plan": plan, "fingerprint": whole})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise HostError(f"cannot read the settings in {path}: {error}; deploy once more to write them") from error

    def slot_settings(self) -> dict[str, Any]:
        """Return the settings that a slot's record keeps."""
        return {name: getattr(self, name) for name in OF_A_SLOT}

    def of(self, slot: str) -> Config:
        """Return the settings with those that a slot was proved with, or is about to be; its hooks, too.

        Those of a private slot are the live one's. Where there are none, as an earlier version's, those of the last
        deploy stay.
        """
        record = self.record_of(slot) if slot in SLOTS else self.live_record()
        return self.with_those_of(record, _content(self.files_of(record)))

    def with_those_of(self, record: SlotRecord, hooks: bytes) -> Config:
        """Return the settings with those of a slot's record, and with its hooks: the content of their file."""
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in record.proved_with.items()
        }
        with contextlib.suppress(ValueError, TypeError, KeyError):
            known |= _commands(hooks)
        return replace(self, **known)

    @property
    def workers(self) -> int:
        """How many workers a slot shall run by the present settings."""
        return self.plan.workers

    @property
    def expiry(self) -> float:
        """How many seconds a switch may take at most with these settings; systemd ends one that takes longer."""
        hooks = self.hook_timeout * bool(self.hook_before) + self.hook_timeout * bool(self.hook_after)
        # The old slot starts again, and the new one is drained, then stopped: its unit has as long for that once more.
        going_back = self.boot_timeout + 2 * self.drain_timeout + 10
        # See sizing.py. Making room has a time of its own, in which a last worker's replacement may only just begin.
        replacing = self.leaving_seconds + self.boot_timeout
        making_room = self.boot_timeout + self.drain_timeout + replacing
        settling = 2 * self.boot_timeout  # the number is reached, then proved
        giving_back = self.boot_timeout
        sizing = making_room + settling + giving_back
        return 2 * (self.boot_timeout + self.drain_timeout) + sizing + self.watch_seconds + hooks + going_back + 120

    @property
    def longest(self) -> float:
        """How many seconds a switch may take at most, with the settings of whichever release it is to."""
        kept = [self.own_files(path.parent.name, former=True) for path in self.etc.glob("releases/*/record.json")]
        own = [(self.files_of(record), record) for record in map(self.record_of, SLOTS)]
        return max(self.expiry, *(self.with_those_of(record, _content(files)).expiry for files, record in own + kept))

    @property
    def leaving_seconds(self) -> float:
        """How many seconds a worker may take to leave: after the drain time, the heartbeat ends what is in flight."""
        return self.drain_timeout + self.worker_timeout + 10

    @property
    def live_link(self) -> Path:
        """The symbolic link that nginx connects through; it names the live slot's socket and alone decides."""
        return self.root / "live.sock"

    @property
    def fleet(self) -> str:
        """The fleet that this host belongs to, "" for none; deploys write it down."""
        return records.fleet_of(self.etc)

    @property
    def transaction(self) -> Path:
        """The journal of the switch that is under way; there is none when all is settled."""
        return self.root / "transaction.json"

    def socket(self, slot: str) -> Path:
        """Return the path of the slot's own socket, which PID 1 holds."""
        return self.run / f"{slot}.sock"

    def service(self, slot: str) -> str:
        """Return the slot's service unit."""
        return f"{self.app}@{slot}.service"

    def socket_unit(self, slot: str) -> str:
        """Return the slot's socket unit."""
        return f"{self.app}@{slot}.socket"

    def slot_files(self, slot: str) -> dict[str, Path]:
        """Map each kind of file that a slot runs from to the slot's own copy of it.

        A slot keeps copies: what a later, refused deploy wants can then never reach the slot that serves, not by a
        restart and not by a reboot.
        """
        return {
            "service": self.units / self.service(slot),
            "socket": self.units / self.socket_unit(slot),
            **{kind: self.etc / name.format(slot=slot) for kind, (_unused, name) in SECRET_FILES.items()},
        }

    def files_of(self, record: SlotRecord) -> dict[str, Path]:
        """Map each kind of file that a slot was given when it was switched to, see `slot_files`.

        Earlier versions made no copy of the hooks. One that the record does not name is another release's.
        """
        files = self.slot_files(record.slot)
        return {kind: path for kind, path in files.items() if kind != "hooks" or str(path) in record.files}

    def wanted_files(self) -> dict[str, Path]:
        """Map each kind of file that a slot runs from to the one that the last deploy wrote."""
        return {
            "service": self.units / f"{self.app}@.service",
            "socket": self.units / f"{self.app}@.socket",
            **{kind: self.etc / name for kind, (name, _unused) in SECRET_FILES.items()},
        }

    def kept_files(self, release: str) -> dict[str, Path]:
        """Map each kind to the file that a release last served with; going back brings these back, too."""
        folder = self.etc / "releases" / release
        return {kind: folder / kind for kind in self.wanted_files()}

    def own_files(self, release: str, former: bool = False) -> tuple[dict[str, Path], SlotRecord]:
        """Return the files that a release serves with, or last served with, and the record of that; empty: none.

        former: of the live release, those that it served with before its present ones, where they were kept. An earlier
        version's have no hooks among them.
        """
        slot, live = self.live_slot(), self.live_record()
        kept = self.kept_files(release)
        record = SlotRecord.read(kept["service"].with_name("record.json"))
        if slot and release == live.release and not (former and record):
            return self.files_of(live), live
        return {kind: kept[kind] for kind in self.files_of(record)}, record

    def release_dir(self, release: str) -> Path:
        """Where a release is unpacked."""
        return self.root / "releases" / release

    def slot_record(self, slot: str) -> Path:
        """Return where a switch writes down what a slot has: release, workers, plan, settings, its files' hashes."""
        return self.root / "slots" / f"{slot}.json"

    def live_slot(self) -> str | None:
        """Return the slot that gets traffic, None before the first release."""
        return records.live_slot(self.root)

    def idle_slot(self) -> str:
        """Return the slot that a new release may use."""
        return SLOTS[1] if self.live_slot() == SLOTS[0] else SLOTS[0]

    def live_record(self) -> SlotRecord:
        """Return what was written down of the live slot; an empty record before the first release."""
        return records.live_record(self.root)

    def record_of(self, slot: str) -> SlotRecord:
        """Return what was written down of a slot when it was last switched to; an empty record before."""
        return records.slot_record(self.root, slot)

    def workers_of(self, slot: str) -> int:
        """Return how many workers a slot shall run, as it was switched to: who went back has those of that time."""
        return self.record_of(slot).plan.workers or self.workers

    def engine_of(self, slot: str) -> Engine:
        """Return the engine that a slot runs: another one than the settings name, before and after a change of it."""
        environment = read_environment(self.slot_environment(slot))
        return engine(environment.get("FLEET_ENGINE") or self.record_of(slot).engine)

    def slot_environment(self, slot: str) -> Path:
        """Return the environment file with what is the slot's own: its number of workers, its release, its engine."""
        return (self.root / "slots" if slot in SLOTS else self.run) / f"{slot}.env"

    def digest(self, content: bytes) -> str:
        """Return the digest of a secret content, with the key that stays on the host; "" where there is none."""
        return _digest(self.etc, content)


def _digest(etc: Path, content: bytes) -> str:
    return digests.keyed(digests.read_key(etc / digests.KEY), content)


def _environment(etc: Path) -> str:
    """Return the digest of the wanted environment, "" where there is none: then the workers run with another one."""
    try:
        return _digest(etc, (etc / "environment").read_bytes())
    except OSError:
        return ""


def _content(files: Mapping[str, Path]) -> bytes:
    """Return what the file of the hooks has, nothing where there is none."""
    try:
        return files["hooks"].read_bytes() if "hooks" in files else b""
    except OSError:
        return b""


def _commands(content: bytes) -> dict[str, str]:
    """Return the hooks, which have a file of their own: it is shown nowhere. Raises ValueError, TypeError, KeyError."""
    hooks = json.loads(content)
    return {name: str(hooks[name]) for name in HOOKS}


def other(slot: str) -> str:
    """Return the other one of the two slots."""
    return SLOTS[1 - SLOTS.index(slot)]
