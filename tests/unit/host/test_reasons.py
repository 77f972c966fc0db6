"""The reason of a refusal: what was seen, and what the release's log adds to it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from plugins.module_utils.host.endings import BY_RESULT
from plugins.module_utils.host.gate import AnswerError, CrashError, GateError
from plugins.module_utils.host.log_excerpt import Excerpt
from plugins.module_utils.host.reasons import explained, with_last_exception

CAUSE = "RuntimeError: db is away"
LOG = Excerpt(cause=CAUSE, last_line="bye")
IN_REQUEST = Excerpt(cause="ValueError: caught", of_request=CAUSE)
OOM = BY_RESULT["oom-kill"]
BESIDE = f"the last exception in its log: {CAUSE}"
FELL, HOW = "counter@green.service failed while starting", "does not run"


@pytest.mark.fault(53)
@pytest.mark.parametrize(
    ("error", "log", "reason"),
    [
        (AnswerError("/health answers 500", 500), LOG, f"/health answers 500; {BESIDE}"),
        (AnswerError("/health answers 500", 500), IN_REQUEST, f"/health answers 500: {CAUSE}"),
        (AnswerError("/health answers 500", 500, "sorry"), IN_REQUEST, f"/health answers 500: {CAUSE}"),
        (AnswerError("/health answers 503", 503, "redis is away"), LOG, "/health answers 503: redis is away"),
        (AnswerError("/health answers 404", 404, "Not Found"), LOG, "/health answers 404"),
        (AnswerError("/health answers 500", 500), Excerpt(last_line="bye"), "/health answers 500"),
        (AnswerError("/health answers 404", 404), LOG, "/health answers 404"),
        (GateError("no answer"), LOG, f"no answer; the last exception in its log: {CAUSE}"),
        (GateError("no answer"), Excerpt(last_line="bye"), "no answer"),
        (GateError("no answer"), Excerpt(cause=CAUSE, own_server="it is a server"), "no answer: it is a server"),
        (OSError("full"), LOG, f"full; the last exception in its log: {CAUSE}"),
        (CrashError(FELL, HOW), LOG, f"{FELL}: it does not run: {CAUSE}"),
        (
            CrashError(FELL, HOW), Excerpt(ended="exited with status 3", cause=CAUSE),
            f"{FELL}: it exited with status 3: {CAUSE}",
        ),
        (
            CrashError(FELL, HOW), Excerpt(last_line="bye"),
            f"{FELL}: it does not run; the last line that it printed: bye",
        ),
        (CrashError(FELL, HOW), Excerpt(), f"{FELL}: it does not run"),
        *(
            (CrashError(FELL, how), replace(log, cause=CAUSE), f"{FELL}: it {result}; {BESIDE}")
            for result in BY_RESULT.values()
            for how, log in (
                (result, Excerpt(ended="was killed by SIGKILL")),
                (result, Excerpt()),
                ("ended and was started again once", Excerpt(ended=result, by_result=True)),
            )
        ),
        (CrashError(FELL, OOM), Excerpt(last_line="bye"), f"{FELL}: it {OOM}"),
        (CrashError(FELL, OOM), Excerpt(own_server="it is a server"), f"{FELL}: it {OOM}: it is a server"),
        (
            CrashError(FELL, "reached its start limit after 5 starts"), Excerpt(ended=OOM, by_result=True, cause=CAUSE),
            f"{FELL}: it reached its start limit after 5 starts: {CAUSE}",
        ),
        (CrashError(FELL, HOW), Excerpt(own_server="it is a server"), f"{FELL}: it does not run: it is a server"),
        (
            CrashError(FELL, "reached its start limit after 5 starts"), Excerpt(ended="exited with status 3"),
            f"{FELL}: it reached its start limit after 5 starts",
        ),
    ],
)  # fmt: skip
def test_an_error_and_a_log(error: Exception, log: Excerpt, reason: str) -> None:
    assert explained(error, log) == reason


def dying() -> GateError:
    error = GateError("4 of 5 workers run; workers that died meanwhile: 164")
    error.died = 164
    return error


@pytest.mark.parametrize(
    ("log", "more"),
    [
        (Excerpt(death="Worker (pid:9) was sent SIGSEGV"), ", the last one: Worker (pid:9) was sent SIGSEGV"),
        (
            Excerpt(death="Worker (pid:9) exited with code 1", last_line="config is missing"),
            ", the last one: Worker (pid:9) exited with code 1; the last line that it printed: config is missing",
        ),
        (Excerpt(death="x", cause=CAUSE, last_line="bye"), f", the last one: x; {BESIDE}"),
        (Excerpt(), ""),
    ],
)
def test_workers_that_die_while_they_start_are_told_with_how(log: Excerpt, more: str) -> None:
    assert explained(dying(), log) == f"{dying()}{more}"


def test_no_answer_is_told_with_how_far_the_workers_came() -> None:
    error = GateError("/health gave no answer yet")
    error.silent = True
    assert explained(error, Excerpt(starting="it has started")) == "/health gave no answer yet; it has started"
    assert explained(error, Excerpt()) == "/health gave no answer yet"
    assert explained(error, Excerpt(starting="a", cause=CAUSE)) == f"/health gave no answer yet; a; {BESIDE}"


def test_trouble_of_a_release_that_had_traffic() -> None:
    assert with_last_exception("3 of 5 died", LOG) == f"3 of 5 died; the last exception in its log: {CAUSE}"
    assert with_last_exception("3 of 5 died", Excerpt()) == "3 of 5 died"
    assert with_last_exception(f"x: {CAUSE}", LOG) == f"x: {CAUSE}", "a way back that was cut off tells it once"
