"""Records on disk: what earlier versions wrote is read, what is damaged is none, and nothing is lost on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plugins.module_utils.host.records import SlotRecord, live_record, slot_record
from plugins.module_utils.workers.plan import WorkerPlan

#: What version 0.2 wrote, all of it.
WRITTEN = {
    "workers": 3,
    "plan": {
        "workers": 3, "bound_by": "cpu", "reason": "3 workers = 2 x 1 vCPU + 1", "inputs": {"memory_mib": 972},
        "notes": ["a note"],
    },
    "fingerprint": f"{'0' * 16}-{'a' * 32}", "engine": "asgi", "release": "aaa", "slot": "blue", "settings": "kept",
    "proved_with": {"health_path": "/ready", "warmup_paths": ["/"]},
    "closes_kept": True, "fresh_mib": 21, "files": {"/etc/web/environment.blue": "keyed:00"},
    "at": 1700000000, "previous": "bbb",
}  # fmt: skip


def put(path: Path, data: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_a_record_is_written_as_it_was_read(tmp_path: Path) -> None:
    path = put(tmp_path / "blue.json", WRITTEN)
    SlotRecord.read(path).write(tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == WRITTEN


@pytest.mark.parametrize("name", [name for name in WRITTEN if name != "release"])
def test_a_field_that_an_earlier_version_did_not_write_has_its_default(tmp_path: Path, name: str) -> None:
    record = SlotRecord.read(put(tmp_path / "r.json", {key: WRITTEN[key] for key in WRITTEN if key != name}))
    assert record.release == "aaa"
    default = WorkerPlan(3).as_dict() if name == "plan" else {**SlotRecord(release="aaa").as_dict(), "workers": 3}[name]
    assert record.as_dict()[name] == default


@pytest.mark.parametrize("data", ["", "{", "[]", "null", {"release": "aaa", "workers": "many"}, {"files": [1]}])
def test_a_damaged_record_is_none(tmp_path: Path, data: object) -> None:
    record = SlotRecord.read(put(tmp_path / "r.json", data))
    assert not record
    assert record.as_dict() == {}
    assert record == SlotRecord.parse({}), "nothing that was not written is made up"


def test_version_0_1_kept_one_record_for_the_host(tmp_path: Path) -> None:
    put(tmp_path / "live.json", {"release": "aaa", "slot": "green", "previous": "bbb", "workers": 2, "at": 1})
    (tmp_path / "live.sock").symlink_to("/run/web/green.sock")
    assert (live_record(tmp_path).release, live_record(tmp_path).plan.workers) == ("aaa", 2)
    assert not slot_record(tmp_path, "blue")
    put(tmp_path / "slots/green.json", {"release": "ccc", "slot": "green"})
    assert live_record(tmp_path).release == "ccc"


@pytest.mark.parametrize("target", [None, "/run/web/tune.sock", "/run/web/other"])
def test_only_a_slot_is_live(tmp_path: Path, target: str | None) -> None:
    put(tmp_path / "slots/blue.json", WRITTEN)
    if target:
        (tmp_path / "live.sock").symlink_to(target)
    assert not live_record(tmp_path)
