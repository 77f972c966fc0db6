# SPDX-License-Identifier: Apache-2.0
"""Refuse bad settings on the controller: each complaint names the variable, its value and what is allowed.

Options: `roles`, whose settings are checked, and `names`, of further settings, as `app_name` or `tune_*`. With roles,
each variable that looks like a setting and is none is refused; with names alone, those that look like one of these:
a rollback must run whatever else an inventory holds. No host is asked; one task for all settings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils.settings.definitions import load
from ..module_utils.settings.names import OWN, WAY_OUT, Suspect, concerns, unknown
from ..module_utils.settings.rules import complaints
from ..plugin_utils.core import refuse_old_core

DEFINITIONS = load()
display = Display()


def ignored(suspects: Sequence[Suspect]) -> str:
    """Say in a line which variables look like settings and count for nothing here."""
    names = ", ".join(f"{it.name} ({it.guess}?)" if it.guess else it.name for it in suspects)
    return f"no settings, ignored here, and refused by deploy (docs/settings.md): {names}"


def own_variables(read: Callable[[str], object]) -> list[str]:
    """Return the names that the user claims; what is wrong with that setting is said where it is checked."""
    try:
        value = read(OWN)
    except (KeyError, ValueError):
        return []
    return [str(name) for name in value] if isinstance(value, list) else []


class ActionModule(ActionBase):  # type: ignore[misc]
    """Check the settings of one host without asking it."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task for one host."""
        refuse_old_core()
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}

        def read(name: str) -> object:
            value = variables[name]
            try:
                return self._templar.template(value)
            except AnsibleError as error:
                raise ValueError(str(error)) from error

        roles, names = (self._task.args.get(key, []) for key in ("roles", "names"))
        checked = DEFINITIONS.rules(roles, names)
        verbs = [name.removesuffix("*") for name in names if name.endswith("*")]
        suspects = unknown(variables, DEFINITIONS, own_variables(read), verbs)
        refused = [suspect for suspect in suspects if roles or concerns(suspect, checked, verbs)]
        if others := [suspect for suspect in suspects if suspect not in refused]:
            display.warning(ignored(others))  # the same of each host is shown once
        wrong = [*map(str, refused), *([f"{WAY_OUT}."] if refused else []), *complaints(checked, read)]
        if wrong:
            return result | {"failed": True, "msg": "\n".join(["Nothing was changed on any host.", *wrong])}
        return result | {"changed": False}
