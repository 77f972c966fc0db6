"""The app's disk is full: whoever goes back gets there, and a deploy leaves nothing behind that has no room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fleettest import App, assert_nothing_lost

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]
pytestmark = pytest.mark.usefixtures("sample_again", "sample")


@pytest.fixture
def disk(app: App) -> Iterator[str]:
    """The app's folder on a disk of its own, with some MiB left; afterwards, what is there is put back."""
    root, place = f"/srv/{app.name}", "/mnt/fleettest"
    app.host.check_output(
        f"mkdir -p {place} && mount -t tmpfs -o size=$(($(du -sm {root} | cut -f1) + 40))m tmpfs {place} && "
        f"cp -a {root}/. {place} && mount --bind {place} {root}"
    )
    yield f"{root}/full"
    app.host.check_output(
        f"rm -f {root}/full && umount --lazy {root} && rm -rf {root} && cp -a {place} {root} && umount --lazy {place}"
    )


def fill(app: App, path: str) -> None:
    app.host.run(f"dd if=/dev/zero of={path} bs=1M; dd if=/dev/zero of={path}.end bs=512")
    assert app.host.run(f"touch {path}.x && echo x > {path}.x").rc != 0


@pytest.mark.fault(59)
def test_going_back_with_a_full_disk_goes_and_loses_nothing(app: App, sample: str, disk: str) -> None:
    second = app.copy_release(sample, {"Query(ge=0, le=10,": "Query(ge=0, le=60,"}, "second")
    with app.settings(watch_seconds=1), app.load(mix="get-new=40,get-keep=40,post-keep=15,post-new=5") as load:
        assert app.command("activate", second)[0] == 0
        fill(app, disk)
        rc, said = app.command("activate", sample)
        assert (rc, "the disk is full" in said["error"]) == (2, True), said
        for words, live in ((["restart"], second), (["rollback"], sample)):
            rc, said = app.command(*words)
            assert (rc, said["live"]["release"]) == (0, live), said
            assert "what going back writes takes what is kept for that" in " ".join(said["notes"]), said
        report = load.stop()
    assert_nothing_lost(report, 300)
    assert app.command("history")[1]["history"][-1]["to"] == sample
    app.host.check_output(f"rm {disk}*")
    app.assert_settled(sample)
    assert app.command("activate", second, "--force")[0] == 0
    assert app.host.check_output(f"ls /srv/{app.name}/.reserve | wc -l") == "8"
    assert app.command("activate", sample)[0] == 0
