"""The build cache: bounded, and an entry is whole or not there."""

import os
from pathlib import Path

import pytest

from plugins.module_utils.build.cache import KEEP, Cache, save


def test_cache_keeps_the_newest(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    for number in range(KEEP["builds"] + 3):
        with cache.put("builds", f"b{number}") as new:
            (new / "file").write_text("x")
        os.utime(cache.root / "builds" / f"b{number}", (number, number))
    assert cache.get("builds", "b0")  # used now, so it is the newest
    cache.prune()
    left = {path.name for path in (cache.root / "builds").iterdir()}
    assert len(left) == KEEP["builds"]
    assert "b0" in left
    assert "b1" not in left


def test_interrupted_build_leaves_no_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")

    def interrupted() -> None:
        with cache.put("libs", "key") as new:
            (new / "half").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert cache.get("libs", "key") is None
    assert not list((cache.root / "tmp").iterdir())


def test_two_builders_of_one_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with cache.put("libs", "key") as mine:
        (mine / "file").write_text("mine")
        with cache.put("libs", "key") as theirs:
            (theirs / "file").write_text("theirs")
    entry = cache.get("libs", "key")
    assert entry
    assert (entry / "file").read_text() == "theirs"


def test_entry_that_a_power_cut_spoilt_is_made_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with cache.put("libs", "key") as new:
        (new / "lib").write_text("four")
        save(new / "about.json", {"sizes": {"lib": 4}})
    entry = cache.whole("libs", "key")
    assert entry
    (entry / "lib").write_text("cut")
    assert cache.whole("libs", "key") is None
    assert not entry.exists()
