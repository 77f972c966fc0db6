"""The switch: one path by which a release comes to serve, whoever asked for it.

Start the idle slot, prove it on its private socket, move the link that nginx connects through, watch it while the old
slot drains, stop the old slot, write it down. Up to the link everything can be taken back, and is; from there on
settle.py finishes it, or goes back. Each step is in the journal (`transaction.json`) before it begins.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ..workers.engines import DEFAULT, engine
from . import history
from .config import Config, HostError
from .files import (
    environment_content,
    link_atomically,
    read_environment,
    read_object,
    remove,
    write_atomically,
    write_object,
)
from .gate import GateError, wait_until_proven
from .hooks import HookError, run_hook, variables
from .keyed import PREFIX, keyed
from .overlap import Overlap
from .preflight import check_engine, check_not_bad, check_release, check_room, check_state, clock_trouble
from .systemd import Systemd, SystemdError

Say = Callable[[str], None]
#: In a unit whose workers (worker/own_worker.py) look where the live link points.
#: The slot's number of workers, in its environment file: the unit's ExecStart takes it from there.
WORKERS = "FLEET_WORKERS"
LIVE_LINK = b"\nEnvironment=FLEET_LIVE_LINK="
ACTIVATE, ROLLBACK, RESTORE = "activate", "rollback", "restore"


class RefusedError(Exception):
    """The release is not live, and the one before it serves. `log` is what the new one logged last."""

    outcome = history.REFUSED

    def __init__(self, message: str, log: list[str]) -> None:
        super().__init__(message)
        self.log = log


@dataclass(frozen=True)
class Order:
    """What to switch to, and who asks. `force` tries a release once more that was marked bad."""

    verb: str
    release: str
    by: str
    force: bool = False


@dataclass
class Transaction:
    """The journal of a switch. `step` is what is under way: starting, watching, going back."""

    verb: str
    release: str
    by: str
    from_release: str
    from_slot: str | None
    to_slot: str
    began: float
    cursor: str = ""
    step: str = "starting"
    trouble: str = ""

    @classmethod
    def read(cls, config: Config) -> Transaction | None:
        """Return the switch that was cut off, None where all is settled."""
        if not config.transaction.exists():
            return None
        try:
            return cls(**read_object(config.transaction))
        except TypeError:
            # Damaged: what is certain is that nothing but the link's slot should be up.
            slot = config.live_slot()
            release = str(config.live_record().get("release", ""))
            return cls("unknown", "unknown", "unknown", release, slot, config.idle_slot(), time.time())

    def write(self, config: Config, step: str = "") -> None:
        """Note the step that begins now.

        Raises OSError for the first note only: once traffic has moved, a full disk must not keep a switch from being
        finished, nor from going back.
        """
        self.step = step or self.step
        with contextlib.suppress(*([OSError] if step else [])):
            write_object(config.transaction, asdict(self))

    def end(self, config: Config, result: str, reason: str = "") -> None:
        """Settled: write the history's line, then forget the journal."""
        history.note(
            config,
            {
                "verb": self.verb, "by": self.by, "from": self.from_release or None, "to": self.release,
                "result": result, "seconds": round(max(0.0, time.time() - self.began), 1), "reason": reason,
            },
        )  # fmt: skip
        remove(config.transaction)


def switch(config: Config, systemd: Systemd, order: Order, say: Say) -> Transaction:
    """Move the traffic to a release that has proved itself; return the transaction, to be settled.

    Raises HostError before anything changed, RefusedError when the release did not prove itself.
    """
    manifest = check_before(config, order, say)
    old, new = config.live_slot(), config.idle_slot()
    # One that an interrupted switch has left running has no traffic.
    systemd.stop(config.service(new), config.socket_unit(new))
    contents, record = _settings(config, order, new, say)
    server = engine(record["engine"])
    check_engine(manifest, order.release, server)
    if refusal := server.refusal(manifest.get("packages", {})):
        if order.verb == ACTIVATE and not order.force:
            raise HostError(
                f"the release has {refusal}. Nothing was changed. Raise it in the app, or use service_force (on the "
                "host: --force)"
            )
        # What has served must be possible to go back to.
        say(f"note: the release has {refusal}")
    workers = first = int(record["workers"])
    own = {**variables(config, order.release, manifest), WORKERS: str(workers), "FLEET_ENGINE": server.name}
    record["files"][str(config.slot_environment(new))] = _sha256(environment_content(own))
    # The unit of an earlier version, which going back may bring, has its number in its text.
    if WORKERS.encode() in contents["service"]:
        first = Overlap(config, systemd, old, new).first(workers, server, going_back=order.verb != ACTIVATE)
    live = str(config.live_record().get("release", ""))
    transaction = Transaction(order.verb, order.release, order.by, live, old, new, time.time(), systemd.cursor())
    transaction.write(config)
    fewer = "" if first == workers else f" of {workers}, as memory does not hold both sets; the rest follows"
    say(f"starting release {order.release} in the {new} slot with {first} workers{fewer}")
    try:
        _prepare(config, new, contents)
        write_atomically(config.slot_environment(new), environment_content({**own, WORKERS: str(first)}))
        link_atomically(config.root / "slots" / new, config.release_dir(order.release))
        systemd.start(config.socket_unit(new), config.service(new))
        say(wait_until_proven(config, systemd, new, first, quiet=old is not None))
        if config.hook_before:
            run_hook(config, systemd, "service_hook_before", config.hook_before, new, order.release, manifest)
            say("service_hook_before is done")
        write_object(config.slot_record(new), record)
        # Enabled before it gets traffic: a reboot right after the link has moved must find it.
        systemd.enable(config.service(new))
        link_atomically(config.live_link, config.socket(new))
    except (GateError, HookError, SystemdError, OSError) as error:
        log = systemd.journal(config.service(new), transaction.cursor)
        take_back(config, systemd, new, say)
        transaction.end(config, history.REFUSED, str(error))
        raise RefusedError(str(error), log) from error
    say(f"traffic goes to the {new} slot")
    return transaction


def check_before(config: Config, order: Order, say: Say) -> dict[str, Any]:
    """Refuse with HostError what is not to be begun; return the release's manifest. Changes nothing."""
    manifest = check_release(config, order.release)
    check_state(config)
    if not order.force:
        check_not_bad(config, order.release, same_settings=order.verb == ACTIVATE)
    if trouble := clock_trouble(config):
        if order.verb == ACTIVATE and not order.force:
            raise HostError(
                f"{trouble}. Nothing was changed. Set the clock, or use service_force (on the host: --force)"
            )
        # Going back must be possible at any hour, whatever the clock says it is.
        say(f"note: {trouble}")
    check_room(config)
    return manifest


def _units(config: Config, slot: str) -> tuple[str, str]:
    return config.service(slot), config.socket_unit(slot)


def take_back(config: Config, systemd: Systemd, slot: str, say: Say, wait: bool = True) -> None:
    """Stop a slot that has no traffic. What cannot be stopped now is stopped by the next switch."""
    disable = functools.partial(systemd.disable, config.service(slot))
    for step in (disable, functools.partial(systemd.stop, *_units(config, slot), wait=wait)):
        try:
            step()
        except SystemdError as error:
            say(f"the {slot} slot could not be stopped: {error}")


def _settings(config: Config, order: Order, slot: str, say: Say) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the contents of the slot's files, and what will be written down of the slot.

    A deploy takes the settings that it brought. Going back takes those that the release last served with.
    """
    kept = config.kept_files(order.release)
    record = read_object(kept["service"].with_name("record.json"))
    going_back = order.verb in (ROLLBACK, RESTORE)
    use_kept = going_back and bool(record) and all(path.is_file() for path in kept.values())
    if going_back and not use_kept:
        say("the settings that it served with were not kept: it gets the present ones")
    wanted = config.wanted_files()
    if use_kept and closes_kept(wanted["service"].read_bytes()) and not closes_kept(kept["service"].read_bytes()):
        use_kept = False
        say("nginx keeps connections to the app (proxy_keepalive), which it did not then: it gets the present settings")
    sources = kept if use_kept else wanted
    contents = {kind: path.read_bytes() for kind, path in sources.items()}
    if not use_kept:
        record = {"workers": config.workers, "plan": config.plan, "fingerprint": config.fingerprint}
        record["engine"] = config.engine
    before = config.live_record()
    return contents, {
        **{key: record[key] for key in ("workers", "plan", "fingerprint")},
        "engine": record.get("engine", DEFAULT.name),  # earlier records have none: there was only one
        "release": order.release,
        "slot": slot,
        "settings": "kept" if use_kept else "wanted",
        "closes_kept": closes_kept(contents["service"]),
        "files": {
            str(path): f"{PREFIX}{keyed(config.etc, content)}" if kind == "environment" else _sha256(content)
            for kind, path in config.slot_files(slot).items()
            for content in [contents[kind]]
        },
        "at": int(time.time()),
        "previous": before.get("release") if before.get("release") != order.release else before.get("previous"),
    }


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def closes_kept(unit: bytes) -> bool:
    """Return whether workers started by this unit have nginx leave, once traffic has moved, what it keeps open."""
    return LIVE_LINK in unit


def _prepare(config: Config, slot: str, contents: dict[str, bytes]) -> None:
    """Give the slot its files."""
    for kind, path in config.slot_files(slot).items():
        write_atomically(path, contents[kind], 0o600 if kind == "environment" else 0o644)
    (config.root / "slots").mkdir(mode=0o755, exist_ok=True)


def keep_settings(config: Config, slot: str) -> None:
    """Keep the settings that a slot's release served with, for going back to it. A full disk costs only these."""
    record = config.record_of(slot)
    release = str(record.get("release", ""))
    if not release.isalnum():
        return
    kept = config.kept_files(release)
    folder = kept["service"].parent
    with contextlib.suppress(OSError):
        for place in (folder.parent, folder):
            place.mkdir(mode=0o700, exist_ok=True)
        # Without its record it does not count: cut off here, nothing is half of one time and half of another.
        (folder / "record.json").unlink(missing_ok=True)
        for kind, path in config.slot_files(slot).items():
            write_atomically(kept[kind], path.read_bytes(), 0o600)
        write_object(folder / "record.json", record)


def set_workers(config: Config, slot: str, workers: int, say: Say) -> None:
    """Have the slot start with its full number from now on, where memory had it begin with fewer."""
    path = config.slot_environment(slot)
    variables = read_environment(path)
    if workers and variables.get(WORKERS, str(workers)) != str(workers):
        try:
            write_atomically(path, environment_content({**variables, WORKERS: str(workers)}))
        except OSError as error:
            say(f"note: {path} keeps fewer workers ({error}); deploy again when there is room")
