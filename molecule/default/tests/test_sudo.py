"""Ubuntu 26.04's sudo is sudo-rs: becoming root works without a password, and with one the way that docs name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fleettest import App, playbook

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web2"]

USER, PASSWORD = "alice", "not-a-secret"


@pytest.fixture(autouse=True)
def sudo_rs(app: App) -> None:
    """The host has it, as Ubuntu 26.04 does."""
    if "standing in" in app.variables["lab_os"]:
        pytest.skip(f"Ubuntu 26.04 cannot be had here: {app.variables['lab_os']}")
    assert "sudo-rs" in app.host.check_output("sudo --version")


@pytest.fixture
def alice(app: App) -> Iterator[None]:
    """Somebody who logs in by the same key as the lab's user, and has to give a password to become root."""
    app.host.check_output(
        f"useradd --create-home --shell /bin/bash {USER} && echo {USER}:{PASSWORD} | chpasswd && "
        f"echo '{USER} ALL=(ALL) ALL' > /etc/sudoers.d/91-{USER} && chmod 0440 /etc/sudoers.d/91-{USER} && "
        f"cp -r /home/deploy/.ssh /home/{USER}/ && chown -R {USER}: /home/{USER}/.ssh"
    )
    yield
    app.host.check_output(f"rm /etc/sudoers.d/91-{USER} && pkill -u {USER}; userdel --remove {USER} 2>/dev/null; true")


def test_without_a_password_nothing_has_to_be_set(app: App) -> None:
    done = playbook("playbooks/verify.yml", "--limit", "web2")
    assert done.returncode == 0, done.stdout


def test_with_a_password_sudo_ws_does_what_ansible_needs(app: App, alice: None) -> None:
    variables = {"ansible_user": USER, "ansible_become_password": PASSWORD, "ansible_become_exe": "sudo.ws"}
    done = playbook("deploy.yml", "--limit", "web2", variables=variables)
    assert done.returncode == 0, done.stdout
    done = playbook("playbooks/verify.yml", "--limit", "web2", variables=variables)
    assert done.returncode == 0, done.stdout
