"""What host_files makes of a host's files: whole or not at all, put back when refused, secrets shown nowhere."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.host.file_set import difference, put, put_checked
from plugins.module_utils.host.file_state import file_state, matches

OWNER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name
FAILS = [sys.executable, "-c", "import sys; sys.exit('line 3 is wrong')"]


def is_as_wanted(item: dict[str, Any]) -> bool:
    return matches(item, file_state(Path(item["path"])))


def item(path: Path, content: str | None = None, **more: Any) -> dict[str, Any]:
    """One entry of `files`, with what the module's argument spec adds."""
    rest = {"link": None, "state": "present", "owner": OWNER, "group": GROUP, "mode": None}
    return {"path": str(path), "content": content, **rest, **more}


def tree(root: Path) -> dict[str, tuple[str, str]]:
    """Everything below a folder: its mode and what it is."""
    found = {}
    for path in sorted(root.rglob("*")):
        what = f"-> {os.readlink(path)}" if path.is_symlink() else "/" if path.is_dir() else path.read_bytes().decode()
        found[str(path.relative_to(root))] = (f"{path.lstat().st_mode & 0o7777:04o}", what)
    return found


@pytest.fixture(params=[0o022, 0o077], ids=["umask 022", "umask 077"])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """What the host's administrator has set; the files must be the same."""
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"content": "text\n"}, ("0644", "text\n")),
        ({"content": ""}, ("0644", "")),
        ({"content": None}, ("0644", "")),
        ({"content": "#!/bin/sh\n", "mode": "0755"}, ("0755", "#!/bin/sh\n")),
        ({"content": "secret", "mode": "0600"}, ("0600", "secret")),
        ({"content": "secret", "mode": "600"}, ("0600", "secret")),
        ({"content": "one\r\ntwo\rthree\n"}, ("0644", "one\r\ntwo\rthree\n")),
        ({"content": "grüße 🚀"}, ("0644", "grüße 🚀")),
        ({"link": "/run/elsewhere"}, ("0777", "-> /run/elsewhere")),
        ({"state": "directory"}, ("0755", "/")),
        ({"state": "directory", "mode": "0700"}, ("0700", "/")),
    ],
)
def test_path_becomes_what_is_wanted_and_is_known_to_be(
    tmp_path: Path, wanted: dict[str, Any], found: tuple[str, str]
) -> None:
    one = item(tmp_path / "made" / "on the way" / "it", **wanted)
    assert not is_as_wanted(one)
    put(one)
    assert is_as_wanted(one)
    folders = {"made": ("0755", "/"), "made/on the way": ("0755", "/")}
    assert tree(tmp_path) == {**folders, "made/on the way/it": found}


@pytest.mark.parametrize(
    ("before", "wanted"),
    [
        ({"content": "old"}, {"content": "new"}),
        ({"content": "same", "mode": "0600"}, {"content": "same"}),
        ({"content": "same"}, {"content": "same", "mode": "0755"}),
        ({"content": "a\n"}, {"content": "a\r\n"}),
        ({"content": "a\r\n"}, {"content": "a\n"}),
        ({"link": "somewhere"}, {"content": "new"}),
        ({"content": "old"}, {"link": "somewhere"}),
        ({"link": "somewhere"}, {"link": "elsewhere"}),
        ({"state": "directory"}, {"state": "directory", "mode": "0700"}),
        ({"content": "old"}, {"state": "absent"}),
        ({"link": "nowhere"}, {"state": "absent"}),
    ],
)
def test_what_differs_is_seen_and_replaced(tmp_path: Path, before: dict[str, Any], wanted: dict[str, Any]) -> None:
    put(item(tmp_path / "it", **before))
    assert not is_as_wanted(item(tmp_path / "it", **wanted))
    put(item(tmp_path / "it", **wanted))
    assert is_as_wanted(item(tmp_path / "it", **wanted))
    assert len(list(tmp_path.iterdir())) <= 1, "nothing is left lying about"


def test_absent_twice_is_absent(tmp_path: Path) -> None:
    one = item(tmp_path / "it", state="absent")
    assert is_as_wanted(one)
    put(one)
    assert is_as_wanted(one)


def test_link_is_replaced_and_not_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("same")
    (tmp_path / "other").chmod(0o644)
    (tmp_path / "it").symlink_to("other")
    one = item(tmp_path / "it", "same")
    assert not is_as_wanted(one)
    put(one)
    assert tree(tmp_path) == {"it": ("0644", "same"), "other": ("0644", "same")}


def test_other_owner_is_seen(tmp_path: Path) -> None:
    (tmp_path / "it").write_text("")
    (tmp_path / "it").chmod(0o644)
    others = [user.pw_name for user in pwd.getpwall() if user.pw_uid != os.getuid()]
    assert is_as_wanted(item(tmp_path / "it"))
    assert not is_as_wanted(item(tmp_path / "it", owner=others[0]))


def test_binary_file_of_somebody_else_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"\xff\xfe\0")
    put(item(tmp_path / "it", "ours"))
    assert (tmp_path / "it").read_text() == "ours"


# With a check, all or nothing


@pytest.fixture
def mixed(tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    """A folder of every kind of thing, and items that would change each of them."""
    root = tmp_path / "etc"
    root.mkdir()
    (root / "changed").write_bytes(b"as it\r\nwas \xff\n")
    (root / "changed").chmod(0o640)
    (root / "gone").symlink_to("nowhere")
    (root / "replaced").symlink_to("changed")
    (root / "folder").mkdir(mode=0o700)
    items = [
        item(root / "changed", "new"),
        item(root / "new", "new"),
        item(root / "new folder", state="directory"),
        item(root / "below" / "new", "new"),
        item(root / "gone", state="absent"),
        item(root / "replaced", "no link now"),
        item(root / "folder", state="directory"),
    ]
    return root, items


def bytes_of(root: Path) -> dict[str, object]:
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode,
            os.readlink(path) if path.is_symlink() else None if path.is_dir() else path.read_bytes(),
        )
        for path in sorted(root.rglob("*"))
    }


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (FAILS, "line 3 is wrong"),
        ([sys.executable, "-c", "print('on stdout'); raise SystemExit(4)"], "on stdout"),
        ([sys.executable, "-c", "raise SystemExit(4)"], "exit code 4"),
        (["/nonexistent/nginx", "-t"], "/nonexistent/nginx"),
    ],
    ids=["stderr", "stdout", "silent", "not installed"],
)
def test_everything_is_put_back_where_the_check_fails(
    mixed: tuple[Path, list[dict[str, Any]]], check: list[str], said: str
) -> None:
    root, items = mixed
    before = bytes_of(root)
    assert said in put_checked(items, check)
    assert bytes_of(root) == before


def test_everything_is_put_back_where_a_file_cannot_be_made(mixed: tuple[Path, list[dict[str, Any]]]) -> None:
    root, items = mixed
    before = bytes_of(root)
    for impossible in (item(root / "changed" / "below a file", "x"), item(root / "new", "x", owner="nobody-has-this")):
        with pytest.raises((OSError, KeyError)):
            put_checked([*items, impossible], ["true"])
        assert bytes_of(root) == before


def test_check_sees_the_new_files_and_all_stay_where_it_succeeds(mixed: tuple[Path, list[dict[str, Any]]]) -> None:
    root, items = mixed
    check = [sys.executable, "-c", f"assert open({str(root / 'below' / 'new')!r}).read() == 'new'"]
    assert put_checked(items, check) == ""
    assert all(map(is_as_wanted, items))


def test_nothing_new_needs_no_check(tmp_path: Path) -> None:
    assert put_checked([], ["touch", str(tmp_path / "ran")]) == ""
    assert not (tmp_path / "ran").exists()


# As a module

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the module as a host does, with its arguments on standard input."""

    def module(**arguments: Any) -> dict[str, Any]:
        given = {"_ansible_remote_tmp": str(tmp_path), "_ansible_diff": True, **arguments}
        done = subprocess.run(
            [sys.executable, "-m", "plugins.modules.host_files"],
            cwd=Path(__file__).parents[3], input=json.dumps({"ANSIBLE_MODULE_ARGS": given}),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout)
        return found | {"all output": done.stdout + done.stderr}

    return module


def entries(*items: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: value for key, value in one.items() if value is not None} for one in items]


def test_module_changes_once(tmp_path: Path, run: Run) -> None:
    root = tmp_path / "etc"
    files = entries(item(root / "a", "1"), item(root / "b", link="a"), item(root / "c", state="absent"))
    first, second = run(files=files), run(files=files)
    assert (first["changed"], first["paths"]) == (True, [str(root / "a"), str(root / "b")])
    assert (second["changed"], second["paths"], second["diff"]) == (False, [], [])


def test_check_mode_tells_and_changes_nothing(mixed: tuple[Path, list[dict[str, Any]]], run: Run) -> None:
    root, items = mixed
    before = bytes_of(root)
    touched = root / "the check ran"
    said = run(files=entries(*items), check=["touch", str(touched)], _ansible_check_mode=True)
    assert said["changed"] is True
    assert said["paths"] == [one["path"] for one in items]
    assert bytes_of(root) == before


@pytest.mark.parametrize(
    "mode", [{}, {"_ansible_check_mode": True}, {"check": FAILS}], ids=["done", "check", "refused"]
)
def test_secret_content_shows_nowhere(tmp_path: Path, run: Run, mode: dict[str, Any]) -> None:
    root = tmp_path / "etc"
    root.mkdir()
    (root / "secret").write_text("hush-before")
    said = run(
        files=entries(item(root / "open", "shown")),
        secrets={str(root / "secret"): "hush-after"},
        key_file=str(root / "digest.key"),
        **mode,
    )
    assert "hush" not in said["all output"]
    assert [(side["before"], side["after"]) for side in said["diff"]] == [("", "shown")]
    if "check" in mode:
        assert said["failed"] is True
        assert said["msg"].endswith("line 3 is wrong")
        assert "The old files are back in place" in said["msg"]
        assert (root / "secret").read_text() == "hush-before"
    else:
        assert str(root / "secret") in said["paths"]


@pytest.mark.parametrize(
    ("wanted", "before", "after"),
    [
        ({"content": "new\n"}, "old\n", "new\n"),
        ({"link": "x"}, "old\n", "link to x\n"),
        ({"state": "absent"}, "old\n", ""),
    ],
)
def test_diff_has_both_sides(tmp_path: Path, wanted: dict[str, Any], before: str, after: str) -> None:
    (tmp_path / "it").write_text("old\n")
    found = difference(item(tmp_path / "it", **wanted))
    assert (found["before"], found["after"]) == (before, after)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"owner": "nobody-has-this", "content": "x"}, "nobody-has-this"),
        ({"mode": "rwx", "content": "x"}, "rwx"),
        ({"state": "gone"}, "state"),
    ],
)
def test_module_says_what_it_cannot_do(tmp_path: Path, run: Run, wrong: dict[str, Any], said: str) -> None:
    found = run(files=entries(item(tmp_path / "it", **wrong)))
    assert found["failed"] is True
    assert said in found["msg"]
    assert not (tmp_path / "it").exists()


def test_what_belongs_to_nobody_is_there_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an account was removed: it is not taken for absent."""
    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])
    (tmp_path / "it").write_text("text")
    found = file_state(tmp_path / "it")
    assert found is not None
    assert found["owner"] == str(os.geteuid())
    assert not matches({"path": "it", "state": "absent"}, found)


def test_what_is_no_file_is_never_right(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "it")
    found = file_state(tmp_path / "it") or {}
    for state in ("present", "directory", "absent"):
        assert not is_as_wanted(
            item(tmp_path / "it", state=state, mode=f"{(tmp_path / 'it').stat().st_mode & 0o7777:o}")
        )
    assert found is not None


# --- what somebody edited ---------------------------------------------------------------------------


def copies(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.edited-*"))


@pytest.mark.fault(69)
def test_what_somebody_edited_is_told_and_kept_beside(tmp_path: Path, run: Run) -> None:
    path, secret, record = tmp_path / "web.conf", tmp_path / "environment", tmp_path / "files.json"
    rest = {"key_file": str(tmp_path / "key"), "record": str(record), "secrets": {str(secret): "A=1"}}
    run(files=entries(item(path, "ours", mode="0640")), **rest)
    assert sorted(json.loads(record.read_text())) == sorted([str(path), str(secret)])
    assert "A=1" not in record.read_text()
    assert record.stat().st_mode & 0o777 == 0o600
    path.write_text("theirs")
    path.chmod(0o604)
    secret.write_text("A=2")
    told = run(files=entries(item(path, "ours", mode="0640")), **rest, _ansible_check_mode=True)
    assert sorted(told["edited"]) == sorted([str(path), str(secret)])
    assert (path.read_text(), copies(path)) == ("theirs", [])

    done = run(files=entries(item(path, "ours", mode="0640")), **rest)
    (kept,), (kept_secret,) = copies(path), copies(secret)
    assert done["edited"] == {str(path): str(kept), str(secret): str(kept_secret)}
    assert f"{path} was edited since the last deploy wrote it. What it held is kept in {kept}" in str(done["warnings"])
    assert (path.read_text(), kept.read_text(), kept.stat().st_mode & 0o777) == ("ours", "theirs", 0o604)
    assert (kept_secret.read_text(), kept_secret.stat().st_mode & 0o777) == ("A=2", 0o600)
    again = run(files=entries(item(path, "ours", mode="0640")), **rest)
    assert (again["changed"], again["edited"]) == (False, {})


def test_what_a_deploy_changes_itself_is_no_edit(tmp_path: Path, run: Run) -> None:
    path, link, record = tmp_path / "web.conf", tmp_path / "link", str(tmp_path / "files.json")
    path.write_text("of a version without a record")
    for content in ("one", "two"):
        done = run(files=entries(item(path, content), item(link, link=f"/{content}")), record=record)
        assert (done["changed"], done["edited"], copies(path)) == (True, {}, [])
    path.chmod(0o600)
    assert run(files=entries(item(path, "two"), item(link, link="/two")), record=record)["edited"] == {}, (
        "only its mode"
    )
    link.unlink()
    link.write_text("theirs")
    assert run(files=entries(item(path, "two"), item(link, link="/two")), record=record)["edited"] == {}
    path.unlink()
    assert run(files=entries(item(path, "two"), item(link, link="/two")), record=record)["edited"] == {}, "it was gone"
    run(files=entries(item(path, state="absent"), item(link, link="/two")), record=record)
    path.write_text("somebody's own")
    assert run(files=entries(item(path, "two"), item(link, link="/two")), record=record)["edited"] == {}


def test_a_record_alone_is_written_without_a_check_or_a_change(tmp_path: Path, run: Run) -> None:
    path, record = tmp_path / "web.conf", tmp_path / "files.json"
    run(files=entries(item(path, "ours")))
    done = run(files=entries(item(path, "ours")), record=str(record), check=FAILS)
    assert (done["changed"], done["paths"], list(json.loads(record.read_text()))) == (False, [], [str(path)])


def test_no_copy_is_left_where_the_new_files_are_refused(tmp_path: Path, run: Run) -> None:
    path, record = tmp_path / "web.conf", tmp_path / "files.json"
    run(files=entries(item(path, "ours")), record=str(record))
    path.write_text("theirs")
    before = tree(tmp_path)
    assert run(files=entries(item(path, "new")), record=str(record), check=FAILS)["failed"] is True
    assert tree(tmp_path) == before


def test_few_copies_are_kept(tmp_path: Path, run: Run) -> None:
    path, record = tmp_path / "web.conf", tmp_path / "files.json"
    run(files=entries(item(path, "ours")), record=str(record))
    for number in range(5):
        (tmp_path / f"web.conf.edited-2025010{number}T000000").write_text(str(number))
    path.write_text("theirs")
    run(files=entries(item(path, "ours")), record=str(record))
    assert [kept.read_text() for kept in copies(path)] == ["3", "4", "theirs"]


def test_a_folder_with_a_kept_copy_stays(tmp_path: Path, run: Run) -> None:
    folder, record = tmp_path / "tool", tmp_path / "files.json"
    run(files=entries(item(folder / "old.py", "ours")), record=str(record))
    (folder / "old.py").write_text("theirs")
    gone = entries(item(folder / "old.py", state="absent"), item(folder, state="absent"))
    assert run(files=gone, record=str(record)).get("failed") is not True
    assert [kept.read_text() for kept in folder.iterdir()] == ["theirs"]
