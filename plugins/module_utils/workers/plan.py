"""How many workers a host, a container or this machine should run, and why.

The one place where the number is worked out. Pure: the caller reads the machine (limits.py), this decides.
Python 3.10's standard library, and nothing of this bundle: it is copied to hosts and into the app's image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

#: What `workers` may be set to by hand. Above this a typo is likelier than a host that carries it.
WORKERS_MIN, WORKERS_MAX = 1, 1024
#: What one worker is taken to need where nothing was set or measured, in MiB.
WORKER_MIB, WORKER_MIB_MAX = 100, 1048576


class WorkerPlanError(ValueError):
    """A setting that no plan can be made from; the message names it, its value and what is allowed."""


@dataclass(frozen=True)
class WorkerPlan:
    """The plan for one host, as it is made here, kept on the host and read from there.

    workers: how many to run, at least 1; 0 in the record of a slot that has none.
    bound_by: what decided: `cpu`, `affinity`, `quota`, `memory`, `limit` (service_workers_max) or
        `setting` (service_workers is a number).
    reason: the sum as a sentence.
    inputs: every value that went in, memory in MiB.
    notes: what was found and not counted, as sentences.
    """

    workers: int
    bound_by: str = ""
    reason: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> WorkerPlan:
        """Read a plan that was kept. Raises ValueError, TypeError and KeyError where it has no number of workers."""
        inputs = data.get("inputs")
        return cls(
            workers=int(data["workers"]),
            bound_by=str(data.get("bound_by", "")),
            reason=str(data.get("reason", "")),
            inputs=inputs if isinstance(inputs, dict) else {},
            notes=tuple(map(str, data.get("notes", ()))),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain data, for facts and JSON."""
        return {**asdict(self), "notes": list(self.notes)}

    @property
    def limit_mib(self) -> float:
        """The memory for all workers: the host's, or its control group's, less the reserve; 0 or less: not known."""
        memory = float(self.inputs.get("memory_mib", 0))
        limit = float(self.inputs.get("memory_limit_mib") or memory)
        return min(memory, limit) - float(self.inputs.get("reserve_mib", 0))

    @property
    def measured_mib(self) -> int | None:
        """The measured memory per worker that the plan was made with, None where it was made without."""
        measured = self.inputs.get("measured_mib")
        if isinstance(measured, int) and not isinstance(measured, bool) and 1 <= measured <= WORKER_MIB_MAX:
            return measured
        return None

    @property
    def is_by_rule(self) -> bool:
        """Whether the number follows from CPUs and memory; by hand it is taken as it is."""
        return self.bound_by not in ("", "setting")

    @property
    def vcpus(self) -> int:
        """The host's CPUs."""
        return int(self.inputs.get("vcpus", 1))


def parse_whole(name: str, value: object, low: int, high: int, word: str = "auto") -> int | None:
    """Return a whole number, or None for the word that stands for none.

    Raises WorkerPlanError for anything else; its message has the setting's name.
    """
    text = str(value).strip()
    if word and text == word:
        return None
    # No longer than the largest: Python refuses to read thousands of digits.
    is_whole = text.isascii() and text.isdigit() and not isinstance(value, bool) and len(text) <= len(str(high))
    if is_whole and low <= int(text) <= high:
        return int(text)
    words = f"'{word}' and " if word else ""
    raise WorkerPlanError(f"{name} is {value!r}: allowed are {words}whole numbers from {low} to {high}")


def parse_workers(value: object, name: str = "service_workers") -> int | None:
    """Return the number that `service_workers` asks for, or None for `auto`; WorkerPlanError for anything else."""
    return parse_whole(name, value, WORKERS_MIN, WORKERS_MAX)


def plan_workers(
    *,
    vcpus: int,
    memory_mib: int,
    affinity: int | None = None,
    quota: float | None = None,
    memory_limit_mib: int | None = None,
    measured_mib: int | None = None,
    fresh_mib: int | None = None,
    workers: object = "auto",
    workers_max: int = WORKERS_MAX,
    worker_mib: object = "auto",
    reserve_mib: int = 256,
    sets: int = 2,
    notes: Sequence[str] = (),
) -> WorkerPlan:
    """Plan the workers of one host or container.

    The rule is Gunicorn's starting point, 2 × cores + 1, and then what memory can hold: during a
    release `sets` full sets of workers (the old slot's and the new one's) live side by side, beside
    `reserve_mib` for the system. Never 0; never more for less CPU or less memory.

    Cores are the least of vcpus, affinity and quota. A quota may be a fraction (2.5 CPUs): it counts
    as such, and the result is rounded down. What a worker takes is `worker_mib` where that is a number,
    else what was measured, else 100, and what a fresh one was seen to take where that is more.

    Units: memory in MiB; quota in CPUs; vcpus as `ansible_facts['processor_vcpus']` counts them;
    affinity as `ansible_facts['processor_nproc']` does. None: unknown, or no limit.

    Raises WorkerPlanError for a value that is out of range, and where there is less memory than one worker takes
    (by a number or the default: one that was measured runs already) and no number of workers is asked for.
    """
    inputs: dict[str, Any] = {
        "vcpus": vcpus, "affinity": affinity, "quota": quota,
        "memory_mib": memory_mib, "memory_limit_mib": memory_limit_mib,
        "workers": workers, "workers_max": workers_max,
        "worker_mib": worker_mib, "measured_mib": measured_mib, "fresh_mib": fresh_mib,
        "reserve_mib": reserve_mib, "sets": sets,
    }  # fmt: skip
    for name in ("vcpus", "memory_mib", "memory_limit_mib", "measured_mib", "sets"):
        if inputs[name] is not None and inputs[name] < 1:
            raise WorkerPlanError(f"{name} is {inputs[name]}: allowed are whole numbers from 1")
    if quota is not None and not 0 < quota < math.inf:
        raise WorkerPlanError(f"quota is {quota}: allowed are numbers of CPUs above 0")
    parse_whole("service_workers_max", workers_max, WORKERS_MIN, WORKERS_MAX, word="")
    size = parse_whole("worker_mib", worker_mib, 1, WORKER_MIB_MAX)
    fixed = parse_workers(workers)

    cpu_bound, by_cpu, cpu_sum = _by_cpu(vcpus, affinity, quota)
    each, origin = _each(size, measured_mib, fresh_mib)
    memory = memory_mib if memory_limit_mib is None else min(memory_mib, memory_limit_mib)
    by_memory = workers_by_memory(memory, each, reserve_mib, sets)
    if fixed is None and not origin and fresh_mib is None and memory < each:
        limited = f" by limit, of {memory_mib}" if memory < memory_mib else ""
        raise WorkerPlanError(
            f"memory is {memory} MiB{limited}, less than one worker takes, {each} MiB: allowed are more memory, "
            "a smaller service_worker_memory_mib if it does take less, or a number in service_workers"
        )

    def plan(number: int, bound_by: str, reason: str) -> WorkerPlan:
        return WorkerPlan(number, bound_by, f"{count(number)}{reason}", inputs, tuple(notes))

    if fixed is not None:
        return plan(
            fixed, "setting", f" as set (the rule says {cpu_sum} = {by_cpu}, memory would allow {by_memory}{origin})"
        )
    number = min(by_cpu, by_memory, workers_max)
    if number == by_cpu:
        return plan(number, cpu_bound, f" = {cpu_sum} (memory would allow {by_memory}{origin})")
    if number == by_memory:
        limited = f" by limit, of {memory_mib}," if memory < memory_mib else ""
        room = f": {memory} MiB{limited} less {reserve_mib} for the system"
        of_sets = f"{sets} sets of " if sets > 1 else ""
        if memory - reserve_mib < sets * each:
            held = f" are not enough for {of_sets}even 1 × {each} MiB{origin}, so the minimum"
        else:
            held = f" hold {of_sets}{number} × {each} MiB{origin}"
        return plan(number, "memory", f"{room}{held} ({cpu_sum} would be {by_cpu})")
    more = f"{cpu_sum} would be {by_cpu}, memory would allow {by_memory}{origin}"
    return plan(number, "limit", f", the most that was allowed ({more})")


def _each(size: int | None, measured: int | None, fresh: int | None) -> tuple[int, str]:
    """Return what one worker counts for, in MiB, and how that is known. A fresh one may show that it is more."""
    if size:
        return size, ""
    usual = measured or WORKER_MIB
    return max(usual, fresh or 0), " as measured" if measured or (fresh or 0) > usual else ""


def replan(plan: WorkerPlan, mib: int) -> WorkerPlan:
    """Return the plan for workers of which a fresh one was measured to take so many MiB, by the same rule.

    A number that was set by hand stays. One that does not follow from the plan's inputs, so that somebody has put it
    there or it was cut before, is only ever cut, and only where a worker takes more than it was reckoned with. `inputs`
    stay those of the first plan: by them a second deploy sees that nothing has changed.
    """
    # A plan that was kept by an earlier version may have other inputs.
    known = {name: value for name, value in plan.inputs.items() if name in (plan_workers.__kwdefaults__ or {})}
    if not plan.is_by_rule or not {"vcpus", "memory_mib"} <= plan.inputs.keys():
        return plan
    known |= {"vcpus": plan.inputs["vcpus"], "memory_mib": plan.inputs["memory_mib"], "notes": plan.notes}
    reckoned = plan_workers(**known)
    size = str(known.get("worker_mib", "auto"))
    known |= {"worker_mib": max(int(size), mib) if size.isdigit() else size, "fresh_mib": mib}
    again = plan_workers(**known)
    follows, fewer = reckoned.workers == plan.workers, again.workers < min(plan.workers, reckoned.workers)
    return replace(again, inputs=plan.inputs) if again.workers != plan.workers and (follows or fewer) else plan


def cut_sum(plan: WorkerPlan, mib: int) -> str:
    """Return the sum by which memory does not hold a plan's workers twice, each of so many MiB."""
    number, sets = plan.workers, int(plan.inputs.get("sets", 1))
    of_sets = f", {sets} sets of them {sets * number * mib:,}" if sets > 1 else ""
    reserve = int(plan.inputs.get("reserve_mib", 0))
    there = f"{plan.limit_mib:,.0f} are there ({plan.limit_mib + reserve:,.0f} less {reserve:,} for the system)"
    take = "takes" if number == 1 else "take"
    return f"{count(number)} of {mib:,} MiB {take} {number * mib:,} MiB{of_sets}; {there}"


def workers_by_memory(memory_mib: int, worker_mib: int, reserve_mib: int, sets: int) -> int:
    """Return how many workers memory holds in each of `sets` sets beside the reserve, at least 1. All in MiB."""
    return max(1, (memory_mib - reserve_mib) // (sets * worker_mib))


def workers_by_cpu(vcpus: int, affinity: int | None, quota: float | None) -> int:
    """Return what the rule gives for CPUs alone; see plan_workers."""
    return _by_cpu(vcpus, affinity, quota)[1]


def _by_cpu(vcpus: int, affinity: int | None, quota: float | None) -> tuple[str, int, str]:
    """Return what bounds the CPUs, the workers for them, and the sum as text."""
    whole = vcpus if affinity is None else min(vcpus, affinity)
    usable = whole if quota is None else min(whole, quota)
    number = math.floor(2 * usable) + 1
    if usable < whole:
        rounded = "" if float(2 * usable).is_integer() else ", rounded down"
        return "quota", number, f"2 × {round(usable, 3):g} of {vcpus} vCPU by quota + 1{rounded}"
    if whole < vcpus:
        return "affinity", number, f"2 × {whole} usable of {vcpus} vCPU + 1"
    return "cpu", number, f"2 × {whole} vCPU + 1"


def count(number: int) -> str:
    """Return a number of workers in words."""
    return f"{number} worker" if number == 1 else f"{number} workers"
