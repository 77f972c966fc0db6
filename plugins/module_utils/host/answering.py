"""Whether the live slot answers at this moment. What is said after a refusal rests on this, not on the link."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from .context import Context
from .endings import why_down
from .gate import burst
from .records import SLOTS
from .sockets import TRIES


@dataclass(frozen=True)
class Serving:
    """The live release, "" where there is none; whether it answers; why not, or what it answers instead."""

    release: str
    answers: bool
    trouble: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return asdict(self)

    def in_words(self) -> str:
        """Say it in one sentence."""
        if not self.release:
            return f"nothing serves now: {self.trouble or 'no release is live'}"
        if self.answers:
            return f"release {self.release} serves"
        return f"nothing serves now: release {self.release} is live, but {self.trouble}"


def unreachable(context: Context) -> list[str]:
    """Say which slots run, or would after a reboot, though the live link is gone that leads to one; none otherwise."""
    config = context.config
    if os.path.lexists(config.live_link):
        return []
    texts = []
    for slot in SLOTS:
        unit, record = config.service(slot), config.record_of(slot)
        runs = not context.state(slot).down
        if record and (runs or context.systemd.enabled_state(unit) == "enabled"):
            where = f"the {slot} slot {'runs' if runs else 'is down, and has'} release {record.release}"
            helps = f"ln -sfn {config.socket(slot)} {config.live_link}, or deploy" if runs else "deploy"
            texts.append(f"{config.live_link} is gone, so nginx reaches nobody; {where}: {helps}")
    return texts


def serving(context: Context) -> Serving:
    """Ask the live slot, at most a few times."""
    config = context.config
    slot, release = config.live_slot(), config.live_record().release
    if slot is None:
        return Serving("", answers=False, trouble="; ".join(unreachable(context)))
    state = context.state(slot)
    if state.down:
        return Serving(release, answers=False, trouble=f"its unit {config.service(slot)} {why_down(state)}")
    for _unused in range(TRIES):
        answers = burst(context, slot, [], 1)
        if answers.good:
            return Serving(release, answers=True)
    reply = f"answers {answers.bad[0]}" if answers.bad else f"gives no answer ({answers.error})"
    return Serving(release, answers=False, trouble=f"{config.of(slot).health_path} {reply}")
