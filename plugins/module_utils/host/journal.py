"""The journal of a switch: `transaction.json`. Each step is in it before it begins, and it is gone when all is done."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass

from . import history
from .config import Config
from .context import Context
from .files import read_object, remove, write_object

STARTING, WATCHING, GOING_BACK = "starting", "watching", "going back"
INTERRUPTED = "interrupted"


@dataclass
class Transaction:
    """A switch that is under way. `step` is STARTING, WATCHING or GOING_BACK; `began` is Unix time."""

    verb: str
    release: str
    by: str
    from_release: str
    from_slot: str | None
    to_slot: str
    began: float
    cursor: str = ""
    step: str = STARTING
    trouble: str = ""

    @classmethod
    def read(cls, config: Config) -> Transaction | None:
        """Return the switch that is under way or was cut off, None where there is none."""
        if not config.transaction.exists():
            return None
        try:
            return cls(**read_object(config.transaction))
        except TypeError:
            # Damaged: what is certain is that nothing but the link's slot should be up.
            live = config.live_record().release
            return cls("unknown", "unknown", "unknown", live, config.live_slot(), config.idle_slot(), 0.0)

    def write(self, config: Config, step: str = "") -> None:
        """Write down the step that begins now.

        Raises OSError for the first step only: once traffic has moved, a full disk must not keep a switch from being
        finished, nor from going back.
        """
        self.step = step or self.step
        with contextlib.suppress(*([OSError] if step else [])):
            write_object(config.transaction, asdict(self))

    def seconds(self, context: Context) -> float:
        """Return how long the switch has taken."""
        return round(max(0.0, context.clock.time() - self.began), 1) if self.began else 0.0

    def end(self, context: Context, result: str, reason: str = "") -> None:
        """Write the history's line, then remove the journal."""
        label = history.label_of(context.config, self.release)
        history.note(
            context.config,
            {
                "verb": self.verb, "by": self.by, "from": self.from_release or None, "to": self.release, "label": label,
                "result": result, "seconds": self.seconds(context), "reason": reason,
            },
        )  # fmt: skip
        remove(context.config.transaction)
