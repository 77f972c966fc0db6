"""What is shown of a log, and which reason is read from it: from what Python and the servers really print."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.module_utils.host.log_excerpt import (
    ALL_TRACEBACK_LINES,
    CAUSE_SIZE,
    HEADING,
    OTHER_LINES,
    TRACEBACK_LINES,
    Entry,
    Excerpt,
    excerpt,
    expanded,
    of_output,
    plain,
)  # fmt: skip

BOOM = "RuntimeError: db is away"


def printed(source: str) -> str:
    """Return what a program of Python prints, as it prints it."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout + done.stderr


def traceback(frames: int, last: str = BOOM) -> list[str]:
    pairs = [(f'  File "/srv/x/app/m{n}.py", line {n}, in f{n}', f"    f{n + 1}()") for n in range(frames)]
    return [f"{HEADING}:", *itertools.chain.from_iterable(pairs), last]


def log(*lines: str, pid: int = 7) -> list[Entry]:
    return [Entry(pid, line) for line in lines]


# --- which lines ----------------------------------------------------------------------------------


@pytest.mark.fault(52)
@given(order=st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=10)
def test_of_five_interleaved_tracebacks_of_200_lines_the_last_is_shown_with_its_heading(order: random.Random) -> None:
    """Each worker writes its lines in its own order, and all of them at the same time."""
    left = {pid: traceback(100) for pid in range(10, 15)}
    entries = log("[2026-11-26 06:00:00 +0000] [9] [INFO] Booting worker", pid=9)
    while left:
        pid = order.choice(sorted(left))
        entries.append(Entry(pid, left[pid].pop(0)))
        left = {key: lines for key, lines in left.items() if lines}
    entries += log("[2026-11-26 06:00:01 +0000] [9] [ERROR] Reason: Worker failed to boot.", pid=9)
    entries += log("counter@green.service: Main process exited, code=exited, status=3/NOTIMPLEMENTED", pid=1)
    found = excerpt(entries)
    assert found.cause == BOOM
    start = found.lines.index(f"{HEADING}:")
    assert found.lines[start + 1] == f"  … {202 - TRACEBACK_LINES + 1} lines of this traceback are left out here …"
    assert found.lines[start + TRACEBACK_LINES - 1] == BOOM
    assert found.lines[start + TRACEBACK_LINES - 3].startswith('  File "/srv/x/app/m99.py"')
    assert found.lines.count(BOOM) == 1, "the same five times says no more than once"
    assert found.lines[-1].endswith("status=3/NOTIMPLEMENTED"), "what came after it stays after it"


def test_a_traceback_of_the_bound_is_whole() -> None:
    lines = traceback(29)
    assert len(lines) == TRACEBACK_LINES
    assert excerpt(log(*lines)).lines == tuple(lines)


def test_unlike_tracebacks_are_shown_each_as_far_as_there_is_room_the_newest_first() -> None:
    found = excerpt(log(*(line for n in range(20) for line in [*traceback(4, f"ValueError: {n}"), ""])))
    assert found.cause == "ValueError: 19"
    shown = [line for line in found.lines if line.startswith("ValueError")]
    assert shown == [f"ValueError: {n}" for n in range(11, 20)], "in their order"
    assert sum(map(bool, found.lines)) <= ALL_TRACEBACK_LINES + OTHER_LINES


def test_of_other_lines_the_last_are_shown() -> None:
    found = excerpt(log(*(f"INFO:     line {n}" for n in range(100))))
    assert found.lines == tuple(f"INFO:     line {n}" for n in range(100 - OTHER_LINES, 100))
    assert (found.cause, found.last_line) == ("", "")


def test_of_no_log_nothing_is_said() -> None:
    assert excerpt([]) == Excerpt()


def test_what_the_app_printed_last_is_told_from_its_server_and_from_systemd() -> None:
    entries = [
        *log("DATABASE_URL is missing", pid=11),
        *log("[2026-11-26 06:00:01 +0000] [9] [ERROR] Worker (pid:11) exited with code 1", pid=9),
        *log("INFO:     Shutting down", pid=9),
        *log("counter@green.service: Failed with result 'exit-code'.", pid=1),
    ]
    assert excerpt(entries).last_line == "DATABASE_URL is missing"


# --- which reason ---------------------------------------------------------------------------------

CHAIN = """
    try:
        {}["url"]
    except KeyError as error:
        raise RuntimeError("db is away") FROM
"""
GROUP = """
    def fails(text):
        try:
            raise RuntimeError(text)
        except RuntimeError as error:
            return error
    raise ExceptionGroup("unhandled errors in a TaskGroup", [fails("cache is away"), fails("db is away")])
"""


@pytest.mark.parametrize("how", ["from error", "from None", ""])
def test_of_chained_exceptions_the_last_is_the_reason_and_all_are_one_traceback(how: str) -> None:
    found = of_output(printed(CHAIN.replace("FROM", how)))
    assert found.cause == BOOM
    assert found.lines[0] == f"{HEADING}:"
    assert ("KeyError: 'url'" in found.lines) == (how != "from None")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with 3.11")
def test_of_an_exception_group_the_group_and_its_last_exception_are_the_reason() -> None:
    found = of_output("INFO: before\n" + printed(GROUP) + "INFO: after\n")
    assert found.cause == f"ExceptionGroup: unhandled errors in a TaskGroup (2 sub-exceptions): {BOOM}"
    assert found.lines[1].strip() == f"+ Exception Group {HEADING}:"
    assert any("cache is away" in line for line in found.lines)
    assert found.lines[-1] == "INFO: after"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with 3.11")
def test_what_follows_a_group_in_a_chain_is_the_reason() -> None:
    source = "try:\n" + textwrap.indent(textwrap.dedent(GROUP), "    ")
    found = of_output(printed(f'{source}\nexcept ExceptionGroup:\n    raise RuntimeError("db is away")'))
    assert found.cause == BOOM
    assert len([line for line in found.lines if HEADING in line]) == 4


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import nothing_of_the_kind", "ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
        ("exec('def f(:')", "SyntaxError: invalid syntax"),
        ("class A(Exception): ...\nraise A", "A"),
        ("raise ValueError('\\n  two\\nlines')", "ValueError: two"),
        ("raise ValueError('first\\nsecond')", "ValueError: first"),
        ("raise ValueError('x' * 500)", f"ValueError: {'x' * (CAUSE_SIZE - 12)} …"),
        ("try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise SystemExit(3)", ""),
        ("import asyncio\nraise asyncio.CancelledError", "asyncio.exceptions.CancelledError"),
    ],
)
def test_the_exceptions_own_line_is_the_reason(source: str, cause: str) -> None:
    assert of_output(printed(source)).cause == cause


def test_an_exception_group_of_pydantic_says_which_field_is_missing() -> None:
    text = [
        *traceback(2, "pydantic_core._pydantic_core.ValidationError: 2 validation errors for Settings"),
        "DB_URL",
        "  Field required [type=missing, input_value={}, input_type=dict]",
        "    For further information visit https://errors.pydantic.dev/2.11/v/missing",
        "PORT",
        "  Input should be a valid integer",
        "[2026-11-26 06:00:01 +0000] [9] [ERROR] Worker (pid:11) exited with code 1",
    ]
    found = excerpt(log(*text))
    assert found.cause == (
        "pydantic_core._pydantic_core.ValidationError: 2 validation errors for Settings DB_URL Field required "
        "[type=missing, input_value={}, input_type=dict] PORT Input should be a valid integer"
    )
    assert found.lines == tuple(text)


@pytest.mark.parametrize(
    "before",
    [
        ["[2026-11-26 06:00:00 +0000] [8] [ERROR] Exception in worker process", f"{HEADING}:"],
        ["ERROR:    Exception in ASGI application", f"{HEADING}:"],
        [f"ERROR:    {HEADING}:"],
        [f"2026-11-26 06:00:00 ERROR root {HEADING}:"],
        ["Process SpawnProcess-1:", f"{HEADING}:"],
    ],
)
def test_whatever_a_server_writes_before_a_traceback(before: list[str]) -> None:
    after = "ERROR:    Application startup failed. Exiting."
    found = excerpt(log(*before, *traceback(2)[1:], "", after))
    assert found.cause == BOOM
    assert found.lines[: len(before)] == tuple(before)
    assert found.lines[-1] == after


def test_a_prefix_on_each_line_is_none_of_the_reason() -> None:
    found = excerpt(log(*(f"worker 3: {line}" for line in traceback(2)), "worker 3: bye"))
    assert found.cause == BOOM


def test_colours_and_what_else_moves_a_terminal_are_taken_out() -> None:
    coloured = "\x1b[35mRuntimeError\x1b[0m: \x1b[1;31mdb is\x1b]0;title\x07 away\x1b[0m\x07\r"
    assert plain(coloured) == BOOM
    assert of_output("\n".join([*traceback(1)[:-1], coloured])).cause == BOOM


def test_a_drawn_traceback_is_one() -> None:
    drawn = [f"╭──── {HEADING} ────╮", "│ /srv/x/app/main.py:3 in <module> │", "╰──────╯", BOOM]
    found = excerpt(log(*drawn))
    assert (found.cause, found.lines) == (BOOM, tuple(drawn))


def test_a_traceback_in_a_json_line_is_read() -> None:
    line = json.dumps({"event": "failed", "exception": "\n".join(traceback(2)), "level": "error"})
    assert of_output(line).cause == BOOM
    assert expanded('{"no json' + HEADING) == ['{"no json' + HEADING]
    assert expanded(json.dumps([HEADING])) == [json.dumps([HEADING])]


@pytest.mark.parametrize("last", ["SystemExit: 3", "KeyboardInterrupt"])
def test_how_a_server_was_ended_is_not_why(last: str) -> None:
    assert excerpt([*log(*traceback(2)), *log(*traceback(2, last), pid=9)]).cause == BOOM
    assert excerpt(log(*traceback(2, last))).cause == last, "where there is nothing else"


def test_gunicorns_end_after_a_worker_that_did_not_boot_is_no_reason() -> None:
    halt = log(*traceback(2, "gunicorn.errors.HaltServer: <HaltServer 'Worker failed to boot.' 3>"), pid=9)
    assert excerpt([*log(*traceback(2)), *halt]).cause == BOOM
    found = excerpt([*log("no DATABASE_URL"), *halt])
    assert (found.cause, found.last_line) == ("", "no DATABASE_URL")


def test_a_traceback_that_is_being_written_is_not_shown_beside_one_that_is_whole() -> None:
    """The log may be read while another worker still writes."""
    whole, begun = log(*traceback(9), pid=7), log(*traceback(3)[:-1], pid=8)
    assert list(excerpt([*whole, *begun]).lines) == traceback(9)
    assert list(excerpt(begun).lines) == traceback(3)[:-1], "better than nothing"


def test_a_traceback_that_was_cut_off_has_no_reason() -> None:
    found = excerpt(log(*traceback(2)[:-1]))
    assert (found.cause, found.last_line) == ("", "")


# --- an app that is a server ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        (["INFO:     Uvicorn running on http://127.0.0.1:8000 (Press CTRL+C to quit)"], "on http://127.0.0.1:8000"),
        ([" * Running on http://127.0.0.1:5000"], "on http://127.0.0.1:5000"),
        (
            ["[Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): address already in use"],
            "on 127.0.0.1:8000",
        ),
        (
            [
                f"{HEADING}:", '  File "/srv/x/app/main.py", line 9, in <module>', "    uvicorn.run(app)",
                "RuntimeError: asyncio.run() cannot be called from a running event loop",
            ],
            "with uvicorn.run()",
        ),
    ],
)  # fmt: skip
def test_a_module_that_starts_a_server_is_told(lines: list[str], where: str) -> None:
    said = excerpt(log(*lines)).own_server
    assert said == f'the module starts a server of its own, {where}: call it below `if __name__ == "__main__":`'


def test_uvicorn_on_the_slots_own_socket_is_none() -> None:
    assert excerpt(log("INFO:     Uvicorn running on socket None (Press CTRL+C to quit)")).own_server == ""


@pytest.mark.parametrize(
    "heading",
    ["ERROR:    Exception in ASGI application", "[2026-11-26 06:00:00 +0000] [8] [ERROR] Error in ASGI application"],
)
def test_exception_that_ended_a_request_is_told_from_one_that_the_app_has_caught(heading: str) -> None:
    caught = excerpt(log("WARNING: no cache", *traceback(2)))
    assert (caught.cause, caught.of_request) == (BOOM, "")
    both = excerpt([*log(heading, *traceback(2)), *log("WARNING: no cache", *traceback(2, "KeyError: 'cache'"), pid=9)])
    assert (both.cause, both.of_request) == ("KeyError: 'cache'", BOOM)
