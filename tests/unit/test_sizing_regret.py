"""The benchmark of the choice judges no number by the rounds that led to it."""

from __future__ import annotations

from bench.sizing_regret import judge


def rounds(odd: dict[int, float], even: dict[int, float], count: int = 6) -> list[dict[str, float]]:
    return [
        {"round": number + 1, "workers": workers, "throughput": speed}
        for number in range(count)
        for workers, speed in (even if number % 2 else odd).items()
    ]


def test_good_choice_is_good_in_both_halves() -> None:
    speeds = {1: 50.0, 2: 98.0, 3: 100.0, 5: 90.0}
    seen = judge(rounds(speeds, speeds), rule=5, most=9)
    assert (seen["chosen"], seen["chosen from halves"], seen["of best, unseen rounds"]) == (2, [2, 2], 0.98)
    assert seen["rule of best"] == 0.9


def test_choice_that_only_its_own_rounds_like_is_seen_to_be_bad() -> None:
    seen = judge(rounds({1: 100.0, 2: 80.0}, {1: 50.0, 2: 100.0}), rule=2, most=9)
    assert seen["chosen from halves"] == [1, 2]
    assert seen["judged by other halves"] == [0.5, 0.8]
