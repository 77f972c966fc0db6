# SPDX-License-Identifier: Apache-2.0
"""Build a release on the controller, in Ansible's own process: a module would be packed and started as another."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ..module_utils.build import assemble, publish
from ..module_utils.build.cache import Cache
from ..module_utils.build.request import Platform, Request
from ..module_utils.build.uv import UV_OPTIONS, BuildError, Uv
from ..module_utils.workers.engines import DEFAULT, ENGINES
from ..plugin_utils.caller import caller

PLATFORM: dict[str, Any] = {
    "python": {"type": "str", "required": True},
    "arch": {"type": "str", "required": True, "choices": ["x86_64", "aarch64"]},
    "hosts": {"type": "list", "elements": "str", "default": []},
    "versions": {"type": "list", "elements": "str", "default": []},
}
SPEC: dict[str, Any] = {
    "app": {"type": "str", "required": True},
    "source": {"type": "str", "required": True},
    "module": {"type": "str", "required": True},
    "platforms": {"type": "list", "elements": "dict", "required": True, "options": PLATFORM},
    "engine": {"type": "str", "choices": sorted(ENGINES), "default": DEFAULT.name},
    "engines": {"type": "list", "elements": "str", "choices": sorted(ENGINES), "default": []},
    "engine_files": {"type": "path", "required": True},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "include": {"type": "list", "elements": "str", "default": []},
    "lock": {"type": "str", "default": ""},
    **UV_OPTIONS,
    "sdists": {"type": "bool", "default": False},
    "wheels": {"type": "list", "elements": "dict", "default": []},
    "pull": {"type": "bool", "default": False},
    "publish": {"type": "str", "default": ""},
    "by": {"type": "str", "default": ""},
}


def built(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Build what the parameters ask for; return what the module's documentation says. Raises BuildError."""
    request = Request(
        app=params["app"],
        source=params["source"],
        module=params["module"],
        platforms=[Platform(**platform) for platform in params["platforms"]],
        engine=params["engine"],
        engines=params["engines"],
        engine_files=Path(params["engine_files"]),
        exclude=params["exclude"],
        include=params["include"],
        lock=params["lock"],
        sdists=params["sdists"],
        by=params["by"],
    )
    uv = Uv(params["uv"], params["index_url"])
    cache = Cache(params["cache"])
    result: dict[str, Any] = dict(assemble.build(request, cache, uv, params["wheels"]))
    folder = params["publish"]
    files = publish.parts(request.app, result["artifacts"].values()) if params["pull"] or folder else {}
    published = publish.publish(files, Path(folder), check) if folder else []
    if files and not folder:
        result["notes"].append(publish.upload_note(files))
    return result | {"changed": bool(published), "published": published}


class ActionModule(ActionBase):  # type: ignore[misc]
    """One build for all hosts."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task, once for all hosts."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _unused, params = self.validate_argument_spec(SPEC)
        params["by"] = caller(params["by"])
        try:
            # Relative paths begin at the playbook, as they do for a module on the controller.
            with contextlib.chdir(self._loader.get_basedir()):
                release = built(params, self._task.check_mode)
        except BuildError as error:
            return result | {"failed": True, "msg": str(error)}
        return result | release
