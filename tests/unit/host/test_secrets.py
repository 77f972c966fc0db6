"""What leaves a host about its secret files: digests with a key that stays there, the same from all who make them."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from plugins.action.host_files import UNKNOWN, all_right, digests_of
from plugins.module_utils.host import probe as probe_module
from plugins.module_utils.host import serving
from plugins.module_utils.host.config import Config, HostError
from plugins.module_utils.host.cutover import ACTIVATE, Request
from plugins.module_utils.host.digests import KEY, KEY_BYTES, keyed, make_key, read_key
from plugins.module_utils.host.probe import probe, secret_state
from plugins.module_utils.host.records import SlotRecord
from plugins.plugin_utils.texts import text_id
from tests.unit.host.fake_systemd import APP, Host

WEAK = 'PIN="4711"\n'
#: A record and a fingerprint as version 0.2 had them: of both, a weak secret could be searched for.
FORMER = {
    "release": "aaa",
    "slot": "blue",
    "fingerprint": "0123456789abcdef",
    "files": {"/etc/web/environment.blue": hashlib.sha256(WEAK.encode()).hexdigest()},
}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "web" / KEY
    make_key(path)
    return path


# The key


def test_key_is_for_root_only_and_another_one_each_time(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        first, second = make_key(tmp_path / "a" / KEY), make_key(tmp_path / "b" / KEY)
    finally:
        os.umask(umask)
    assert first != second
    assert stat.S_IMODE((tmp_path / "a" / KEY).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o755
    assert read_key(tmp_path / "a" / KEY) == first
    assert [path.name for path in (tmp_path / "a").iterdir()] == [KEY]


@pytest.mark.parametrize("fault", ["none", "empty", "short", "long", "readable by its group", "a folder", "a link"])
def test_key_that_may_be_known_or_is_damaged_is_none(key: Path, fault: str) -> None:
    if fault == "none":
        key.unlink()
    elif fault in ("empty", "short", "long"):
        key.write_bytes(bytes({"empty": 0, "short": KEY_BYTES - 1, "long": KEY_BYTES + 1}[fault]))
    elif fault == "readable by its group":
        key.chmod(0o640)
    else:
        key.rename(key.with_name("other"))
        key.mkdir() if fault == "a folder" else key.symlink_to("nowhere")
    assert read_key(key) is None


def test_a_digest_takes_the_key(key: Path) -> None:
    content = WEAK.encode()
    assert keyed(read_key(key), content) not in hashlib.sha256(content).hexdigest()
    assert keyed(read_key(key), content) != keyed(bytes(KEY_BYTES), content)
    assert keyed(None, content) == ""


@pytest.mark.parametrize(
    ("fingerprint", "shown"),
    [
        (f"{'0' * 16}-{'a' * 32}", True),
        ("0" * 16, False),
        (f"{'0' * 16}-", False),
        (f"{'0' * 16}-{'a' * 32}\n", False),
        (None, False),
    ],
)
def test_record_that_leaves_the_host_has_no_plain_hash(fingerprint: str | None, shown: bool) -> None:
    public = SlotRecord.parse({**FORMER, "fingerprint": fingerprint}).public()
    assert (public["release"], public["slot"], public.get("fingerprint")) == (
        "aaa", "blue", fingerprint if shown else None,
    )  # fmt: skip
    assert "files" not in public
    assert SlotRecord().public() == {}


# One answer of the probe


def wanted(path: Path, text: str) -> dict[str, Any]:
    """Return what the probe says of a secret file, as the action of the same name completes it."""
    seen = secret_state(path, text, read_key(path.with_name(KEY)))
    if seen["state"]:  # a host's are root's
        seen["state"] |= {"owner": "root", "group": "root"}
    return {str(path): {**seen, "text_id": text_id(text)}}


def put(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)


@pytest.mark.parametrize(
    ("there", "mode", "right"),
    [(WEAK, 0o600, True), ("PIN=4712\n", 0o600, False), (WEAK, 0o644, False), ("", 0, False)],
)
def test_secret_is_right_where_it_is_what_was_asked_about_and_for_root_only(
    key: Path, there: str, mode: int, right: bool
) -> None:
    path = key.with_name("environment")
    if there:
        put(path, there, mode)
    assert all_right({"secrets": {str(path): WEAK}}, {}, wanted(path, WEAK)) is right


def test_secret_that_has_become_another_since_it_was_asked_about_is_not_known_to_be_right(key: Path) -> None:
    """A setting may depend on what the probe found, or on the time."""
    path = key.with_name("environment")
    put(path, WEAK)
    probed = wanted(path, WEAK)
    assert not all_right({"secrets": {str(path): "PIN=4712\n"}}, {}, probed)
    assert digests_of({str(path): "PIN=4712\n"}, probed) == {}
    assert not all_right({"secrets": {str(path): WEAK}}, {}, {}), "nothing was asked"


def test_without_a_key_nothing_is_known_to_be_right(key: Path) -> None:
    path = key.with_name("environment")
    put(path, WEAK)
    key.unlink()
    probed = wanted(path, WEAK)
    assert (probed[str(path)]["digest"], probed[str(path)]["state"]) == ("", None)
    assert not all_right({"secrets": {str(path): WEAK}}, {}, probed)


def test_probe_says_nothing_that_a_weak_secret_could_be_searched_for_in(
    key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "srv"
    (root / "slots").mkdir(parents=True)
    (root / "slots" / "blue.json").write_text(json.dumps(FORMER))
    (root / "live.sock").symlink_to("/run/web/blue.sock")
    path = key.with_name("environment")
    put(path, WEAK)
    monkeypatch.setattr(probe_module, "systemd_version", lambda: 0)
    plan = {"workers": 1}
    given = {"app": "web", "root": str(root), "python": sys.executable, "user": None, "plan": plan}
    secrets = {"secrets": {str(path): WEAK}, "key_file": str(key)}
    facts = probe({**given, **secrets})
    said = json.dumps(facts)
    for algorithm in ("md5", "sha1", "sha256", "sha512"):
        for text in (WEAK, "4711", 'PIN="4711"'):
            assert hashlib.new(algorithm, text.encode()).hexdigest()[:16] not in said
    assert [text for text in ("0123456789abcdef", WEAK, key.read_bytes().hex()) if text in said] == []
    seen = facts["app_probe"]["secrets"][str(path)]
    assert seen["digest"] == seen["state"]["keyed"] == keyed(read_key(key), WEAK.encode())


# The module, the host's command and the action mean the same


def run(tmp_path: Path, **arguments: Any) -> dict[str, Any]:
    """Run host_files as a host does."""
    done = subprocess.run(
        [sys.executable, "-m", "plugins.modules.host_files"],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False,
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {"_ansible_remote_tmp": str(tmp_path), **arguments}}),
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def settings(tmp_path: Path, fingerprint: str) -> Path:
    """Write the settings of the host's command beside the secrets."""
    places = {name: str(tmp_path / name) for name in ("root", "run", "etc", "units")}
    path = tmp_path / "etc" / "release.json"
    path.write_text(json.dumps({"app": "web", "plan": {"workers": 1}, "fingerprint": fingerprint, **places}))
    return path


def test_fingerprint_of_a_deploy_is_the_one_that_the_host_reads(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    secrets = {str(etc / "environment"): WEAK, str(etc / "hooks.json"): '{"hook_before": "", "hook_after": "x"}'}
    arguments = {"secrets": secrets, "key_file": str(etc / KEY)}
    check = run(tmp_path, **arguments, _ansible_check_mode=True)
    assert (check["changed"], check["digests"], etc.exists()) == (True, {}, False)
    first = run(tmp_path, **arguments)
    again = run(tmp_path, **arguments)
    assert (first["changed"], again["changed"], first["digests"]) == (True, False, again["digests"])
    assert set(first["paths"]) == {*secrets, str(etc / KEY)}
    config = Config.read(settings(tmp_path, "0" * 16))
    assert config.fingerprint == f"{'0' * 16}-{first['digests'][str(etc / 'environment')]}"
    assert (config.hook_before, config.hook_after) == ("", "x")
    (etc / "environment").write_text("PIN=4712\n")
    assert Config.read(settings(tmp_path, "0" * 16)).fingerprint not in (config.fingerprint, UNKNOWN)


def test_lost_key_is_made_anew_and_told_as_a_change(tmp_path: Path) -> None:
    arguments = {"secrets": {str(tmp_path / "s"): WEAK}, "key_file": str(tmp_path / KEY)}
    first = run(tmp_path, **arguments)
    (tmp_path / KEY).unlink()
    assert run(tmp_path, **arguments, _ansible_check_mode=True)["changed"] is True
    again = run(tmp_path, **arguments)
    assert (again["changed"], again["paths"]) == (True, [str(tmp_path / KEY)])
    assert again["digests"] != first["digests"]


def test_secrets_need_a_place_for_the_key(tmp_path: Path) -> None:
    assert "secrets need key_file" in run(tmp_path, secrets={str(tmp_path / "s"): WEAK})["msg"]
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("content", [None, "", "[]", '{"hook_before": ""}'])
def test_hooks_that_are_lost_stop_the_command_and_are_not_left_out(tmp_path: Path, content: str | None) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "environment").write_text(WEAK)
    if content is not None:
        (tmp_path / "etc" / "hooks.json").write_text(content)
    with pytest.raises(HostError, match=r"cannot read the settings in .*; deploy once more to write them"):
        Config.read(settings(tmp_path, "0" * 16))


def test_probe_sees_that_a_slots_environment_is_what_the_switch_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path)
    order = Request(ACTIVATE, "aaa", "me")
    host.switch(order, print)
    key_file = host.config.etc / KEY
    key_file.chmod(0o600)
    environment = host.config.slot_files("blue")["environment"]
    assert hashlib.sha256(environment.read_bytes()).hexdigest() not in json.dumps(host.live)

    def is_intact() -> bool:
        facts = serving.Host(APP, host.config.root, (True, 0), True, read_key(key_file), units=host.folder)
        return not serving.altered(host.config.live_record(), facts)

    wants = host.folder / "multi-user.target.wants"
    wants.mkdir()
    (wants / f"{APP}@blue.service").symlink_to("anywhere")

    assert is_intact()
    before = environment.read_bytes()
    environment.write_bytes(before + b"A=1\n")
    assert not is_intact()
    environment.write_bytes(before)
    make_key(key_file)
    assert not is_intact(), "another key: nothing is known any more"
