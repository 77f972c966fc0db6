# SPDX-License-Identifier: Apache-2.0
"""Send source distributions to a host, let the module of the same name build their wheels, and fetch these back."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

SENT = ("name", "version", "have", "backend", "backend_path")


class ActionModule(ActionBase):  # type: ignore[misc]
    """For each build two transfers there, one call, and one transfer back."""

    TRANSFERS_FILES = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task on one host."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        builds: list[dict[str, Any]] = self._task.args.get("builds") or []
        names = ", ".join(f"{build['name']} {build['version']}" for build in builds)
        if self._task.check_mode and builds:
            return result | {
                "failed": True,
                "msg": f"{names} must be built from source on this host before anything else can be foretold, which "
                "check mode does not do. Deploy once without --check.",
            }
        common = {key: value for key, value in self._task.args.items() if key in {"python", "limit"}}
        built = []
        try:
            if not self._connection._shell.tmpdir:  # TRANSFERS_FILES has made one already, where that is needed
                self._make_tmp_path()
            for build in builds:
                answer = self._build(build, common, task_vars)
                if answer.get("failed"):
                    return result | answer
                built.append(answer)
        except OSError as error:
            return result | {"failed": True, "msg": f"{names}: {error}. Deploy again."}
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result | {"changed": False, "built": built}

    def _build(self, build: dict[str, Any], common: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Build one wheel; return its key and where it is on the controller, or what more it requires."""
        folder = self._connection._shell.tmpdir
        sent = {}
        for part in ("sdist", "tools"):
            sent[part] = posixpath.join(folder, Path(build[part]).name)
            self._transfer_file(str(build[part]), sent[part])
        self._fixup_perms2((folder, *sent.values()))
        answer: dict[str, Any] = self._execute_module(
            module_name=self._task.action,
            module_args={**common, **sent, **{key: build[key] for key in SENT}, "into": folder},
            task_vars=task_vars,
            wrap_async=False,
        )
        if answer.get("failed"):
            return {**answer, "msg": f"{build['host']}: {answer.get('msg', '')}"}
        result = {"key": build["key"], "host": build["host"], "have": build["have"], "seconds": answer["seconds"]}
        if "requires" in answer:
            return {**result, "requires": answer["requires"]}
        # The host's answer decides no path on the controller: only the last part of it counts.
        wheel = Path(build["into"], posixpath.basename(answer["wheel"]))
        wheel.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._connection.fetch_file(posixpath.join(folder, wheel.name), str(wheel))
        return {**result, "wheel": str(wheel)}
