"""Who runs Ansible, for the hosts' history and a release's origin. On the controller only."""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Mapping

#: By a variable that only this CI sets: its name, and the variables with who began the run and with the run's number.
_CI = {
    "GITHUB_ACTIONS": ("GitHub", "GITHUB_ACTOR", "GITHUB_RUN_ID"),
    "GITLAB_CI": ("GitLab", "GITLAB_USER_LOGIN", "CI_PIPELINE_ID"),
    "BUILDKITE": ("Buildkite", "BUILDKITE_BUILD_CREATOR", "BUILDKITE_BUILD_NUMBER"),
    "CIRCLECI": ("CircleCI", "CIRCLE_USERNAME", "CIRCLE_BUILD_NUM"),
    "TF_BUILD": ("Azure", "BUILD_REQUESTEDFOR", "BUILD_BUILDID"),
    "JENKINS_URL": ("Jenkins", "BUILD_USER_ID", "BUILD_NUMBER"),
}
LENGTH_MAX = 100


def caller(chosen: str = "", environment: Mapping[str, str] | None = None) -> str:
    """Return who deploys: as `chosen`, else who began the CI's run, with its number, else user@host."""
    environment = os.environ if environment is None else environment
    for sign, (name, actor, run) in _CI.items():
        if not chosen and environment.get(sign):
            chosen = f"{environment.get(actor) or 'unknown'} ({name} run {environment.get(run) or '-'})"
    # It stands in a command line that systemd reads, and in lines of history.
    return re.sub(r"[^\w.@:/#()+ -]", "-", chosen or f"{_user()}@{socket.gethostname()}")[:LENGTH_MAX]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "ansible"
