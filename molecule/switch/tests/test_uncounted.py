"""A watch that cannot count what becomes of a release's requests: it says so, and the release does not stay."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from fleettest import App, assert_nothing_lost

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]
pytestmark = pytest.mark.usefixtures("sample_again", "sample")

FOLDER = "/var/log/nginx"


@pytest.fixture
def log(app: App) -> Iterator[str]:
    """nginx's log of the app, on a small disk of its own."""
    app.host.check_output(f"mount -t tmpfs -o size=4m tmpfs {FOLDER} && nginx -s reopen")
    yield f"{FOLDER}/{app.name}.watch.log"
    app.host.check_output(f"umount --lazy {FOLDER} && nginx -s reopen")


@pytest.mark.fault(58)
@pytest.mark.parametrize(
    ("breaks", "mends", "why"),
    [
        (
            "dd if=/dev/zero of={folder}/full 2>/dev/null; true",
            "rm {folder}/full",
            "the disk of {folder} is full: make",
        ),
        ("mv {log} {log}.1", "nginx -s reopen", "{log} cannot be read"),
        ("mv {log} {log}.1; touch {log}", "nginx -s reopen", "nginx answers, but does not write to {log}: nginx -s"),
    ],
    ids=["full", "not there", "moved away"],
)
def test_release_whose_requests_nginx_does_not_note_goes_back_and_what_is_advised_helps(
    app: App, sample: str, log: str, breaks: str, mends: str, why: str
) -> None:
    second = app.copy_release(sample, {"Query(ge=0, le=10,": "Query(ge=0, le=60,"}, "second")
    good = app.live["release"]
    target = second if good == sample else sample
    names = {"folder": FOLDER, "log": log}
    with app.settings(watch_seconds=2), app.load(mix="get-new=1,get-keep=1", rate=100) as load:
        app.host.check_output(breaks.format(**names))
        time.sleep(4)  # what was left of the last page of a full disk is written
        rc, said = app.command("activate", target)
        assert (rc, said["outcome"], said["live"]["release"]) == (1, "went back", good), said
        assert why.format(**names) in said["error"], said
        app.host.check_output(mends.format(**names))
        rc, said = app.command("activate", target)
        assert rc == 0, said
        report = load.stop()
    assert_nothing_lost(report, 500)
    app.assert_settled(target)
