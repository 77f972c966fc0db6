"""What is uvicorn's alone."""

from __future__ import annotations

import json

from fleettest import App, wait_until

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web2"]


def test_one_worker_is_the_main_process_itself(app: App, sample: str) -> None:
    """`--workers 1` starts no others: it has to be found, counted, and started again by systemd."""
    plan = json.loads(app.host.check_output(f"cat /etc/{app.name}/release.json"))["plan"]
    alone = app.copy_release(sample, {}, "alone")
    asked = {**plan, "workers": 1, "inputs": {**plan["inputs"], "workers": 1}}
    with app.settings(plan=asked, watch_seconds=1):
        rc, said = app.command("activate", alone)
        assert rc == 0, said
    master = app.master

    def verified() -> bool:
        rc, said = app.command("verify")
        counts = [said.get(name) for name in ("planned", "running", "answering")]
        return (rc, counts, said.get("pids")) == (0, [1, 1, 1], [app.master])

    assert verified(), app.command("verify")
    assert app.workers == set()
    assert app.answering("/health", 8) == {master}
    app.host.check_output(f"kill -KILL {master}")
    wait_until(lambda: app.master not in (0, master) and verified())
    # From one worker to three, and other tests find what they expect.
    with app.settings(watch_seconds=1):
        rc, said = app.command("activate", sample)
    assert (rc, len(app.workers)) == (0, 3), said
