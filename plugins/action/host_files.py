# SPDX-License-Identifier: Apache-2.0
"""Leave a host alone whose files are known to be right: what `app_probe` saw in this run needs no second look."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

Seen = Mapping[str, Mapping[str, str] | None]
#: The name under which later templates find the hash of those before them.
FINGERPRINT = "host_files_fingerprint"


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


def with_templates(
    items: list[dict[str, Any]], render: Callable[[str, dict[str, str]], str], salt: str
) -> tuple[list[dict[str, Any]], str]:
    """Give each item with a `template` its content, in their order; also return the fingerprint.

    That is a hash of those that are marked `fingerprint`, and of `salt`. Templates of items that are not marked find it
    as `host_files_fingerprint`.
    """
    marked = [item for item in items if item.get("fingerprint")]
    texts = {item["path"]: render(item["template"], {}) for item in marked}
    digest = hashlib.sha256("\0".join([*texts.values(), salt]).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    found = []
    for item in items:
        plain = {key: item[key] for key in item if key not in ("template", "fingerprint")}
        if item.get("fingerprint"):
            plain["content"] = texts[item["path"]]
        elif "template" in item:
            plain["content"] = render(item["template"], {FINGERPRINT: digest})
        found.append(plain)
    return found, digest


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
        variables = task_vars or {}
        args = {**self._task.args}

        def render(name: str, more: dict[str, str]) -> str:
            """As `lookup('template', …)` does, which copies all variables of the host, in depth, each time."""
            path = Path(self._find_needle("templates", name))
            text = trust_as_template(self._loader.get_text_file_contents(str(path)))
            beside = [str(path.parent)]  # what it includes
            templar = self._templar.copy_with_new_env(available_variables={**variables, **more}, searchpath=beside)
            return str(templar.template(text, escape_backslashes=False, overrides={"trim_blocks": True}))

        items = list(with_sources(args.get("files") or [], lambda name: self._find_needle("files", name)))
        items, digest = with_templates(items, render, str(args.pop("salt", "")))
        secret = [item.pop("secret", False) for item in items]
        args["secrets"] = {item["path"]: item["content"] for item, hide in zip(items, secret, strict=True) if hide}
        args["files"] = [item for item, hide in zip(items, secret, strict=True) if not hide]
        result["fingerprint"] = digest
        seen = variables.get("ansible_facts", {}).get("app_probe", {}).get("files")
        if seen is not None and all_right(args, seen):
            return result | {"changed": False, "paths": []}
        # By the task's own name, so that it is found in a clone and in the installed collection.
        done = self._execute_module(module_name=self._task.action, module_args=args, task_vars=task_vars)
        return result | dict(done)
