# SPDX-License-Identifier: Apache-2.0
"""Send the parts of a release that a host lacks, then let the module of the same name unpack them.

A small part of code travels with the module, in the same round trip. With `url`, nothing is sent: the module fetches.
"""

from __future__ import annotations

import base64
import posixpath
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

#: Code of at most so many bytes is sent along with the module: larger parts are worth three more round trips.
SMALL = 256 << 10


def split_login(url: str) -> dict[str, str]:
    """Return a URL without its login, and the login: messages may show the one, and never the other."""
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    login, _unused, host = host.rpartition("@")
    return {"url": f"{scheme}{mark}{host}{slash}{path}", **({"url_login": login} if login else {})}


class ActionModule(ActionBase):  # type: ignore[misc]
    """One question where it is not known what the host lacks, one transfer per part, one call to unpack."""

    TRANSFERS_FILES = False  # it makes the temporary folder itself, where it sends files

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task on one host."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)
        artifact: dict[str, Any] = args.get("artifact") or {}
        have_lib = args.pop("have_lib", None)
        args = {
            key: value for key, value in args.items() if key not in {"lib_file", "code_file", "code_data", "url_login"}
        }
        args |= split_login(str(args.get("url") or ""))

        def ask(**files: str) -> dict[str, Any]:
            answer = self._execute_module(
                module_name=self._task.action, module_args={**args, **files}, task_vars=task_vars, wrap_async=False
            )
            return dict(answer)

        try:
            files: dict[str, str] = {}
            if have_lib is None or self._task.check_mode or args["url"]:
                answer = ask()
                parts = answer.get("needs", [])
                if answer.get("failed") or not parts or self._task.check_mode or args["url"]:
                    return result | answer
            else:
                parts = ["code"] if have_lib in {True, "true", "yes"} else ["lib", "code"]
            if parts == ["code"] and Path(artifact["code_path"]).stat().st_size <= SMALL:
                answer = ask(code_data=base64.b64encode(Path(artifact["code_path"]).read_bytes()).decode())
                parts = [] if answer.get("failed") else answer.get("needs", [])
            while parts:
                for part in parts:
                    files[f"{part}_file"] = self._send(Path(artifact[f"{part}_path"]))
                answer = ask(**files)
                parts = [] if answer.get("failed") else [p for p in answer.get("needs", []) if f"{p}_file" not in files]
            return result | answer
        except (KeyError, OSError) as error:
            return result | {"failed": True, "msg": f"The artifact is not on the controller ({error}). Build it again."}
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)

    def _send(self, path: Path) -> str:
        """Copy a part to the host's temporary folder and return where it is."""
        path.stat()
        if not self._connection._shell.tmpdir:
            self._make_tmp_path()
        folder = self._connection._shell.tmpdir
        target = posixpath.join(folder, path.name)
        self._transfer_file(str(path), target)
        self._fixup_perms2((folder, target))
        return target
