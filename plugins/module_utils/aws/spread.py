# SPDX-License-Identifier: Apache-2.0
"""Which hosts of a fixed number start and which end: a pure function of what there is and what is asked for.

- A host ends only where the number asked for is smaller than the number that there are, and only the difference.
  Nothing moves: a zone that is fuller than another one stays so until the number changes.
- A host that somebody stopped counts, as it is still there.
- New hosts go one by one into the emptiest zone, there into the emptiest subnet.
- The first to end is one that is stopped (it serves nobody), then one in a subnet that is not listed any more, then one
  in the fullest zone, there in the fullest subnet, there the newest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

#: How many hosts a new fleet gets where nobody has said a number.
AT_FIRST = 3
RUNNING = ("pending", "running")


@dataclass(frozen=True)
class Place:
    """A subnet that hosts may be in. Its id is "" until it is made, one in each zone: the zone tells them apart."""

    zone: str
    subnet: str


@dataclass(frozen=True)
class Host:
    """A host that there is; `launched` in seconds of the epoch, `state` as EC2 names it."""

    id: str
    zone: str
    subnet: str
    state: str
    launched: float


@dataclass(frozen=True)
class Plan:
    """Where hosts are to start, one place each, and which are to end, in this order."""

    starts: tuple[Place, ...] = ()
    ends: tuple[Host, ...] = ()

    def stays(self, hosts: Sequence[Host]) -> list[Host]:
        """Return the hosts that do not end."""
        return [host for host in hosts if host not in self.ends]


def spread(hosts: Sequence[Host], places: Sequence[Place], count: int | None) -> Plan:
    """Plan so many hosts in these places; without a count as many as there are, and at least AT_FIRST.

    `places` must not be empty: there is at least one private subnet.
    """
    size = max(len(hosts), AT_FIRST) if count is None else count
    zones, subnets = Counter(host.zone for host in hosts), Counter(host.subnet for host in hosts)
    starts: list[Place] = []
    for _unused in range(size - len(hosts)):
        place = min(places, key=lambda one: (zones[one.zone], subnets[one.subnet]))
        starts.append(place)
        zones[place.zone] += 1
        subnets[place.subnet] += 1
    ends, left, listed = [], list(hosts), {place.subnet for place in places}
    for _unused in range(len(hosts) - size):
        host = max(
            left,
            key=lambda one: (
                one.state not in RUNNING, one.subnet not in listed, zones[one.zone], subnets[one.subnet],
                one.launched, one.id,
            ),
        )  # fmt: skip
        ends.append(host)
        left.remove(host)
        zones[host.zone] -= 1
        subnets[host.subnet] -= 1
    return Plan(tuple(starts), tuple(ends))
