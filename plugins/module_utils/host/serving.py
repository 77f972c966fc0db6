"""Whether the live slot serves as the last switch made it; where it does not, a deploy of the same release switches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import proc, sockets
from .files import read_object
from .records import OF_A_SLOT, SECRET_FILES, SLOTS, SlotRecord, live_slot, slot_record
from .whole import MARKER, missing
from .written import slot_changes

#: Requests at once: of some, each worker that hangs gets one sooner or later.
REQUESTS = 4
HEALTH = ("path", "host", "timeout")
UNITS = Path("/etc/systemd/system")


@dataclass(frozen=True)
class Host:
    """What is known of a host already: units as (active, main process), the version of its Python as 3.12.3.

    health: the settings `path`, `host` and `timeout` of the health check; nothing is asked without.
    """

    app: str
    root: Path
    service: tuple[bool, int] = (False, 0)
    socket: bool = False
    key: bytes | None = None
    python: str = ""
    health: Mapping[str, Any] = field(default_factory=dict)
    units: Path = UNITS
    run: Path = Path("/run")


def altered(record: SlotRecord, host: Host) -> str:
    """Say in what way the live slot is not as the last switch made it, "" where it is, and where none was made.

    What it runs from, whether it would come up after a reboot, and whether it answers. `record`: that of the live slot.
    """
    if not record:
        return _lost_link(host)
    checks = (_units, _files, _release, _health)
    return next(filter(None, (check(record, host) for check in checks)), "")


def serves(record: SlotRecord) -> dict[str, str]:
    """Return the release and the fingerprint that a host serves with, by what the last switch has written down."""
    return {"release": record.release, "fingerprint": str(record.public().get("fingerprint", ""))}


def unadopted(record: SlotRecord, etc: Path) -> bool:
    """Return whether the last deploy left settings of a slot that the live one does not go by.

    As after one that was refused: a deploy that wants the same changes no file, and the record is to have them yet.
    """
    left = read_object(etc / "release.json")
    behind = any(record.proved_with.get(name) != left[name] for name in OF_A_SLOT if name in left)
    wanted, own = (etc / name.format(slot=record.slot) for name in SECRET_FILES["hooks"])
    # A copy that the record does not name is another release's, of before a version that made none.
    hooks = read_object(own) if str(own) in record.files else {}
    return bool(record) and (behind or hooks != read_object(wanted))


def _lost_link(host: Host) -> str:
    # A slot of which the first release was refused has a record, too, but is disabled.
    slots = [slot for slot in SLOTS if slot_record(host.root, slot) and _is_enabled(f"{host.app}@{slot}.service", host)]
    return f"{host.root / 'live.sock'} is gone" if slots and live_slot(host.root) is None else ""


def _units(record: SlotRecord, host: Host) -> str:
    unit = f"{host.app}@{record.slot}.service"
    active, main_pid = host.service
    if live_slot(host.root) != record.slot:
        return f"{host.root / 'live.sock'} leads to another slot than was recorded"
    if not active:
        return f"{unit} is down"
    if not host.socket:
        return f"{host.app}@{record.slot}.socket is down"
    if proc.state(main_pid) == "T":
        return f"the main process of {unit} is stopped (SIGSTOP)"
    return "" if _is_enabled(unit, host) else f"{unit} is disabled"


def _is_enabled(unit: str, host: Host) -> bool:
    # As `systemctl enable` makes it; a link costs nothing to look at.
    return (host.units / "multi-user.target.wants" / unit).is_symlink()


def _files(record: SlotRecord, host: Host) -> str:
    for path in slot_changes(record, host.key):
        return f"{path} was edited" if Path(path).exists() else f"{path} is gone"
    return ""


def _release(record: SlotRecord, host: Host) -> str:
    folder = host.root / "releases" / record.release
    if lacks := missing(folder):
        return lacks
    built = str(read_object(folder / MARKER).get("python") or "")
    here = host.python.rpartition(".")[0]
    return f"it was built for Python {built}, the host has {here}" if built and here and built != here else ""


def _health(record: SlotRecord, host: Host) -> str:
    """Say what is wrong with the health that the slot was proved with; a deploy may ask for another one."""
    return _ask(record, host, _proved(record, host)) if host.health else ""


def is_proved(record: SlotRecord, host: Host) -> bool:
    """Return whether a slot that is well is so by the health check of this deploy, too, where that is another one."""
    wanted = {name: host.health[name] for name in HEALTH if name in host.health}
    return wanted == _proved(record, host) or not _ask(record, host, host.health, tries=1)


def _proved(record: SlotRecord, host: Host) -> dict[str, Any]:
    known = {name: record.proved_with.get(f"health_{name}", host.health.get(name)) for name in HEALTH}
    return {name: value for name, value in known.items() if value is not None}


def _ask(record: SlotRecord, host: Host, health: Mapping[str, Any], tries: int = sockets.TRIES) -> str:
    path, seconds = str(health["path"]), float(health["timeout"])
    socket = host.run / host.app / f"{record.slot}.sock"
    count = REQUESTS * max(1, record.plan.workers)
    for _unused in range(tries):
        answers = sockets.ask(socket, path, str(health["host"]), seconds, count, ())
        if answers.good:
            return ""
    bad = sorted({status for status in answers.statuses if status and not sockets.is_good(status)})
    if bad:
        return f"{path} answers {', '.join(map(str, bad))}"
    return f"{path} gives no answer within {seconds:g} s ({answers.error})"
