"""States that a host may get into: what `status` and `verify` say, how a deploy repairs them, what is kept of edits."""

from __future__ import annotations

from typing import Any

import pytest
from fleettest import App, playbook, wait_until

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]
pytestmark = pytest.mark.usefixtures("sample_again", "sample")

#: What the commands below go by: the live slot, its units, main process and release.
FACTS = (
    "A={0}; S=$(basename $(readlink /srv/$A/live.sock) .sock); U=$A@$S.service; D=/etc/systemd/system; "
    "M=$(systemctl show --property=MainPID --value $U); R=/srv/$A/releases/$(basename $(readlink /srv/$A/slots/$S)); "
)
#: For each state: how it is made, how undone, how bad it is, what is said among else.
STATES = {
    "nginx down": ("systemctl stop nginx", "systemctl start nginx", "hurts_now", "nginx is down: it was stopped"),
    "nginx disabled": (
        "systemctl disable --quiet nginx", "systemctl enable --quiet nginx",
        "hurts_at_restart", "nginx is disabled: after a reboot nobody reaches the app",
    ),
    "nginx refuses its files": (
        "echo 'bogus;' > /etc/nginx/conf.d/zz.conf", "rm /etc/nginx/conf.d/zz.conf",
        "hurts_at_restart", 'unknown directive "bogus" in /etc/nginx/conf.d/zz.conf:1',
    ),
    "nginx does not pass on": (
        "mount --bind /dev/null /etc/nginx/conf.d/$A.conf && systemctl reload nginx && sleep 1 "
        "&& umount /etc/nginx/conf.d/$A.conf",
        "systemctl reload nginx && sleep 1", "hurts_now", "the app itself is well",
    ),
    "slot down": (
        "systemctl stop $A@$S.socket $U", "systemctl start $U", "hurts_now", "is down: it was stopped",
    ),
    "main process stopped": ("kill -STOP $M", "kill -CONT $M", "differs", "is stopped (SIGSTOP)"),
    "workers do not answer": (
        "kill -STOP $(pgrep --parent $M | head -n 1)", "kill -CONT $(pgrep --parent $M)",
        "hurts_now", "stopped (SIGSTOP): kill -CONT PID",
    ),
    "slot disabled": (
        "systemctl disable --quiet $U", "systemctl enable --quiet $U",
        "hurts_at_restart", "after a reboot nothing serves",
    ),
    "idle slot enabled": (
        "for s in blue green; do test $s = $S || systemctl --root=/ enable --quiet $A@$s.service; done",
        "for s in blue green; do test $s = $S || systemctl --root=/ disable --quiet $A@$s.service; done",
        "note", "has no traffic, but is enabled",
    ),
    "slot files edited": (
        "cp $D/$U /run/unit && echo '# by hand' >> $D/$U", "cp /run/unit $D/$U && systemctl daemon-reload",
        "hurts_at_restart", "was edited since the switch",
    ),
    "live link gone": (
        "mv /srv/$A/live.sock /srv/$A/link", "mv /srv/$A/link /srv/$A/live.sock", "hurts_now", "nginx reaches nobody",
    ),
    "release not whole": (
        "mv $R/lib/gunicorn/config.py /srv/$A/config.py", "mv /srv/$A/config.py $R/lib/gunicorn/config.py",
        "hurts_at_restart", "1 of ",
    ),
    "another Python": (
        "cp $R/.complete /run/marker && sed -i 's/\"python\": \"3[.][0-9]*\"/\"python\": \"3.1\"/' $R/.complete",
        "cp /run/marker $R/.complete", "hurts_at_restart", "was built for Python 3.1, the host has 3.",
    ),
    "no room": (
        "mount --types tmpfs --options size=64k none /var/log/nginx && mount --bind /var/log/nginx /var/lib/$A "
        "&& dd if=/dev/zero of=/var/log/nginx/full bs=64k count=1 status=none",
        "umount /var/lib/$A /var/log/nginx", "hurts_at_restart", "is full (",
    ),
    "settings differ": (
        "cp --preserve /etc/$A/environment /run/environment && echo 'A=\"1\"' >> /etc/$A/environment",
        "cp --preserve /run/environment /etc/$A/environment", "differs", "the settings on disk are not those",
    ),
}  # fmt: skip


def do(app: App, command: str) -> None:
    app.host.check_output(f"{FACTS.format(app.name)}{command}")


def of_state(said: dict[str, Any], state: str) -> list[dict[str, str]]:
    return [finding for finding in said["findings"] if finding["state"] == state]


@pytest.mark.parametrize("state", STATES)
def test_state_is_told_with_what_helps_and_gone_once_it_is_undone(app: App, state: str) -> None:
    make, undo, severity, text = STATES[state]
    undo = FACTS.format(app.name) + undo if state != "live link gone" else f"A={app.name}; {undo}"
    do(app, make)
    try:
        for verb in ("verify", "status"):
            rc, said = app.command(verb)
            (finding,) = of_state(said, state)
            assert (rc, finding["severity"]) == (0 if severity == "note" else 1, severity), finding
            assert text in finding["text"]
    finally:
        app.host.check_output(undo)
    wait_until(lambda: app.command("verify")[0] == 0)
    assert of_state(app.command("verify")[1], state) == []


#: Ways in which the live slot may not be as the last switch made it, and how a deploy calls them.
ALTERED = {
    "dead": ("systemctl kill --signal=KILL $U; systemctl stop $A@$S.socket $U", ".service is down"),
    "hung": ("kill -STOP $(pgrep --parent $M)", "gives no answer within"),
    "main process stopped": ("kill -STOP $M", "is stopped (SIGSTOP)"),
    "disabled": ("systemctl disable --quiet $U", "is disabled"),
    "unit edited": ("echo '# by hand' >> $D/$U", "was edited"),
    "release removed": ("rm -r $R", "is gone"),
    "a file of it removed": ("rm $R/lib/gunicorn/config.py", "files are gone from"),
    "link removed": ("rm /srv/$A/live.sock", "live.sock is gone"),
}


def assert_known_to_systemd(app: App) -> None:
    """No unit of the host waits for a daemon-reload, and both ways of asking call the live slot enabled."""
    stale = app.host.check_output(
        "systemctl show --property=Id,NeedDaemonReload '*' | grep -c NeedDaemonReload=yes || true"
    )
    shown = app.host.check_output(
        f"systemctl show --property=UnitFileState --value {app.unit}; systemctl is-enabled {app.unit}"
    )
    assert (stale, shown.split()) == ("0", ["enabled", "enabled"])


@pytest.mark.fault(56)
@pytest.mark.fault(68)
@pytest.mark.parametrize("way", ALTERED)
def test_a_deploy_of_the_same_release_repairs_the_live_slot(app: App, sample: str, way: str) -> None:
    command, text = ALTERED[way]
    before = app.slot
    do(app, command)
    done = playbook("deploy.yml", "--limit", "web1", variables={"service_watch_seconds": 1})
    assert done.returncode == 0, done.stdout
    assert f"{text}" in done.stdout
    assert "a switch repaired it" in done.stdout
    app.assert_settled(sample)
    assert way == "link removed" or app.slot != before
    assert_known_to_systemd(app)


@pytest.mark.fault(68)
def test_after_each_kind_of_switch_systemd_has_read_all_units_and_shows_the_live_slot_as_enabled(
    app: App, sample: str
) -> None:
    """Also where the host does it by itself, with its link and its units written while systemd runs."""
    app.copy_release(sample, {"Query(ge=0, le=10,": "Query(ge=0, le=60,"}, "second")
    with app.settings(watch_seconds=1):
        for words in (("activate", "second"), ("restart",), ("rollback",)):
            rc, said = app.command(*words)
            assert rc == 0, said
            app.wait_for_the_old_slot()
            assert_known_to_systemd(app)
    app.assert_settled(sample)


@pytest.mark.fault(69)
def test_what_somebody_edited_is_told_and_kept_beside(app: App, sample: str) -> None:
    path = f"/etc/nginx/conf.d/{app.name}.conf"
    was = app.host.check_output("cat %s", path)
    do(app, f"printf '# by hand\\n' >> {path} && chmod 0640 {path}")
    rc, said = app.command("verify")
    # Other tests have written settings of their own.
    (finding,) = [each for each in of_state(said, "file edited") if path in each["text"]]
    assert (rc, finding["severity"]) == (0, "note")
    assert f"{path} was edited since the last deploy wrote it" in finding["text"]
    done = playbook("deploy.yml", "--limit", "web1")
    assert done.returncode == 0, done.stdout
    (kept,) = app.host.check_output(f"ls {path}.edited-*").split()
    told = " ".join((done.stdout + done.stderr).split())
    assert f"{path} was edited since the last deploy wrote it. What it held is kept in {kept}" in told
    assert app.host.check_output("cat %s", path) == was
    assert app.host.file(kept).content_string.endswith("# by hand\n")
    assert app.host.file(kept).mode == 0o640
    assert "by hand" not in app.host.check_output("nginx -T 2>/dev/null"), "nginx loads it"
    app.host.check_output("rm %s", kept)
    app.assert_settled(sample)


#: Run on the host: more requests that block a thread than all workers have threads.
BLOCKING = """
import socket, sys
ends = []
for _ in range(100 * int(sys.argv[2])):
    end = socket.socket(socket.AF_UNIX)
    end.connect(sys.argv[1])
    end.sendall(b"GET /serve/threads?seconds=10 HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
    ends.append(end)
for end in ends:
    while end.recv(65536):
        pass
"""


def test_thread_pools_that_are_full_behind_an_async_health_route_are_told(app: App) -> None:
    planned = app.live["plan"]["workers"]
    app.write("/run/fleettest-pools.py", BLOCKING)
    app.host.check_output(
        "systemd-run --quiet --collect --unit=fleettest-pools python3 /run/fleettest-pools.py "
        f"/run/{app.name}/{app.slot}.sock {planned}"
    )
    told: list[dict[str, str]] = []

    def is_told() -> bool:
        told[:] = of_state(app.command("verify")[1], "thread pools full")
        return bool(told)

    wait_until(is_told)
    assert told[0]["severity"] == "hurts_now"
    assert f"of {planned} workers is full" in told[0]["text"]
    wait_until(lambda: app.command("verify")[0] == 0)
