"""The worker plan over real instance types, and its promises over all the values there are."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from plugins.module_utils.workers.plan import (
    WORKER_MIB_MAX,
    WorkerPlan,
    WorkerPlanError,
    cut_sum,
    parse_whole,
    parse_workers,
    plan_workers,
    replan,
    workers_by_cpu,
)

TYPES: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[2] / "data" / "ec2-instance-types.yml").read_text()
)
SEEN_SHARES = (0.925, 0.95, 0.98)
cpus = st.integers(1, 512)
memory = st.integers(100, 4_194_304)  # from what one worker is taken to need
worker = st.integers(1, 8192)
reserve = st.integers(0, 8192)
quotas = st.integers(1, 6400).map(lambda hundredths: hundredths / 100)


@pytest.mark.parametrize("share", SEEN_SHARES)
@pytest.mark.parametrize("case", TYPES, ids=lambda case: case["type"])
def test_instance_types_follow_the_rule_and_fit(case: dict[str, Any], share: float) -> None:
    seen = int(case["memory_mib"] * share)
    plan = plan_workers(vcpus=case["vcpus"], affinity=case["vcpus"], memory_mib=seen)
    rule = 2 * case["vcpus"] + 1
    room = (seen - 256) // 200
    if room >= rule:
        assert (plan.workers, plan.bound_by) == (rule, "cpu")
    else:
        assert (plan.workers, plan.bound_by) == (max(1, room), "memory")


@pytest.mark.parametrize(
    ("name", "workers", "bound_by"),
    [
        ("t3.nano", 1, "memory"),
        ("t3.micro", 3, "memory"),
        ("t3.small", 5, "cpu"),
        ("t2.micro", 3, "cpu"),
        ("m7g.medium", 3, "cpu"),
        ("m7i.24xlarge", 193, "cpu"),
    ],
)
def test_known_types_by_hand(name: str, workers: int, bound_by: str) -> None:
    case = next(case for case in TYPES if case["type"] == name)
    plan = plan_workers(vcpus=case["vcpus"], memory_mib=int(case["memory_mib"] * 0.95))
    assert (plan.workers, plan.bound_by) == (workers, bound_by)


@given(
    cpus=cpus,
    affinity=st.none() | cpus,
    quota=st.none() | quotas,
    mib=memory,
    limit=st.none() | memory,
    size=worker,
    measured=st.booleans(),
    reserve_mib=reserve,
    sets=st.integers(1, 2),
)
def test_never_zero_and_never_over_memory_or_cpu(
    cpus: int,
    affinity: int | None,
    quota: float | None,
    mib: int,
    limit: int | None,
    size: int,
    measured: bool,
    reserve_mib: int,
    sets: int,
) -> None:
    assume(measured or size <= min(mib, limit or mib))
    plan = plan_workers(
        vcpus=cpus,
        affinity=affinity,
        quota=quota,
        memory_mib=mib,
        memory_limit_mib=limit,
        worker_mib="auto" if measured else size,
        measured_mib=size if measured else None,
        reserve_mib=reserve_mib,
        sets=sets,
    )
    assert plan.workers >= 1
    assert plan.workers <= 2 * min(cpus, affinity or cpus, quota or cpus) + 1
    assert plan.workers == 1 or reserve_mib + sets * plan.workers * size <= min(mib, limit or mib)
    assert plan.reason.startswith(f"{plan.workers} worker")
    assert plan.inputs["quota"] == quota


@given(cpus=cpus, more=st.integers(0, 64), mib=memory, extra=st.integers(0, 65536))
def test_more_cpu_or_memory_never_means_fewer_workers(cpus: int, more: int, mib: int, extra: int) -> None:
    before = plan_workers(vcpus=cpus, memory_mib=mib).workers
    assert plan_workers(vcpus=cpus + more, memory_mib=mib).workers >= before
    assert plan_workers(vcpus=cpus, memory_mib=mib + extra).workers >= before


@given(cpus=cpus, mib=memory, limit=st.integers(1, 1024))
def test_the_limit_is_never_exceeded(cpus: int, mib: int, limit: int) -> None:
    plan = plan_workers(vcpus=cpus, memory_mib=mib, workers_max=limit)
    assert plan.workers <= limit
    if plan.bound_by == "limit":
        assert plan.workers == limit


@given(cpus=cpus, mib=memory, number=st.integers(1, 1024))
def test_a_number_overrides_and_the_reason_still_tells_the_rule(cpus: int, mib: int, number: int) -> None:
    plan = plan_workers(vcpus=cpus, memory_mib=mib, workers=number)
    assert (plan.workers, plan.bound_by) == (number, "setting")
    assert f"= {2 * cpus + 1}" in plan.reason


@given(cpus=cpus, quota=quotas, more=quotas, mib=memory, limit=memory, extra=st.integers(0, 65536))
def test_a_larger_quota_or_limit_never_means_fewer_workers(
    cpus: int, quota: float, more: float, mib: int, limit: int, extra: int
) -> None:
    def planned(**given: Any) -> int:
        return plan_workers(
            **{"vcpus": cpus, "memory_mib": mib, "quota": quota, "memory_limit_mib": limit, **given}
        ).workers

    before = planned()
    assert planned(quota=quota + more) >= before
    assert planned(quota=None) >= before
    assert planned(memory_limit_mib=limit + extra) >= before
    assert planned(memory_limit_mib=None) >= before
    assert planned(affinity=1) <= before


@pytest.mark.parametrize(
    ("quota", "workers", "words"),
    [
        (0.001, 1, "2 × 0.001 of 8 vCPU by quota + 1, rounded down"),
        (0.25, 1, "2 × 0.25 of 8 vCPU by quota + 1, rounded down"),
        (0.5, 2, "2 × 0.5 of 8 vCPU by quota + 1 (memory"),
        (1.0, 3, "2 × 1 of 8 vCPU by quota + 1 (memory"),
        (1.5, 4, "2 × 1.5 of 8 vCPU by quota + 1 (memory"),
        (1.75, 4, "2 × 1.75 of 8 vCPU by quota + 1, rounded down"),
        (2.5, 6, "2 × 2.5 of 8 vCPU by quota + 1 (memory"),
        (7.99, 16, "2 × 7.99 of 8 vCPU by quota + 1, rounded down"),
    ],
)
def test_a_quota_counts_with_its_fraction_and_is_explained(quota: float, workers: int, words: str) -> None:
    plan = plan_workers(vcpus=8, memory_mib=65536, quota=quota)
    assert (plan.workers, plan.bound_by) == (workers, "quota")
    assert words in plan.reason


@pytest.mark.parametrize("quota", [8.0, 16.0])
def test_a_quota_that_leaves_all_cpus_binds_nothing(quota: float) -> None:
    plan = plan_workers(vcpus=8, memory_mib=65536, quota=quota)
    assert (plan.workers, plan.bound_by) == (17, "cpu")


def test_the_tighter_one_of_affinity_and_quota_counts() -> None:
    plan = plan_workers(vcpus=8, affinity=4, memory_mib=65536, quota=3)
    assert (plan.workers, plan.bound_by) == (7, "quota")
    plan = plan_workers(vcpus=8, affinity=2, memory_mib=65536, quota=3)
    assert (plan.workers, plan.bound_by) == (5, "affinity")


def test_a_limit_of_memory_binds_and_both_figures_are_told() -> None:
    plan = plan_workers(vcpus=8, memory_mib=65536, memory_limit_mib=1024)
    assert (plan.workers, plan.bound_by) == (3, "memory")
    assert plan.reason == (
        "3 workers: 1024 MiB by limit, of 65536, less 256 for the system hold 2 sets of 3 × 100 MiB "
        "(2 × 8 vCPU + 1 would be 17)"
    )
    assert plan_workers(vcpus=1, memory_mib=1024, memory_limit_mib=65536).inputs["memory_limit_mib"] == 65536


def test_a_container_has_one_set_of_workers() -> None:
    plan = plan_workers(vcpus=8, memory_mib=65536, memory_limit_mib=512, reserve_mib=64, sets=1)
    assert plan.workers == 4
    assert "hold 4 × 100 MiB (" in plan.reason


def test_memory_for_one_worker_but_not_for_the_reserve_gives_one_and_says_so() -> None:
    plan = plan_workers(vcpus=8, memory_mib=65536, memory_limit_mib=128, reserve_mib=64, sets=1)
    assert (plan.workers, plan.bound_by) == (1, "memory")
    assert "are not enough for even 1 × 100 MiB, so the minimum" in plan.reason


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"memory_limit_mib": 99}, "memory is 99 MiB by limit, of 65536, less than one worker takes, 100 MiB: allowed"),
        ({"memory_mib": 64}, "memory is 64 MiB, less than one worker takes, 100 MiB: allowed are more memory, "),
        ({"memory_mib": 486, "worker_mib": 500}, "service_worker_memory_mib if it does take less, or a number in serv"),
        ({"memory_mib": 486, "worker_mib": 500, "measured_mib": 50}, "less than one worker takes, 500 MiB"),
    ],
)
def test_memory_for_less_than_one_worker_is_refused_with_what_helps(given: dict[str, Any], words: str) -> None:
    with pytest.raises(WorkerPlanError, match=re.escape(words)):
        plan_workers(**{"vcpus": 8, "memory_mib": 65536, **given})
    assert plan_workers(**{"vcpus": 8, "memory_mib": 65536, **given}, workers=2).workers == 2, "a number is taken"


def test_workers_that_were_measured_run_already_whatever_room_they_are_given() -> None:
    assert plan_workers(vcpus=2, memory_mib=486, measured_mib=500).workers == 1


@pytest.mark.parametrize(
    ("given", "workers", "words"),
    [
        ({}, 3, "3 × 100 MiB ("),
        ({"measured_mib": 50}, 7, "7 × 50 MiB as measured ("),
        ({"measured_mib": 300}, 1, "1 × 300 MiB as measured ("),
        ({"measured_mib": 50, "worker_mib": 200}, 1, "1 × 200 MiB ("),
        ({"measured_mib": 50, "worker_mib": "200"}, 1, "1 × 200 MiB ("),
    ],
)
def test_what_was_measured_counts_unless_a_number_was_set(given: dict[str, Any], workers: int, words: str) -> None:
    plan = plan_workers(**{"vcpus": 4, "memory_mib": 972, **given})
    assert (plan.workers, plan.bound_by) == (workers, "memory")
    assert words in plan.reason


def test_notes_are_kept_in_the_plan() -> None:
    assert plan_workers(vcpus=1, memory_mib=972, notes=("this was ignored",)).as_dict()["notes"] == ["this was ignored"]


def test_affinity_binds_when_it_is_smaller() -> None:
    plan = plan_workers(vcpus=8, affinity=2, memory_mib=65536)
    assert (plan.workers, plan.bound_by) == (5, "affinity")
    assert "2 usable of 8 vCPU" in plan.reason


def test_the_sentence_shows_the_sum() -> None:
    plan = plan_workers(vcpus=2, memory_mib=8000)
    assert plan.reason == "5 workers = 2 × 2 vCPU + 1 (memory would allow 38)"


def test_the_sentence_has_one_worker_and_two_workers() -> None:
    assert plan_workers(vcpus=8, memory_mib=65536, workers=1).reason.startswith("1 worker as set (")
    assert plan_workers(vcpus=8, memory_mib=65536, workers=2).reason.startswith("2 workers as set (")
    assert plan_workers(vcpus=1, memory_mib=8000, workers_max=1).reason == (
        "1 worker, the most that was allowed (2 × 1 vCPU + 1 would be 3, memory would allow 38)"
    )


@pytest.mark.parametrize(
    ("mib", "words"),
    [
        (656, "2 workers: 656 MiB less 256 for the system hold 2 sets of 2 × 100 MiB (2 × 4 vCPU + 1 would be 9)"),
        (456, "1 worker: 456 MiB less 256 for the system hold 2 sets of 1 × 100 MiB (2 × 4 vCPU + 1 would be 9)"),
        (455, "455 MiB less 256 for the system are not enough for 2 sets of even 1 × 100 MiB, so the minimum ("),
        (100, "100 MiB less 256 for the system are not enough"),
    ],
)
def test_the_sentence_says_what_memory_holds_to_the_last_mebibyte(mib: int, words: str) -> None:
    plan = plan_workers(vcpus=4, memory_mib=mib)
    assert plan.bound_by == "memory"
    assert words in plan.reason


@pytest.mark.parametrize("value", [1, "1", " 1024\n", 1024, "0005"])
def test_whole_numbers_of_the_range_are_taken_as_yaml_and_the_command_line_write_them(value: object) -> None:
    assert parse_workers(value) == int(str(value))
    assert parse_workers("auto") is None


@pytest.mark.parametrize("value", [1025, "00000010249", "9" * 5000, "auto", ""])
def test_a_number_without_a_word_for_none_has_to_be_a_number(value: object) -> None:
    with pytest.raises(WorkerPlanError, match=r"service_workers_max is .*: allowed are whole numbers from 1 to 1024"):
        plan_workers(vcpus=1, memory_mib=972, workers_max=value)  # type: ignore[arg-type]
    with pytest.raises(WorkerPlanError, match="allowed are 'none' and whole"):
        parse_whole("x", value, 1, 1024, word="none")


def test_a_worker_may_take_up_to_a_tebibyte() -> None:
    assert plan_workers(vcpus=1, memory_mib=2 << 20, worker_mib=1 << 20).workers == 1
    with pytest.raises(WorkerPlanError, match=r"worker_mib is 1048577: allowed are 'auto' and .* from 1 to 1048576"):
        plan_workers(vcpus=1, memory_mib=2 << 20, worker_mib=(1 << 20) + 1)
    assert plan_workers(vcpus=1, memory_mib=972, worker_mib=1).workers == 3


@pytest.mark.parametrize("value", [0, -1, "many", 10_000, "", 2.5, True, None, "٣"])
def test_nonsense_is_refused_with_what_is_allowed(value: object) -> None:
    with pytest.raises(WorkerPlanError, match=r"service_workers is .*'auto' and whole numbers from 1 to 1024"):
        parse_workers(value)


@pytest.mark.parametrize(
    "setting",
    [
        {"worker_mib": 0},
        {"workers_max": 0},
        {"vcpus": 0},
        {"memory_mib": 0},
        {"quota": 0},
        {"memory_limit_mib": 0},
        {"measured_mib": 0},
        {"sets": 0},
        {"quota": math.inf},
    ],
)
def test_impossible_inputs_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(WorkerPlanError, match="{} is {}: allowed are".format(*next(iter(setting.items())))):
        plan_workers(**{"vcpus": 2, "memory_mib": 4096, **setting})


def test_a_plan_remembers_what_was_measured_even_where_a_number_was_set() -> None:
    plan = plan_workers(vcpus=1, memory_mib=972, measured_mib=125, worker_mib=300)
    assert WorkerPlan.parse(plan.as_dict()).measured_mib == 125


def test_least_inputs_are_taken() -> None:
    plan = plan_workers(
        vcpus=1, memory_mib=1, memory_limit_mib=1, measured_mib=1, affinity=1, quota=0.01, reserve_mib=0, sets=1
    )
    assert (plan.workers, plan.bound_by) == (1, "quota")


@pytest.mark.parametrize(
    ("vcpus", "affinity", "quota", "workers"), [(4, None, None, 9), (4, 2, None, 5), (4, 1, None, 3), (4, 2, 1.5, 4)]
)
def test_cpus_alone_give_what_the_rule_says(vcpus: int, affinity: int | None, quota: float, workers: int) -> None:
    assert workers_by_cpu(vcpus, affinity, quota) == workers


# --- a plan that was kept -------------------------------------------------------------------------


def test_a_plan_is_read_as_it_was_kept() -> None:
    plan = plan_workers(vcpus=2, memory_mib=972, notes=("one", "two"))
    assert WorkerPlan.parse(plan.as_dict()) == plan
    assert WorkerPlan.parse({"workers": "3", "inputs": None}) == WorkerPlan(3)
    with pytest.raises(KeyError):
        WorkerPlan.parse({})


@pytest.mark.parametrize(
    ("inputs", "limit", "vcpus"),
    [
        ({}, 0, 1),
        ({"memory_mib": 1000, "vcpus": 8}, 1000, 8),
        ({"memory_mib": 1000, "memory_limit_mib": None, "reserve_mib": 256}, 744, 1),
        ({"memory_mib": 1000, "memory_limit_mib": 500, "reserve_mib": 256}, 244, 1),
        ({"memory_mib": 1000, "memory_limit_mib": 5000}, 1000, 1),
    ],
)
def test_the_memory_for_all_workers_is_what_the_plan_counted(inputs: dict[str, Any], limit: float, vcpus: int) -> None:
    plan = WorkerPlan(1, inputs=inputs)
    assert (plan.limit_mib, plan.vcpus) == (limit, vcpus)


@pytest.mark.parametrize(
    ("kept", "measured"),
    [
        (1, 1),
        (WORKER_MIB_MAX, 1 << 20),
        (0, None),
        (-1, None),
        ((1 << 20) + 1, None),
        (True, None),
        ("125", None),
        (1.5, None),
        (None, None),
    ],
)
def test_what_was_measured_counts_again_only_where_it_can_have_been(kept: object, measured: int | None) -> None:
    assert WorkerPlan(1, inputs={"measured_mib": kept}).measured_mib == measured


@given(
    cpus=st.integers(1, 64), mib=st.integers(200, 65536), size=st.integers(1, 4000), more=st.integers(0, 2000),
    before=st.none() | st.integers(1, 4000),
)  # fmt: skip
def test_larger_workers_are_never_more_and_as_many_as_the_next_plan_has(
    cpus: int, mib: int, size: int, more: int, before: int | None
) -> None:
    plan = plan_workers(vcpus=cpus, memory_mib=mib, fresh_mib=before)
    seen = replan(plan, size)
    assert 1 <= replan(plan, size + more).workers <= seen.workers <= plan_workers(vcpus=cpus, memory_mib=mib).workers
    assert seen.inputs == plan.inputs, "by those a second deploy plans as before"
    assert seen.workers == plan_workers(vcpus=cpus, memory_mib=mib, fresh_mib=size).workers


def test_size_that_was_set_counts_until_workers_are_seen_to_take_more() -> None:
    plan = plan_workers(vcpus=2, memory_mib=2048, worker_mib=300)
    assert (plan.workers, replan(plan, 40).workers, replan(plan, 800).workers) == (2, 2, 1)
    assert replan(plan, 40) is plan


def test_plan_that_an_earlier_version_kept_is_planned_anew_as_far_as_it_says_from_what() -> None:
    old = {"vcpus": 2, "memory_mib": 2048, "measured": 7, "reserve_mib": 256}
    assert replan(WorkerPlan(5, "cpu", inputs=old), 400).workers == 2
    assert replan(WorkerPlan(5, "cpu", inputs={"memory_mib": 2048}), 400).workers == 5


@pytest.mark.parametrize(
    ("number", "mib", "workers"),
    [(1, 40, 1), (8, 40, 8), (8, 100, 8), (8, 400, 2), (1, 400, 1), (2, 400, 2), (2, 900, 1)],
)
def test_number_that_does_not_follow_from_the_inputs_stays_until_memory_forces_less(
    number: int, mib: int, workers: int
) -> None:
    inputs = plan_workers(vcpus=2, memory_mib=2048).inputs
    plan = WorkerPlan(number, "cpu", inputs=inputs)
    assert replan(plan, mib).workers == workers
    assert (replan(plan, mib) is plan) == (number == workers)


def test_sum_by_which_a_plan_does_not_fit_names_what_there_is() -> None:
    plan = plan_workers(vcpus=2, memory_mib=2048)
    assert cut_sum(plan, 400).endswith("2 sets of them 4,000; 1,792 are there (2,048 less 256 for the system)")
    limited = plan_workers(vcpus=2, memory_mib=4096, memory_limit_mib=1000, sets=1, workers=1)
    assert cut_sum(limited, 800) == "1 worker of 800 MiB takes 800 MiB; 744 are there (1,000 less 256 for the system)"
    assert replan(limited, 800) is limited, "a number that was set stays"


def test_worker_that_takes_more_than_all_memory_once_measured_is_the_least_there_can_be() -> None:
    """It runs: a refusal, as for a setting, would come too late, and say what is not so."""
    plan = plan_workers(vcpus=2, memory_mib=4000, memory_limit_mib=900, worker_mib="100", reserve_mib=0)
    assert plan.workers > 1
    measured = replan(plan, 1200)
    assert (measured.workers, measured.bound_by) == (1, "memory")
    assert "not enough for 2 sets of even 1 × 1200 MiB" in measured.reason
