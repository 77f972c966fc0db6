"""The controller's half of host_files: what the probe saw to be right is left alone, and nothing else."""

from __future__ import annotations

import dataclasses
import grp
import itertools
import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from plugins.action.host_files import (
    FINGERPRINT,
    all_noted,
    all_right,
    needs_switch,
    refusal,
    stale,
    with_sources,
    with_templates,
)
from plugins.module_utils.host import probe as probe_module
from plugins.module_utils.host.config import HostError
from plugins.module_utils.host.file_state import file_state, matches
from plugins.module_utils.host.preflight import check_not_bad
from plugins.module_utils.host.probe import files_of, marked_bad
from tests.unit.host.fake_systemd import Host

ME = {"owner": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name}
THERE = {
    "nothing": lambda _: None,
    "the file": lambda path: path.write_text("text"),
    "other text": lambda path: path.write_text("other"),
    "other mode": lambda path: (path.write_text("text"), path.chmod(0o600)),
    "an empty file": lambda path: path.write_text(""),
    "a link": lambda path: path.symlink_to("/there"),
    "another link": lambda path: path.symlink_to("/elsewhere"),
    "a link to the file": lambda path: (path.with_name("f").write_text("text"), path.symlink_to("f")),
}
WANTED: dict[str, dict[str, Any]] = {
    "the file": {"content": "text", "mode": "0644", "link": None, "state": "present"},
    "an empty file": {"content": None, "mode": None, "link": None, "state": "present"},
    "a private file": {"content": "text", "mode": "0600", "link": None, "state": "present"},
    "a link": {"content": None, "mode": None, "link": "/there", "state": "present"},
    "no file": {"content": None, "mode": None, "link": None, "state": "absent"},
}


RIGHT = {
    "nothing": "no file",
    "the file": "the file",
    "other mode": "a private file",
    "an empty file": "an empty file",
    "a link": "a link",
}


@pytest.mark.parametrize(("there", "wanted"), list(itertools.product(THERE, WANTED)))
def test_a_path_is_right_where_it_is_just_what_is_wanted(there: str, wanted: str, tmp_path: Path) -> None:
    path = tmp_path / "path"
    os.umask(0o022)
    THERE[there](path)  # type: ignore[no-untyped-call]
    item = {"path": str(path), **WANTED[wanted], **ME}
    assert matches(item, file_state(path)) == (RIGHT.get(there) == wanted)


@pytest.mark.parametrize(
    ("serves", "switch"),
    [
        ({"release": "new", "fingerprint": "as it is"}, False),
        ({"release": "old", "fingerprint": "as it is"}, True),
        ({"release": "new", "fingerprint": "former"}, True),
        ({"release": "new", "fingerprint": ""}, True),
        ({}, True),
        (None, True),
    ],
)
def test_a_host_switches_only_where_its_workers_must_be_new(serves: object, switch: bool) -> None:
    assert needs_switch({"serves": serves} if serves is not None else {}, "new", "as it is") is switch


def test_what_was_not_looked_at_is_not_known_to_be_right() -> None:
    assert not all_right({"files": [{"path": "/x", "state": "absent"}]}, {}, {})
    assert not all_right({"files": [{"path": "/x", "content": "a"}]}, {}, {})


@pytest.mark.parametrize(
    ("record", "written", "noted"),
    [("/r", ["/a", "/b", "/s"], True), ("/r", ["/a", "/s"], False), ("/r", ["/a", "/b"], False), (None, [], True)],
)
def test_a_host_that_has_not_noted_a_file_is_asked_to(record: str | None, written: list[str], noted: bool) -> None:
    files = [{"path": "/a"}, {"path": "/b", "link": "/c"}, {"path": "/d", "state": "absent"}]
    assert all_noted({"files": files, "secrets": {"/s": "x"}, "record": record}, written) == noted


def test_copies_of_edited_files_are_none_of_the_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("main.py", "main.py.edited-20260101T000000"):
        (tmp_path / name).touch()
    monkeypatch.setattr(probe_module, "FILES", (f"{str(tmp_path)[1:]}/*",))
    assert list(files_of("web")) == [str(tmp_path / "main.py")]


def test_a_folder_is_right_with_its_owner_and_mode_and_an_empty_file_is_none(tmp_path: Path) -> None:
    item = {"path": "x", "state": "directory", **ME}
    tmp_path.chmod(0o755)
    assert matches(item, file_state(tmp_path))
    assert not matches({**item, "mode": "0750"}, file_state(tmp_path))
    (tmp_path / "empty").write_text("")
    assert not matches({**item, "mode": "0644"}, file_state(tmp_path / "empty"))


def test_a_source_that_is_a_folder_becomes_its_python_files(tmp_path: Path) -> None:
    (tmp_path / "tool" / "part").mkdir(parents=True)
    (tmp_path / "tool" / "main.py").write_text("a")
    (tmp_path / "tool" / "part" / "b.py").write_text("b")
    (tmp_path / "tool" / "notes.txt").write_text("c")
    items = [{"path": "/usr/tool", "source": "tool", "mode": "0755"}, {"path": "/one", "content": "1"}]
    assert list(with_sources(items, lambda name: str(tmp_path / name))) == [
        {"path": "/usr/tool/main.py", "mode": "0755", "content": "a"},
        {"path": "/usr/tool/part/b.py", "mode": "0755", "content": "b"},
        {"path": "/one", "content": "1"},
    ]


def test_the_probe_looks_at_paths_that_are_not_there_too() -> None:
    seen = files_of("no-such-app")
    assert seen["/etc/nginx/conf.d/no-such-app.conf"] is None
    assert not [path for path in seen if "*" in path]


def test_fingerprint_is_of_what_is_marked_and_known_to_the_other_templates() -> None:
    items: list[dict[str, Any]] = [
        {"path": "/later", "template": "later"},
        {"path": "/unit", "template": "unit", "fingerprint": True},
        {"path": "/plain", "content": "x"},
    ]

    def made(unit: str, salt: str = "3.12", secret: str = "") -> tuple[list[dict[str, Any]], str]:
        texts = {"unit": unit, "later": "{}", "secret": secret}
        return with_templates(items, lambda name, more: texts[name].format(more.get(FINGERPRINT)), salt)

    items.append({"path": "/secret", "template": "secret", "fingerprint": True, "secret": True})
    texts_of_secrets = {made("a", secret=text)[1] for text in ("A=1", "A=2")}
    assert len(texts_of_secrets) == 1, "a plain hash of a secret"
    items.pop()
    found, digest = made("a")
    assert found == [
        {"path": "/later", "content": digest},
        {"path": "/unit", "content": "a"},
        {"path": "/plain", "content": "x"},
    ]
    assert len({digest, made("b")[1], made("a", "3.14")[1]}) == 3


def test_files_of_an_earlier_version_go_with_their_folders() -> None:
    wanted = [{"path": "/usr/local/lib/web-release/fleet/host/gate.py"}, {"path": "/etc/web/release.json"}]
    seen = [
        "/usr/local/lib/web-release/fleet/host/gate.py", "/usr/local/lib/web-release/fleet/old.py",
        "/usr/local/lib/web-release/fleet_host/cache/gate.pyc", "/etc/web/fleet", "/usr/local/lib/web-release-2/x.py",
    ]  # fmt: skip
    gone = [item["path"] for item in stale(wanted, seen, "/usr/local/lib/web-release")]
    assert gone == [
        "/usr/local/lib/web-release/fleet/old.py", "/usr/local/lib/web-release/fleet_host/cache/gate.pyc",
        "/usr/local/lib/web-release/fleet_host/cache", "/usr/local/lib/web-release/fleet_host",
    ]  # fmt: skip


def test_host_refuses_a_release_that_went_wrong_with_the_same_settings_and_says_the_same_before(tmp_path: Path) -> None:
    mark = {"at": 0, "reason": "p95 rose", "fingerprint": "a"}
    (tmp_path / "bad.json").write_text(json.dumps({"bbb": mark}))
    probe = {"bad": marked_bad(tmp_path)}
    config = dataclasses.replace(Host(tmp_path).config, root=tmp_path, fingerprint="a")
    with pytest.raises(HostError) as error:
        check_not_bad(config, "bbb", same_settings=True)
    assert refusal(probe, "bbb", "a") == str(error.value)
    check_not_bad(dataclasses.replace(config, fingerprint="b"), "bbb", same_settings=True)
    assert (refusal(probe, "bbb", "b"), refusal(probe, "ccc", "a"), refusal({}, "bbb", "a")) == ("", "", "")
