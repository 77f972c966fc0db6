# SPDX-License-Identifier: Apache-2.0
"""Refuse bad settings on the controller: each complaint names the variable, its value and what is allowed.

Options: `roles`, whose settings are checked, and `names`, of further settings, as `app_name` or `tune_*`. A variable
that looks like a setting and is none is refused, whatever is checked. No host is asked; one task for all settings.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ..module_utils.settings.definitions import load
from ..module_utils.settings.names import unknown
from ..module_utils.settings.rules import complaints
from ..plugin_utils.core import refuse_old_core

DEFINITIONS = load()


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

        args = self._task.args
        checked = DEFINITIONS.rules(args.get("roles", []), args.get("names", []))
        wrong = [*unknown(variables, DEFINITIONS), *complaints(checked, read)]
        if wrong:
            return result | {"failed": True, "msg": "\n".join(["Nothing was changed on any host.", *wrong])}
        return result | {"changed": False}
