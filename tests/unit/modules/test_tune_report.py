"""What tune.yml says before and after a measurement, and what it draws."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.workers import curve as curve_module
from plugins.modules.tune_report import TuneError, after, before, group_file, result_of

INPUTS = {
    "vcpus": 2, "affinity": 2, "quota": None, "memory_mib": 1950, "memory_limit_mib": None, "worker_mib": "auto",
    "measured_mib": None, "reserve_mib": 256, "workers": "auto", "workers_max": 1024, "sets": 2,
}  # fmt: skip
SPEED = {1: 420, 2: 790, 3: 815, 4: 822, 5: 818, 7: 800, 10: 780}


def measured(rounds: int = 5, pss: float = 70.0, **inputs: Any) -> dict[str, Any]:
    """What the host prints, with a machine whose speed changes from round to round."""
    speeds = [1.0, 0.6, 0.9, 0.7, 0.8][:rounds]
    return {
        "app": "counter", "release": "263248f2a459", "numbers": list(SPEED), "load": [["/search?q=<b>", 3]],
        "plan": {"workers": 5, "reason": "5 workers = 2 × 2 vCPU + 1", "inputs": {**INPUTS, **inputs}},
        "connections": 40, "seconds": 4.0, "notes": ["a note & more"],
        "rounds": [
            {
                "round": number + 1, "workers": workers, "requests": 900, "bad": 0, "throughput": speed * fast,
                "p50_ms": 40000 / speed, "p99_ms": 90000 / speed, "cpu_ms": 2.5, "pss_mib": 20 + 70.0 * workers,
                "worker_mib": pss, "load_cpu": 0.2,
            }
            for number, fast in enumerate(speeds)
            for workers, speed in SPEED.items()
        ],
    }  # fmt: skip


def params(settings: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    status = {"planned": 5, "plan": {"workers": 5, "inputs": INPUTS}}
    return {
        "app": "counter", "host": "web1", "status": json.dumps(status), "tuned": None, "groups": ["app", "web"],
        "inventory": "", **changes,
        "settings": {"workers": [], "rounds": "5", "seconds": 4, "report": "", "write": "", **(settings or {})},
    }  # fmt: skip


def test_choice_and_its_sentence() -> None:
    result = result_of(measured(), "web1", "2026-11-24")
    assert (result["choice"]["workers"], result["choice"]["best"], result["rule"]) == (3, 4, 5)
    assert result["most"] == 8, "as a plan counts: (1950 - 256) / (2 × 100 MiB, 70 MiB and a fourth more, in steps)"
    assert result["sentence"].startswith("Take 3 workers: 0.99 [0.99–0.99] of the best throughput, which 4 had; 100 %")
    assert result["sentence"].endswith("The rule of thumb says 5, memory would allow 8.")


@pytest.mark.parametrize(
    ("inputs", "pss", "most"),
    [
        ({}, 70.0, 8),
        ({"memory_limit_mib": 1000}, 70.0, 3),
        ({"worker_mib": 300}, 70.0, 2),
        ({"workers_max": 2}, 70.0, 2),
        ({"memory_mib": 300}, 70.0, 1),
        ({}, 20.0, 33),
    ],
)
def test_memory_bounds_the_choice_as_it_bounds_a_plan(inputs: dict[str, Any], pss: float, most: int) -> None:
    result = result_of(measured(pss=pss, **inputs), "web1", "2026-11-24")
    assert result["most"] == most
    assert result["choice"]["workers"] == min(most, 3)
    if most < 3:
        assert "4 workers would serve more, but memory does not hold them" in " ".join(result["notes"])


def test_table_has_a_row_for_each_number_and_names_what_it_is() -> None:
    lines = curve_module.as_text(result_of(measured(), "web1", "2026-11-24")).splitlines()
    rows = {int(line.split()[0]): line for line in lines[1 : 1 + len(SPEED)]}
    assert list(rows) == list(SPEED)
    assert rows[3].endswith("0.99  chosen")
    assert rows[4].endswith("1.00  best")
    assert rows[5].endswith("live, rule of thumb")
    assert rows[10].endswith("over memory")
    assert "a note & more" in lines


def test_page_and_picture_show_the_figures(tmp_path: Path) -> None:
    result = result_of(measured(), "web1", "2026-11-24")
    picture, page, _ = (Path(path) for path in curve_module.write(result, tmp_path / "new"))
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG\r\n")
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) > (600, 400)
    text = page.read_text(encoding="utf-8")
    # Nothing is fetched, and what came from outside is no markup.
    assert "<script" not in text
    assert 'src="' not in text
    assert "<b>" not in text
    for row in curve_module.rows(result):
        assert f'<th scope="row">{row["workers"]}</th><td>{curve_module.short(row["throughput"])}</td>' in text
    svg = text[text.index("<svg") : text.index("</svg>")]
    words = set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))
    assert {"chosen: 3", "rule of thumb: 5", "memory holds 8", "p99", "workers", "requests per second"} <= words
    assert "Take 3 workers" in svg[: svg.index(">")]


def test_memory_that_is_far_away_is_named_instead_of_drawn() -> None:
    result = result_of(measured(pss=20.0), "web1", "2026-11-24")
    assert "memory holds 33, to the right of this" in curve_module.draw(result, "svg").decode()


def test_same_figures_draw_the_same() -> None:
    result = result_of(measured(), "web1", "2026-11-24")
    assert curve_module.draw(result, "svg") == curve_module.draw(result, "svg")


def test_numbers_are_worked_out_or_taken_as_given() -> None:
    found = before(params())
    assert found["numbers"] == [1, 2, 3, 4, 5, 7, 9, 10]
    assert found["minutes"] == pytest.approx(8 * 5 * 6.5 / 60, abs=0.1)
    assert before(params({"workers": ["4", 2, 4]}))["numbers"] == [2, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": ""}, "counter has no live release on web1 to measure: deploy first"),
        ({"status": '{"error": "x"}'}, "no live release"),
        ({"settings": {"write": "db"}}, "tune_write is 'db': allowed are groups of web1: all, app, web"),
        ({"settings": {"write": "web"}, "inventory": "/nowhere"}, "the inventory is no folder"),
    ],
)
def test_what_cannot_end_well_is_refused_before_it_begins(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TuneError, match=message):
        before(params(**changes))


def test_without_matplotlib_it_is_said_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve_module, "CAN_DRAW", False)
    with pytest.raises(TuneError, match="matplotlib is missing"):
        before(params({"report": "report"}))
    assert before(params())["numbers"]


@pytest.mark.parametrize(
    ("tuned", "message"),
    [
        ({"rc": 2, "stdout": "", "stderr": "argument verb: invalid choice: 'tune'"}, "load tool is missing on web1"),
        (
            {"rc": 2, "stdout": '{"error": "this host is not drained: 9 requests"}'},
            "web1 was not measured: this host is",
        ),
        ({"rc": 1, "stdout": '{"error": "fell over", "log": ["Traceback"]}'}, r"fell over\n  \| Traceback"),
        ({"rc": 255, "stdout": "", "stderr": ""}, "ended from outside"),
        ({"rc": 0, "stdout": json.dumps({"tuned": {**measured(), "rounds": []}})}, "nothing to choose from"),
    ],
)
def test_host_that_did_not_measure_says_why(tuned: dict[str, Any], message: str) -> None:
    with pytest.raises(TuneError, match=message):
        after(params(tuned=tuned))


def test_outcome_has_the_line_for_the_inventory(tmp_path: Path) -> None:
    tuned = {"rc": 0, "stdout": json.dumps({"tuned": measured()}), "stderr": ""}
    found = after(params({"write": "web", "report": str(tmp_path / "report")}, tuned=tuned, inventory=str(tmp_path)))
    assert found["line"].startswith("service_workers: 3  # tune.yml on web1, ")
    assert found["line"].endswith(": 0.99 of the best (4), 100 % sure")
    assert found["path"] == str(tmp_path / "group_vars/web/workers.yml")
    assert [Path(path).name for path in found["files"]] == ["web1.png", "web1.html", "web1.json"]
    assert json.loads((tmp_path / "report/web1.json").read_text())["choice"]["workers"] == 3


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, "web/workers.yml"),
        ({"web.yml": "a: 1\n"}, "web.yml"),
        ({"web/app.yml": "a: 1\n"}, "web/workers.yml"),
        ({"web/app.yml": "service_workers: 4\n", "web/b.yml": "a: 1\n"}, "web/app.yml"),
        ({"web.yml": "a: 1\n", "web/x.yml": "service_workers: 4\n"}, "web/x.yml"),
        ({"other.yml": "service_workers: 4\n"}, "web/workers.yml"),
        ({"web.yml": "x_service_workers: 4\n# service_workers: 3\n", "web/a.txt": "service_workers: 1"}, "web.yml"),
    ],
)
def test_number_goes_where_it_stands_already(tmp_path: Path, files: dict[str, str], wanted: str) -> None:
    for name, text in files.items():
        path = tmp_path / "group_vars" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert group_file(tmp_path, "web") == tmp_path / "group_vars" / wanted


def test_encrypted_file_is_not_edited(tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/web.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n61\n")
    with pytest.raises(TuneError, match="is encrypted"):
        group_file(tmp_path, "web")


def test_remarks_on_doubt_and_on_a_busy_load_program() -> None:
    few = measured(rounds=2)
    assert any("fewer than 3 rounds" in note for note in result_of(few, "web1", "x")["notes"])
    busy = measured()
    busy["rounds"][0]["load_cpu"] = 0.97
    assert any("load program was busy" in note for note in result_of(busy, "web1", "x")["notes"])
