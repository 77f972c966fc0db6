"""Why a release was refused: what the gate saw, and what the release's own log says of it."""

from __future__ import annotations

from http import HTTPStatus

from .endings import BY_RESULT
from .gate import AnswerError, CrashError, GateError
from .log_excerpt import Excerpt


def explained(error: Exception, log: Excerpt) -> str:
    """Return an error's reason, with what the release's log adds to it."""
    if isinstance(error, CrashError):
        return _crash(error, log)
    if isinstance(error, AnswerError):
        return _bad_answer(error, log)
    if isinstance(error, GateError) and error.died:
        return _dying(error, log)
    if isinstance(error, GateError) and error.silent and log.starting:
        return with_last_exception(f"{error}; {log.starting}", log)
    return with_last_exception(str(error), log)


def _bad_answer(error: AnswerError, log: Excerpt) -> str:
    """Add why: the exception that ended a request, or the app's own words. Another one in its log may be a chance."""
    if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return str(error)
    why = log.of_request or error.said
    return f"{error}: {why}" if why else with_last_exception(str(error), log)


def _dying(error: GateError, log: Excerpt) -> str:
    """Add how the last worker died, and what is known of why."""
    how = f"{error}{log.death and f', the last one: {log.death}'}"
    said = f"{how}; the last line that it printed: {log.last_line}" if log.last_line else how
    return with_last_exception(how, log) if log.cause or log.own_server else said


def with_last_exception(trouble: str, log: Excerpt) -> str:
    """Add the last exception of a log to what was seen. That it is the reason is likely, and not known."""
    if (log.own_server or log.cause) in trouble:  # a way back that was cut off has said it already, or there is none
        return trouble
    if log.own_server:
        return f"{trouble}: {log.own_server}"
    return f"{trouble}; the last exception in its log: {log.cause}" if log.cause else trouble


def _crash(error: CrashError, log: Excerpt) -> str:
    # What systemd shows of a unit that it has started again is of the new start; its journal has the one that ended.
    certain = error.how in BY_RESULT.values()
    how = str(error) if certain or not log.ended or "start limit" in error.how else f"{error.what}: it {log.ended}"
    if (certain or log.by_result) and "start limit" not in error.how:
        return with_last_exception(how, log)
    if why := log.own_server or log.cause:
        return f"{how}: {why}"
    return f"{how}; the last line that it printed: {log.last_line}" if log.last_line else how
