"""What tests of measuring share: one that is under way, and what it may leave on a host."""

from __future__ import annotations

import subprocess

from fleettest import REPOSITORY, App, playbook_command, playbook_environment, wait_until


def traces(app: App) -> str:
    """Return what is there of a private slot, "" where nothing is."""
    found: str = app.host.check_output(
        f"systemctl list-units --all --plain --no-legend '{app.name}@tune.*' '{app.name}-release-tune*'; "
        f"ls /run/systemd/system /run/{app.name} /etc/{app.name} /srv/{app.name}/slots | grep -w tune; true"
    )
    return found


def start(app: App) -> subprocess.Popen[bytes]:
    """Have a controller measure for a long time; return when the private slot is up."""
    variables = {"tune_host": "web1", "tune_workers": [1], "tune_rounds": 100, "tune_seconds": 2, "tune_report": ""}
    process = subprocess.Popen(
        playbook_command(REPOSITORY / "playbooks/tune.yml", variables={**variables, "tune_while_serving": True}),
        env=playbook_environment(REPOSITORY),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    wait_until(lambda: app.host.run(f"systemctl is-active {app.name}@tune.service").stdout.strip() == "active", 90)
    return process
