"""Which release and which settings a verb takes: what a refused deploy has left reaches nobody."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from plugins.module_utils.host.cli import main
from plugins.module_utils.host.commands import IN_UNIT
from plugins.module_utils.host.config import Config
from tests.unit.host.fake_systemd import Host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return Host(tmp_path, watch_seconds=0.0)


def call(host: Host, *words: str) -> int:
    """Call the command with the settings that the last deploy wrote."""
    settings = {**dataclasses.asdict(host.config), "fingerprint": host.wanted()}
    path = host.folder / "release.json"
    path.write_text(json.dumps(settings, default=str))
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
