"""The bundle itself is upgraded in place, from version 0.1, while requests come in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from fleettest import REPOSITORY, App, assert_lost_by_reload_only, playbook, playbook_command, playbook_environment

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]
pytestmark = pytest.mark.usefixtures("sample_again")

#: The last commit of version 0.1.
FORMER = "f576760"
#: Like "Remove an app from a host" in docs/operations.md.
REMOVE = """
rm -f /etc/nginx/conf.d/{0}.conf && systemctl reload nginx
systemctl stop {0}@blue.socket {0}@green.socket
systemctl disable --now {0}@blue.service {0}@green.service {0}-release-recover.service
rm -rf /srv/{0} /etc/{0} /run/{0} /var/lib/{0} /usr/local/lib/{0}-release /usr/local/sbin/{0}-release
rm -f /etc/systemd/system/{0}@* /etc/systemd/system/{0}-release*
systemctl daemon-reload
userdel {0}
"""


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """The bundle as it was in version 0.1."""
    archive, folder = tmp_path / "former.tar", tmp_path / "former"
    folder.mkdir()
    done = subprocess.run(
        ["git", "archive", "--output", archive, FORMER], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"this clone does not have {FORMER}, version 0.1: {done.stderr}")
    shutil.unpack_archive(archive, folder, filter="data")
    return folder


@pytest.mark.fault(20)
def test_upgrade_from_the_version_before_loses_nothing_and_can_go_back(app: App, former: Path, tmp_path: Path) -> None:
    app.host.run(REMOVE.format(app.name))
    done = subprocess.run(
        playbook_command(former / "deploy.yml", "--limit", "web1", variables={"app_source": str(REPOSITORY / "app")}),
        cwd=former, env=playbook_environment(former), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert app.host.run(f"{app.name}-release history").rc != 0, "version 0.1 had none"
    before = app.get("/health")[1]["x-release"]

    source = tmp_path / "app"
    shutil.copytree(REPOSITORY / "app", source, ignore=shutil.ignore_patterns(".venv", "__pycache__", ".*cache"))
    main = source / "main.py"
    main.write_text(main.read_text().replace('title="The counter"', 'title="The newer counter"'))
    variables = {"app_source": str(source), "service_watch_seconds": 2}
    with app.load(mix="get-new=40,get-keep=40,post-keep=15,post-new=5,long=0.5", long_seconds=3) as load:
        done = playbook("deploy.yml", "--limit", "web1", variables=variables)
        assert done.returncode == 0, done.stdout
        after = app.live["release"]
        app.assert_settled(after)
        rc, said = app.command("rollback")
        assert (rc, said["live"]["release"]) == (0, before), said
        app.assert_settled(before)
        report = load.stop()
    assert after != before
    # The upgrade changes nginx's files, so it reloads nginx, once.
    reloads = [at for at in app.reloads() if report.began < at < report.ended]
    assert len(reloads) == 1, reloads
    assert_lost_by_reload_only(report, 500, reloads)
    assert report.releases.keys() == {before, after}
