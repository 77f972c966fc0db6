"""What is made from the definitions of settings: as it is committed, and from a setting that is new."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from plugins.module_utils.settings.definitions import DefinitionError, load
from plugins.module_utils.settings.rules import fault
from script.generate import outputs
from tests.unit.settings.test_effects import other

REPOSITORY = Path(__file__).parents[3]
SCHEMA = json.loads((REPOSITORY / "docs" / "settings.schema.json").read_text())
NEW = """
  service_grace_seconds:
    why: How long the tests wait.
    value: {type: int, range: [1, 9], unit: seconds, default: 7}
    effect: deploy
    since: 9.9.9
    host: grace_seconds
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The definitions and what is made of them, in a folder of their own."""
    for name in [*outputs(REPOSITORY), "playbooks/settings.yml", *map(str, REPOSITORY.glob("roles/*/settings.yml"))]:
        path = (REPOSITORY / name).relative_to(REPOSITORY)
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / path, tmp_path / path)
    return tmp_path


def generate(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "script.generate", "--root", root, *words],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_new_setting_is_written_once_and_is_everywhere(copy: Path) -> None:
    definitions = copy / "roles" / "service" / "settings.yml"
    definitions.write_text(definitions.read_text().rstrip("\n") + NEW)
    checked = generate(copy, "--check")
    assert checked.returncode == 1
    assert "docs/settings.md differs from its settings.yml: run script/generate\n" in checked.stdout
    assert generate(copy).returncode == 0
    assert generate(copy, "--check").stdout == ""
    text = {name: (copy / name).read_text() for name in outputs(copy)}
    assert yaml.safe_load(text["roles/service/defaults/main.yml"])["service_grace_seconds"] == 7
    specs = yaml.safe_load(text["roles/service/meta/argument_specs.yml"])["argument_specs"]
    for entry in specs.values():
        assert entry["options"]["service_grace_seconds"]["default"] == 7
    assert (
        "\n# How long the tests wait. In seconds.\nservice_grace_seconds: 7\n"
        in text["roles/service/defaults/main.yml"]
    )
    row = "| `service_grace_seconds` | 1 to 9 | `7` | seconds | deploy | 9.9.9 | How long the tests wait. |"
    assert row in text["docs/settings.md"]
    assert "'grace_seconds': service_grace_seconds | int," in text["roles/service/templates/settings.json.j2"]
    assert "grace_seconds: float = 7.0" in text["plugins/module_utils/host/settings.py"]
    validator = Draft202012Validator(json.loads(text["docs/settings.schema.json"]))
    assert validator.is_valid({"service_grace_seconds": 9})
    assert not validator.is_valid({"service_grace_seconds": 10})
    rules = load(copy).rules(["service"], [])
    assert fault(10, rules["service_grace_seconds"]) == "is 10"


def test_what_is_made_is_python_and_is_written_as_it_was_committed(copy: Path) -> None:
    for name, text in outputs(copy).items():
        assert (REPOSITORY / name).read_text() == text, f"{name}: run script/generate"
    ast.parse(outputs(copy)["plugins/module_utils/host/settings.py"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    effect: deploy\n", "    effect: sometime\n", "has effect ['sometime']; allowed: workers, "),
        ("    since: 0.1.0\n", "", "lacks ['since']"),
        ("    effect: deploy\n", "    effect: deploy\n    untl: 2\n", "unknown ['untl']"),
        ("  service_force:\n", "  proxy_body_max:\n", "proxy_body_max is defined by service, too"),
    ],
)
def test_a_definition_that_is_wrong_in_itself_is_refused(copy: Path, old: str, new: str, said: str) -> None:
    definitions = copy / "roles" / "service" / "settings.yml"
    definitions.write_text(definitions.read_text().replace(old, new))
    with pytest.raises(DefinitionError) as error:
        load(copy)
    assert said in str(error.value)


def test_an_instance_without_the_role_aws_fleet_knows_the_other_settings(copy: Path) -> None:
    shutil.rmtree(copy / "roles" / "aws_fleet")
    found = load(copy)
    assert "service_workers" in found.settings
    assert not [name for name in found.settings if name.startswith("aws_fleet_")]


# The JSON Schema


VALIDATOR = Draft202012Validator(SCHEMA)


def faults(**variables: Any) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(variables)]


def test_schema_is_a_valid_one() -> None:
    VALIDATOR.check_schema(SCHEMA)


def test_schema_takes_what_the_rules_take() -> None:
    for name, setting in load().settings.items():
        good = [other(setting)] if setting.owner != "aws_fleet" and "identity" not in setting.effect else []
        good += [setting.default] if setting.has_default else []
        for value in [*good, "{{ vault_x }}"]:
            assert faults(**{name: value}) == [], name
    assert faults(ansible_user="x", my_own={"a": 1}, app_db_port=1) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("service_workers", 0), ("service_workers", "many"), ("service_worker", 2), ("proxy_server_names", []),
        ("proxy_server_names", "x"), ("service_engine", "apache"), ("service_user", "root"), ("app_module", "main"),
        ("service_env", ["A=1"]), ("service_env", {"2A": 1}), ("service_force", "perhaps"), ("fleet_batches", ["0%"]),
        ("aws_fleet_cpu_target", 101), ("service_health_path", "/a b"), ("tune_roundz", 2),
    ],
)  # fmt: skip
def test_schema_refuses_what_the_rules_refuse(name: str, value: Any) -> None:
    assert faults(**{name: value})
