# SPDX-License-Identifier: Apache-2.0
"""Decide how a rollout goes on, from what each host has said so far in this run.

The playbooks call it after each stage, for one host only; no host is asked. In between, hosts that fail stay in the
play: what happened to them is data, as Ansible would leave out the rest of the run, the way back included, once all
hosts of a batch have failed. It returns the fact `rollout`:

    hosts, release, by      all hosts of the run; what they are to run; who asks
    migrate, switch         on which host the migration runs; which hosts switch, in which
    batches                 batches
    lost, restore           whose connection broke during the switch; which hosts are to go back
    failed, stop            why each host counts as failed; why the rollout goes no further, "" where it does
    rows, notes             for each host what it ran, what it runs now and what happened; what else is to be known

With `fail`, the call fails for the hosts that failed, and names each reason once.

The first call of a playbook names the hosts and the settings, and `back_to` where the hosts are to go back; a later
one knows them from the fact.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ..module_utils.host.log_excerpt import of_output
from ..plugin_utils import sudo
from ..plugin_utils.caller import caller

UNKNOWN, NONE = "unknown", "none"
FEW = 4  # hosts: after the canary all others at once
WIDTH = 400  # characters of a reason in the table
#: Results of the hosts' tasks, by the variable that keeps them.
RESULTS = (
    "service_probe", "service_files", "release_id", "fleet_failure", "service_run", "service_switch",
    "service_status", "service_restore", "aws_fleet_target", "release_label",
)  # fmt: skip

Result = Mapping[str, Any]


class CannotGoBackError(Exception):
    """Why the hosts cannot go back together, a line each."""


def short(text: object) -> str:
    """Return the first line of a text, not too long for a table."""
    line = next(iter(str(text).strip().splitlines()), "no reason given").removeprefix("Task failed: ")
    return line if len(line) <= WIDTH else f"{line[:WIDTH]} …"


def answer(result: Result) -> dict[str, Any]:
    """Return what the host's command said, an empty object where it said nothing of the kind."""
    try:
        output = json.loads(result.get("stdout") or "{}")
    except ValueError:
        return {}
    return output if isinstance(output, dict) else {}


def done(result: Result) -> bool:
    """Return whether the host's command was called and succeeded."""
    return result.get("rc") == 0 and not result.get("unreachable")


def failed(result: Result) -> bool:
    """Return whether the host's command was called and did not succeed, as far as is known."""
    return bool(result) and not result.get("skipped") and not done(result)


def not_reached(message: str) -> str:
    """Say why a host could not be asked. Ansible calls a host unreachable, too, on which sudo wants a password."""
    return sudo.refusal(message) or f"not reached: {short(message)}"


def unfit(results: Mapping[str, Mapping[str, Result]]) -> str:
    """Say which hosts cannot take the app, as their probes told above; "" where all can."""
    probes = {name: tasks.get("service_probe", {}) for name, tasks in results.items()}
    names = [name for name, probe in probes.items() if probe.get("failed")]
    if not names:
        return ""
    texts = {name: "\n".join(str(probes[name].get(key) or "") for key in ("msg", "module_stderr")) for name in names}
    refused = [f"{name}: {why}." for name, text in texts.items() if (why := sudo.refusal(text))]
    msg = f"{', '.join(names)} cannot take the app, for the reasons above. Nothing was changed on any host."
    return "\n".join([msg, *refused])


def _exit(result: Result) -> str:
    """Return how a command of the app's ended, with the last exception that it printed."""
    printed = of_output(f"{result.get('stdout') or ''}\n{result.get('stderr') or ''}")
    return f"exit code {result.get('rc')}{printed.cause and f': {short(printed.cause)}'}"


def reason(result: Result) -> str:
    """Return why a call of the host's command failed."""
    texts = [answer(result).get("error"), result.get("stderr"), result.get("msg"), f"exit code {result.get('rc')}"]
    return short(next(text for text in texts if text))


@dataclass(frozen=True)
class Settings:
    """The rollout's own settings."""

    batches: Sequence[int | str] = ()
    max_failures: int = 0
    restore: bool = True
    migrate: bool = False
    check: bool = False

    @classmethod
    def of(cls, args: Result, check: bool) -> Settings:
        """Return the settings as a task gives them, in which a number may be a text."""
        return cls(
            list(args.get("batches") or ()),
            int(args.get("max_failures", 0)),
            boolean(args.get("restore", True)),
            bool(args.get("migrate")),
            check,
        )


@dataclass(frozen=True)
class Host:
    """One host: what it has said in this run, and what follows from that."""

    name: str
    results: Result
    release: str
    dropped: bool = False

    def result(self, name: str) -> Result:
        """Return what a task kept, nothing where it has not run."""
        value = self.results.get(name)
        return value if isinstance(value, Mapping) else {}

    @property
    def _probe(self) -> Result:
        facts = self.result("service_probe").get("ansible_facts", {}).get("app_probe", {})
        return facts if isinstance(facts, Mapping) else {}

    @property
    def before(self) -> Result:
        """The record of what was live when the run began."""
        return self._probe.get("live") or {}

    def named(self, release: str) -> str:
        """Return a release's id, and what people call it, as the host or this run's build says."""
        labels = {str(entry.get("id")): entry.get("label") for entry in self._probe.get("releases") or ()}
        labels |= {self.release: self.results.get("release_label") or labels.get(self.release)}
        return f"{release} {labels.get(release) or ''}".rstrip() if labels.get(release) != release else release

    @property
    def unreached(self) -> bool:
        """Whether the host could not be asked at all."""
        return bool(self.result("service_probe").get("unreachable"))

    @property
    def lost(self) -> bool:
        """Whether the connection broke while the host switched."""
        return bool(self.result("service_switch").get("unreachable"))

    @property
    def live_again(self) -> Result:
        """The record of what is live on a host that was lost, once it could be asked again and was done."""
        status = answer(self.result("service_status"))
        return {} if status.get("lock") else status.get("live") or {}

    @property
    def switched(self) -> bool:
        """Whether the host has switched in this run, as it said itself."""
        again = self.live_again
        finished = again.get("release") == self.release and again.get("at") != self.before.get("at")
        return done(self.result("service_switch")) or (self.lost and finished)

    @property
    def wants(self) -> bool:
        """Whether the host did not serve as it should when the run began, as it said itself."""
        return bool(self.release and self.result("service_files").get("needs_switch"))

    @property
    def altered(self) -> str:
        """In what way the live slot was not as the last switch had made it, "" where it was."""
        return str(self._probe.get("altered") or "")

    @property
    def now(self) -> str:
        """The release that is live, by what the host said last."""
        back, switch = self.result("service_restore"), self.result("service_switch")
        if self.unreached or back.get("unreachable") or (self.lost and not self.live_again):
            return UNKNOWN
        after = answer(back) or answer(switch)
        if not self.live_again and after.get("serving") and not after["serving"].get("answers"):
            return NONE
        records = (answer(back).get("live"), self.live_again, answer(switch).get("live"), self.before)
        return str(next((live["release"] for live in records if live), NONE))

    @property
    def failure(self) -> str:
        """Why the host counts as failed, "" where it does not."""
        return next(self._troubles(), "")

    def _troubles(self) -> Iterator[str]:
        switch, back, migration = (self.result(f"service_{verb}") for verb in ("switch", "restore", "run"))
        if self.unreached:
            yield not_reached(str(self.result("service_probe").get("msg", "")))
        if self.dropped:
            yield "lost while it was prepared; nothing was switched on it"
        if self.results.get("fleet_failure"):
            yield f"not prepared: {short(self.results['fleet_failure'])}"
        if failed(migration):
            how = reason(migration) if migration.get("unreachable") else _exit(migration)
            yield f"the migration failed: {how}"
        if failed(back):
            yield f"not taken back: {reason(back)}"
        if self.lost:
            ending = f"it runs {self.now}" if self.live_again else "it finishes the switch or goes back by itself"
            yield f"the connection was lost during the switch; {ending}"
        if self.result("aws_fleet_target").get("failed"):
            yield f"not back in the load balancer: {short(self.result('aws_fleet_target').get('msg', ''))}"
        if refusal := self.result("service_files").get("refusal"):
            yield f"would be refused: {short(refusal)}"
        if failed(switch):
            yield f"{answer(switch).get('outcome', 'failed')}: {reason(switch)}"

    def repair(self, settings: Settings, stop: str) -> str:
        """Say what a switch does about a slot that is not as it should be; "" where none was done or will be."""
        if self.switched:
            return "; a switch repaired it"
        if self.failure or stop:
            return ""
        return "; a switch would repair it" if settings.check else "; a switch is to repair it"

    def what(self, settings: Settings, stop: str) -> str:
        """Say what happened to the host."""
        if done(self.result("service_restore")):
            return f"{self.failure or 'switched'}; taken back, as the rollout stopped"
        if self.failure:
            return self.failure
        if self.switched:
            nothing = settings.restore and not self.before
            stays = "as nothing was live before" if nothing else "as fleet_restore is false"
            return f"switched; stays, {stays}" if stop and (nothing or not settings.restore) else "switched"
        if stop or not self.wants:
            return "not touched, as the rollout stopped" if stop else "already up to date"
        return "would switch" if settings.check else "to be switched"


def decide(names: Sequence[str], dropped: Sequence[str], settings: Settings, results: Mapping[str, Result]) -> Result:
    """Return what is to be done next, and how things stand. `dropped`: hosts that Ansible has lost."""
    release = next((str(results[name]["release_id"]) for name in names if results[name].get("release_id")), "")
    hosts = [Host(name, results[name], release, name in dropped) for name in names]
    bad = {host.name: host.failure for host in hosts if host.failure}
    stops = [f"the migration failed on {host.name}" for host in hosts if failed(host.result("service_run"))]
    if len(bad) > settings.max_failures:
        stops.append(f"{len(bad)} of {len(hosts)} hosts failed, and fleet_max_failures is {settings.max_failures}")
    stop = stops[0] if stops else ""
    fit = [host for host in hosts if host.wants and not host.failure and not stop]
    switch = [] if settings.check else [host.name for host in fit]
    new = [host.name for host in fit if host.before.get("release") != release]
    notes = [
        f"{host.name}: {note}" for host in hosts for note in answer(host.result("service_switch")).get("notes", [])
    ]
    notes += [
        f"{host.name}: {host.altered}{host.repair(settings, stop)}" for host in hosts if host.wants and host.altered
    ]
    if settings.check and settings.migrate and new:
        notes.append(f"the migration would run once, on {new[0]}, before any host switches")
    return {
        "release": release,
        "label": next((host.named(release) for host in hosts if release), ""),
        "migrate": new[:1] if settings.migrate and switch else [],
        "switch": switch,
        "batches": settings.batches or ([1, "100%"] if len(switch) <= FEW else [1, "25%", "100%"]),
        "lost": [host.name for host in hosts if host.lost and not host.result("service_status")],
        "restore": [
            host.name
            for host in hosts
            if stop and settings.restore and host.switched and host.before and not host.result("service_restore")
        ],
        "failed": bad,
        "stop": stop,
        "notes": notes,
        "rows": [
            {
                "host": host.name,
                "was": UNKNOWN if host.unreached else str(host.before.get("release", NONE)),
                "now": host.now,
                "was_named": host.named(UNKNOWN if host.unreached else str(host.before.get("release", NONE))),
                "now_named": host.named(host.now),
                "what": host.what(settings, stop),
            }
            for host in hosts
        ],
    }


def failure(state: Result) -> dict[str, Any]:
    """Return the result that ends a run in which hosts failed: each reason once, with the hosts that it is of."""
    why: dict[str, list[str]] = {}
    for name, told in state["failed"].items():
        why.setdefault(told, []).append(name)
    return {
        "failed": True,
        "msg": f"{len(state['failed'])} of {len(state['hosts'])} hosts failed",
        "why": [f"{', '.join(hosts)}: {told}" for told, hosts in why.items()],
    }


def go_back(release: str, statuses: Mapping[str, Result]) -> str:
    """Return the release that all hosts can go back to. Hosts that cannot be reached keep no others from it."""
    answers = {name: answer(status) for name, status in statuses.items() if not status.get("unreachable")}
    wrong = [f"{name}: {reason(statuses[name])}" for name, output in answers.items() if "releases" not in output]
    targets: dict[str, str] = {}
    for name, output in answers.items():
        releases = {entry["id"]: entry.get("bad") for entry in output.get("releases", [])}
        if not releases and "releases" not in output:
            continue
        target = release or output.get("rollback_to")
        if not target:
            wrong.append(f"{name}: there is nothing to go back to: {output.get('no_rollback')}")
        elif target not in releases:
            wrong.append(f"{name}: release {target} is not on this host; there are: {', '.join(releases) or 'none'}")
        elif releases[target]:
            wrong.append(f"{name}: release {target} is marked bad: {releases[target]}")
        else:
            targets[name] = target
    if not wrong and len(set(targets.values())) > 1:
        wrong = ["The hosts would go back to different releases; choose one with rollback_to."]
        wrong += [f"{name}: {target}" for name, target in targets.items()]
    if wrong:
        raise CannotGoBackError("\n".join(["Nothing was changed on any host.", *wrong]))
    return next(iter(targets.values()), "")


def as_if_probed(target: str, results: Mapping[str, Result]) -> dict[str, Result]:
    """Return what hosts said that were asked for their status, as if it had been a deploy's."""
    probed: dict[str, Result] = {}
    for name, tasks in results.items():
        status = tasks.get("service_status", {})
        live = answer(status).get("live") or {}
        probe = {
            "unreachable": status.get("unreachable"), "msg": status.get("msg"),
            "ansible_facts": {"app_probe": {"live": live, "releases": answer(status).get("releases", [])}},
        }  # fmt: skip
        probed[name] = {
            "service_probe": probe, "service_files": {"needs_switch": live.get("release") != target},
            "release_id": target, "service_switch": tasks.get("service_switch", {}),
        }  # fmt: skip
    return probed


class ActionModule(ActionBase):  # type: ignore[misc]
    """Read what the hosts have said; ask none."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task, once for all hosts."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        hostvars = (task_vars or {})["hostvars"]
        args: Result = self._task.args
        begun: dict[str, Any] = (
            self._begin(args) if "hosts" in args else hostvars["localhost"]["ansible_facts"]["rollout"]
        )
        if args.get("fail"):
            return result | failure(begun)
        names: list[str] = begun["hosts"]
        results: Mapping[str, Result] = {
            name: {key: hostvars[name][key] for key in RESULTS if key in hostvars[name]} for name in names
        }
        if begun["back"]:
            try:
                statuses = {name: results[name].get("service_status", {}) for name in names}
                target = begun.get("release") or go_back(str(args.get("back_to") or ""), statuses)
            except CannotGoBackError as error:
                return result | {"failed": True, "msg": str(error)}
            results = as_if_probed(target, results)
        if msg := unfit(results):
            return result | {"failed": True, "msg": msg}
        state = {**begun, **decide(names, begun["dropped"], Settings(**begun["settings"]), results)}
        return result | {"changed": False, "ansible_facts": {"rollout": state}}

    def _begin(self, args: Result) -> dict[str, Any]:
        """Return what stays the same for the whole run."""
        return {
            "hosts": list(args["hosts"]),
            "dropped": [name for name in args["hosts"] if name not in args["alive"]],
            "settings": asdict(Settings.of(args.get("settings", {}), self._task.check_mode)),
            "by": caller(str(args.get("settings", {}).get("by") or "")),
            "back": "back_to" in args,
        }
