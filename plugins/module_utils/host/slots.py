"""What a slot runs from: copies of units, environment and hooks, links, a record; and what is kept of those."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .config import Config, HostError
from .context import Context
from .digests import KEY, PREFIX, read_key, sha256
from .files import environment_content, link_atomically, read_environment, write_atomically
from .hooks import variables
from .records import SECRET_FILES, WORKERS, SlotRecord
from .written import changed, copy_beside, is_copied

#: In a unit whose workers (worker/own_worker.py) look where the live link points.
LIVE_LINK = b"\nEnvironment=FLEET_LIVE_LINK="


@dataclass(frozen=True)
class SlotSettings:
    """What a slot is to run from: its files' contents by their kind, the variables of its own, and its record."""

    contents: Mapping[str, bytes]
    environment: Mapping[str, str]
    record: SlotRecord

    @property
    def number_is_data(self) -> bool:
        """Whether the unit takes the number of workers from the slot; an earlier version's has it in its text."""
        return WORKERS.encode() in self.contents["service"]


def settings_for(
    context: Context, release: str, manifest: Mapping[str, Any], slot: str, own: bool, former: bool = False
) -> SlotSettings:
    """Return the settings that a slot is to have for a release.

    A deploy takes the settings that it brought. With `own`, as when going back, it gets those that it serves with, or
    last served with. With `former`, the live one gets those of before: only settings may have been deployed.
    """
    config = context.config
    (kept, served), wanted = config.own_files(release, former), config.wanted_files()
    before = config.live_record()
    if own and served and kept == config.files_of(before):
        kept = _as_proved(context, kept, served)
    use_kept = own and bool(served) and all(path.is_file() for path in kept.values())
    if own and not use_kept:
        context.report("the settings that it served with were not kept: it gets the present ones")
    if use_kept and closes_kept(wanted["service"].read_bytes()) and not closes_kept(kept["service"].read_bytes()):
        use_kept = False
        context.report(
            "nginx keeps connections to the app (proxy_keepalive), which it did not then: it gets the present settings"
        )
    # Hooks that an earlier version did not keep are the present ones, as they were there.
    contents = {kind: path.read_bytes() for kind, path in (wanted | kept if use_kept else wanted).items()}
    present = SlotRecord(
        plan=config.plan, fingerprint=config.fingerprint, engine=config.engine, proved_with=config.slot_settings()
    )
    record = served if use_kept else present
    is_same = (before.release, before.fingerprint) == (release, served.fingerprint)
    workers = str(record.plan.workers)
    environment = {**variables(config, release, manifest), WORKERS: workers, "FLEET_ENGINE": record.engine}
    files = {str(path): _digest(config, kind, contents[kind]) for kind, path in config.slot_files(slot).items()}
    record = replace(
        record,
        release=release,
        slot=slot,
        # Those of the live slot are kept or wanted as they were.
        settings=(served.settings if is_same else "kept") if use_kept else "wanted",
        closes_kept=closes_kept(contents["service"]),
        files={**files, str(config.slot_environment(slot)): sha256(environment_content(environment))},
        at=int(context.clock.time()),
        previous=before.previous if before.release == release else before.release or None,
    )
    return SlotSettings(contents, environment, record)


def _digest(config: Config, kind: str, content: bytes) -> str:
    return f"{PREFIX}{config.digest(content)}" if kind in SECRET_FILES else sha256(content)


def _proved_files(config: Config, files: Mapping[str, Path], record: SlotRecord) -> dict[str, Path]:
    """Return where a slot's files are as they were proved, by kind: its own, or else those that the last deploy wrote.

    A kind is missing where neither is, as somebody has edited it since.
    """
    key, wanted = read_key(config.etc / KEY), config.wanted_files()
    found: dict[str, Path] = {}
    for kind, path in files.items():
        digest = record.files.get(str(path), "")
        for place in (path, wanted[kind]):
            if not changed({str(place): digest} if digest else {}, key):
                found.setdefault(kind, place)
    return found


def _as_proved(context: Context, files: Mapping[str, Path], record: SlotRecord) -> dict[str, Path]:
    """Return the live slot's files, in the place of edited ones those that a deploy wrote; HostError without those."""
    config = context.config
    proved = _proved_files(config, files, record)
    if lost := [str(path) for kind, path in files.items() if kind not in proved]:
        raise HostError(
            f"what release {record.release} was proved with is no more: {', '.join(lost)} was edited or removed since, "
            "and the last deploy wrote something else. Nothing was changed. Deploy, or "
            f"{config.app}-release activate {record.release} --wanted"
        )
    for kind, path in files.items():
        if proved[kind] != path:
            context.report(f"note: {path} is not as it was proved: the new slot gets what the last deploy wrote")
    return proved


def keep_edited(context: Context, slot: str) -> None:
    """Keep a copy beside of what somebody made of a slot's files, once. A full disk costs only that."""
    config, record = context.config, context.config.record_of(slot)
    # Of a slot that an earlier version was refused in, the record is that of the release before.
    if slot != config.live_slot() and not record.proved_with:
        return
    written = {str(path): record.files.get(str(path), "") for path in config.slot_files(slot).values()}
    for name in changed({name: digest for name, digest in written.items() if digest}, read_key(config.etc / KEY)):
        path = Path(name)
        if not is_copied(path, written[name]):
            continue
        try:
            if copy := copy_beside(path, context.clock.time()):
                context.report(f"note: {path} was edited since the switch; what it held is kept in {copy}")
        except OSError as error:
            context.report(f"note: {path} was edited since the switch, and no copy of it could be kept: {error}")


def with_number(config: Config, settings: SlotSettings, record: SlotRecord) -> SlotSettings:
    """Return settings with another record, and in their environment the number of workers that it has."""
    environment = {**settings.environment, WORKERS: str(record.plan.workers)}
    path = str(config.slot_environment(record.slot))
    files = {**record.files, path: sha256(environment_content(environment))}
    return SlotSettings(settings.contents, environment, replace(record, files=files))


def closes_kept(unit: bytes) -> bool:
    """Return whether workers started by this unit have nginx leave, once traffic has moved, what it keeps open."""
    return LIVE_LINK in unit


def prepare_slot(config: Config, settings: SlotSettings, workers: int) -> None:
    """Point the slot at its release and give it its files, to start with so many workers."""
    slot = settings.record.slot
    # Cut off here, the files are nobody's, and not taken for edited ones.
    config.slot_record(slot).unlink(missing_ok=True)
    for kind, path in config.slot_files(slot).items():
        write_atomically(path, settings.contents[kind], 0o600 if kind in SECRET_FILES else 0o644)
    (config.root / "slots").mkdir(mode=0o755, exist_ok=True)
    environment = {**settings.environment, WORKERS: str(workers)}
    write_atomically(config.slot_environment(slot), environment_content(environment))
    link_atomically(config.root / "slots" / slot, config.release_dir(settings.record.release))
    # From now on, who asks this slot goes by its own settings.
    settings.record.write(config.slot_record(slot))


def adopt(config: Config, release: str) -> None:
    """Have the live slot go by the settings of the last deploy, which needs no new workers for them.

    Nothing is done where the slot serves another release, or otherwise. No lock: it is one record, replaced whole, and
    the hooks, of a slot that no switch writes while it is live.
    """
    slot, record = config.live_slot(), config.live_record()
    if not slot or (record.release, record.fingerprint) != (release, config.fingerprint):
        return
    path, hooks = config.slot_files(slot)["hooks"], config.wanted_files()["hooks"].read_bytes()
    files = {**record.files, str(path): _digest(config, "hooks", hooks)}
    # First: cut off after it, a restart has what the record names from the last deploy's file.
    replace(record, proved_with=config.slot_settings(), files=files).write(config.slot_record(slot))
    write_atomically(path, hooks, 0o600)


def keep_settings(config: Config, slot: str) -> None:
    """Keep the settings that a slot's release served with, for going back to it. A full disk costs only these.

    What somebody has edited since is not what it was proved with: nothing is kept then.
    """
    record = config.record_of(slot)
    if not record.release.isalnum():
        return
    kept = config.kept_files(record.release)
    folder = kept["service"].parent
    with contextlib.suppress(OSError):
        for place in (folder.parent, folder):
            place.mkdir(mode=0o700, exist_ok=True)
        # Without its record it does not count: cut off here, nothing is half of one time and half of another.
        (folder / "record.json").unlink(missing_ok=True)
        files = config.files_of(record)
        proved = _proved_files(config, files, record)
        if len(proved) < len(files):
            return
        for kind, path in proved.items():
            write_atomically(kept[kind], path.read_bytes(), 0o600)
        record.write(folder / "record.json")


def start_with_all(context: Context, slot: str, workers: int) -> None:
    """Have the slot start with its full number from now on, where memory had it begin with fewer."""
    path = context.config.slot_environment(slot)
    variables = read_environment(path)
    if workers and variables.get(WORKERS, str(workers)) != str(workers):
        try:
            write_atomically(path, environment_content({**variables, WORKERS: str(workers)}))
        except OSError as error:
            context.report(f"note: {path} keeps fewer workers ({error}); deploy again when there is room")
