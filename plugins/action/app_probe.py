# SPDX-License-Identifier: Apache-2.0
"""Read a host by the module of the same name, and have it compare its secret files with what is wanted of them.

All that deploys begins with it, roles that are used alone, too: so names that are meant as settings and are none are
refused here.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ..plugin_utils.setting_names import reader, refusal, suspects
from ..plugin_utils.texts import renderer, text_id

#: As in the role's defaults: whoever sets service_user has chosen the account.
DEFAULT_USER = "{{ app_name }}"


class ActionModule(ActionBase):  # type: ignore[misc]
    """The module, with templates in the place of secrets worked out, so that one round trip says what differs."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task on one host."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        if msg := refusal(suspects(variables, reader(self._templar, variables))):
            return result | {"failed": True, "msg": msg}
        render = renderer(self, variables)
        args = {**self._task.args}
        texts = {item["path"]: render(item["template"], {}) for item in args.get("secrets") or []}
        args |= {"secrets": texts, "user_given": variables.get("service_user", DEFAULT_USER) != DEFAULT_USER}
        done = dict(self._execute_module(module_name=self._task.action, module_args=args, task_vars=task_vars))
        for path, secret in done.get("ansible_facts", {}).get("app_probe", {}).get("secrets", {}).items():
            secret["text_id"] = text_id(texts[path])
        return result | done
