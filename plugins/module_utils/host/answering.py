"""Whether the live slot answers at this moment. What is said after a refusal rests on this, not on the link."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .context import Context
from .endings import ending
from .gate import burst

#: A worker that the kernel lets wait on a busy machine is no dead slot.
TRIES = 3


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
            return "nothing serves now: no release is live"
        if self.answers:
            return f"release {self.release} serves"
        return f"nothing serves now: release {self.release} is live, but {self.trouble}"


def serving(context: Context) -> Serving:
    """Ask the live slot, at most a few times."""
    config = context.config
    slot, release = config.live_slot(), config.live_record().release
    if slot is None:
        return Serving("", answers=False)
    state = context.state(slot)
    if state.down:
        return Serving(release, answers=False, trouble=f"its unit {config.service(slot)} {ending(state)}")
    for _unused in range(TRIES):
        answers = burst(context, slot, [], 1)
        if answers.good:
            return Serving(release, answers=True)
    reply = f"answers {answers.bad[0]}" if answers.bad else f"gives no answer ({answers.error})"
    return Serving(release, answers=False, trouble=f"{config.health_path} {reply}")
