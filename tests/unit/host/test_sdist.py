"""A build of a source distribution on a host: what it sees, what it shows when it fails, and what it may leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.module_utils.host.sdist import Job, SdistError, collect, environment, explain


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job("pure", "1.0", tmp_path / "pure.tar.gz", tmp_path / "tools.tar.gz", "b", limit=900)


def test_last_lines_of_a_build_are_shown(job: Job) -> None:
    said = explain(job, "\n".join(f"line {n}" for n in range(100)), late=False)
    assert "line 99" in said
    assert "line 75" in said
    assert "line 74" not in said
    assert "within 900 s. If it only needs longer, raise release_build_timeout." in explain(job, "", late=True)


def test_environment_is_none_of_the_hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOKEN", "hush")
    found = environment(tmp_path)
    assert "TOKEN" not in found
    assert {value for value in found.values() if "/" in value and str(tmp_path) not in value} == set()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"wheel": 1}', '{"wheel": "a/b-1-py3-none-any.whl"}', '{"wheel": "x.whl"}']
)
def test_results_that_say_nothing(job: Job, tmp_path: Path, text: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(SdistError, match="but left no wheel"):
        collect(job, tmp_path, tmp_path)
