# SPDX-License-Identifier: Apache-2.0
"""Call the host's own command: like `ansible.builtin.command`, without a module around it.

A module is sent, unpacked and started as a Python program of its own, for a third of a second of the host's CPU. What
is called here is one program with plain words, and knows everything by itself.
"""

from __future__ import annotations

import shlex
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]
    """Run `argv` as it is, with the task's become and the text `stdin`; return rc, stdout and stderr."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task on one host. In check mode it is skipped."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(
            {"argv": {"type": "list", "elements": "str", "required": True}, "stdin": {"type": "str", "default": "\n"}}
        )
        if self._task.check_mode:
            return result | {"skipped": True, "msg": "Not called in check mode"}
        # With input, as modules are pipelined: no terminal is made, which would mix stderr into stdout.
        data = arguments["stdin"].encode("utf-8", "surrogateescape")
        done = self._low_level_execute_command(shlex.join(arguments["argv"]), sudoable=True, in_data=data)
        output = {"rc": done["rc"], "stdout": done["stdout"].rstrip("\r\n"), "stderr": done["stderr"].rstrip("\r\n")}
        failure = {"failed": True, "msg": "non-zero return code"} if done["rc"] else {}
        return result | {"cmd": arguments["argv"], "changed": True} | output | failure
