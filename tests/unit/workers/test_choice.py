"""Which number of workers is taken from measured throughput, and how sure that is."""

from __future__ import annotations

from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.module_utils.workers.choice import ENOUGH, choose, numbers_to_try, paired

NUMBERS = [1, 2, 3, 4, 6, 8]
rounds_of = st.integers(1, 5).flatmap(
    lambda count: st.fixed_dictionaries(
        {number: st.lists(st.floats(1, 1e4), min_size=count, max_size=count) for number in NUMBERS}
    )
)


def clear(*speeds: float, rounds: int = 5) -> dict[int, list[float]]:
    """Rounds in which nothing disturbs, for 1, 2, 3 … workers."""
    return {number + 1: [speed] * rounds for number, speed in enumerate(speeds)}


def test_smallest_number_within_three_percent_of_the_best() -> None:
    choice = choose(clear(50, 96.9, 97.1, 100, 99), most=10)
    assert (choice.workers, choice.best, choice.ratio, choice.bound_by) == (3, 4, 0.971, "throughput")
    assert choice.sure == 1
    assert choice.drawn == {3: 1.0}


def test_number_that_does_not_fit_in_memory_is_not_taken() -> None:
    choice = choose(clear(50, 80, 97, 100), most=2)
    assert (choice.workers, choice.best, choice.ratio, choice.bound_by) == (2, 4, 0.8, "memory")


def test_where_nothing_fits_it_is_the_least_there_is() -> None:
    assert choose({2: [5.0], 3: [9.0]}, most=1).workers == 2


def test_largest_number_that_was_tried_is_said_to_be_that() -> None:
    assert choose(clear(50, 80, 100), most=9).bound_by == "sweep"


def test_slow_minute_hurts_nobody_as_rounds_are_paired() -> None:
    """The machine has half its speed in two rounds of five; the ratios are the same in all of them."""
    speed = {1: 60.0, 2: 98.0, 3: 100.0}
    choice = choose({number: [x, x / 2, x, x / 2, x] for number, x in speed.items()}, most=9)
    assert (choice.workers, choice.ratio, choice.low, choice.high, choice.sure) == (2, 0.98, 0.98, 0.98, 1)


def test_rounds_that_differ_leave_doubt() -> None:
    choice = choose({1: [100, 60, 90, 70, 98], 2: [80, 100, 95, 100, 70]}, most=9)
    assert choice.sure is not None
    assert 0.3 < choice.sure < 0.99
    assert len(choice.drawn) == 2


def test_two_rounds_say_nothing_of_how_sure_it_is() -> None:
    assert choose(clear(50, 100, rounds=2), most=9).sure is None


@given(rounds=rounds_of, most=st.integers(1, 10))
def test_choice_fits_and_is_within_three_percent_of_the_best_that_fits(
    rounds: dict[int, list[float]], most: int
) -> None:
    choice = choose(rounds, most)
    assert choice.workers <= most or choice.workers == min(rounds)
    shares = {number: median(values) for number, values in paired(rounds).items()}
    fits = [number for number in rounds if number <= most] or [min(rounds)]
    assert shares[choice.workers] >= ENOUGH * max(shares[number] for number in fits) - 1e-9
    # No smaller one would do as well, unless the best does not fit at all.
    aim = max(shares.values())
    if shares[choice.workers] >= ENOUGH * aim:
        assert all(shares[number] < ENOUGH * aim + 1e-9 for number in fits if number < choice.workers)
    assert abs(sum(choice.drawn.values()) - 1) < 1e-9
    assert choice.low <= choice.high


@settings(max_examples=30)
@given(rounds=rounds_of)
def test_less_memory_never_gives_more_workers(rounds: dict[int, list[float]]) -> None:
    chosen = [choose(rounds, most).workers for most in range(1, 10)]
    assert chosen == sorted(chosen)


@given(rule=st.integers(1, 400), live=st.integers(1, 400))
def test_numbers_to_try(rule: int, live: int) -> None:
    numbers = numbers_to_try(rule, live)
    assert numbers == sorted(set(numbers))
    assert {1, rule, live, 2 * rule} <= set(numbers)
    assert max(numbers) == max(2 * rule, live)
    assert len(numbers) <= 25


@pytest.mark.parametrize("rounds", [{1: [5.0], 2: [5.0, 6.0]}, {1: [], 2: []}, {1: [5.0], 2: [0.0]}, {}])
def test_rounds_that_cannot_be_compared_are_refused(rounds: dict[int, list[float]]) -> None:
    with pytest.raises(ValueError, match="every number of workers"):
        choose(rounds, 9)
