"""A switch, and the recovery of one, wait for nobody who only measures or recycles."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from plugins.module_utils.host.cli import read_words
from plugins.module_utils.host.commands import VERBS, Call
from plugins.module_utils.host.config import HostError
from plugins.module_utils.host.locks import locked
from plugins.module_utils.host.precedence import switch_first
from tests.unit.host.fake_systemd import Host

UNITS = {"recycle": "counter-release-recycle.service", "tune": "counter-release-tune.service"}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_nobody_else_is_ended(host: Host) -> None:
    switch_first(host.context())
    with locked(host.config, "activate bbb", "alice"):
        switch_first(host.context())
    assert host.systemd.calls == []


@pytest.mark.parametrize("verb", UNITS)
@pytest.mark.parametrize("words", [["activate", "aaa"], ["restart"], ["recover"]], ids=" ".join)
def test_holder_that_can_be_ended_is(host: Host, words: list[str], verb: str) -> None:
    call = Call(read_words(["--config", os.devnull, *words]), "alice", lambda _: None)
    # The fake does not end it, so it holds the lock for longer than a real one.
    with locked(host.config, verb, "bob"), contextlib.suppress(HostError):
        VERBS[words[0]](host.context(), call)
    assert ("stop", UNITS[verb]) in host.systemd.calls


def test_end_of_a_measurement_is_told(host: Host) -> None:
    steps: list[str] = []
    with locked(host.config, "tune", "bob"):
        switch_first(host.context(steps.append))
    assert steps == ["note: measuring by bob was ended, as a switch goes first"]
