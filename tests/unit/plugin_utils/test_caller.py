"""Who deploys, as the hosts' history names them."""

from __future__ import annotations

import getpass
import socket

import pytest

from plugins.plugin_utils.caller import LENGTH_MAX, caller


@pytest.mark.parametrize(
    ("chosen", "environment", "name"),
    [
        ("", {"GITHUB_ACTIONS": "true", "GITHUB_ACTOR": "octocat", "GITHUB_RUN_ID": "77"}, "octocat (GitHub run 77)"),
        ("", {"GITLAB_CI": "true", "GITLAB_USER_LOGIN": "ann", "CI_PIPELINE_ID": "5"}, "ann (GitLab run 5)"),
        (
            "",
            {"BUILDKITE": "true", "BUILDKITE_BUILD_CREATOR": "Ann B", "BUILDKITE_BUILD_NUMBER": "9"},
            "Ann B (Buildkite run 9)",
        ),
        ("", {"GITHUB_ACTIONS": "true"}, "unknown (GitHub run -)"),
        ("release bot", {"GITHUB_ACTIONS": "true", "GITHUB_ACTOR": "octocat"}, "release bot"),
        ("", {"GITHUB_ACTOR": "left over"}, f"{getpass.getuser()}@{socket.gethostname()}"),
        ("a\n$(x)%i'", {}, "a--(x)-i-"),
        ("x" * 200, {}, "x" * LENGTH_MAX),
    ],
)
def test_caller(chosen: str, environment: dict[str, str], name: str) -> None:
    assert caller(chosen, environment) == name


def test_user_without_a_name_is_called_ansible(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid 4711")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert caller("", {}) == f"ansible@{socket.gethostname()}"
