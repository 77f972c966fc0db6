"""What a check is given, and what it returns: a state of the host, how bad it is, and one sentence about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from ..context import Context
from ..gate import Proof
from ..records import SlotRecord

#: Requests fail or hang at this moment.
HURTS_NOW = "hurts_now"
#: What serves, serves on; the next restart or reboot would end that.
HURTS_AT_RESTART = "hurts_at_restart"
#: Nobody is hurt, but it is not as a deploy has set it.
DIFFERS = "differs"
#: Good to know.
NOTE = "note"
#: In the order in which they are shown. All but notes make `status` and `verify` end with 1.
SEVERITIES = (HURTS_NOW, HURTS_AT_RESTART, DIFFERS, NOTE)
#: As a person reads them.
WORDS = {
    HURTS_NOW: "hurts now", HURTS_AT_RESTART: "hurts at the next restart", DIFFERS: "differs", NOTE: "note",
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One state that is not as it should be. `state` is its name for machines; `text` says why, and what helps."""

    severity: str
    state: str
    text: str

    def as_dict(self) -> dict[str, str]:
        """Return it as plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Snapshot:
    """What all checks of one call look at, asked once.

    units: systemd's properties by unit, see systemd.PROPERTIES. proof: what the live slot's workers have answered.
    """

    context: Context
    slot: str
    record: SlotRecord
    proof: Proof
    units: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def unit(self, name: str) -> Mapping[str, str]:
        """Return a unit's properties, none where systemd has said nothing of it."""
        return self.units.get(name, {})

    @property
    def service(self) -> Mapping[str, str]:
        """The properties of the live slot's service."""
        return self.unit(self.context.config.service(self.slot))

    @property
    def is_down(self) -> bool:
        """Whether no server runs in the live slot, and none is about to."""
        return self.service.get("ActiveState", "active") in ("failed", "inactive")

    @property
    def answers(self) -> bool:
        """Whether each worker of the live slot has answered its health check."""
        return bool(self.proof.pids) and len(self.proof.answered) == len(self.proof.pids)


def by_severity(findings: list[Finding]) -> list[Finding]:
    """Return findings with the worst first, otherwise in their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
