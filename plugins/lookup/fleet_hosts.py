# SPDX-License-Identifier: Apache-2.0
"""Choose the hosts that a playbook may touch: those of the group `app` that are this fleet's.

It stands beside the playbooks because Ansible then finds it by its short name in a clone and in the installed
collection alike; there it would not look for a lookup in plugins/.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_hosts
short_description: Names of the hosts that a playbook may touch
version_added: "0.2.0"
description:
  - A host that an inventory of AWS has found carries tags. Of these, only those are returned that carry all of this
    fleet's, C(fastapi-fleet:app), C(fastapi-fleet:environment), C(fastapi-fleet:fleet), and the shape C(instances), and
    that are in its region. Others in the group C(app) are left out, and said so. A host without such tags was written
    down by somebody and is returned.
  - Which fleet this is, the settings say that C(localhost) has, so those in C(group_vars/all) and C(-e), with the
    defaults of the role C(aws_fleet). A play's own that differ are an error, as tasks would go by these.
  - Without any host, and where C(--limit) leaves none, the reason is an error, as there is nothing to do and that is no
    success.
options:
  scaling:
    description: Whether a fleet that is a scaling group has no such hosts, instead of an error.
    type: bool
    default: false
  tune_host:
    description: The only host that is wanted, by its name in the inventory.
    type: str
author: The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: Show the fleet
  hosts: "{{ query('webfleet.fastapi.fleet_hosts') }}"
"""

RETURN = r"""
_list:
  description: The hosts' names in the inventory.
  type: list
  elements: str
"""

import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from ..module_utils.settings.names import concerns
from ..plugin_utils.core import refuse_old_core
from ..plugin_utils.setting_names import refusal, suspects

GROUP = "app"
PREFIX = "fastapi-fleet:"
VERB = "tune_"
SHAPES = ("instances", "autoscaling")
#: The settings that say which fleet is meant.
SELECTORS = ("app_name", "aws_fleet_environment", "aws_fleet_name", "aws_fleet_region", "aws_fleet_shape")
SHOWN = 5  # hosts in a message
#: As roles/aws_fleet/defaults/main.yml has it.
ENVIRONMENT = "production"

display = Display()
View = Mapping[str, Any]


@dataclass(frozen=True)
class Owner:
    """Whose a host is."""

    app: str
    environment: str
    fleet: str
    shape: str
    region: str

    @classmethod
    def of(cls, tags: View, region: str) -> Owner:
        """Return what tags say; "" for one that is missing."""
        names = {name: str(tags.get(f"{PREFIX}{name}", "")) for name in ("app", "environment", "fleet", "shape")}
        return cls(**names, region=region)

    @classmethod
    def of_settings(cls, settings: View) -> Owner:
        """Return what these settings mean, with the defaults of the role aws_fleet."""
        app = str(settings.get("app_name") or "")
        environment = _named(settings, "aws_fleet_environment", ENVIRONMENT)
        name = _named(settings, "aws_fleet_name", f"{app}-{environment}")
        region = str(settings.get("aws_fleet_region", os.environ.get("AWS_REGION", "")))
        return cls(app, environment, name, str(settings.get("aws_fleet_shape") or ""), region)

    def same_fleet(self, other: Owner) -> bool:
        """Return whether both are of one fleet, whatever the shape. A region that is not known fits each."""
        ours, theirs = ((one.app, one.environment, one.fleet) for one in (self, other))
        return ours == theirs and (self.region == other.region or "" in {self.region, other.region})

    def __str__(self) -> str:
        missing = "none"
        return (
            f"{self.fleet or missing} (app {self.app or missing}, environment {self.environment or missing}, "
            f"{self.shape or missing}{f', {self.region}' if self.region else ''})"
        )


def _named(settings: View, name: str, default: str) -> str:
    """Return a name of the fleet's. One that is empty, as of a variable that is not set, would mean another fleet."""
    value = settings.get(name, default)
    if value in {"", None}:
        raise AnsibleError(f"{name} is {value!r}; allowed: a name, or leave it out for {default!r}")
    return str(value)


def owner_of(view: View) -> Owner | None:
    """Return whose a host is that AWS's inventory found, None for another one.

    Whatever the inventory calls its variables: `hostvars_prefix` is a setting of it.
    """
    tags = _mapping(view, "tags", lambda value: any(str(key).startswith(PREFIX) for key in value))
    place = _mapping(view, "placement", lambda value: "region" in value)
    return Owner.of(tags, str(place["region"]) if place else "") if tags is not None else None


def _mapping(view: View, word: str, fits: Callable[[View], bool]) -> View | None:
    for name in view:
        if word in name:
            try:
                value = view[name]
            except AnsibleError:  # a template of somebody's that cannot be evaluated: AWS's are plain texts
                continue
            if isinstance(value, Mapping) and fits(value):
                return value
    return None


def choose(names: Iterable[str], views: Mapping[str, View], *, scaling: bool = False) -> tuple[list[str], str]:
    """Return which of these hosts are this fleet's, and what to say of the others, "" where there are none.

    `views` has each host's variables, those of `localhost`, too, and names all hosts when it is iterated over. Raises
    AnsibleError, with the reason, where there is no host, where the fleet has another shape than the settings say,
    where the same name is in two regions and none was asked for, and where a host's own settings are another fleet's.
    """
    own = Owner.of_settings(views["localhost"])
    if own.shape not in {"", *SHAPES}:
        raise AnsibleError(f"aws_fleet_shape is {own.shape!r}; allowed: {', '.join(SHAPES)}")
    if own.shape == "autoscaling":
        if scaling:
            return [], ""
        raise AnsibleError(scales(own, views))
    hosts: list[str] = []
    others: dict[Owner, list[str]] = {}
    regions = set()
    for name in names:
        owner = owner_of(views[name])
        if owner is None:
            hosts.append(name)
            continue
        is_own = owner.same_fleet(own)
        if is_own:
            refuse_other_settings(name, views[name], own)
        if is_own and owner.shape == "instances":
            regions.add(owner.region)
            hosts.append(name)
        else:
            others.setdefault(owner, []).append(name)
    if len(regions) > 1:
        listed = ", ".join(sorted(regions))
        raise AnsibleError(f"{own.fleet} is in {listed}: set aws_fleet_region, which says which of them is meant")
    if not hosts:
        raise AnsibleError(no_host(own, views))
    excluded = "; ".join(f"{len(excluded)} × {owner}: {shown(excluded)}" for owner, excluded in others.items())
    return hosts, f"Left out, as this run is for {own.fleet}: {excluded}" if excluded else ""


def scales(own: Owner, views: Mapping[str, View]) -> str:
    """Say why there are no hosts for the shape autoscaling, which may be the wrong one."""
    hosts = [owner for owner in owners(views) if owner.same_fleet(own) and owner.shape == "instances"]
    if hosts:
        return (
            f"aws_fleet_shape is 'autoscaling', but there are {len(hosts)} hosts of {own.fleet} of the shape "
            "instances. A fleet keeps its shape: set it to instances"
        )
    return f"{own.fleet} is a scaling group (aws_fleet_shape): nobody connects to its instances"


def shown(names: Sequence[str]) -> str:
    """Return names for a message, not too many."""
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def refuse_other_settings(name: str, view: View, own: Owner) -> None:
    """Raise AnsibleError where a host of this fleet has settings of another one, as by group_vars of its own."""
    owner = Owner.of_settings(view)
    if not owner.same_fleet(own):
        raise AnsibleError(
            f"{name} carries the tags of {own.fleet} (app {own.app}, environment {own.environment}), but for this host "
            f"app_name, aws_fleet_environment and aws_fleet_name mean {owner.fleet} (app {owner.app}, environment "
            f"{owner.environment}). Set them for all hosts alike. Nothing was changed on any host"
        )


def no_host(own: Owner, views: Mapping[str, View]) -> str:
    """Say why there is no host of the fleet, and which fleets there are."""
    fleets: dict[Owner, int] = {}
    for owner in owners(views):
        fleets[owner] = fleets.get(owner, 0) + 1
    if not fleets:
        return "the inventory has no host in the group app"
    if not own.app:
        return "app_name is not set for localhost: set it in group_vars/all or with -e, it says which fleet is meant"
    listed = "; ".join(f"{number} × {owner}" for owner, number in sorted(fleets.items(), key=str))
    if any(owner.same_fleet(own) and owner.shape == "instances" for owner in fleets):
        return (
            f"the inventory has hosts of {own.fleet}, but none of them in the group app, where inventory/aws_ec2.yml "
            f"puts them by their tags. There are: {listed}"
        )
    if any(owner.same_fleet(own) and owner.shape == "autoscaling" for owner in fleets):
        shape = repr(own.shape) if own.shape else "not set"
        return (
            f"{own.fleet} is a scaling group, but aws_fleet_shape is {shape}. A fleet keeps its shape: set it to "
            f"autoscaling. Nothing was changed. There are: {listed}"
        )
    return (
        f"the group app has no host of {own.fleet} (app {own.app}, environment {own.environment}, instances). "
        f"There are: {listed}. app_name, aws_fleet_environment and aws_fleet_name say which fleet is meant"
    )


def owners(views: Mapping[str, View]) -> Iterator[Owner]:
    """Return whose each host is that AWS's inventory has found, in whatever group it is."""
    for name in views:
        owner = owner_of(views[name])
        if owner is not None:
            yield owner


def refuse_other_plays(known: View, local: View) -> None:
    """Raise AnsibleError where a play has settings of its own, as from `import_playbook` with `vars`."""
    for name in SELECTORS:
        if name in known and known[name] != local.get(name):
            raise AnsibleError(
                f"{name} is {known[name]!r} for this play, but {local.get(name, 'not set')!r} for localhost, whose "
                "settings say which fleet is meant. Set it in group_vars/all or with -e. Nothing was changed"
            )


def refuse_limit(limit: str, limited: Container[str], hosts: Sequence[str], own: str) -> None:
    """Raise AnsibleError where --limit leaves none of the hosts: a run without any would end well."""
    if not any(name in limited for name in hosts):
        raise AnsibleError(
            f"--limit {limit} leaves nothing of {own}, which has {shown(hosts)}. Which fleet is meant is said by "
            "app_name, aws_fleet_environment, aws_fleet_name and aws_fleet_region, not by --limit"
        )


def refuse_misspelt(known: View) -> None:
    """Raise AnsibleError where tune_host was meant by another name, before it is said to be missing."""
    read = known.get
    names = [item for item in suspects(known, read, [VERB]) if concerns(item, ["tune_host"], [VERB])]
    if message := refusal(names):
        raise AnsibleError(message)


class LookupModule(LookupBase):  # type: ignore[misc]
    """Choose once for a play; the hosts' variables are read, no host is asked."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """Return the names; there are no terms."""
        refuse_old_core()
        if terms:
            raise AnsibleError(f"fleet_hosts takes options only, not {', '.join(map(str, terms))}")
        self.set_options(var_options=variables, direct=kwargs)
        if "tags" in load_extra_vars(self._loader):
            raise AnsibleError("-e tags=… hides the tags by which hosts are chosen; a playbook's tags: --tags")
        known = variables or {}
        views = known.get("hostvars") or self._views()
        own = {name: self._templar.template(known[name]) for name in SELECTORS if name in known}
        refuse_other_plays(own, views["localhost"])
        names = known.get("groups", {}).get(GROUP, [])
        only = self.get_option("tune_host")
        hosts, notice = choose(names, views, scaling=self.get_option("scaling"))
        if only is not None:
            if only not in hosts:
                refuse_misspelt(known)
                reason = "-e tune_host=HOST has to name one host of the group app"
                raise AnsibleError(f"{reason}; this fleet has: {shown(hosts)}")
            hosts, notice = [only], ""
        if limit := context.CLIARGS.get("subset"):
            fleet = Owner.of_settings(views["localhost"]).fleet
            refuse_limit(str(limit), self._left(views), hosts or ["localhost"], fleet)
        if notice:
            display.display(notice, stderr=True)  # what a callback writes to stdout may be meant for a machine
        return hosts

    def _views(self) -> Mapping[str, View]:
        """Return the hosts' variables where Ansible gives a lookup none yet: in a first play, and for --list-hosts."""
        inventory = InventoryManager(loader=self._loader, sources=context.CLIARGS.get("inventory"))
        inventory.subset(context.CLIARGS.get("subset"))
        manager = VariableManager(loader=self._loader, inventory=inventory)
        return HostVars(inventory=inventory, variable_manager=manager, loader=self._loader)  # type: ignore[no-any-return]

    @staticmethod
    def _left(views: Any) -> set[str]:
        """Return the names of the hosts that --limit leaves, `localhost` without a line in the inventory included."""
        inventory = views._inventory  # Ansible's own, which has parsed --limit; it gives a lookup no other way to it
        return {
            host.name for name in ("all", "localhost") for host in inventory.get_hosts(name, ignore_restrictions=True)
        }
