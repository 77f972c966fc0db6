"""Whether the live slot answers: asked of it, not of the link."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.module_utils.host.answering import TRIES, Serving, serving
from plugins.module_utils.host.cutover import ACTIVATE, Request
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
