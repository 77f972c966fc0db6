# SPDX-License-Identifier: Apache-2.0
"""Read a host by the module of the same name, and have it compare its secret files with what is wanted of them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ansible.plugins.action import ActionBase

if TYPE_CHECKING:
    from plugins.module_utils import action_texts

UTILS = "webfleet_fastapi_module_utils"
#: As in the role's defaults: whoever sets service_user has chosen the account.
DEFAULT_USER = "{{ app_name }}"

if not TYPE_CHECKING:
    # As in release_build.py: a clone's plugins have no package around them.
    if UTILS not in sys.modules:
        sys.modules[UTILS] = ModuleType(UTILS)
        sys.modules[UTILS].__path__ = [str(Path(__file__).parents[1] / "module_utils")]
    action_texts = importlib.import_module(f"{UTILS}.action_texts")


class ActionModule(ActionBase):  # type: ignore[misc]
    """The module, with templates in the place of secrets worked out, so that one round trip says what differs."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task on one host."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        render = action_texts.renderer(self, variables)
        args = {**self._task.args}
        texts = {item["path"]: render(item["template"], {}) for item in args.get("secrets") or []}
        args |= {"secrets": texts, "user_given": variables.get("service_user", DEFAULT_USER) != DEFAULT_USER}
        # By the task's own name, so that it is found in a clone and in the installed collection.
        done = dict(self._execute_module(module_name=self._task.action, module_args=args, task_vars=task_vars))
        for path, seen in done.get("ansible_facts", {}).get("app_probe", {}).get("secrets", {}).items():
            seen["asked"] = action_texts.asked(texts[path])
        return result | done
