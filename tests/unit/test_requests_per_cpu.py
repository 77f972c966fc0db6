"""The figure of bench/requests_per_cpu.py is the one it says, and unequal sides give none."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from bench.requests_per_cpu import bounded, check, figures


def test_the_ratio_is_the_median_of_neighbours_and_counts_nginx() -> None:
    # The second pair ran while the machine was half as fast: both sides see it, the ratio does not.
    rounds = [
        {
            "plain": {"requests": 1000.0, "app": 1.0 * slow},
            "fleet": {"requests": 1500.0, "app": 0.7 * slow, "nginx": 0.3 * slow},
        }
        for slow in (1, 2, 1)
    ]
    found = figures(rounds)
    assert found["ratio"] == 1.5
    assert found["ratio, quartiles"] == [1.5, 1.5]
    assert found["requests per CPU second"] == {"plain": 1000, "fleet": 1500}
    assert found["CPU microseconds of a request"] == {"plain: app": 1000, "fleet: app": 467, "fleet: nginx": 200}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"workers": {"plain": 5, "fleet": 4}}, "numbers of workers differ"),
        (
            {"versions": {"plain": {"uvicorn": "1", "uvloop": "1"}, "fleet": {"uvicorn": "1", "uvloop": "1"}}},
            "not plain",
        ),
        ({"versions": {"plain": {"uvicorn": "2"}, "fleet": {"uvicorn": "1"}}}, "versions differ"),
    ],
)
def test_sides_that_differ_in_more_than_they_should_are_not_compared(change: dict[str, Any], words: str) -> None:
    same = {
        "workers": {"plain": 5, "fleet": 5},
        "versions": {"plain": {"uvicorn": "1"}, "fleet": {"uvicorn": "1", "uvloop": "1"}},
    }
    said = check({**same, **change})
    assert words in said
    assert bool(said) == bool(words)


@pytest.mark.parametrize("text", ["0", "101", "-1", "1.5", "many", ""])
def test_the_load_is_bounded(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="allowed are whole numbers from 1 to 100"):
        bounded(text, 100)
