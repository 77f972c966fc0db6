"""What script/test ends with, and that an interrupt reaches what a stage has started."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from script import stages

PATIENCE = 120  # seconds for what only has to happen at all

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="one"/>
<testcase classname="tests.a" name="two"><skipped message="needs a registry"/></testcase>
<testcase classname="tests.a" name="three"><failure message="no"/></testcase>
<testcase classname="tests.a" name="four"><error message="no"/></testcase>
</testsuite></testsuites>"""


def test_table_has_stages_and_their_counts_and_the_last_line_is_the_sum(tmp_path: Path) -> None:
    (tmp_path / "unit.xml").write_text(REPORT)
    results = [
        stages.result("unit", 12, ended_well=False, report=tmp_path / "unit.xml"),
        stages.result("lint", 345, ended_well=True, report=tmp_path / "lint.xml"),
    ]
    head, unit, lint, blank, *rest = stages.table(results).splitlines()
    assert (head.split(), blank) == (["STAGE", "SECONDS", "PASSED", "FAILED", "SKIPPED"], "")
    assert unit.split() == ["unit", "12", "1", "2", "1"]
    assert lint.split() == ["lint", "345", "1", "0", "0"]
    assert len(head) == len(unit) == len(lint)
    assert rest == [
        "skipped unit: tests.a::two: needs a registry",
        "FAILED  unit: tests.a::three",
        "FAILED  unit: tests.a::four",
        "2 passed, 2 failed, 1 skipped",
    ]


def test_stage_that_fails_beside_its_tests_has_failed(tmp_path: Path) -> None:
    (tmp_path / "app.xml").write_text('<testsuite><testcase classname="a" name="one"/></testsuite>')
    made = stages.result("app", 1, ended_well=False, report=tmp_path / "app.xml")
    assert (made.passed, made.failed) == (1, ["app"])
    assert stages.table([made]).splitlines()[-1] == "1 passed, 1 failed"


@pytest.mark.parametrize(("command", "failed"), [("true", []), ("false", ["x"]), ("echo no test files", ["x"])])
def test_stage_without_tests_counts_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, failed: list[str]
) -> None:
    monkeypatch.setitem(stages.STAGES, "x", command)
    made = stages.Runner(tmp_path, live=False).run("x")
    assert (made.passed, made.failed) == (int(not failed), failed)


def test_interrupt_reaches_what_a_stage_has_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outer").write_text(f"bash {tmp_path / 'inner'}; true")
    (tmp_path / "inner").write_text(
        f"trap 'touch {tmp_path / 'interrupted'}; exit' INT; touch {tmp_path / 'ready'}; "
        "for i in $(seq 600); do sleep 0.1; done"
    )
    monkeypatch.setitem(stages.STAGES, "x", f"bash {tmp_path / 'outer'}")
    runner = stages.Runner(tmp_path, live=False)
    thread = threading.Thread(target=runner.run, args=["x"])
    thread.start()
    end = time.monotonic() + PATIENCE
    while not (tmp_path / "ready").exists() and time.monotonic() < end:
        time.sleep(0.05)
    runner.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert (tmp_path / "interrupted").exists()
