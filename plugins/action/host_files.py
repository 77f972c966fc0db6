# SPDX-License-Identifier: Apache-2.0
"""Leave a host alone whose files are known to be right: what `app_probe` saw in this run needs no second look."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ..module_utils.host.file_state import matches
from ..plugin_utils.texts import renderer, text_id

States = Mapping[str, Mapping[str, str] | None]
#: The name under which later templates find the hash of those before them.
FINGERPRINT = "host_files_fingerprint"
#: In the place of a secret's digest where the host has no key yet and makes none, in check mode.
UNKNOWN = "unknown"


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


def stale(items: list[dict[str, Any]], paths: Iterable[str], folder: str) -> Iterator[dict[str, Any]]:
    """Give an item that removes each file below `folder` that was seen there and is none of the items.

    What an earlier version has installed, and folders that hold nothing else.
    """
    kept = {str(parent) for item in items for parent in (Path(item["path"]), *Path(item["path"]).parents)}
    others = {path for path in paths if path.startswith(f"{folder}/")} - kept
    emptied = {str(parent) for path in others for parent in Path(path).relative_to(folder).parents}
    emptied = {str(Path(folder, name)) for name in emptied - {"."}} - kept
    for path in (*sorted(others), *sorted(emptied, reverse=True)):
        yield {"path": path, "state": "absent"}


def with_templates(
    items: list[dict[str, Any]], render: Callable[[str, dict[str, str]], str], salt: str
) -> tuple[list[dict[str, Any]], str]:
    """Give each item with a `template` its content, in their order; also return the fingerprint without the secrets.

    That is a hash of those that are marked `fingerprint` and no secret, and of `salt`. Templates of items that are not
    marked find it as `host_files_fingerprint`.
    """
    marked = [item for item in items if item.get("fingerprint") and not item.get("secret")]
    texts = {item["path"]: render(item["template"], {}) for item in marked}
    digest = hashlib.sha256("\0".join([*texts.values(), salt]).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    contents = []
    for item in items:
        plain = {key: item[key] for key in item if key not in ("template", "fingerprint")}
        if item["path"] in texts:
            plain["content"] = texts[item["path"]]
        elif "template" in item:
            plain["content"] = render(item["template"], {FINGERPRINT: digest})
        contents.append(plain)
    return contents, digest


def digests_of(secrets: Mapping[str, str], probed: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the host's own digest of each secret that it was asked about in this run, as it is wanted now."""
    known = {path: probed.get(path, {}) for path in secrets}
    same = {path: secret for path, secret in known.items() if secret.get("text_id") == text_id(secrets[path])}
    return {path: secret["digest"] for path, secret in same.items() if secret["digest"]}


def is_kept(path: str, digest: str | None, probed: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether a host has a secret as it is wanted, for root only; `digest` is that of what is wanted."""
    return bool(digest) and probed[path]["state"] == {
        "keyed": digest, "owner": "root", "group": "root", "mode": "0600",
    }  # fmt: skip


def all_right(args: Mapping[str, Any], states: States, probed: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether all files and secrets of a task were seen to be right."""
    digests = digests_of(args.get("secrets") or {}, probed)
    files = all(item["path"] in states and matches(item, states[item["path"]]) for item in args.get("files") or [])
    return files and all(is_kept(path, digests.get(path), probed) for path in args.get("secrets") or {})


def all_noted(args: Mapping[str, Any], written: Iterable[str]) -> bool:
    """Return whether the host has noted the content of each file of a task, where the task has it do so."""
    files = [item for item in args.get("files") or [] if item.get("state", "present") == "present"]
    return not args.get("record") or {*(item["path"] for item in files), *(args.get("secrets") or {})} <= {*written}


def needs_switch(probe: Mapping[str, Any], release: str, fingerprint: str) -> bool:
    """Return whether a host needs new workers: it has said what it serves with, and that is not what is wanted.

    The one rule, for the role and for the rollout. It says nothing where what the last switch made is no more.
    """
    return bool(probe.get("serves") != {"release": release, "fingerprint": fingerprint})


def refusal(probe: Mapping[str, Any], release: str, fingerprint: str) -> str:
    """Say why the host would refuse to switch to a release with these settings, "" where nothing is known of that."""
    mark = probe.get("bad", {}).get(release, {})
    return str(mark["reason"]) if mark.get("fingerprint") == fingerprint else ""


class ActionModule(ActionBase):  # type: ignore[misc]
    """The module of the same name, where there may be something to do."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task on one host."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        args = {**self._task.args}
        probe = variables.get("ansible_facts", {}).get("app_probe", {})
        states, probed = probe.get("files"), probe.get("secrets", {})

        items = list(with_sources(args.get("files") or [], lambda name: self._find_needle("files", name)))
        if folder := args.pop("sole_owner_of", ""):
            items += stale(items, states or {}, str(folder))
        release, force = args.pop("release", None), boolean(args.pop("force", False))
        marked = [item["path"] for item in items if item.get("fingerprint") and item.get("secret")]
        items, digest = with_templates(items, renderer(self, variables), str(args.pop("salt", "")))
        secret = [item.pop("secret", False) for item in items]
        args["secrets"] = {item["path"]: item["content"] for item, hide in zip(items, secret, strict=True) if hide}
        args["files"] = [item for item, hide in zip(items, secret, strict=True) if not hide]

        done: dict[str, Any] = {"changed": False, "paths": []}
        digests = digests_of(args["secrets"], probed)
        if states is None or not all_right(args, states, probed) or not all_noted(args, probe.get("written", ())):
            done = dict(self._execute_module(module_name=self._task.action, module_args=args, task_vars=task_vars))
            digests |= done.get("digests", {})
        done["fingerprint"] = "-".join([digest, *(digests.get(path, UNKNOWN) for path in marked)])
        if release is not None:
            done["needs_switch"] = needs_switch(probe, release, done["fingerprint"])
            # A switch asks the host itself; only check mode has nobody else to ask.
            if self._task.check_mode and done["needs_switch"] and not force:
                done["refusal"] = refusal(probe, release, done["fingerprint"])
        return result | done
