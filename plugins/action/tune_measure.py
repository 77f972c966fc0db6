# SPDX-License-Identifier: Apache-2.0
"""Have a host measure numbers of workers, show each step as it comes, and return what the host says in the end.

The host measures by itself, and ends when nobody has polled it for some time: so it ends soon after the run that
asked for it, however that ended. `argv` is the host's command, `options` are words for it. A refusal is no failure;
the result has `rc`, `stdout` and `stderr`, as a command's has.
"""

from __future__ import annotations

import json
import os
import shlex
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]
    """Start it, then poll it until it is over."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task on one host."""
        result: dict[str, Any] = super().run(tmp, task_vars) | {"changed": False}
        argv = list(self._task.args["argv"])

        def call(*words: str) -> dict[str, Any]:
            # Without a module, as host_command: it would take a third of a CPU second of the host that is measured.
            return dict(self._low_level_execute_command(shlex.join([*argv, *words]), sudoable=True, in_data=b"\n"))

        done = call("--detach", *map(str, self._task.args["options"]))
        steps, parent = 0, os.getppid()
        # A run that was killed leaves this process behind: then nobody is to poll any more.
        while os.getppid() == parent and done["rc"] == 0:
            done = call("--poll", f"--shown={steps}")
            if done["rc"] != 0:
                break
            poll = json.loads(done["stdout"])
            for step in poll["new"]:
                display.display(f"  {(task_vars or {}).get('inventory_hostname')}: {step}")
            steps += len(poll["new"])
            if not poll["running"]:
                return result | {"rc": 0, "stdout": poll["outcome"], "stderr": ""}
        return result | {key: done[key] for key in ("rc", "stdout", "stderr")}
