"""Which hosts of a fixed number start and end: every number of hosts from 1 to 9, in 1 to 3 zones, up and down."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from plugins.module_utils.aws.spread import AT_FIRST, Host, Place, Plan, spread
from tests.unit.rendering import value

COUNTS, ZONES = range(1, 10), range(1, 4)


def places(zones: int, made: bool = True) -> list[Place]:
    return [Place(f"eu-1{'abc'[number]}", f"subnet-{number}" if made else "") for number in range(zones)]


class Fleet:
    """Hosts that follow their plans; each new one is newer than those before."""

    def __init__(self, *hosts: Host) -> None:
        self.hosts, self.clock = list(hosts), len(hosts)

    def go(self, count: int | None, zones: int) -> Plan:
        plan = spread(self.hosts, places(zones), count)
        self.hosts = plan.stays(self.hosts)
        for place in plan.starts:
            self.clock += 1
            self.hosts.append(Host(f"i-{self.clock:03}", place.zone, place.subnet, "running", self.clock))
        return plan

    def numbers(self, zones: int) -> list[int]:
        found = Counter(host.zone for host in self.hosts)
        return [found[place.zone] for place in places(zones)]


def host(name: str, zone: int = 0, state: str = "running", launched: float = 0, subnet: str = "") -> Host:
    return Host(name, f"eu-1{'abc'[zone]}", subnet or f"subnet-{zone}", state, launched)


@pytest.mark.fault(73)
@pytest.mark.parametrize("zones", ZONES)
@pytest.mark.parametrize(("before", "after"), list(itertools.product(COUNTS, COUNTS)))
def test_every_count_after_every_other_holds_is_spread_evenly_and_ends_no_more_than_it_must(
    before: int, after: int, zones: int
) -> None:
    fleet = Fleet()
    fleet.go(before, zones)
    plan = fleet.go(after, zones)
    assert len(fleet.hosts) == after
    assert len(plan.ends) == max(0, before - after)
    assert len(plan.starts) == max(0, after - before)
    assert max(fleet.numbers(zones)) - min(fleet.numbers(zones)) <= 1
    assert fleet.go(after, zones) == Plan()


@pytest.mark.fault(73)
def test_counts_and_zones_in_any_order_end_nothing_but_the_difference_and_are_as_even_as_that_allows() -> None:
    order = random.Random(73)  # noqa: S311  an order of tests, no secret
    for _ in range(300):
        fleet = Fleet()
        for _ in range(12):
            count, zones = order.choice(COUNTS), order.choice(ZONES)
            before, there = list(fleet.hosts), Counter(one.zone for one in fleet.hosts)
            plan = fleet.go(count, zones)
            assert len(plan.ends) == max(0, len(before) - count)
            assert len(fleet.hosts) == count
            # No other choice of zones, for the same number of starts or ends, leaves them more even.
            named = [place.zone for place in places(zones)]
            outside = [one.id for one in before if one.zone not in named]
            assert len([one for one in plan.ends if one.id in outside]) == min(len(outside), len(plan.ends))
            inside = [one.zone for one in plan.ends if one.zone in named]
            if plan.starts:
                more = itertools.combinations_with_replacement(named, len(plan.starts))
                best = min(unevenness(there + Counter(choice), named) for choice in more)
            else:
                pool = [one.zone for one in before if one.zone in named]
                fewer = set(itertools.combinations(pool, len(inside)))
                best = min(unevenness(there - Counter(choice), named) for choice in fewer)
            assert unevenness(Counter(one.zone for one in fleet.hosts), named) == best


def unevenness(numbers: Counter[str], zones: list[str]) -> int:
    return sum(numbers[zone] ** 2 for zone in zones)


def test_without_a_number_a_new_fleet_has_three_and_no_host_ever_ends() -> None:
    assert len(spread([], places(3), None).starts) == AT_FIRST == 3
    for number in COUNTS:
        fleet = Fleet()
        fleet.go(number, 3)
        plan = fleet.go(None, 3)
        assert plan.ends == ()
        assert len(fleet.hosts) == max(number, 3)


def test_before_there_are_subnets_zones_tell_places_apart() -> None:
    plan = spread([], places(3, made=False), 7)
    assert Counter(place.zone for place in plan.starts) == {"eu-1a": 3, "eu-1b": 2, "eu-1c": 2}


def test_two_subnets_in_a_zone_are_one_zone() -> None:
    there = [Place("eu-1a", "subnet-0"), Place("eu-1a", "subnet-1"), Place("eu-1b", "subnet-2")]
    starts = spread([], there, 4).starts
    assert Counter(place.zone for place in starts) == {"eu-1a": 2, "eu-1b": 2}
    assert Counter(place.subnet for place in starts) == {"subnet-0": 1, "subnet-1": 1, "subnet-2": 2}


def test_a_stopped_host_counts_and_is_the_first_to_go() -> None:
    hosts = [host("i-1"), host("i-2", 1, "stopped"), host("i-3", 2), host("i-4", launched=9)]
    assert spread(hosts, places(3), 4) == Plan()
    assert [one.id for one in spread(hosts, places(3), 2).ends] == ["i-2", "i-4"]


def test_of_a_zone_the_newest_goes_and_what_is_starting_is_no_stopped_one() -> None:
    hosts = [host("i-1", launched=1), host("i-2", launched=3), host("i-3", launched=2, state="pending")]
    assert [one.id for one in spread(hosts, places(1), 1).ends] == ["i-2", "i-3"]


def test_a_subnet_that_is_not_listed_any_more_ends_nothing_by_itself() -> None:
    hosts = [host("i-1"), host("i-2", 1), host("i-3", 2, launched=0)]
    assert spread(hosts, places(2), 3) == Plan()
    assert spread(hosts, places(2), None) == Plan()
    assert [one.id for one in spread(hosts, places(2), 2).ends] == ["i-3"]
    assert [place.zone for place in spread(hosts, places(2), 5).starts] == ["eu-1a", "eu-1b"]


def test_networks_that_are_there_keep_their_zone_whatever_zones_a_type_is_in() -> None:
    """A type that only the second and the third zone have, for a fleet that is in the first and the second."""
    subnets = {"10.80.0.0/24": "p-a", "10.80.16.0/20": "s-a", "10.80.1.0/24": "p-b", "10.80.32.0/20": "s-b"}
    zones = {"p-a": "eu-1a", "s-a": "eu-1a", "p-b": "eu-1b", "s-b": "eu-1b"}
    probe = {"zones": ["eu-1b", "eu-1c", "eu-1d"], "network": {"subnets": subnets, "zones": zones}}
    given = {"__aws_fleet_probe": probe, "aws_fleet_vpc": "", "aws_fleet_vpc_cidr": "10.80.0.0/16"}
    private = [net["zone"] for net in value("aws_fleet", "_aws_fleet_networks", **given) if net["kind"] == "private"]
    assert private == ["eu-1a", "eu-1b", "eu-1d"]
    assert value("aws_fleet", "_aws_fleet_places", **given, aws_fleet_private_subnets=[]) == [
        {"zone": "eu-1a", "subnet": "s-a"}, {"zone": "eu-1b", "subnet": "s-b"}, {"zone": "eu-1d", "subnet": ""}
    ]  # fmt: skip
