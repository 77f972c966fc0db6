"""What single lines of a log give away."""

from __future__ import annotations

import pytest

from plugins.module_utils.host.log_signs import death, meaning, starting

WAITS, STARTED = "INFO:     Waiting for application startup.", "INFO:     Application startup complete."


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[2026-11-26 06:00:00 +0000] [7] [ERROR] Worker (pid:9) was sent SIGSEGV!", "Worker (pid:9) was sent SIGSEGV"),
        (
            "[2026-11-26 06:00:00 +0000] [7] [ERROR] Worker (pid:9) exited with code 1.",
            "Worker (pid:9) exited with code 1",
        ),
        ("INFO:     Child process [9] died", "Child process [9] died"),
        ("[2026-11-26 06:00:00 +0000] [7] [INFO] Worker exiting (pid: 9)", ""),
    ],
)
def test_last_death_that_a_server_tells(line: str, said: str) -> None:
    assert death(["[1] [7] [ERROR] Worker (pid:8) exited with code 3", line, "more"] if said else [line]) == said


def test_how_far_the_start_came() -> None:
    assert starting([WAITS, WAITS]) == "the startup of the app's lifespan has not ended"
    assert starting([WAITS, STARTED, WAITS]).startswith("in at least one worker the app has started")
    assert starting(["[INFO] Booting worker with pid: 9"]) == ""


def test_address_in_use_is_explained_and_a_file_is_not() -> None:
    assert "a port that the app opens itself" in meaning("OSError: [Errno 98] Address already in use")
    assert meaning("OSError: [Errno 28] No space left on device") == ""
