# SPDX-License-Identifier: Apache-2.0
"""Leave a host alone whose files are known to be right: what `app_probe` saw in this run needs no second look."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

Seen = Mapping[str, Mapping[str, str] | None]


def is_right(item: Mapping[str, Any], seen: Seen) -> bool:
    """Return whether a path was seen to be what the item describes; False where it was not looked at."""
    if item["path"] not in seen:
        return False
    found, state = seen[item["path"]], item.get("state", "present")
    if state != "present":
        return state == "absent" and found is None
    if found is None:
        return False
    if item.get("link"):
        return bool(found.get("link") == item["link"])
    content = hashlib.sha256(str(item.get("content") or "").encode("utf-8", "surrogateescape")).hexdigest()
    wanted = {
        "sha256": content,
        "owner": item.get("owner", "root"),
        "group": item.get("group", "root"),
        "mode": f"{int(item.get('mode') or '0644', 8):04o}",
    }
    return dict(found) == wanted


def with_sources(items: list[dict[str, Any]], find: Any) -> Iterator[dict[str, Any]]:
    """Give each item with a `source` its content; one that names a folder becomes an item for each file in it.

    Read here: as a template's text, each of them would cost the controller more than all the rest of the task.
    """
    for item in items:
        if "source" not in item:
            yield item
            continue
        source, others = Path(find(item["source"])), {key: item[key] for key in item if key != "source"}
        files = sorted(source.rglob("*.py")) if source.is_dir() else [source]
        for file in files:
            path = Path(item["path"], file.relative_to(source)) if source.is_dir() else item["path"]
            yield {**others, "path": str(path), "content": file.read_text(encoding="utf-8")}


def all_right(args: Mapping[str, Any], seen: Seen) -> bool:
    """Return whether all files and secrets of a task were seen to be right."""
    secrets = [{"path": path, "content": text, "mode": "0600"} for path, text in (args.get("secrets") or {}).items()]
    return all(is_right(item, seen) for item in [*(args.get("files") or []), *secrets])


class ActionModule(ActionBase):  # type: ignore[misc]
    """The module of the same name, where there may be something to do."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task on one host."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = {**self._task.args}
        args["files"] = list(with_sources(args.get("files") or [], lambda name: self._find_needle("files", name)))
        facts = (task_vars or {}).get("ansible_facts", {})
        seen = facts.get("app_probe", {}).get("files")
        if seen is not None and all_right(args, seen):
            return result | {"changed": False, "paths": []}
        # By the task's own name, so that it is found in a clone and in the installed collection.
        return result | dict(self._execute_module(module_name=self._task.action, module_args=args, task_vars=task_vars))
