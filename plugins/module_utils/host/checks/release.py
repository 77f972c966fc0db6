"""The live release's folder and Python, and the link by which nginx finds its slot."""

from __future__ import annotations

from collections.abc import Iterator

from ..answering import unreachable
from ..config import HostError
from ..context import Context
from ..files import read_object
from ..interpreter import python_version
from ..preflight import check_state
from ..whole import missing
from .finding import HURTS_AT_RESTART, HURTS_NOW, Finding, Snapshot


def is_not_whole(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that the release's folder is gone, or files in it: what runs has most of it in memory, what starts not."""
    config, release = snapshot.context.config, snapshot.record.release
    if lacks := missing(config.release_dir(release)):
        text = f"release {release} is not whole any more, its workers cannot start again: {lacks}: deploy it again"
        yield Finding(HURTS_AT_RESTART, "release not whole", text)
    elif not (config.root / "slots" / snapshot.slot).exists():
        link = config.root / "slots" / snapshot.slot
        text = f"{link} is gone, by which the slot finds its release: {config.app}-release activate {release}"
        yield Finding(HURTS_AT_RESTART, "slot link gone", text)


def has_another_python(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that the host's Python is not the one that the release was built for, as after an upgrade."""
    config = snapshot.context.config
    built = str(read_object(config.release_dir(snapshot.record.release) / ".complete").get("python") or "")
    version = python_version(config.python) if built else ""
    here = version.rpartition(".")[0]
    if not built or here == built:
        return
    has = f"has {here}" if here else f"has no Python at {config.python}"
    helps = "deploy, which builds it for this one" if here else "install it, or deploy with another service_python"
    text = f"release {snapshot.record.release} was built for Python {built}, the host {has}: {helps}"
    yield Finding(HURTS_AT_RESTART, "another Python", text)


def has_no_live_link(context: Context) -> Iterator[Finding]:
    """Say that a slot serves, or did, and nothing leads to it: nginx answers 502."""
    config = context.config
    try:
        check_state(config)
    except HostError as error:
        yield Finding(HURTS_NOW, "live link altered", str(error).replace("; nothing was changed", ""))
        return
    for text in unreachable(context):
        yield Finding(HURTS_NOW, "live link gone", text)
