"""How a unit ended, in words."""

from __future__ import annotations

import pytest

from plugins.module_utils.host.endings import ending, how_it_ended, why_down
from plugins.module_utils.host.systemd import UnitState


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("exited", 3, "exited with status 3"),
        ("exited", 0, "exited with status 0"),
        ("exited", 203, "exited with status 203 (the program could not be executed)"),
        ("killed", 9, "was killed by SIGKILL"),
        ("dumped", 11, "was killed by SIGSEGV, with a core dump"),
        ("killed", 99, "was killed by signal 99"),
    ],
)
def test_a_process(code: str, status: int, words: str) -> None:
    assert how_it_ended(code, status) == words


@pytest.mark.parametrize(
    ("result", "code", "status", "words"),
    [
        ("exit-code", 1, 3, "exited with status 3"),
        ("signal", 2, 15, "was killed by SIGTERM"),
        ("success", 1, 0, "exited with status 0"),
        ("success", 0, 0, "does not run"),
        ("start-limit-hit", 1, 1, "reached its start limit after 5 starts; the last one exited with status 1"),
        ("start-limit-hit", 0, 0, "reached its start limit after 5 starts"),
        ("oom-kill", 2, 9, "was ended by the kernel, as the memory was used up"),
        ("timeout", 2, 9, "was ended by systemd, as it was not up, or not down, in time"),
        ("resources", 0, 0, "was ended by systemd (result: resources)"),
    ],
)
def test_a_unit(result: str, code: int, status: int, words: str) -> None:
    assert ending(UnitState("failed", result, 0, 5, exit_code=code, exit_status=status)) == words


@pytest.mark.parametrize(
    ("result", "code", "words"),
    [("success", 1, "was stopped"), ("success", 0, "does not run"), ("exit-code", 1, "exited with status 0")],
)
def test_a_unit_of_which_nobody_waits_that_it_starts(result: str, code: int, words: str) -> None:
    assert why_down(UnitState("inactive", result, 0, 0, exit_code=code)) == words
