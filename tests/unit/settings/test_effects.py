"""What a change of a setting does, as its definition says, is what the roles' own templates make of it."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
import yaml

from plugins.module_utils.settings.definitions import Setting, load
from plugins.module_utils.settings.rules import fault, kind_of
from plugins.module_utils.workers.plan import plan_workers
from tests.unit.rendering import ROLES, host, template, value

DEFINITIONS = load()
#: Another value than the default, where the rule does not give one away.
OTHERS: dict[str, Any] = {
    "app_module": "web:app",
    "app_source": "/srv/other",
    "service_workers": 3,
    "service_workers_max": 2,
    "service_worker_memory_mib": 200,
    "service_reserve_memory_mib": 700,
    "service_python": "/usr/bin/python3.13",
    "service_user": "web",
    "service_proxy_group": "proxy",
    "service_env": {"A": "b"},
    "service_writable_paths": ["/srv/data"],
    "service_health_path": "/up",
    "service_health_host": "shop.example.org",
    "service_warmup_paths": ["/warm"],
    "service_hook_before": "true",
    "service_hook_after": "true",
    "release_python": "/usr/bin/python3.13",
    "release_exclude": ["*.md"],
    "release_include": ["dist"],
    "release_lock": "lock.txt",
    "release_cache": "/srv/cache",
    "release_uv": "/usr/bin/uv",
    "release_index_url": "https://index.example.org",
    "release_build_packages": ["build-essential"],
    "release_url": "https://releases.example.org",
    "release_publish": "/srv/www",
    "proxy_server_names": ["shop.example.org"],
    "proxy_body_max": "20m",
    "proxy_trusted_proxies": ["10.0.0.0/8"],
    "proxy_trusted_headers": ["X-Custom"],
    "fleet_batches": [1, "50%"],
    "fleet_migrate": "true",
    "fleet_own_variables": ["app_version"],
    "fleet_by": "release bot",
    "tune_load": ["/a"],
    "tune_workers": [1, 2],
    "tune_report": "/srv/report",
    "tune_write": "group",
    "tune_host": "web1",
    "rollback_to": "0123456789ab",
    "verify_release": "0123456789ab",
    "verify_table": "/srv/table",
}
CHECKED = [
    setting
    for setting in DEFINITIONS.settings.values()
    if setting.owner != "aws_fleet" and "identity" not in setting.effect
]


def other(setting: Setting) -> Any:
    """Return an allowed value that is not the default."""
    if setting.name in OTHERS:
        return OTHERS[setting.name]
    kind = kind_of(setting.rule)
    if kind == "bool":
        return not setting.default
    return setting.rule["choices"][-1] if kind == "choices" else setting.rule["range"][1]


def installing(role: str, tasks: str) -> dict[str, Any]:
    """Return the options of the task that puts a role's files on a host."""
    found = yaml.safe_load((ROLES / role / "tasks" / tasks).read_text())
    (task,) = (task["webfleet.fastapi.host_files"] for task in found if "webfleet.fastapi.host_files" in task)
    return dict(task)


def files(role: str, tasks: str) -> list[dict[str, Any]]:
    """Return the files that a role's tasks put on a host from templates."""
    return [file for file in installing(role, tasks)["files"] if "template" in file]


def planned(**given: Any) -> dict[str, Any]:
    """Return the facts of a host whose workers are planned by the settings, as tasks/plan.yml has them."""
    (task,) = yaml.safe_load((ROLES / "service/tasks/plan.yml").read_text())
    arguments = {
        name: value("service", text.strip("{} "), **given)
        for name, text in task["webfleet.fastapi.app_probe"]["plan"].items()
    }
    facts = host()
    plan = plan_workers(vcpus=2, affinity=2, memory_mib=1200, **arguments).as_dict()
    facts["app_probe"] |= {"plan": plan, "plan_live": plan}
    return facts


def rendered(**given: Any) -> dict[str, str]:
    """Return the text of each kind of file: of the workers' fingerprint, nginx's, the host command's."""
    given = {"proxy_keepalive": 0, **given}
    facts = planned(**given)
    service = files("service", "prepare.yml")
    counted = [file["template"] for file in service if file.get("fingerprint")]
    # The number of workers, among others.
    salt = " ".join(
        str(value("service", text, ansible_facts=facts, **given))
        for text in re.findall(r"{{ (.*?) }}", installing("service", "prepare.yml")["salt"])
    )
    told = ["settings.json.j2", "hooks.json.j2"]
    assert set(told) < {file["template"] for file in service} - set(counted)
    nginx = [file["template"] for file in files("proxy", "main.yml")]
    return {
        "workers": "".join(template("service", name, ansible_facts=facts, **given) for name in counted) + salt,
        "reload": "".join(template("proxy", name, ansible_facts=facts, **given) for name in nginx),
        "host": re.sub(
            r'(?s)"plan": \{.*?\n    \}',
            "",
            "".join(template("service", name, ansible_facts=facts, **given) for name in told),
        ),
    }


@functools.cache
def before() -> dict[str, str]:
    return rendered()


@pytest.mark.parametrize("setting", CHECKED, ids=lambda setting: setting.name)
def test_change_does_what_the_definition_says(setting: Setting) -> None:
    changed = other(setting)
    assert fault(changed, setting.rule) == ""
    now = rendered(**{setting.name: changed})
    differ = {kind for kind, text in now.items() if text != before()[kind]}
    assert differ == ({"workers", "reload"} & set(setting.effect)) | ({"host"} if setting.host else set())
