"""The worker plan over real instance types, and its promises over all the values there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils.worker_plan import WorkerPlanError, parse_workers, plan_workers

TYPES: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "data" / "ec2-instance-types.yml").read_text()
)
SEEN_SHARES = (0.925, 0.95, 0.98)
cpus = st.integers(1, 512)
memory = st.integers(1, 4_194_304)
worker = st.integers(1, 8192)
reserve = st.integers(0, 8192)


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


@given(cpus=cpus, affinity=st.none() | cpus, mib=memory, worker_mib=worker, reserve_mib=reserve)
def test_never_zero_and_never_over_memory(
    cpus: int, affinity: int | None, mib: int, worker_mib: int, reserve_mib: int
) -> None:
    plan = plan_workers(vcpus=cpus, affinity=affinity, memory_mib=mib, worker_mib=worker_mib, reserve_mib=reserve_mib)
    assert plan.workers >= 1
    assert plan.workers <= 2 * cpus + 1
    assert plan.workers == 1 or reserve_mib + 2 * plan.workers * worker_mib <= mib
    assert plan.reason.startswith(f"{plan.workers} worker")


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


def test_affinity_binds_when_it_is_smaller() -> None:
    plan = plan_workers(vcpus=8, affinity=2, memory_mib=65536)
    assert (plan.workers, plan.bound_by) == (5, "affinity")
    assert "2 usable of 8 vCPU" in plan.reason


def test_the_sentence_shows_the_sum() -> None:
    plan = plan_workers(vcpus=2, memory_mib=8000)
    assert plan.reason == "5 workers = 2 × 2 vCPU + 1 (memory would allow 38)"


@pytest.mark.parametrize("value", [0, -1, "many", 10_000, "", 2.5, True, None, "٣"])
def test_nonsense_is_refused_with_what_is_allowed(value: object) -> None:
    with pytest.raises(WorkerPlanError, match=r"service_workers is .*'auto' and whole numbers from 1 to 1024"):
        parse_workers(value)


@pytest.mark.parametrize("setting", [{"worker_mib": 0}, {"workers_max": 0}, {"vcpus": 0}, {"memory_mib": 0}])
def test_impossible_inputs_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(WorkerPlanError, match=f"{next(iter(setting))} is 0"):
        plan_workers(**{"vcpus": 2, "memory_mib": 4096, **setting})
