"""Whether the live slot answers: asked of it, not of the link."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.module_utils.host.answering import Serving, serving
from plugins.module_utils.host.cutover import ACTIVATE, Request
from plugins.module_utils.host.sockets import TRIES
from plugins.module_utils.host.systemd import UnitState
from tests.unit.host.fake_systemd import Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_no_release_is_live(host: Host) -> None:
    assert serving(host.context()).in_words() == "nothing serves now: no release is live"


def test_a_live_release_that_answers(host: Host) -> None:
    host.switch(Request(ACTIVATE, "aaa", "me"))
    found = serving(host.context())
    assert found == Serving("aaa", answers=True)
    assert (found.in_words(), found.as_dict()["trouble"]) == ("release aaa serves", "")


def test_a_live_release_that_is_down_or_unhealthy(host: Host) -> None:
    host.switch(Request(ACTIVATE, "aaa", "me"))
    host.broken.add("aaa")
    words = "nothing serves now: release aaa is live, but"
    assert serving(host.context()).in_words() == f"{words} /health answers 500"
    host.broken.clear()
    host.trouble["aaa"] = "timed out"
    assert serving(host.context()).in_words() == f"{words} /health gives no answer (timed out)"
    host.systemd.stop("counter@blue.service")
    assert serving(host.context()).in_words() == f"{words} its unit counter@blue.service does not run"


def test_one_request_that_goes_wrong_is_no_dead_slot(host: Host) -> None:
    host.switch(Request(ACTIVATE, "aaa", "me"))
    host.broken.add("aaa")
    asked, ask = [], host.ask

    def answers(*args: object) -> object:
        asked.append(args)
        if len(asked) == TRIES:
            host.broken.clear()
        return ask(*args)  # type: ignore[arg-type]

    host.ask = answers  # type: ignore[method-assign, assignment]
    assert serving(host.context()).answers


def test_a_slot_that_was_stopped_has_not_exited(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.switch(Request(ACTIVATE, "aaa", "me"))
    monkeypatch.setattr(host.systemd, "state", lambda _: UnitState("inactive", "success", 0, 0, exit_code=1))
    assert serving(host.context()).trouble == "its unit counter@blue.service was stopped"


def test_a_link_that_is_gone_is_told_with_what_runs(host: Host) -> None:
    host.switch(Request(ACTIVATE, "aaa", "me"))
    link = host.config.live_link
    link.unlink()
    said = serving(host.context()).in_words()
    assert said.startswith(
        f"nothing serves now: {link} is gone, so nginx reaches nobody; the blue slot runs release aaa"
    )
