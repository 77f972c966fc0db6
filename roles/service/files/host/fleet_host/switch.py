"""The switch: one path by which a release comes to serve, whoever asked for it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

from .config import Config, HostError, link_atomically, read_object, stage, write_atomically
from .gate import POLL_SECONDS, GateError, wait_until_proven
from .systemd import Systemd, SystemdError
from .workers import connections

Say = Callable[[str], None]


class RefusedError(Exception):
    """The new release never got traffic, and the old one serves on. `log` is what the new one said last."""

    def __init__(self, message: str, log: list[str]) -> None:
        super().__init__(message)
        self.log = log


def check_release(config: Config, release: str) -> dict[str, Any]:
    """Return the manifest of a complete release; HostError for one that is not there or not whole."""
    folder = config.release_dir(release)
    if not release.isalnum() or not folder.is_dir():
        known = sorted(path.parent.name for path in config.root.glob("releases/*/.complete"))
        raise HostError(f"release {release!r} is not on this host; there are: {', '.join(known) or 'none'}")
    if not (folder / ".complete").is_file():
        raise HostError(f"release {release} is only half unpacked; deploy it again")
    manifest = read_object(folder / "manifest.json")
    if not isinstance(manifest.get("path"), list) or not isinstance(manifest.get("module"), str):
        raise HostError(f"release {release} has no readable manifest.json; deploy it again")
    return manifest


def activate(config: Config, systemd: Systemd, release: str, say: Say) -> dict[str, Any]:
    """Make a release the live one without losing a request; return the new record.

    Start the idle slot, prove it on its private socket, move the link that nginx connects through,
    drain the old slot, stop it, write it down. Up to the link everything can be taken back, and is.
    Raises HostError before anything changed, RefusedError when the release did not prove itself.
    """
    manifest = check_release(config, release)
    old, new = config.live_slot(), config.idle_slot()
    started = time.time()
    say(f"starting release {release} in the {new} slot with {config.workers} workers")
    record_file = config.root / "live.json"
    try:
        _prepare(config, systemd, new, release, manifest)
        systemd.start(config.socket_unit(new), config.service(new))
        say(wait_until_proven(config, systemd, new))
        record = _record(config, new, release)
        staged = stage(record_file, json.dumps(record, indent=1).encode() + b"\n", 0o600)
        # Enabled before it gets traffic: a reboot right after the link has moved must find it.
        systemd.enable(config.service(new))
        link_atomically(config.live_link, config.socket(new))
    except (GateError, SystemdError, OSError) as error:
        log = systemd.journal(config.service(new), started)
        systemd.disable(config.service(new))
        systemd.stop(config.service(new), config.socket_unit(new))
        raise RefusedError(str(error), log) from error

    say(f"traffic goes to the {new} slot")
    staged.replace(record_file)
    if old:
        _retire(config, systemd, old, say)
    say(f"done in {time.time() - started:.1f} s")
    return record


def _record(config: Config, slot: str, release: str) -> dict[str, Any]:
    """Return what live.json says of a switch: all that shows later whether the slot still is what it was."""
    before = read_object(config.root / "live.json")
    return {
        "release": release,
        "slot": slot,
        "workers": config.workers,
        "plan": config.plan,
        "fingerprint": config.fingerprint,
        "files": {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in config.slot_files(slot)},
        "at": int(time.time()),
        "previous": before.get("release") if before.get("release") != release else before.get("previous"),
    }


def _prepare(config: Config, systemd: Systemd, slot: str, release: str, manifest: dict[str, Any]) -> None:
    """Point the slot at a release and the present settings.

    One that an interrupted switch has left running has no traffic: it is stopped first.
    """
    systemd.stop(config.service(slot), config.socket_unit(slot))
    for copy, wanted in config.slot_files(slot).items():
        mode = 0o600 if copy.parent == config.etc else 0o644
        write_atomically(copy, wanted.read_bytes(), mode)
    folder = config.release_dir(release)
    slots = config.root / "slots"
    slots.mkdir(mode=0o755, exist_ok=True)
    link_atomically(slots / slot, folder)
    search_path = ":".join(str(folder / part) for part in manifest["path"])
    variables = {"FLEET_RELEASE": release, "FLEET_MODULE": manifest["module"], "PYTHONPATH": search_path}
    text = "".join(f"{name}={value}\n" for name, value in variables.items())
    write_atomically(slots / f"{slot}.env", text.encode())


def _retire(config: Config, systemd: Systemd, slot: str, say: Say) -> None:
    """Stop a slot when nobody is connected any more, or when the drain time is over."""
    deadline = time.monotonic() + config.drain_timeout
    began = time.monotonic()
    while (open_now := connections(config.socket(slot))) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    took = time.monotonic() - began
    if open_now:
        say(f"{open_now} connections still open in the {slot} slot after {took:.0f} s (service_drain_timeout): closing")
    else:
        say(f"the {slot} slot is drained after {took:.1f} s")
    try:
        systemd.disable(config.service(slot))
        systemd.stop(config.service(slot), config.socket_unit(slot))
    except SystemdError as error:
        # The switch is done all the same; the next one stops this slot before it uses it.
        say(f"the {slot} slot could not be stopped: {error}")
