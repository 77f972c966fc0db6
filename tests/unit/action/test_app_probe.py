"""The controller's half of app_probe: what it sends to a host, and by what a later task knows it again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from plugins.action import host_files
from plugins.action.app_probe import DEFAULT_USER, ActionModule
from plugins.plugin_utils.texts import text_id


def run(folder: Path, answer: dict[str, Any], **variables: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the action with a made-up host; return what was sent to the module, and what came back."""
    (folder / "secret.j2").write_text("A={{ value }}\n")
    sent: dict[str, Any] = {}
    action = ActionModule.__new__(ActionModule)
    secrets = [{"path": "/etc/web/secret", "template": "secret.j2"}]
    args = {"app": "web", "secrets": secrets, "key_file": "/etc/web/digest.key"}
    action._task = SimpleNamespace(action="app_probe", args=args, async_val=False, check_mode=False, environment=None)
    action._loader = DataLoader()
    action._templar = Templar(loader=action._loader, variables={})
    action._find_needle = lambda _, name: str(folder / name)
    action._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None))

    def execute(module_name: str, module_args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        sent.update(name=module_name, **module_args)
        return answer

    action._execute_module = execute
    return sent, action.run(None, {"value": "1", **variables})


def probed(text: str = "keyed") -> dict[str, Any]:
    return {"ansible_facts": {"app_probe": {"secrets": {"/etc/web/secret": {"digest": text, "state": None}}}}}


def test_host_gets_the_texts_and_the_answer_a_mark_of_each(tmp_path: Path) -> None:
    sent, result = run(tmp_path, probed())
    assert (sent["name"], sent["secrets"]) == ("app_probe", {"/etc/web/secret": "A=1\n"})
    (seen,) = result["ansible_facts"]["app_probe"]["secrets"].values()
    assert seen["text_id"] == text_id("A=1\n") != text_id("A=2\n")
    known = host_files.digests_of({"/etc/web/secret": "A=1\n"}, result["ansible_facts"]["app_probe"]["secrets"])
    assert known == {"/etc/web/secret": "keyed"}, "both actions have one key"


@pytest.mark.parametrize("answer", [{"failed": True, "msg": "unfit"}, {"unreachable": True}, {"ansible_facts": {}}])
def test_host_that_says_nothing_of_secrets_is_no_error(tmp_path: Path, answer: dict[str, Any]) -> None:
    assert run(tmp_path, answer)[1].items() >= answer.items()


@pytest.mark.parametrize(
    ("variables", "given"),
    [({}, False), ({"service_user": DEFAULT_USER}, False), ({"service_user": "web"}, True)],
)
def test_account_counts_as_chosen_where_it_is_not_the_default(
    tmp_path: Path, variables: dict[str, str], given: bool
) -> None:
    assert run(tmp_path, probed(), **variables)[0]["user_given"] is given


def test_misspelt_setting_is_refused_before_the_host_is_asked(tmp_path: Path) -> None:
    """As a role is used alone, without its `check`."""
    sent, result = run(tmp_path, probed(), service_worker=2, app_version="1.2")
    assert (sent, result["failed"]) == ({}, True)
    assert "unknown setting service_worker; did you mean service_workers?" in result["msg"]
    assert "unknown setting app_version; " in result["msg"]
    own = ["service_worker", "app_version"]
    assert run(tmp_path, probed(), service_worker=2, app_version="1.2", fleet_own_variables=own)[0]
