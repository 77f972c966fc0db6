"""What every role, playbook and scenario keeps to, so that a reader who knows one knows them all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomllib
import yaml

REPOSITORY = Path(__file__).parents[2]
ROLES = sorted(path.name for path in (REPOSITORY / "roles").iterdir() if (path / "tasks").is_dir())
PLAYBOOKS = sorted(
    {REPOSITORY / "deploy.yml", *REPOSITORY.glob("playbooks/*.yml"), *REPOSITORY.glob("playbooks/stages/*.yml")}
    - {REPOSITORY / "playbooks" / "settings.yml"}
)
SHORT = [  # lines that a reader has before him at once
    ("roles/*/tasks/*.yml", 60),
    ("roles/*/handlers/*.yml", 60),
    ("roles/*/templates/*", 80),
    ("playbooks/templates/*", 80),
    ("playbooks/tasks/*.yml", 60),
    ("playbooks/[!s]*.yml", 30),
    ("playbooks/stages/*.yml", 30),
    ("playbooks/vars/*.yml", 60),
    ("deploy.yml", 30),
]
#: Settings that are the app's and not one role's; each role that uses one says so in its specs.
SHARED = re.compile(r"app_(name|source|module|url)|proxy_keepalive")
each_role = pytest.mark.parametrize("role", ROLES)


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def defaults(role: str) -> dict[str, Any]:
    found: dict[str, Any] = load(REPOSITORY / "roles" / role / "defaults" / "main.yml") or {}
    return found


def specs(role: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = load(REPOSITORY / "roles" / role / "meta/argument_specs.yml")["argument_specs"]
    return found


def entries(file: Path, data: Any = None) -> Iterator[dict[str, Any]]:
    """Every play and task of a file, in blocks, too."""
    for entry in load(file) if data is None else data:
        yield entry
        for inner in ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always"):
            yield from entries(file, entry.get(inner, []))


def uses_of_roles() -> Iterator[tuple[Path, str, str]]:
    """Every role that a playbook or a role's tasks use: the file, the role's full name and its entry."""
    files = [*PLAYBOOKS, *REPOSITORY.glob("playbooks/tasks/*.yml"), *REPOSITORY.glob("roles/*/tasks/*.yml")]
    for file in files:
        for entry in entries(file):
            for action in ("import_role", "include_role"):
                use = entry.get(f"ansible.builtin.{action}") or entry.get(action)
                if use:
                    yield file, use["name"], use.get("tasks_from", "main")
            for listed in entry.get("roles", []):
                yield file, listed if isinstance(listed, str) else listed["role"], "main"


def words(path: Path) -> str:
    """A file's text without comments."""
    return re.sub(r"(^|\s)#.*", "", path.read_text())


def test_workflows_run_only_what_they_name_by_hash_and_keep_no_credentials() -> None:
    """A tag can be moved to other code; what a checkout leaves in .git/config, every later step can read."""
    files = list(REPOSITORY.glob(".github/workflows/*.yml"))
    assert files
    for file in files:
        workflow = load(file)
        assert workflow["permissions"] == {}, "each job names what it needs"
        for job in workflow["jobs"].values():
            assert set(job["permissions"].values()) == {"read"}
            used = [step for step in job["steps"] if "uses" in step]
            assert [step["uses"] for step in used if not re.fullmatch(r"\S+@[0-9a-f]{40}", step["uses"])] == []
            checkouts = [step for step in used if step["uses"].startswith("actions/checkout@")]
            assert [step["with"]["persist-credentials"] for step in checkouts] == [False] * len(checkouts)
        lines = [line for line in file.read_text().splitlines() if "uses:" in line]
        assert [line for line in lines if not re.search(r"  # v\d+\.\d+\.\d+$", line)] == []


def test_there_are_roles_and_playbooks_to_look_at() -> None:
    assert {"proxy", "release", "service"} <= set(ROLES)
    assert {"deploy.yml", "verify.yml", "rollback.yml", "switch.yml"} <= {file.name for file in PLAYBOOKS}
    assert ("webfleet.fastapi.service", "plan") in {(role, entry) for _, role, entry in uses_of_roles()}


@each_role
def test_names_have_the_roles_prefix(role: str) -> None:
    folder = REPOSITORY / "roles" / role
    for entry, spec in specs(role).items():
        for name in spec["options"]:
            assert name.startswith(f"{role}_") or SHARED.fullmatch(name), f"{entry}: {name}"
    assert all(name.startswith(f"{role}_") for name in defaults(role))
    if (folder / "vars" / "main.yml").exists():
        assert all(name.startswith(f"_{role}_") for name in load(folder / "vars" / "main.yml"))
    for file in folder.glob("tasks/*.yml"):
        for task in entries(file):
            kept = task.get("register", f"__{role}_")
            assert kept.startswith((f"{role}_", f"__{role}_")), f"{file.name}: {task['name']}"
            for fact in set(task.get("ansible.builtin.set_fact", {})) - {"cacheable"}:
                assert fact.startswith((f"{role}_", f"_{role}_", f"__{role}_")), f"{file.name}: {fact}"


@each_role
def test_role_knows_no_groups(role: str) -> None:
    """Which hosts belong together is the playbook's knowledge; a role serves any host that it is given."""
    for file in (REPOSITORY / "roles" / role).rglob("*"):
        if file.suffix in {".yml", ".j2"} and file.parent.name in {
            "tasks",
            "handlers",
            "templates",
            "defaults",
            "vars",
        }:
            found = re.search(r"\b(groups\b *[\[.|]|group_names\b)", words(file))
            assert not found, f"{file.name} mentions {found and found[0]}"


@each_role
def test_each_tasks_file_starts_a_list_of_named_tasks(role: str) -> None:
    for file in (REPOSITORY / "roles" / role).glob("tasks/*.yml"):
        for task in entries(file):
            assert re.match(r"[A-Z]", task.get("name", "")), f"{file.name}: a task has no name to be seen by"


def test_every_entry_that_is_used_is_specified() -> None:
    """Without a spec, `tasks_from` is not validated; with `.yml` behind the name, it silently never is."""
    for file, full_name, entry in uses_of_roles():
        where = f"{file.relative_to(REPOSITORY)} uses {full_name}: {entry}"
        collection, _, role = full_name.rpartition(".")
        assert (collection, role in ROLES) == ("webfleet.fastapi", True), f"{where}: by its full name it is ours"
        assert (REPOSITORY / "roles" / role / "tasks" / f"{entry}.yml").is_file(), where
        assert entry in specs(role), where


@each_role
def test_every_entry_that_is_specified_has_tasks(role: str) -> None:
    for entry in specs(role):
        assert (REPOSITORY / "roles" / role / "tasks" / f"{entry}.yml").is_file(), entry


@pytest.mark.parametrize(("pattern", "most"), SHORT, ids=[pattern for pattern, _ in SHORT])
def test_files_are_short(pattern: str, most: int) -> None:
    lengths = {str(f.relative_to(REPOSITORY)): len(f.read_text().splitlines()) for f in REPOSITORY.glob(pattern)}
    assert {name: length for name, length in lengths.items() if length > most} == {}


@each_role
def test_readme_names_the_roles_settings_and_no_others(role: str) -> None:
    text = (REPOSITORY / "roles" / role / "README.md").read_text()
    known = set(defaults(role)) | {name for spec in specs(role).values() for name in spec["options"]}
    outputs = set(
        re.findall(rf"\b{role}_\w+", "\n".join(map(words, (REPOSITORY / "roles" / role).glob("tasks/*.yml"))))
    )
    named = {name for name in re.findall(r"`([a-z]\w*)`", text) if name.startswith(f"{role}_")}
    assert named - known - outputs == set()
    assert f"docs/settings.md#{role}" in text, "it says where they stand"


def test_versions_agree() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    galaxy = load(REPOSITORY / "galaxy.yml")
    assert galaxy["version"] == project["version"]
    assert galaxy["license"] == [project["license"]]
    assert (REPOSITORY / galaxy["readme"]).is_file()
    changes = [REPOSITORY / "CHANGELOG.rst", *(REPOSITORY / "changelogs/fragments").glob("*.yml")]
    assert project["version"] in " ".join([changes[0].read_text(), *(path.stem for path in changes)])


def test_every_scenario_is_found_by_molecule() -> None:
    """A folder without molecule.yml is no scenario, and its tests would silently never run."""
    folders = {path.name for path in (REPOSITORY / "molecule").iterdir() if path.is_dir()} - {"shared", "__pycache__"}
    assert "default" in folders
    for name in folders:
        scenario = REPOSITORY / "molecule" / name
        assert (scenario / "molecule.yml").is_file(), name
        assert isinstance(load(scenario / "molecule.yml"), dict | None), name
        tests = sorted(file.name for file in scenario.rglob("*.py") if "__pycache__" not in file.parts)
        lost = [file for file in scenario.rglob("test_*.py") if file.parent != scenario / "tests"]
        assert tests
        assert lost == []
    assert not (REPOSITORY / "molecule" / "shared" / "molecule.yml").exists()


def test_what_all_scenarios_share_names_files_that_exist() -> None:
    """Molecule passes over what it does not find, and succeeds."""
    base = load(REPOSITORY / ".config/molecule/config.yml")
    scenario = REPOSITORY / "molecule" / "default"
    for name in base["ansible"]["playbooks"].values():
        assert (scenario / name).resolve().is_file(), name
    assert (scenario / base["verifier"]["directory"]).resolve().is_dir()
    for name in base["verifier"]["additional_files_or_dirs"]:
        pattern = name.replace("../${MOLECULE_SCENARIO_NAME}/", "")
        assert list(scenario.glob(pattern)), name
