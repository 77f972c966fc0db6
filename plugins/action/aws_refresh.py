# SPDX-License-Identifier: Apache-2.0
"""Begin a refresh with the module of the same name, follow it, and say how far it is while it runs.

A module can only speak at its end; a refresh takes many minutes.
"""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]
    """Follow one refresh."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args, began = dict(self._task.args), time.time()
        first = self._module(args, task_vars)
        step = first.get("step", {})
        if first.get("failed") or step["state"] != "running" or args.get("state") == "cancelled":
            return result | first
        shown = ""
        timeout = int(args.get("timeout", 3600))
        until = time.monotonic() + timeout
        while not self._task.check_mode and step["state"] == "running":
            if step["text"] != shown:
                shown = step["text"]
                display.display(f"    {shown}")
            if time.monotonic() > until:
                step |= {"state": "failed", "text": f"{shown}; not done after {timeout} s"}
                break
            time.sleep(float(args.get("interval", 15)))
            poll = {"state": "polled", "refresh": step["refresh"], "version": step["version"], "since": began}
            answer = self._module(args | poll, task_vars)
            if answer.get("failed"):
                return result | answer | {"changed": True}
            step = answer["step"]
        if step["state"] == "failed" and not step["refresh"]:
            stopped = self._module(args | {"state": "stopped"}, task_vars)
            step["text"] += "; " + str(stopped.get("step", {}).get("text") or stopped.get("msg"))
        failed = {"failed": True, "msg": step["text"]} if step["state"] == "failed" else {}
        return result | failed | {"changed": True, "step": step}

    def _module(self, args: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        # By the task's own name, so that it is found in a clone and in the installed collection.
        done: dict[str, Any] = self._execute_module(
            module_name=self._task.action, module_args=args, task_vars=task_vars
        )
        done.pop("invocation", None)
        return done
