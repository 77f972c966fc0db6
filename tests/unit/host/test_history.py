"""What the host remembers: the history, bad marks, what can be gone back to, and which releases stay on the disk."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.host import history
from plugins.module_utils.host.config import Config, HostError
from plugins.module_utils.host.files import link_atomically, write_object
from plugins.module_utils.host.history import FEWEST_LINES, MOST_LINES, REFUSED, SWITCHED, WENT_BACK, bad, entries, note
from plugins.module_utils.host.prune import check_prune, in_use, prune, whole
from plugins.module_utils.host.status import history_lines
from plugins.module_utils.workers.plan import WorkerPlan

DAY = 86400.0


class Host:
    """An app's folders, and what switches leave in them."""

    def __init__(self, folder: Path) -> None:
        self.config = Config("counter", folder, folder / "run", folder / "etc", folder / "units", WorkerPlan(0), "now")
        for place in ("releases", "slots", "run", "etc/releases", "units"):
            (folder / place).mkdir(parents=True)
        self.unpacked = 0

    def unpack(self, *releases: str) -> Host:
        """Put releases on the host, each some days younger than the one before."""
        for release in releases:
            place = self.config.release_dir(release)
            (place / "app").mkdir(parents=True)
            (place / "app" / "main.py").write_text("app = None\n")
            (place / ".complete").write_text("{}")
            self.unpacked += 1
            when = time.time() - (100 - self.unpacked) * DAY
            os.utime(place / ".complete", (when, when))
        return self

    def switched(self, *releases: str, verb: str = "activate") -> Host:
        """Have releases been switched to, one after the other."""
        for release in releases:
            before = self.config.live_record().release
            slot = self.config.idle_slot()
            write_object(self.config.slot_record(slot), {"release": release, "slot": slot, "previous": before})
            link_atomically(self.config.root / "slots" / slot, self.config.release_dir(release))
            link_atomically(self.config.live_link, self.config.socket(slot))
            note(self.config, {"verb": verb, "by": "alice", "from": before, "to": release, "result": SWITCHED})
        return self

    def back(self, release: str) -> Host:
        """Go back as `rollback` does: what is left is bad."""
        left = self.config.live_record().release
        self.switched(release, verb="rollback")
        history.mark_bad(self.config, left, "alice went back", "then")
        return self

    def keep_settings(self, *releases: str) -> Host:
        for release in releases:
            write = self.config.kept_files(release)["environment"]
            write.parent.mkdir()
            write.write_text("SECRET=1\n")
        return self

    @property
    def there(self) -> set[str]:
        return {path.name for path in (self.config.root / "releases").iterdir() if path.is_dir()}

    @property
    def candidates(self) -> list[str]:
        return history.rollback_candidates(self.config)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "srv")


# --- history --------------------------------------------------------------------------------------


def lines(host: Host) -> list[Any]:
    return [entry.get("to") for entry in entries(host.config)]


def test_what_was_noted_is_read_again_in_its_order(host: Host) -> None:
    before = int(time.time())
    for release in ("aaa", "bbb"):
        note(host.config, {"to": release, "result": REFUSED})
    assert lines(host) == ["aaa", "bbb"]
    assert before <= entries(host.config)[0]["at"] <= time.time()


def test_no_history_is_an_empty_one(host: Host) -> None:
    assert entries(host.config) == []


def test_a_line_that_a_power_cut_tore_costs_only_itself(host: Host) -> None:
    path = host.config.root / "history.jsonl"
    note(host.config, {"to": "aaa"})
    note(host.config, {"to": "bbb"})
    path.write_bytes(path.read_bytes()[:-9])
    assert lines(host) == ["aaa"]
    note(host.config, {"to": "ccc"})
    assert lines(host) == ["aaa", "ccc"], "the torn one must not swallow the next"


@pytest.mark.parametrize("odd", [b"\xff\xfe\x00", b"[1, 2]", b"\x00" * 4096, b"null", b"{"])
def test_odd_bytes_among_the_lines_are_passed_over(host: Host, odd: bytes) -> None:
    note(host.config, {"to": "aaa"})
    with (host.config.root / "history.jsonl").open("ab") as stream:
        stream.write(odd)
    note(host.config, {"to": "bbb"})
    assert lines(host) == ["aaa", "bbb"]


def test_a_long_history_keeps_its_newest_lines(host: Host) -> None:
    path = host.config.root / "history.jsonl"
    path.write_text("".join(f'{{"to": {number}}}\n' for number in range(MOST_LINES - 1)))
    note(host.config, {"to": "full"})
    assert len(entries(host.config)) == MOST_LINES
    note(host.config, {"to": "one more"})
    found = lines(host)
    assert len(found) == FEWEST_LINES + 1
    assert found[-2:] == ["full", "one more"]
    assert found[0] == MOST_LINES - FEWEST_LINES
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_full_disk_costs_the_line_and_nothing_else(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    note(host.config, {"to": "aaa"})
    said: list[str] = []

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("plugins.module_utils.host.history.os.fsync", full)
    monkeypatch.setattr("plugins.module_utils.host.history.syslog.syslog", said.append)
    note(host.config, {"to": "bbb"})
    history.mark_bad(host.config, "bbb", "not well", "")
    monkeypatch.undo()
    assert json.loads(said[0])["to"] == "bbb", "the system's journal has it"
    assert "aaa" in lines(host)


def test_a_history_that_cannot_be_opened_is_no_reason_to_fail(host: Host) -> None:
    (host.config.root / "history.jsonl").mkdir()
    note(host.config, {"to": "aaa"})
    assert entries(host.config) == []


# --- bad marks ------------------------------------------------------------------------------------


def test_a_mark_says_when_why_and_with_which_settings(host: Host) -> None:
    history.mark_bad(host.config, "aaa", "7 of 9 failed", "print")
    mark = bad(host.config)["aaa"]
    assert (mark["reason"], mark["fingerprint"]) == ("7 of 9 failed", "print")
    assert abs(mark["at"] - time.time()) < 10


def test_unmarking_forgets_the_named_ones_only(host: Host) -> None:
    for release in ("aaa", "bbb", "ccc"):
        history.mark_bad(host.config, release, "not well", "")
    history.unmark(host.config, "aaa", "ccc", "unknown")
    assert list(bad(host.config)) == ["bbb"]


def test_unmarking_what_is_not_marked_writes_nothing(host: Host) -> None:
    history.unmark(host.config, "aaa")
    assert not (host.config.root / "bad.json").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"aaa": 1, "bbb": null}', "\x00"])
def test_a_damaged_file_of_marks_marks_nobody_and_can_be_written_anew(host: Host, content: str) -> None:
    (host.config.root / "bad.json").write_text(content)
    assert bad(host.config) == {}
    history.mark_bad(host.config, "ccc", "not well", "")
    assert list(bad(host.config)) == ["ccc"]


# --- what can be gone back to ---------------------------------------------------------------------


def test_the_one_before_comes_first_then_the_ones_before_that(host: Host) -> None:
    host.unpack("aaa", "bbb", "ccc", "ddd").switched("aaa", "bbb", "ccc")
    assert host.candidates == ["bbb", "aaa"], "ddd has never served"


def test_what_serves_has_served_too(host: Host) -> None:
    """Whoever points the link elsewhere by hand can go back to it."""
    host.unpack("aaa", "bbb").switched("aaa", "bbb")
    assert history.served(host.config)[:2] == ["bbb", "aaa"]


def test_after_going_back_the_bad_one_is_out_and_the_one_before_is_next(host: Host) -> None:
    host.unpack("aaa", "bbb", "ccc").switched("aaa", "bbb", "ccc").back("bbb")
    assert host.candidates == ["aaa"]
    host.back("aaa")
    assert host.candidates == []


def test_what_was_restored_from_is_not_gone_back_to_but_is_not_bad(host: Host) -> None:
    """It was live for a moment only, and going to it would be going forward; by name, it may be had."""
    host.unpack("aaa", "bbb").switched("aaa", "bbb").switched("aaa", verb="restore")
    assert host.candidates == []
    assert bad(host.config) == {}


def test_one_that_is_removed_or_half_there_is_no_candidate(host: Host) -> None:
    host.unpack("aaa", "bbb", "ccc", "ddd").switched("aaa", "bbb", "ccc", "ddd")
    shutil.rmtree(host.config.release_dir("ccc"))
    (host.config.release_dir("bbb") / ".complete").unlink()
    assert host.candidates == ["aaa"]


def test_one_that_was_refused_has_never_served(host: Host) -> None:
    host.unpack("aaa", "bbb", "ccc").switched("aaa")
    for release, result in (("bbb", REFUSED), ("ccc", WENT_BACK)):
        note(host.config, {"from": "aaa", "to": release, "result": result})
    host.switched("bbb")
    assert host.candidates == ["aaa"]


def test_the_same_release_with_new_settings_is_not_what_was_before_it(host: Host) -> None:
    host.unpack("aaa", "bbb").switched("aaa", "bbb", "bbb")
    assert host.candidates == ["aaa"]


def test_what_served_before_the_first_line_of_the_history_is_known_by_what_followed_it(host: Host) -> None:
    """After a rotation, or where the line of its switch was lost to a full disk."""
    host.unpack("aaa", "bbb", "ccc")
    note(host.config, {"from": "aaa", "to": "bbb", "result": REFUSED})
    assert host.candidates == ["aaa"]


def test_a_mark_that_is_gone_makes_it_a_candidate_again(host: Host) -> None:
    host.unpack("aaa", "bbb").switched("aaa", "bbb").back("aaa")
    assert host.candidates == []
    history.unmark(host.config, "bbb")
    assert host.candidates == ["bbb"]


def test_a_history_line_cannot_lead_out_of_the_releases(host: Host) -> None:
    host.unpack("aaa").switched("aaa")
    (host.config.root / "etc" / ".complete").write_text("{}")
    note(host.config, {"from": "../etc", "to": "aaa", "result": SWITCHED})
    assert host.candidates == []


def test_version_0_1_kept_no_history_but_knew_the_one_before(host: Host) -> None:
    host.unpack("aaa", "bbb", "ccc")
    live = {"release": "bbb", "slot": "green", "previous": "aaa", "workers": 3}
    write_object(host.config.root / "live.json", live)
    host.config.live_link.symlink_to(host.config.socket("green"))
    assert (host.config.live_record().release, host.config.live_record().plan.workers) == ("bbb", 3)
    assert host.candidates == ["aaa"]
    host.switched("ccc")
    assert host.config.live_slot() == "blue"
    assert host.candidates == ["bbb"]


# --- prune ----------------------------------------------------------------------------------------


def test_the_newest_stay_so_many_in_total(host: Host) -> None:
    host.unpack("aaa", "bbb", "ccc", "ddd", "eee", "fff").switched("eee", "fff")
    assert set(prune(host.config, keep=4)) == {"aaa", "bbb"}
    assert host.there == {"ccc", "ddd", "eee", "fff"}
    assert prune(host.config, keep=4) == []


def test_what_is_in_use_stays_however_few_are_to_stay(host: Host) -> None:
    """The live one, the one in the idle slot, and the one to go back to; here these are three."""
    host.unpack("aaa", "bbb", "ccc", "ddd").switched("aaa", "bbb", "ccc")
    history.mark_bad(host.config, "bbb", "not well", "")
    assert in_use(host.config) == {
        "bbb": "the green slot has it",
        "aaa": "it is the one to go back to",
        "ccc": "it is live",
    }
    assert prune(host.config, keep=1) == ["ddd"]
    assert host.there == {"aaa", "bbb", "ccc"}


def test_what_can_be_gone_back_to_stays_before_what_has_never_served(host: Host) -> None:
    host.unpack("aaa", "bbb", "ccc", "ddd", "eee").switched("aaa", "bbb", "ccc")
    assert set(prune(host.config, keep=3)) == {"ddd", "eee"}


def test_bad_ones_go_first(host: Host) -> None:
    host.unpack("aaa", "bbb", "ccc", "ddd", "eee").switched("aaa", "bbb")
    history.mark_bad(host.config, "eee", "not well", "")
    assert prune(host.config, keep=4) == ["eee"], "although it is the newest"
    assert bad(host.config) == {}, "what is gone needs no mark"


def test_one_that_was_unpacked_just_now_stays_another_deploy_is_about_to_use_it(host: Host) -> None:
    host.unpack("aaa", "bbb", "ccc", "ddd").switched("aaa", "bbb")
    os.utime(host.config.release_dir("ccc") / ".complete")
    assert prune(host.config, keep=1) == ["ddd"]
    assert prune(host.config, ["ccc"]) == ["ccc"], "unless it is named"


def test_named_ones_are_removed_with_the_settings_kept_for_them_and_no_others(host: Host) -> None:
    host.unpack("aaa", "bbb", "ccc", "ddd").switched("ccc", "ddd").keep_settings("aaa", "bbb")
    assert prune(host.config, ["aaa"], keep=1) == ["aaa"]
    assert host.there == {"bbb", "ccc", "ddd"}
    assert [path.name for path in (host.config.etc / "releases").iterdir()] == ["bbb"], "secrets go, too"


@pytest.mark.parametrize(
    ("release", "reason"),
    [
        ("ccc", "release ccc cannot be removed: it is live. Nothing was removed"),
        ("bbb", "release bbb cannot be removed: it is the one to go back to. Nothing was removed"),
        ("nope", "release 'nope' is not on this host; there are: aaa, bbb, ccc, ddd"),
        ("../etc", "release '../etc' is not on this host"),
        ("", "release '' is not on this host"),
    ],
)
def test_one_name_that_cannot_go_stops_all_of_them(host: Host, release: str, reason: str) -> None:
    host.unpack("aaa", "bbb", "ccc", "ddd").switched("bbb", "ccc").keep_settings("ddd")
    for ask in (check_prune, prune):
        with pytest.raises(HostError) as refused:
            ask(host.config, ["ddd", release])
        assert reason in str(refused.value)
    assert host.there == {"aaa", "bbb", "ccc", "ddd"}
    assert (host.config.etc / "releases" / "ddd").is_dir()


def test_a_release_in_the_idle_slot_is_not_removed_by_name(host: Host) -> None:
    host.unpack("aaa", "bbb").switched("aaa", "bbb").back("aaa")
    with pytest.raises(HostError, match="bbb cannot be removed: the green slot has it"):
        prune(host.config, ["bbb"])


def test_what_is_left_of_a_removal_that_was_cut_off_is_no_release(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.unpack("aaa", "bbb", "ccc").switched("bbb", "ccc")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("plugins.module_utils.host.prune.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        prune(host.config, ["aaa"])
    assert "aaa" in host.there
    assert whole(host.config) == ["ccc", "bbb"]
    assert not history.is_whole(host.config, "aaa")


def test_a_release_that_is_being_unpacked_is_none_yet(host: Host) -> None:
    host.unpack("aaa", "bbb", ".ddd.tmp-x1")
    assert whole(host.config) == ["bbb", "aaa"]
    with pytest.raises(HostError, match="is not on this host; there are: aaa, bbb"):
        check_prune(host.config, [".ddd.tmp-x1"])


def test_a_release_that_goes_away_meanwhile_is_passed_over(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A switch has just succeeded: what another deploy does to its own release must not make it look failed."""
    host.unpack("aaa", "bbb").switched("bbb")
    real = history.is_whole

    def then_gone(config: Config, release: str) -> bool:
        found = real(config, release)
        if release == "aaa":
            shutil.rmtree(config.release_dir(release), ignore_errors=True)
        return found

    monkeypatch.setattr(history, "is_whole", then_gone)
    assert whole(host.config) == ["bbb"]
    assert prune(host.config, keep=1) == []


def test_nothing_is_removed_while_a_deploy_links_files_out_of_it(host: Host) -> None:
    """release_unpack holds the same lock."""
    host.unpack("aaa", "bbb", "ccc").switched("bbb", "ccc")
    with (host.config.root / "releases" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = threading.Thread(target=prune, args=(host.config, ["aaa"]))
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
        assert history.is_whole(host.config, "aaa")
    waiting.join(5)
    assert "aaa" not in host.there


def test_what_somebody_else_removed_meanwhile_is_no_reason_to_fail(host: Host) -> None:
    host.unpack("aaa", "bbb", "ccc").switched("bbb", "ccc")
    removed: list[str] = []
    with (host.config.root / "releases" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = threading.Thread(target=lambda: removed.extend(prune(host.config, ["aaa"])))
        waiting.start()
        waiting.join(0.05)
        shutil.rmtree(host.config.release_dir("aaa"))
    waiting.join(5)
    assert removed == ["aaa"]
    assert "aaa" not in host.there


def test_what_a_cut_off_removal_left_goes_with_the_next_one(host: Host) -> None:
    half = host.config.release_dir("abc")
    half.mkdir()
    (half / "manifest.json").write_text("{}")
    unpacking = host.config.root / "releases" / ".abc.tmp-1"
    unpacking.mkdir()
    prune(host.config, keep=5)
    assert (half.exists(), unpacking.exists()) == (False, True)


def test_history_tells_what_people_call_a_release(tmp_path: Path) -> None:
    host = Host(tmp_path).unpack("aaaaaaaaaaaa", "bbbbbbbbbbbb")
    (host.config.release_dir("bbbbbbbbbbbb") / ".complete").write_text('{"label": "v1.4.2 (3f2a91c)"}')
    (host.config.release_dir("aaaaaaaaaaaa") / ".complete").write_text('{"label": "aaaaaaaaaaaa"}')
    assert history.label_of(host.config, "aaaaaaaaaaaa") == ""  # by an artifact that has no other name
    assert history.label_of(host.config, "cccccccccccc") == ""
    label = history.label_of(host.config, "bbbbbbbbbbbb")
    entry = {"verb": "activate", "by": "ann", "from": "aaaaaaaaaaaa", "result": SWITCHED, "seconds": 1.0}
    note(host.config, {**entry, "to": "bbbbbbbbbbbb", "label": label})
    note(host.config, {**entry, "to": "aaaaaaaaaaaa"})  # as earlier versions wrote it
    lines = history_lines(host.config)
    assert "aaaaaaaaaaaa -> bbbbbbbbbbbb v1.4.2 (3f2a91c) switched in 1.0 s, by ann" in lines[0]
    assert "-> aaaaaaaaaaaa switched in 1.0 s, by ann" in lines[1]
