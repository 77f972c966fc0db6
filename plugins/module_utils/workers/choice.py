"""Which number of workers to take, from throughput that was measured with several of them in rounds.

Pure. Rounds are paired: each has every number once, close together in time, so only ratios within a round count, and
what slows the machine down for a minute slows all numbers of that round.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

#: The smallest number is chosen that gives at least this share of the best throughput.
ENOUGH = 0.97
#: How often the rounds are drawn anew, to see how far the choice depends on which they were.
DRAWS = 500
#: With fewer rounds, drawing them anew says nothing.
FEW_ROUNDS = 3


@dataclass(frozen=True)
class Choice:
    """What to take and why.

    workers: the number; best: the one with the highest throughput of all that were measured.
    ratio, low, high: throughput of `workers` in terms of `best`'s, median over rounds, and what 90 of 100 draws give.
    sure: the share of draws in which `workers` stays within 3 % of the best that fits, None with too few rounds.
    drawn: how often each number would be chosen, as shares of all draws.
    bound_by: `throughput`, `memory` (a larger number would be better and does not fit), or `sweep` (it is the largest
        that was measured).
    """

    workers: int
    best: int
    ratio: float
    low: float
    high: float
    sure: float | None
    drawn: dict[int, float]
    bound_by: str

    def as_dict(self) -> dict[str, Any]:
        """Return the choice as plain data, for facts and JSON."""
        return asdict(self)


def numbers_to_try(rule: int, live: int = 1) -> list[int]:
    """Return growing numbers up to twice the rule's: close together at first, then a third more each time.

    The rule's own and the live number are always among them.
    """
    numbers, number = {rule, live}, 1
    while number < 2 * rule:
        numbers.add(number)
        number = max(number + 1, round(number * 4 / 3))
    return sorted({*numbers, 2 * rule})


def choose(rounds: Mapping[int, Sequence[float]], most: int) -> Choice:
    """Choose from throughputs by number of workers, in the order of the rounds; `most` is what fits in memory.

    The smallest number within 3 % of the best one; where that does not fit, the smallest within 3 % of the best that
    fits; where none fits, the smallest of all. Never more for a smaller `most`.

    Raises ValueError where the numbers were not measured equally often, or one served nothing.
    """
    counts = {len(values) for values in rounds.values()}
    if len(counts) != 1 or 0 in counts or min(min(values) for values in rounds.values()) <= 0:
        raise ValueError("every number of workers has to be measured in every round, and to have served something")
    (count,) = counts
    everything = list(range(count))
    same = paired(rounds)
    shares = _shares(same, everything)
    workers, best = _pick(shares, most), _best(shares)
    randomly = random.Random(0)
    drawn = [_shares(same, [randomly.randrange(count) for _unused in everything]) for _unused in range(DRAWS)]
    ratios = sorted(draw[workers] / draw[best] for draw in drawn)
    picks = Counter(_pick(draw, most) for draw in drawn)
    stays = fmean(draw[workers] >= ENOUGH * max(_fitting(draw, most).values()) for draw in drawn)
    ratio = shares[workers] / shares[best]
    bound_by = "memory" if ratio < ENOUGH else "sweep" if workers == max(rounds) else "throughput"
    return Choice(
        workers, best, round(ratio, 3), round(ratios[DRAWS // 20], 3), round(ratios[-DRAWS // 20], 3),
        stays if count >= FEW_ROUNDS else None,
        {number: picks[number] / DRAWS for number in sorted(picks)}, bound_by,
    )  # fmt: skip


def paired(rounds: Mapping[int, Sequence[float]]) -> dict[int, list[float]]:
    """Return throughputs as if all rounds had been as fast as the median one: what a choice compares."""
    means = [fmean(values) for values in zip(*rounds.values(), strict=True)]
    usual = median(means)
    return {
        number: [value * usual / mean for value, mean in zip(values, means, strict=True)]
        for number, values in rounds.items()
    }


def _shares(rounds: Mapping[int, Sequence[float]], draw: Sequence[int]) -> dict[int, float]:
    """Return each number's throughput: the median over a draw of paired rounds."""
    return {number: median([values[index] for index in draw]) for number, values in rounds.items()}


def _best(shares: Mapping[int, float]) -> int:
    """Return the number with the highest throughput; of equal ones the smallest."""
    return max(sorted(shares), key=lambda number: shares[number])


def _fitting(shares: Mapping[int, float], most: int) -> dict[int, float]:
    """Return what fits in memory; where nothing does, the minimum."""
    least = max(most, min(shares))
    return {number: share for number, share in shares.items() if number <= least}


def _pick(shares: Mapping[int, float], most: int) -> int:
    fitting = _fitting(shares, most)
    aim = shares[_best(shares)]
    if max(fitting.values()) < ENOUGH * aim:
        aim = max(fitting.values())
    return min(number for number, share in fitting.items() if share >= ENOUGH * aim)
