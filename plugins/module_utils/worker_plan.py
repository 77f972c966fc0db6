"""How many workers a host should run, and why.

The one place where the number is worked out. Pure: the caller reads the host, this decides.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

#: What `workers` may be set to by hand. Above this a typo is likelier than a host that carries it.
WORKERS_MIN, WORKERS_MAX = 1, 1024


class WorkerPlanError(ValueError):
    """A setting that no plan can be made from; the message names it, its value and what is allowed."""


@dataclass(frozen=True)
class WorkerPlan:
    """The plan for one host.

    workers: how many to run, at least 1.
    bound_by: what decided: `cpu`, `affinity`, `memory`, `limit` (service_workers_max) or
        `setting` (service_workers is a number).
    reason: the sum as a sentence.
    inputs: every value that went in, memory in MiB.
    """

    workers: int
    bound_by: str
    reason: str
    inputs: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain data, for facts and JSON."""
        return asdict(self)


def parse_workers(value: object) -> int | None:
    """Return the number that `service_workers` asks for, or None for `auto`.

    Raises WorkerPlanError for anything but `auto` and whole numbers from 1 to 1024.
    """
    text = str(value).strip()
    if text == "auto":
        return None
    if text.isascii() and text.isdigit() and not isinstance(value, bool):
        number = int(text)
        if WORKERS_MIN <= number <= WORKERS_MAX:
            return number
    raise WorkerPlanError(
        f"service_workers is {value!r}: allowed are 'auto' and whole numbers from {WORKERS_MIN} to {WORKERS_MAX}"
    )


def plan_workers(
    *,
    vcpus: int,
    memory_mib: int,
    affinity: int | None = None,
    workers: object = "auto",
    workers_max: int = WORKERS_MAX,
    worker_mib: int = 100,
    reserve_mib: int = 256,
    sets: int = 2,
) -> WorkerPlan:
    """Plan the workers of one host.

    The rule is Gunicorn's starting point, 2 × cores + 1, and then what memory can hold: during a
    release `sets` full sets of workers (the old slot's and the new one's) live side by side, beside
    `reserve_mib` for the system. Never 0; never more for less CPU or less memory.

    Units: memory in MiB; vcpus as `ansible_facts['processor_vcpus']` counts them; affinity as
    `ansible_facts['processor_nproc']` does, None where unknown.

    Raises WorkerPlanError for a value that is out of range.
    """
    inputs: dict[str, Any] = {
        "vcpus": vcpus, "affinity": affinity, "memory_mib": memory_mib, "workers": workers,
        "workers_max": workers_max, "worker_mib": worker_mib, "reserve_mib": reserve_mib, "sets": sets,
    }  # fmt: skip
    for name in ("vcpus", "memory_mib", "worker_mib", "sets"):
        if inputs[name] < 1:
            raise WorkerPlanError(f"{name} is {inputs[name]}: allowed are whole numbers from 1")
    if not WORKERS_MIN <= workers_max <= WORKERS_MAX:
        raise WorkerPlanError(
            f"service_workers_max is {workers_max}: allowed are whole numbers from {WORKERS_MIN} to {WORKERS_MAX}"
        )
    asked = parse_workers(workers)

    cpus = vcpus if affinity is None else max(1, min(vcpus, affinity))
    by_cpu = 2 * cpus + 1
    cpu_sum = f"2 × {cpus} {'vCPU' if cpus == vcpus else f'usable of {vcpus} vCPU'} + 1"
    by_memory = max(1, (memory_mib - reserve_mib) // (sets * worker_mib))

    if asked is not None:
        reason = f"{_count(asked)} as set (the rule says {cpu_sum} = {by_cpu}, memory would allow {by_memory})"
        return WorkerPlan(asked, "setting", reason, inputs)

    number = min(by_cpu, by_memory, workers_max)
    if number == by_cpu:
        bound_by = "cpu" if cpus == vcpus else "affinity"
        reason = f"{_count(number)} = {cpu_sum} (memory would allow {by_memory})"
    elif number == by_memory:
        bound_by = "memory"
        reason = (
            f"{_count(number)}: {memory_mib} MiB less {reserve_mib} for the system hold {sets} sets "
            f"of {number} × {worker_mib} MiB ({cpu_sum} would be {by_cpu})"
        )
        if memory_mib - reserve_mib < sets * worker_mib:
            reason = (
                f"{_count(number)}: {memory_mib} MiB less {reserve_mib} for the system are not enough for "
                f"{sets} sets of even 1 × {worker_mib} MiB, so the least there is ({cpu_sum} would be {by_cpu})"
            )
    else:
        bound_by = "limit"
        reason = f"{_count(number)} = service_workers_max ({cpu_sum} would be {by_cpu}, memory would allow {by_memory})"
    return WorkerPlan(number, bound_by, reason, inputs)


def _count(number: int) -> str:
    return f"{number} worker" if number == 1 else f"{number} workers"
