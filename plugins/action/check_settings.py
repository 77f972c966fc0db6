# SPDX-License-Identifier: Apache-2.0
"""Refuse bad settings on the controller: each complaint names the variable, its value and what is allowed.

Options: `roles`, whose settings are checked, and `names`, of further settings, as `app_name` or `tune_*`. With roles,
each variable that looks like a setting and is none is refused; with names alone, those that look like one of these:
a rollback must run whatever else an inventory holds. No host is asked; one task for all settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils.settings.names import Suspect, concerns
from ..module_utils.settings.rules import complaints
from ..plugin_utils.core import refuse_old_core
from ..plugin_utils.setting_names import DEFINITIONS, reader, refusal, suspects

display = Display()


def ignored(others: Sequence[Suspect]) -> str:
    """Say in a line which variables look like settings and count for nothing here."""
    names = ", ".join(f"{it.name} ({it.guess}?)" if it.guess else it.name for it in others)
    return f"no settings, ignored here, and refused by deploy (docs/settings.md): {names}"


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
        read = reader(self._templar, variables)
        roles, names = (self._task.args.get(key, []) for key in ("roles", "names"))
        checked = DEFINITIONS.rules(roles, names)
        verbs = [name.removesuffix("*") for name in names if name.endswith("*")]
        unknown = suspects(variables, read, verbs)
        refused = [suspect for suspect in unknown if roles or concerns(suspect, checked, verbs)]
        if others := [suspect for suspect in unknown if suspect not in refused]:
            display.warning(ignored(others))  # the same of each host is shown once
        if msg := refusal(refused, complaints(checked, read)):
            return result | {"failed": True, "msg": msg}
        return result | {"changed": False}
