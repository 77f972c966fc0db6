#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Before and after measuring numbers of workers: what to try, and what came out."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tune_report
short_description: Say which numbers of workers to try, and which of them to take
description:
  - Runs on the controller, twice. Without I(tuned) it checks what can be checked before a host is asked to measure, and
    returns the numbers to try. With it, it chooses one of them, writes the figures as JSON, PNG and an HTML page, and
    returns the line for the inventory.
  - Drawing needs matplotlib in the Python that runs it.
options:
  app:
    description: Name of the app.
    type: str
    required: true
  host:
    description: Name of the host in the inventory.
    type: str
    required: true
  status:
    description: What C(APP-release status --json) printed.
    type: str
    required: true
  tuned:
    description: The result of C(APP-release tune --json), with its C(rc), C(stdout) and C(stderr).
    type: dict
  settings:
    description:
      - C(workers), numbers to try, worked out from the host where there are none; C(rounds) and C(seconds), how often
        and how long each is measured; C(report), the folder for the files, none are written where that is empty; and
        C(write), the group of the inventory whose variables are to have the number, empty for none.
    type: dict
    required: true
  groups:
    description: The host's groups.
    type: list
    elements: str
    default: []
  inventory:
    description: Folder of the inventory.
    type: path
author:
  - The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: Work out what to try
  webfleet.fastapi.tune_report:
    app: counter
    host: web1
    status: "{{ service_status.stdout }}"
    settings: {workers: [], rounds: 5, seconds: 4, report: "", write: ""}
  delegate_to: localhost
"""

RETURN = r"""
numbers:
  description: Numbers of workers to try.
  returned: without tuned
  type: list
minutes:
  description: How long that takes, about.
  returned: without tuned
  type: float
result:
  description: The choice, all rounds and what they mean.
  returned: with tuned
  type: dict
text:
  description: The table and the sentence.
  returned: with tuned
  type: str
files:
  description: What was written.
  returned: with tuned
  type: list
path:
  description: The group's file that has the number, or should have it.
  returned: with C(write)
  type: str
line:
  description: What it is to say.
  returned: with tuned
  type: str
"""

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.workers import curve
from ..module_utils.workers.choice import Choice, choose, numbers_to_try
from ..module_utils.workers.limits import planned_mib
from ..module_utils.workers.plan import workers_by_cpu, workers_by_memory

#: What a change of the number of workers takes, about, and the load before that which counts, in seconds.
CHANGE_SECONDS = 2.5
#: Above this share of a CPU, the load program itself may be what is measured; below this share of draws, say so.
LOAD_BUSY = 0.9
SURE = 0.8
FILES = ("{group}.yml", "{group}.yaml", "{group}")


class TuneError(Exception):
    """What keeps from measuring, or from a result; the message says what to do."""


def live_status(status: str, app: str, host: str) -> dict[str, Any]:
    """Return what the host says that it runs; TuneError where it runs nothing."""
    try:
        record = json.loads(status)
        record["inputs"] = record["plan"]["inputs"]
    except (ValueError, KeyError, TypeError) as error:
        raise TuneError(f"{app} has no live release on {host} to measure: deploy first. Nothing was changed") from error
    return dict(record)


def tuned(result: Mapping[str, Any], app: str, host: str) -> dict[str, Any]:
    """Return what the host measured; TuneError with its reason where it did not."""
    text, errors = str(result.get("stdout", "")), str(result.get("stderr", ""))
    if "invalid choice: 'tune'" in errors:
        raise TuneError(
            f"the load tool is missing on {host}: its {app}-release is of an earlier version. Nothing was changed. "
            "Deploy once, then measure"
        )
    try:
        outcome = json.loads(text)
    except ValueError:
        outcome = {"error": f"measuring was ended from outside, and the private slot removed: {errors or 'no reason'}"}
    if "error" in outcome:
        log = [f"  | {line}" for line in outcome.get("log", [])]
        raise TuneError("\n".join([f"{host} was not measured: {outcome['error']}", *log]))
    return dict(outcome["tuned"])


def group_file(inventory: Path, group: str) -> Path:
    """Return the file of a group's variables that has the number of workers, or the best one to have it.

    TuneError where it may not be edited as text.
    """
    folder = inventory / "group_vars"
    places = [folder / name.format(group=group) for name in FILES]
    files = [path for path in places if path.is_file()]
    files += sorted(path for place in places if place.is_dir() for path in place.iterdir() if path.is_file())
    readable = [path for path in files if path.suffix in (".yml", ".yaml", "")]
    having = [path for path in readable if re.search(r"(?m)^service_workers\s*:", path.read_text(encoding="utf-8"))]
    single = [path for path in readable if path.parent == folder]
    path = [*having, *single, folder / group / "workers.yml"][0]
    if path.is_file() and path.read_text(encoding="utf-8").startswith("$ANSIBLE_VAULT"):
        raise TuneError(f"{path} is encrypted: move service_workers to a file of its own. Nothing was changed")
    return path


def check(params: Mapping[str, Any]) -> Path | None:
    """Check what the result is to be written to, before anything is measured; return the group's file."""
    if params["settings"]["report"] and not curve.CAN_DRAW:
        raise TuneError(
            "matplotlib is missing in the Python that runs Ansible, and the curve cannot be drawn: install it there "
            "(pip install matplotlib), or set tune_report to an empty text. Nothing was changed"
        )
    group = params["settings"]["write"]
    if not group:
        return None
    if group not in {*params["groups"], "all"}:
        names = ", ".join(sorted({*params["groups"], "all"}))
        raise TuneError(f"tune_write is {group!r}: allowed are groups of {params['host']}: {names}")
    if not params["inventory"] or not Path(params["inventory"]).is_dir():
        raise TuneError(f"tune_write is {group!r}, but the inventory is no folder: {params['inventory']}")
    return group_file(Path(params["inventory"]), group)


def before(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to try and how long it takes."""
    status = live_status(params["status"], params["app"], params["host"])
    path = check(params)
    settings = params["settings"]
    numbers = sorted({int(number) for number in settings["workers"]}) or numbers_to_try(
        rule(status["inputs"]), int(status["planned"])
    )
    seconds = len(numbers) * int(settings["rounds"]) * (float(settings["seconds"]) + CHANGE_SECONDS)
    return {"numbers": numbers, "minutes": round(seconds / 60, 1), "path": str(path or "")}


def rule(inputs: Mapping[str, Any]) -> int:
    """Return what the rule of thumb says for a plan's inputs, by CPUs alone."""
    return workers_by_cpu(inputs["vcpus"], inputs["affinity"], inputs["quota"])


def most(inputs: Mapping[str, Any], worker_mib: float) -> int:
    """Return how many workers a plan would allow at most that take so much each, as it was measured."""
    memory = min(inputs["memory_mib"], inputs["memory_limit_mib"] or inputs["memory_mib"])
    each = inputs["worker_mib"] if isinstance(inputs["worker_mib"], int) else planned_mib(worker_mib)
    return min(workers_by_memory(memory, each, inputs["reserve_mib"], inputs["sets"]), int(inputs["workers_max"]))


def result_of(measured: Mapping[str, Any], host: str, today: str) -> dict[str, Any]:
    """Return all that there is to say of what was measured."""
    inputs, rounds = measured["plan"]["inputs"], measured["rounds"]
    worker = max((entry["worker_mib"] for entry in rounds), default=0.0)
    speed = curve.by_number(rounds, "throughput")
    if not rounds:
        raise TuneError(f"nothing to choose from: {'; '.join(measured['notes']) or 'no number was measured'}")
    allowed = most(inputs, worker)
    choice = choose(speed, allowed)
    load = ", ".join(f"{path} × {weight}" for path, weight in measured["load"])
    return {
        "app": measured["app"], "host": host, "date": today, "headline": _count(choice.workers),
        "sentence": sentence(choice, rule(inputs), allowed),
        "choice": choice.as_dict(), "rule": rule(inputs), "live": int(measured["plan"]["workers"]), "most": allowed,
        "notes": [*measured["notes"], *remarks(choice, rounds)],
        "facts": {
            "host": f"{host}: {inputs['vcpus']} vCPU, {inputs['memory_mib']} MiB, now {measured['plan']['reason']}",
            "release": f"{measured['release']}, in a private slot beside the live one",
            "load": f"{load}; {measured['connections']} requests at a time, a new connection for each, as from nginx",
            "rounds": f"{len(speed[choice.workers])} of {measured['seconds']:g} s for each number, up and down in turn",
            "memory of a worker": f"{worker:.0f} MiB (PSS) at most, {planned_mib(worker)} MiB are planned with",
            "load program": f"on the same host, with {max(e['load_cpu'] for e in rounds):.2f} of a CPU at most; it "
            "stands where nginx would, whose own work is not in the figures",
            "date": today,
        },
        "rounds": rounds,
    }  # fmt: skip


def _count(workers: int) -> str:
    return f"{workers} worker{'s' * (workers > 1)}"


def sentence(choice: Choice, by_rule: int, allowed: int) -> str:
    """Say what to take, why, and how sure that is."""
    what = "the best throughput of all that were tried"
    if choice.workers != choice.best:
        span = f"{choice.ratio:.2f} [{choice.low:.2f}–{choice.high:.2f}]"
        what = f"{span} of the best throughput, which {choice.best} had"
    sure = f"; {100 * choice.sure:.0f} % sure that no other that fits has 3 % more" if choice.sure is not None else ""
    return (
        f"Take {_count(choice.workers)}: {what}{sure}. The rule of thumb says {by_rule}, memory would allow {allowed}."
    )


def remarks(choice: Choice, rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what should be known about a choice."""
    notes = []
    if choice.bound_by == "sweep":
        notes.append(f"{choice.workers} is the largest number that was tried: more may be better (tune_workers)")
    if choice.bound_by == "memory":
        notes.append(f"{choice.best} workers would serve more, but memory does not hold them during a switch")
    if choice.sure is None:
        notes.append("with fewer than 3 rounds, nothing can be said of how sure this is (tune_rounds)")
    elif choice.sure < SURE:
        notes.append("the rounds differ much from each other: measure longer (tune_rounds, tune_seconds)")
    if max(entry["load_cpu"] for entry in rounds) > LOAD_BUSY:
        notes.append("the load program was busy all the time: the highest figures may be its own limit")
    return notes


def after(params: Mapping[str, Any]) -> dict[str, Any]:
    """Choose, write the files, return what is to be shown and written."""
    path = check(params)
    measured = tuned(params["tuned"], params["app"], params["host"])
    today = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    result = result_of(measured, params["host"], today)
    files = curve.write(result, Path(params["settings"]["report"]).expanduser()) if params["settings"]["report"] else []
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
    choice = result["choice"]
    sure = f", {100 * choice['sure']:.0f} % sure" if choice["sure"] is not None else ""
    why = f"tune.yml on {params['host']}, {today}: {choice['ratio']:.2f} of the best ({choice['best']}){sure}"
    return {
        "result": result, "text": curve.as_text(result), "files": files, "path": str(path or ""),
        "line": f"service_workers: {choice['workers']}  # {why}",
    }  # fmt: skip


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "host": {"type": "str", "required": True},
            "status": {"type": "str", "required": True},
            "tuned": {"type": "dict"},
            "settings": {"type": "dict", "required": True},
            "groups": {"type": "list", "elements": "str", "default": []},
            "inventory": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        result = before(module.params) if module.params["tuned"] is None else after(module.params)
    except (TuneError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
