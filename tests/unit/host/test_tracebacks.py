"""The last exception of a log."""

from __future__ import annotations

import pytest

from plugins.module_utils.host.tracebacks import last_exception

ONE = ["Traceback (most recent call last):", '  File "a.py", line 1, in f', "    f()", "    ^^^", "ValueError: one"]
TWO = [*ONE, "", "During handling of the above exception, another exception occurred:", "", *ONE[:-1], "KeyError"]


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        ([], ""),
        (["ValueError: said, not raised"], ""),
        (ONE, "ValueError: one"),
        (TWO, "KeyError"),
        (["[2026] [ERROR] Exception in worker process", *ONE, "[2026] [INFO] Worker exiting"], "ValueError: one"),
        ([*ONE, *ONE[:-1], "gunicorn.errors.HaltServer: <HaltServer 3>"], "ValueError: one"),
        ([*ONE[:-1], "SystemExit: 3"], "SystemExit: 3"),
        ([*ONE, *ONE[:-1]], "ValueError: one"),
        ([*ONE[:-1], "[2026] [INFO] of another process", "ValueError: one"], ""),
    ],
)
def test_last_exception(lines: list[str], last: str) -> None:
    assert last_exception(lines) == last
