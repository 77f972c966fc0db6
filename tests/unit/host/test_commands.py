"""Which release and which settings a verb takes: what a refused deploy has left reaches nobody."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from plugins.module_utils.host import history
from plugins.module_utils.host.answering import serving
from plugins.module_utils.host.cli import main
from plugins.module_utils.host.commands import IN_UNIT
from plugins.module_utils.host.config import Config
from plugins.module_utils.host.digests import KEY, read_key
from plugins.module_utils.host.locks import holder, locked
from plugins.module_utils.host.records import HOOKS
from plugins.module_utils.host.serving import unadopted
from plugins.module_utils.host.sockets import Answers
from plugins.module_utils.host.status import status
from plugins.module_utils.host.written import EDITED, slot_changes
from tests.unit.host.fake_systemd import Host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return Host(tmp_path, watch_seconds=0.0)


def call(host: Host, *words: str) -> int:
    """Call the command with the settings that the last deploy wrote."""
    settings = {**dataclasses.asdict(host.config), "fingerprint": host.wanted()}
    path = host.config.etc / "release.json"
    host.want_hooks()
    shown = {name: value for name, value in settings.items() if name not in HOOKS}
    path.write_text(json.dumps(shown, default=str))
    host.config = Config.read(path)
    at = words.index("--") if "--" in words else len(words)
    unit = ["--in-unit", "--by", "alice"] if words[0] in IN_UNIT else []
    return main(["--config", str(path), *words[:at], *unit, "--json", *words[at:]], host.connect)


@pytest.fixture
def refused(host: Host) -> Host:
    """A host on which aaa serves, and a deploy of bbb with other settings was refused."""
    assert call(host, "activate", "aaa") == 0
    host.want("refused")
    host.broken.add("bbb")
    assert call(host, "activate", "bbb", "--wanted") == 1
    host.systemd.commands.clear()
    return host


#: What a deploy of another release wants: the live one has no such path, and would be run otherwise.
OTHER: dict[str, Any] = {
    "health_path": "/v2/ready", "health_host": "v2.example", "health_timeout": 1.0, "health_successes": 2,
    "boot_timeout": 0.1, "warmup_paths": ("/v2/warm",), "python": "/opt/v2/python", "user": "v2", "hook_before": "v2",
}  # fmt: skip


@pytest.fixture
def asked(host: Host, monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str, str, float]]:
    """A host on which aaa serves and has /health, and a deploy of bbb with other settings was refused.

    Returns what each release is asked from then on: path, Host and seconds.
    """
    seen, ask = set[tuple[str, str, str, float]](), host.ask

    def answers(path: Path, url: str, name: str, seconds: float, count: int, pids: Iterable[int]) -> Answers:
        release = host.release_in(path.stem)
        seen.add((release, url, name, round(seconds, 1)))
        if release == "aaa" and url != "/health":
            return Answers([404] * count)
        return ask(path, url, name, seconds, count, pids)

    monkeypatch.setattr(host, "ask", answers)
    assert call(host, "activate", "aaa") == 0
    host.config = dataclasses.replace(host.config, **OTHER)
    host.want("refused")
    host.broken.add("bbb")
    assert call(host, "activate", "bbb", "--wanted") == 1
    assert any(key[:3] == ("bbb", "/v2/ready", "v2.example") for key in seen)
    seen.clear()
    return seen


AS_PROVED = {("aaa", "/health", "localhost")}


def test_live_slot_is_asked_as_it_was_proved(host: Host, asked: set[tuple[str, str, str, float]]) -> None:
    assert serving(host.context()).answers
    findings = status(host.context())["findings"]
    assert {finding["state"] for finding in findings} == {"settings differ"}
    assert asked == {(*next(iter(AS_PROVED)), 5.0)}
    host.broken.add("aaa")
    assert "/health answers 500" in serving(host.context()).trouble


@pytest.mark.parametrize("words", [["restart"], ["activate", "live"], ["restore", "aaa"]])
def test_live_release_is_proved_and_watched_as_it_was(
    host: Host, asked: set[tuple[str, str, str, float]], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert call(host, *words) == 0
    assert "service_hook_before is done" not in capsys.readouterr().out
    assert {key[:3] for key in asked} == AS_PROVED
    assert host.systemd.commands == [], "the hook is the other deploy's"
    assert host.config.of(str(host.config.live_slot())).user == ""


def test_going_back_takes_how_that_release_was_proved(host: Host, asked: set[tuple[str, str, str, float]]) -> None:
    host.broken.clear()
    host.systemd.hook_result = (0, "")
    assert call(host, "activate", "bbb", "--wanted") == 0
    assert host.systemd.commands.pop().user == "v2"
    asked.clear()
    assert call(host, "rollback") == 0
    assert {key[:3] for key in asked} == AS_PROVED
    assert host.systemd.commands == []


def test_new_release_is_not_asked_as_the_one_before_it_in_its_slot(
    host: Host, asked: set[tuple[str, str, str, float]]
) -> None:
    host.broken.clear()
    assert call(host, "activate", "bbb", "--wanted") == 0
    asked.clear()
    assert call(host, "activate", "ccc", "--wanted") == 0
    assert {key[1] for key in asked if key[0] == "ccc"} == {"/v2/ready", "/v2/warm"}


def test_command_for_the_live_release_runs_as_its_user(host: Host, asked: object) -> None:
    for words, user, python in ((["run", "live"], "", "/usr/bin/python3"), (["run", "bbb"], "v2", "/opt/v2/python")):
        assert call(host, *words, "--", "id") == 0
        given = host.systemd.commands.pop()
        assert (given.user, f"FLEET_PYTHON={python}" in given.words) == (user, True)


def test_settings_that_need_no_new_workers_are_adopted(host: Host) -> None:
    assert call(host, "activate", "aaa") == 0
    host.config = dataclasses.replace(host.config, health_path="/ready", warmup_paths=("/warm",))
    for release, path in (("bbb", "/health"), ("aaa", "/ready")):
        assert call(host, "adopt", release) == 0
        assert host.config.of("blue").health_path == path
    assert host.config.of("blue").warmup_paths == ("/warm",)
    host.want("second")
    host.config = dataclasses.replace(host.config, health_path="/never")
    assert call(host, "adopt", "aaa") == 0
    assert host.config.of("blue").health_path == "/ready", "those workers run with another environment"


def test_what_a_refused_deploy_left_is_adopted_though_no_file_changes(host: Host) -> None:
    """A deploy that wants the same again writes nothing: that the record is behind says the probe."""
    assert not unadopted(host.config.live_record(), host.config.etc), "nothing is live yet"
    settings: dict[str, Any]
    for settings in ({}, {"health_path": "/ready"}, {"hook_after": "true"}, {"warmup_paths": ("/warm",)}):
        host.config = dataclasses.replace(host.config, **settings)
        assert call(host, "activate", "aaa", "--wanted") == 0
        assert not unadopted(host.config.live_record(), host.config.etc)
    for settings in ({"health_path": "/v2"}, {"hook_after": "false"}, {"warmup_paths": ("/warm", "/v2")}):
        host.broken.add("bbb")
        host.config = dataclasses.replace(host.config, **settings)
        assert call(host, "activate", "bbb", "--wanted") == 1
        assert unadopted(host.config.live_record(), host.config.etc)
        assert call(host, "adopt", "aaa") == 0
        assert not unadopted(host.config.live_record(), host.config.etc)
    assert not unadopted(host.config.live_record(), host.folder / "nothing"), "of what is not there nothing is known"


@pytest.mark.parametrize(
    ("changed", "is_behind", "switches", "adopts"),
    [(True, False, False, True), (False, True, False, True), (False, False, False, False), (True, True, True, False)],
)
def test_role_has_settings_adopted_that_the_live_release_does_not_go_by(
    changed: bool, is_behind: bool, switches: bool, adopts: bool
) -> None:
    tasks = yaml.safe_load((Path(__file__).parents[3] / "roles/service/tasks/prepare.yml").read_text())
    when = next(
        task["when"] for task in tasks if "adopt" in task.get("webfleet.fastapi.host_command", {}).get("argv", ())
    )
    variables = {
        "service_files": {"changed": changed, "needs_switch": switches},
        "ansible_facts": {"app_probe": {"unadopted": is_behind}},
    }
    assert jinja2.Environment(autoescape=True).compile_expression(when)(**variables) is adopts


def test_record_of_an_earlier_version_leaves_the_settings_of_the_last_deploy(host: Host) -> None:
    assert call(host, "activate", "aaa") == 0
    path = host.config.slot_record("blue")
    path.write_text(json.dumps({**json.loads(path.read_text()), "proved_with": None}))
    host.config = dataclasses.replace(host.config, health_path="/ready")
    assert host.config.of("blue") == host.config
    assert call(host, "restart") == 0
    assert "proved_with" not in host.config.live_record().public(), "hooks may hold what is nobody's business"


def test_unit_of_a_switch_has_time_for_the_settings_of_any_release(host: Host) -> None:
    host.config = dataclasses.replace(host.config, boot_timeout=10.0, hook_before="migrate")
    assert call(host, "activate", "aaa") == 0
    former = host.config.expiry
    host.config = dataclasses.replace(host.config, boot_timeout=0.1, hook_before="")
    assert host.config.expiry < former
    with locked(host.config, "activate bbb", "me"):
        about = holder(host.config) or {}
    assert about["expires"] - about["since"] in (int(former), int(former) + 1), "it says when systemd ends it"
    assert host.config.longest == former
    assert call(host, "activate", "bbb", "--wanted") == 0
    assert call(host, "activate", "ccc", "--wanted") == 0
    assert host.config.longest == former, "aaa is one to go back to"


def environment(host: Host) -> str:
    """Return the environment that the live slot runs with."""
    return host.config.slot_files(str(host.config.live_slot()))["environment"].read_text().strip()


@pytest.mark.fault(54)
@pytest.mark.parametrize("name", ["live", "aaa"])
def test_command_for_the_live_release_gets_what_that_serves_with(refused: Host, name: str) -> None:
    for words, read in ((["run", name], "first"), (["run", name, "--wanted"], "refused"), (["run", "bbb"], "refused")):
        assert call(refused, *words, "--", "id") == 0
        given = refused.systemd.commands.pop()
        assert given.environment_file.read_text().strip() == read, words
        assert f"FLEET_RELEASE={words[1].replace('live', 'aaa')}" in given.words


@pytest.mark.fault(54)
@pytest.mark.parametrize("words", [["restart"], ["activate", "live"], ["activate", "aaa"], ["restore", "aaa"]])
def test_live_release_is_replaced_with_what_it_serves_with(refused: Host, words: list[str]) -> None:
    before = refused.live
    assert call(refused, *words) == 0
    assert (refused.config.live_slot(), environment(refused)) == ("green", "first")
    same = ("release", "workers", "fingerprint", "settings", "previous")
    assert {key: refused.live[key] for key in same} == {key: before[key] for key in same}
    assert refused.live["fingerprint"].partition("-")[0] == "first", "so the next deploy sees that it is another one"


def test_deploy_of_the_live_release_brings_what_it_has_written(refused: Host) -> None:
    assert call(refused, "activate", "aaa", "--wanted") == 0
    assert environment(refused) == "refused"


def test_restart_goes_where_a_deploy_would_not(refused: Host) -> None:
    """As going back does: it has to be possible at any hour."""
    history = refused.config.root / "history.jsonl"
    history.write_text(json.dumps({"at": 4e9, "verb": "activate", "to": "aaa"}).replace("4000000000.0", "4000000000"))
    assert call(refused, "activate", "bbb") == 2
    assert call(refused, "restart") == 0


@pytest.mark.parametrize("words", [["restart"], ["activate", "live"], ["run", "live", "--", "id"]])
def test_where_nothing_is_live_there_is_no_such_name(host: Host, words: list[str], capsys: object) -> None:
    assert call(host, *words) == 2
    assert "no release is live on this host yet" in capsys.readouterr().out  # type: ignore[attr-defined]


@pytest.mark.parametrize("words", [["restart"], ["activate", "live"], ["run", "live", "--", "id"]])
def test_where_the_link_is_gone_what_runs_is_told(refused: Host, words: list[str], capsys: object) -> None:
    refused.config.live_link.unlink()
    assert call(refused, *words) == 2
    said = capsys.readouterr().out  # type: ignore[attr-defined]
    assert "the blue slot runs release aaa" in said
    assert "no release is live on this host yet" not in said


def edit(host: Host, kind: str) -> Path:
    """Edit one of the live slot's files by hand."""
    path = host.config.slot_files(str(host.config.live_slot()))[kind]
    path.write_text(path.read_text() + "# by hand\n")
    return path


@pytest.mark.parametrize("words", [["restart"], ["activate", "live"], ["restore", "aaa"]])
@pytest.mark.parametrize("kind", ["service", "socket", "environment", "hooks"])
def test_edited_slot_is_replaced_with_what_was_proved(
    host: Host, words: list[str], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(host, "activate", "aaa") == 0
    edited, proved = edit(host, kind), host.config.wanted_files()[kind].read_bytes()
    by_hand = edited.read_bytes()
    capsys.readouterr()
    assert call(host, *words) == 0
    assert host.config.slot_files("green")[kind].read_bytes() == proved
    (copy,) = edited.parent.glob(f"{edited.name}{EDITED}*")
    assert (copy.read_bytes(), oct(copy.stat().st_mode)) == (by_hand, oct(edited.stat().st_mode))
    assert f"what it held is kept in {copy}" in capsys.readouterr().out
    assert call(host, "restart") == 0
    assert list(edited.parent.glob(f"{edited.name}{EDITED}*")) == [copy], "once"
    assert edited.read_bytes() == proved


@pytest.mark.parametrize("gone", [False, True])
def test_edited_slot_is_not_official_where_a_refused_deploy_wants_otherwise(
    refused: Host, gone: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    edited = edit(refused, "environment")
    if gone:
        edited.unlink()
    capsys.readouterr()
    assert call(refused, "restart") == 2
    said = capsys.readouterr().out
    assert f"{edited} was edited or removed since" in said
    assert "Deploy, or counter-release activate aaa --wanted" in said
    assert (refused.config.live_slot(), refused.live["release"]) == ("blue", "aaa")
    assert call(refused, "activate", "aaa", "--wanted") == 0, "the remedy"
    assert environment(refused) == "refused"


def test_edited_settings_are_not_those_that_a_release_is_gone_back_to_with(host: Host) -> None:
    assert call(host, "activate", "aaa") == 0
    edit(host, "environment")
    host.want("second")
    assert call(host, "activate", "bbb", "--wanted") == 0
    assert not host.config.own_files("aaa")[1], "none were kept"
    assert call(host, "rollback") == 0
    assert environment(host) == "second"


def test_slot_in_which_an_earlier_version_was_refused_was_not_edited(refused: Host) -> None:
    path = refused.config.slot_record("green")
    former = dict.fromkeys(map(str, refused.config.slot_files("green").values()), "of the release before")
    path.write_text(json.dumps({**refused.live, "slot": "green", "files": former, "proved_with": None}))
    refused.broken.clear()
    assert call(refused, "activate", "bbb", "--wanted") == 0
    assert not list(refused.folder.glob(f"*/*{EDITED}*"))


def test_rollout_that_stops_takes_back_settings_that_came_without_a_new_release(host: Host) -> None:
    """It asks for the release that was live when it began: that is the live one, which served otherwise."""
    assert call(host, "activate", "aaa", "--wanted") == 0
    host.want("second")
    host.config = dataclasses.replace(host.config, health_path="/ready")
    assert call(host, "activate", "aaa", "--wanted") == 0
    assert environment(host) == "second"
    assert call(host, "restart") == 0
    assert environment(host) == "second", "these it serves with"
    host.want("third")
    host.config = dataclasses.replace(host.config, health_path="/third")
    assert call(host, "activate", "aaa", "--wanted") == 0
    assert call(host, "restore", "aaa") == 0
    assert (environment(host), host.config.of("blue").health_path) == ("second", "/ready")
    assert (host.live["settings"], host.live["fingerprint"].partition("-")[0]) == ("kept", "second")
    assert host.config.live_slot() == "blue"


@pytest.mark.parametrize("words", [["restart"], ["activate", "live"], ["restore", "aaa"]])
def test_live_release_that_went_wrong_with_other_settings_is_replaced_with_its_own(
    refused: Host, words: list[str]
) -> None:
    """A deploy of settings alone that went back marks the release, which serves on with those of before."""
    history.mark_bad(refused.config, "aaa", "it was slow", refused.config.fingerprint)
    assert call(refused, "activate", "aaa", "--wanted") == 2, "with those it is not tried again"
    assert call(refused, *words) == 0
    assert environment(refused) == "first"
    assert call(refused, "activate", "aaa", "--wanted") == 2, "nor after that"
    assert call(refused, "activate", "aaa", "--wanted", "--force") == 0
    assert history.bad(refused.config) == {}


# Hooks


def want(host: Host, environment: str, hook: str) -> None:
    """Write what a deploy writes that has another environment and another hook, before and after the switch."""
    host.want(environment)
    host.config = dataclasses.replace(host.config, hook_before=hook, hook_after=hook)


def hooks_run(host: Host) -> list[str]:
    """Return the hooks that have run since this was asked last."""
    commands = [command.words[-1] for command in host.systemd.commands]
    host.systemd.commands.clear()
    return commands


@pytest.mark.fault(51)
def test_secret_in_a_hook_is_in_nothing_that_a_switch_writes_down(host: Host) -> None:
    """It has its file below /etc/APP, and the slot's copies, which are for root only."""
    for release, hook in (("aaa", "curl -u :canary-1"), ("bbb", "curl -u :canary-2"), ("ccc", "curl -u :canary-3")):
        want(host, release, hook)
        host.broken = {"ccc"}
        host.systemd.hook_result = (int(release == "bbb"), "")
        assert call(host, "activate", release, "--wanted") == (release != "aaa")
    assert call(host, "adopt", "aaa") == 0
    host.systemd.hook_result = (0, "")
    want(host, "bbb", "curl -u :canary-2")
    assert call(host, "activate", "bbb", "--wanted", "--force") == 0
    assert call(host, "rollback") == 0
    files = [path for path in host.folder.rglob("*") if path.is_file()]
    secret = {path for path in files if b"canary" in path.read_bytes()}
    config = host.config
    own = {config.slot_files(slot)["hooks"] for slot in ("blue", "green")}
    own |= {config.kept_files(release)["hooks"] for release in ("aaa", "bbb")}
    assert secret == own | {config.wanted_files()["hooks"]}
    assert {path.stat().st_mode & 0o777 for path in own} == {0o600}
    hashes = {hashlib.sha256(path.read_bytes()).hexdigest() for path in secret}
    assert not [path for path in files if any(plain in path.read_text(errors="replace") for plain in hashes)]


@pytest.fixture
def other_hook(host: Host) -> Host:
    """A host on which aaa serves, and a deploy of bbb with another environment and another hook was refused."""
    want(host, "first", "first hook")
    assert call(host, "activate", "aaa") == 0
    want(host, "refused", "refused hook")
    host.broken.add("bbb")
    assert call(host, "activate", "bbb", "--wanted") == 1
    host.broken.clear()
    assert hooks_run(host) == ["first hook"] * 2
    return host


@pytest.mark.fault(54)
@pytest.mark.parametrize("words", [["restart"], ["activate", "live"], ["restore", "aaa"]])
def test_hook_of_a_refused_deploy_does_not_run_with_what_serves(other_hook: Host, words: list[str]) -> None:
    for hook in ("", "refused hook"):
        want(other_hook, "refused", hook)
        assert call(other_hook, *words) == 0
        assert hooks_run(other_hook) == ["first hook"] * 2
    assert call(other_hook, "activate", "bbb", "--wanted") == 0
    assert hooks_run(other_hook) == ["refused hook"] * 2
    assert call(other_hook, "rollback") == 0
    assert hooks_run(other_hook) == ["first hook"] * 2, "going back brings the hook of that time"


def test_hooks_alone_are_adopted_in_the_slots_copy(host: Host) -> None:
    assert call(host, "activate", "aaa") == 0
    host.config = dataclasses.replace(host.config, hook_before="next hook", hook_after="next hook")
    for release, hook in (("bbb", ""), ("aaa", "next hook")):
        assert call(host, "adopt", release) == 0
        assert host.config.of("blue").hook_before == hook
        assert unadopted(host.config.live_record(), host.config.etc) is not bool(hook)
        assert not slot_changes(host.config.live_record(), read_key(host.config.etc / KEY)), "not taken for edited"
    assert host.config.slot_files("blue")["hooks"].stat().st_mode & 0o777 == 0o600
    assert call(host, "restart") == 0
    assert hooks_run(host) == ["next hook"] * 2


def test_where_adopting_is_cut_off_a_restart_still_works(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(host, "activate", "aaa") == 0
    host.config = dataclasses.replace(host.config, hook_before="next hook", hook_after="next hook")
    with monkeypatch.context() as patch:
        patch.setattr("plugins.module_utils.host.slots.write_atomically", interrupt)
        with pytest.raises(KeyboardInterrupt):
            call(host, "adopt", "aaa")
    assert call(host, "restart") == 0
    assert hooks_run(host) == ["next hook"] * 2


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def as_before_copies(host: Host, has_settings: bool, copy: str = "") -> None:
    """Leave on a host what a version did that made no copy of the hooks.

    has_settings: whether records have the hooks among other settings. copy: what is left of a newer version.
    """
    proved_with = {**dataclasses.asdict(host.config), "hook_before": "of the record"} if has_settings else None
    etc = host.config.etc
    for path in [*etc.glob("hooks.*.json"), *etc.glob("releases/*/hooks")]:
        path.write_text(json.dumps({"hook_before": copy, "hook_after": copy}))
        if not copy:
            path.unlink()
    for path in [*(host.config.root / "slots").glob("*.json"), *etc.glob("releases/*/record.json")]:
        record = json.loads(path.read_text())
        files = {name: digest for name, digest in record["files"].items() if "hooks" not in name}
        path.write_text(json.dumps({**record, "files": files, "proved_with": proved_with}, default=str))


earlier = pytest.mark.parametrize(
    ("has_settings", "copy"), [(False, ""), (True, ""), (False, "of another release"), (True, "of another release")]
)


@earlier
def test_host_of_a_version_without_a_copy_of_the_hooks_keeps_all_else(
    other_hook: Host, has_settings: bool, copy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A restart has the hooks of the last deploy, as it had there, and from then on a copy."""
    as_before_copies(other_hook, has_settings, copy)
    assert {finding["state"] for finding in status(other_hook.context())["findings"]} == {"settings differ"}
    assert other_hook.config.of("blue").hook_before == "refused hook"
    assert "hook_before" not in other_hook.live["proved_with"]
    capsys.readouterr()
    assert call(other_hook, "restart") == 0
    assert environment(other_hook) == "first"
    assert hooks_run(other_hook) == ["refused hook"] * 2
    assert not [text for text in ("were not kept", "edited") if text in capsys.readouterr().out]
    want(other_hook, "refused again", "third hook")
    assert call(other_hook, "restart") == 0
    assert hooks_run(other_hook) == ["refused hook"] * 2


@earlier
def test_going_back_to_what_was_kept_without_hooks_brings_all_else(
    other_hook: Host, has_settings: bool, copy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(other_hook, "activate", "bbb", "--wanted") == 0
    as_before_copies(other_hook, has_settings, copy)
    other_hook.systemd.commands.clear()
    capsys.readouterr()
    assert call(other_hook, "rollback") == 0
    assert (environment(other_hook), other_hook.live["settings"]) == ("first", "kept")
    assert "were not kept" not in capsys.readouterr().out
    assert hooks_run(other_hook) == ["refused hook"] * 2
    assert other_hook.config.own_files("bbb")[1].fingerprint.partition("-")[0] == "refused", "it is kept, too"


@earlier
def test_upgrade_that_needs_no_new_workers_makes_the_copy(host: Host, has_settings: bool, copy: str) -> None:
    want(host, "first", "first hook")
    assert call(host, "activate", "aaa") == 0
    as_before_copies(host, has_settings, copy)
    assert unadopted(host.config.live_record(), host.config.etc)
    assert call(host, "adopt", "aaa") == 0
    assert not unadopted(host.config.live_record(), host.config.etc)
    assert "first hook" in host.config.slot_files("blue")["hooks"].read_text()
    assert not slot_changes(host.config.live_record(), read_key(host.config.etc / KEY))


def test_host_that_goes_back_to_an_earlier_command_takes_the_copy_for_no_part_of_its_record(host: Host) -> None:
    want(host, "first", "first hook")
    assert call(host, "activate", "aaa") == 0
    copy = {"hook_before": "first hook", "hook_after": ""}
    as_before_copies(host, has_settings=True)
    host.config.slot_files("blue")["hooks"].write_text(json.dumps(copy))
    assert unadopted(host.config.live_record(), host.config.etc), "the record is to name it"
