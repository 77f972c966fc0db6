"""The definitions of settings, as `roles/ROLE/settings.yml` and `playbooks/settings.yml` have them.

A file's keys:

    settings    each setting by its name, see below
    prefixes    with which names of settings begin; a variable that begins so and is no setting is refused (names.py)
    entries     of a role: what each of its task files does; its argument_specs have an entry for each
    uses        settings of other roles that this one reads, too
    inputs      of an entry: what a play or an earlier entry tells it, as options of argument_specs
    internal    further names with a prefix of ours that are no settings: registered results, facts, inputs

A setting's keys:

    why         what it is and why it has its default, in Markdown; a comment in defaults, a row in docs/settings.md
    value       type: int, bool, str, path, list or dict, with the `default` (without one it is required, or `optional`)
                and what rules.py checks; `unit`; `elements` of a list; `secret` where the value is shown nowhere;
                `choices` or `only: service_engine` where that follows from the engines
    effect      what a change of it does, one or more of EFFECTS
    since       the version that brought it
    host        the name that the host's command knows it by, where it needs it

Read once for a run: Ansible loads an action before it forks a process for each host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load

from ..workers.engines import ENGINES

#: In a rule, `choices` or `only` that follow from what the engines are.
ENGINE = "service_engine"
ROOT = Path(__file__).resolve().parents[3]
PLAYBOOKS = "playbooks"
#: In the order in which a reader meets them. An instance that sets itself up has no role aws_fleet.
OWNERS = ("service", "release", "proxy", PLAYBOOKS, "aws_fleet")
EFFECTS = {
    "workers": "the next deploy starts new workers and switches to them, also where the code is the same",
    "reload": "the next deploy reloads nginx; workers stay",
    "release": "the next deploy builds the release anew; where that gives other files, it is switched to",
    "deploy": "the next deploy goes by it; nothing is replaced for it",
    "provision": "the next `playbooks/provision.yml` sets it on AWS; hosts stay, but for what `aws_fleet_count` says",
    "instances": "instances that start from then on have it, in a scaling group with the next deploy; others stay",
    "identity": "another app or fleet is meant; the one that there is stays as it is",
    "run": "the run that it is given to goes by it; nothing else does",
}


class DefinitionError(Exception):
    """A file of settings that is wrong in itself."""


@dataclass(frozen=True)
class Setting:
    """One setting. `rule` is its `value`, which rules.py reads; `owner` the role, or `playbooks`."""

    name: str
    owner: str
    why: str
    rule: Mapping[str, Any]
    effect: tuple[str, ...]
    since: str
    host: str = ""

    @property
    def type(self) -> str:
        """One of int, bool, str, path, list, dict."""
        return str(self.rule["type"])

    @property
    def has_default(self) -> bool:
        """Whether it may be left out for its `default`."""
        return "default" in self.rule

    @property
    def default(self) -> Any:
        """The default, a text with `{{` for one that Ansible evaluates."""
        return self.rule["default"]


@dataclass(frozen=True)
class Owner:
    """What one file defines besides settings."""

    entries: Mapping[str, str]
    uses: tuple[str, ...]
    inputs: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Definitions:
    """All settings by name in their order, the owners, and the names that are ours and no settings."""

    settings: Mapping[str, Setting]
    owners: Mapping[str, Owner]
    prefixes: tuple[str, ...]
    internal: frozenset[str]

    def of(self, owner: str) -> list[Setting]:
        """Return the settings that a role, or the playbooks, define."""
        return [setting for setting in self.settings.values() if setting.owner == owner]

    def rules(self, roles: list[str], names: list[str]) -> dict[str, Mapping[str, Any]]:
        """Return the rules of these roles' settings and of those whose names match, as `tune_*` does.

        A setting whose default no role in use has may be missing. Raises DefinitionError for what matches nothing.
        """
        needed: dict[str, bool] = {}
        for role in roles:
            if role not in self.owners:
                raise DefinitionError(f"there is no role {role}")
            needed |= {setting.name: True for setting in self.of(role)}
            needed = dict.fromkeys(self.owners[role].uses, False) | needed
        for pattern in names:
            matching = [name for name in self.settings if fnmatchcase(name, pattern)]
            if not matching:
                raise DefinitionError(f"there is no setting {pattern}")
            needed |= {name: self.settings[name].owner != PLAYBOOKS for name in matching}
        return {
            name: setting.rule if needed[name] or not setting.has_default else {**setting.rule, "optional": True}
            for name, setting in self.settings.items()
            if name in needed
        }


@cache
def load(root: Path = ROOT) -> Definitions:
    """Read all files of settings below the project's root, once. Raises DefinitionError."""
    settings: dict[str, Setting] = {}
    owners: dict[str, Owner] = {}
    prefixes: list[str] = []
    internal: set[str] = set()
    for owner in OWNERS:
        path = root / PLAYBOOKS / "settings.yml" if owner == PLAYBOOKS else root / "roles" / owner / "settings.yml"
        if not path.exists():
            continue
        document: dict[str, Any] = yaml_load(path.read_text(encoding="utf-8"))
        for name, data in document["settings"].items():
            if name in settings:
                raise DefinitionError(f"{path}: {name} is defined by {settings[name].owner}, too")
            settings[name] = _setting(name, owner, data, path)
        inputs = document.get("inputs", {})
        owners[owner] = Owner(document.get("entries", {}), tuple(document.get("uses", ())), inputs)
        prefixes += [f"{word}_" for word in document["prefixes"]]
        internal.update(document.get("internal", ()), *inputs.values())
    return Definitions(settings, owners, tuple(prefixes), frozenset(internal))


def _setting(name: str, owner: str, data: Mapping[str, Any], path: Path) -> Setting:
    """Return a setting; DefinitionError where something is missing, unknown or misspelt."""
    missing = {"why", "value", "effect", "since"} - data.keys()
    unknown = data.keys() - {"why", "value", "effect", "since", "host"}
    if missing or unknown:
        raise DefinitionError(f"{path}: {name} lacks {sorted(missing)} and has unknown {sorted(unknown)}")
    effect = (data["effect"],) if isinstance(data["effect"], str) else tuple(data["effect"])
    if not effect or set(effect) - EFFECTS.keys():
        raise DefinitionError(f"{path}: {name} has effect {list(effect)}; allowed: {', '.join(EFFECTS)}")
    return Setting(
        name, owner, " ".join(data["why"].split()), _rule(name, data["value"]), effect, str(data["since"]),
        data.get("host", ""),
    )  # fmt: skip


def _rule(name: str, value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a value's rule with what follows from the engines: their names, and which of them can do a setting."""
    rule = dict(value)
    if rule.get("choices") == ENGINE:
        rule["choices"] = list(ENGINES)
    if rule.get("only") == ENGINE:
        rule["only"] = {ENGINE: [item.name for item in ENGINES.values() if name not in item.lacks]}
    return rule
