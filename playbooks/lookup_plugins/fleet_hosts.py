# SPDX-License-Identifier: Apache-2.0
"""Choose the hosts that a playbook may touch: those of the group `app` that are this fleet's.

It stands beside the playbooks because Ansible then finds it by its short name in a clone and in the installed
collection alike; there it would not look for a lookup in plugins/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

DOCUMENTATION = r"""
name: fleet_hosts
short_description: Names of the hosts that a playbook may touch
version_added: "0.2.0"
description:
  - A host that an inventory of AWS has found carries tags. Of these, only those are returned that carry all of this
    fleet's, C(fastapi-fleet:app), C(fastapi-fleet:environment), C(fastapi-fleet:fleet), and the shape C(instances).
    Others in the group C(app) are left out, and said so. A host without such tags was written down by somebody and is
    returned.
  - Which fleet this is, the settings say that C(localhost) has, so those in C(group_vars/all) and C(-e), with the
    defaults of the role C(aws_fleet).
  - Without any host, the reason is an error, as there is nothing to do and that is no success.
options:
  scaling:
    description: Whether a fleet that is a scaling group has no such hosts, instead of an error.
    type: bool
    default: false
  tune_host:
    description: The only host that is wanted, by its name in the inventory.
    type: str
author: The fastapi-fleet developers
"""

EXAMPLES = r"""
- hosts: "{{ query('fleet_hosts') }}"
"""

RETURN = r"""
_list:
  description: The hosts' names in the inventory.
  type: list
  elements: str
"""

GROUP, PREFIX = "app", "fastapi-fleet:"
SHAPES = ("instances", "autoscaling")
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

    @classmethod
    def of(cls, tags: View) -> Owner:
        """Return what tags say; "" for one that is missing."""
        return cls(*(str(tags.get(f"{PREFIX}{name}", "")) for name in ("app", "environment", "fleet", "shape")))

    @classmethod
    def meant(cls, settings: View) -> Owner:
        """Return what these settings mean, with the defaults of the role aws_fleet."""
        app = str(settings.get("app_name") or "")
        environment = str(settings.get("aws_fleet_environment") or ENVIRONMENT)
        name = str(settings.get("aws_fleet_name") or f"{app}-{environment}")
        return cls(app, environment, name, str(settings.get("aws_fleet_shape") or ""))

    def same_fleet(self, other: Owner) -> bool:
        """Return whether both are of one fleet, whatever the shape."""
        return (self.app, self.environment, self.fleet) == (other.app, other.environment, other.fleet)

    def __str__(self) -> str:
        missing = "none"
        return (
            f"{self.fleet or missing} (app {self.app or missing}, environment {self.environment or missing}, "
            f"{self.shape or missing})"
        )


def tags_of(view: View) -> View | None:
    """Return the tags of a host that AWS's inventory found, None for another one.

    Whatever the inventory calls them: `hostvars_prefix` is a setting of it.
    """
    for name in view:
        if "tags" in name:
            try:
                found = view[name]
            except AnsibleError:  # a template of somebody's that cannot be evaluated: tags are plain texts
                continue
            if isinstance(found, Mapping) and any(str(key).startswith(PREFIX) for key in found):
                return found
    return None


def choose(names: Iterable[str], views: Mapping[str, View], *, scaling: bool = False) -> tuple[list[str], str]:
    """Return which of these hosts are this fleet's, and what to say of the others, "" where there are none.

    `views` has each host's variables, those of `localhost`, too, and names all hosts when it is iterated over. Raises
    AnsibleError, with the reason, where there is no host, where the fleet has another shape than the settings say, and
    where a host's own settings are another fleet's.
    """
    own = Owner.meant(views["localhost"])
    if own.shape not in {"", *SHAPES}:
        raise AnsibleError(f"aws_fleet_shape is {own.shape!r}; allowed: {', '.join(SHAPES)}")
    if own.shape == "autoscaling":
        if scaling:
            return [], ""
        raise AnsibleError(f"{own.fleet} is a scaling group (aws_fleet_shape): nobody connects to its instances")
    found: list[str] = []
    others: dict[Owner, list[str]] = {}
    for name in names:
        tags = tags_of(views[name])
        owner = Owner.of(tags) if tags is not None else None
        if owner is None or (owner.same_fleet(own) and owner.shape == "instances"):
            found.append(name)
        else:
            others.setdefault(owner, []).append(name)
        if owner is not None and owner.same_fleet(own):
            refuse_other_settings(name, views[name], own)
    if not found:
        raise AnsibleError(no_host(own, views))
    left = "; ".join(f"{len(left)} × {owner}: {shown(left)}" for owner, left in others.items())
    return found, f"Left out, as this run is for {own.fleet}: {left}" if left else ""


def shown(names: Sequence[str]) -> str:
    """Return names for a message, not too many."""
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def refuse_other_settings(name: str, view: View, own: Owner) -> None:
    """Raise AnsibleError where a host of this fleet has settings of another one, as by group_vars of its own."""
    there = Owner.meant(view)
    if not there.same_fleet(own):
        raise AnsibleError(
            f"{name} carries the tags of {own.fleet} (app {own.app}, environment {own.environment}), but for this host "
            f"app_name, aws_fleet_environment and aws_fleet_name mean {there.fleet} (app {there.app}, environment "
            f"{there.environment}). Set them for all hosts alike. Nothing was changed on any host"
        )


def no_host(own: Owner, views: Mapping[str, View]) -> str:
    """Say why there is no host of the fleet, and which fleets there are."""
    there: dict[Owner, int] = {}
    for owner in owners(views):
        there[owner] = there.get(owner, 0) + 1
    if not there:
        return "the inventory has no host in the group app"
    if not own.app:
        return "app_name is not set for localhost: set it in group_vars/all or with -e, it says which fleet is meant"
    listed = "; ".join(f"{number} × {owner}" for owner, number in sorted(there.items(), key=str))
    if any(owner.same_fleet(own) and owner.shape == "autoscaling" for owner in there):
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
        tags = tags_of(views[name])
        if tags is not None:
            yield Owner.of(tags)


class LookupModule(LookupBase):  # type: ignore[misc]
    """Choose once for a play; the hosts' variables are read, no host is asked."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """Return the names; there are no terms."""
        if terms:
            raise AnsibleError(f"fleet_hosts takes options only, not {', '.join(map(str, terms))}")
        self.set_options(var_options=variables, direct=kwargs)
        known = variables or {}
        names = known.get("groups", {}).get(GROUP, [])
        only = self.get_option("tune_host")
        found, said = choose(names, known.get("hostvars") or self._views(), scaling=self.get_option("scaling"))
        if only is not None:
            if only not in found:
                reason = "-e tune_host=HOST has to name one host of the group app"
                raise AnsibleError(f"{reason}; this fleet has: {shown(found)}")
            return [only]
        if said:
            display.display(said, stderr=True)  # what a callback writes to stdout may be meant for a machine
        return found

    def _views(self) -> Mapping[str, View]:
        """Return the hosts' variables where Ansible gives a lookup none yet: in a first play, and for --list-hosts."""
        inventory = InventoryManager(loader=self._loader, sources=context.CLIARGS.get("inventory"))
        manager = VariableManager(loader=self._loader, inventory=inventory)
        return HostVars(inventory=inventory, variable_manager=manager, loader=self._loader)  # type: ignore[no-any-return]
