"""The project as the collection `webfleet.fastapi`: built from a clone, installed from the file, run without the clone.

Each run goes as far as it can without a host; `molecule/default/tests/test_collection.py` deploys with it.
"""

from __future__ import annotations

import json
import posixpath
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fleetcollection
import pytest
import tomllib
from fleetcollection import REPOSITORY

pytestmark = pytest.mark.skipif(
    not (REPOSITORY / ".git").exists() or shutil.which("git") is None,
    reason="needs a git clone, to tell junk from code",
)

#: What work in a clone leaves there, some of it ignored by git and some forgotten.
JUNK = [
    ".venv/bin/python", "app/.venv/bin/python", ".fleet/lab.json", ".ansible/galaxy_cache/api.json", ".git/config",
    ".hypothesis/examples/1", ".mypy_cache/a.json", ".pytest_cache/v", "app/.pytest_cache/v", ".ruff_cache/a",
    "plugins/modules/__pycache__/app_probe.cpython-312.pyc", "plugins/module_utils/host/__pycache__/x.pyc", "app/.env",
    "webfleet-fastapi-0.0.1.tar.gz", "tests/output/junit.xml", "roles/service/.DS_Store",
]  # fmt: skip


#: settings.yml defines the settings of the playbooks, and is none.
PLAYBOOKS = sorted({path.stem for path in (REPOSITORY / "playbooks").glob("*.yml")} - {"settings"})


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection's archive, built in a clone that somebody works in."""
    clone = fleetcollection.export(tmp_path_factory.mktemp("clone"))
    for name in JUNK:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text("junk")
    return fleetcollection.build(clone, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def names(archive: Path) -> set[str]:
    """The names of the files in the archive."""
    with tarfile.open(archive) as opened:
        return {member.name for member in opened if member.isfile()}


@dataclass(frozen=True)
class Installed:
    """The installed collection, and an inventory of hosts that are not to be changed."""

    collections: Path
    inventory: Path

    @property
    def folder(self) -> Path:
        return self.collections / "ansible_collections" / "webfleet" / "fastapi"

    def run(self, program: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name(program), *words],
            cwd=self.inventory.parent, env=fleetcollection.environment(self.collections),
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def playbook(self, name: str | Path, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("ansible-playbook", "-i", self.inventory, name, *words)


@pytest.fixture(scope="module")
def installed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    collections = fleetcollection.install(archive, tmp_path_factory.mktemp("installed") / "collections")
    inventory = tmp_path_factory.mktemp("elsewhere") / "hosts.json"
    settings = {"app_name": "nowhere", "app_module": "main:app", "app_source": str(collections / "no-source")}
    # This very machine, with an interpreter that it does not have: the probe refuses it, whatever it is.
    here = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "ansible_become": False,
        "service_python": "/nonexistent/python3",
    }
    inventory.write_text(json.dumps({"app": {"hosts": {"here": here}, "vars": settings}}))
    return Installed(collections, inventory)


# The archive


def test_archive_holds_what_runs_and_nothing_else(archive: Path, names: set[str]) -> None:
    top = {name.partition("/")[0] for name in names}
    needed = {
        "MANIFEST.json",
        "FILES.json",
        "README.md",
        "LICENSE",
        "CHANGELOG.rst",
        "meta",
        "playbooks",
        "plugins",
        "roles",
    }
    assert needed <= top
    assert top - needed <= {
        "ansible.cfg",
        "app",
        "bench",
        "CONTRIBUTING.md",
        "deploy.yml",
        "docs",
        "inventory",
        "requirements.yml",
        "SECURITY.md",
        "tests",
    }
    assert archive.stat().st_size < 1_000_000


def test_every_link_of_the_archive_s_documents_leads_to_a_file_in_it(archive: Path, names: set[str]) -> None:
    places = names | {str(folder) for name in names for folder in PurePosixPath(name).parents}
    dead = []
    with tarfile.open(archive) as opened:
        for page in sorted(name for name in names if name.endswith(".md")):
            stream = opened.extractfile(page)
            assert stream
            for target in re.findall(r"\]\(([^)#]+)[^)]*\)", stream.read().decode()):
                path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
                if "://" not in target and path not in places:
                    dead.append(f"{page}: {target}")
    assert dead == []


def test_archive_holds_no_junk(names: set[str]) -> None:
    assert names & set(JUNK) == set()
    assert [name for name in names if re.search(r"(^|/)(\.|__pycache__|.*\.(pyc|tar\.gz)$)", name)] == []


def test_archive_holds_every_file_of_its_roles_plugins_and_playbooks(names: set[str]) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "roles", "plugins", "playbooks", "meta", "app"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    hidden = {name for name in listed if "/." in name}
    # The link by which a clone is a collection in place.
    links = {"playbooks/collections"}
    tests = {name for name in listed if name.startswith("app/tests/")}
    assert {name for name in listed if (REPOSITORY / name).exists()} - names - hidden == links | tests


def test_archive_names_its_version(archive: Path) -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert archive.name == f"webfleet-fastapi-{version}.tar.gz"


# In place


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone that everybody may write to: Ansible does not read an ansible.cfg in such a working directory."""
    clone = fleetcollection.export(tmp_path_factory.mktemp("clone"))
    clone.chmod(0o777)
    return clone


@pytest.mark.parametrize("start", [".", "playbooks", "elsewhere"])
@pytest.mark.parametrize("playbook", ["deploy.yml", "playbooks/verify.yml", "playbooks/rollback.yml"])
def test_clone_is_the_collection_wherever_it_is_run_from(
    clone: Path, start: str, playbook: str, tmp_path: Path
) -> None:
    where = tmp_path if start == "elsewhere" else clone / start
    (tmp_path / "hosts").write_text("[app]\nhere ansible_connection=local\n")
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [program, "-i", tmp_path / "hosts", clone / playbook, "--list-tasks"],
        cwd=where, env=fleetcollection.environment(tmp_path) | {"ANSIBLE_COLLECTIONS_PATH": str(tmp_path)},
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert " webfleet.fastapi.service : " in done.stdout


# As installed


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_every_playbook_finds_its_roles_and_modules(installed: Installed, playbook: str) -> None:
    done = installed.playbook(f"webfleet.fastapi.{playbook}", "--list-tasks", "--extra-vars", "tune_host=here")
    assert done.returncode == 0, done.stderr
    roles = set(re.findall(r"^ +(\S+) : ", done.stdout, re.MULTILINE))
    assert roles
    assert all(role.startswith("webfleet.fastapi.") for role in roles), "no role of the same name from elsewhere"


def test_deploy_is_a_playbook(installed: Installed) -> None:
    done = installed.playbook("webfleet.fastapi.deploy", "--syntax-check")
    assert done.returncode == 0, done.stderr
    assert str(installed.folder / "playbooks" / "deploy.yml") in done.stdout


def test_deploy_asks_the_host_with_its_own_modules(installed: Installed) -> None:
    """The settings' check is an action plugin; the probe is a module that takes the plan from module_utils."""
    done = installed.playbook("webfleet.fastapi.deploy")
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.search(r"cannot run nowhere: .*/nonexistent/python3 is not there", done.stdout), done.stdout
    assert re.search(r"^here +: ok=1 +changed=0 +unreachable=0 +failed=1 ", done.stdout, re.MULTILINE), done.stdout
    assert str(REPOSITORY) not in done.stdout


def test_deploy_refuses_bad_settings(installed: Installed) -> None:
    done = installed.playbook("webfleet.fastapi.deploy", "-e", "service_workers=0")
    assert 'service_workers is "0"; allowed: auto, or a whole number from 1 to 1024' in done.stdout, done.stdout
    assert "ok=0" in done.stdout


def test_deploy_says_which_host_it_cannot_reach(installed: Installed) -> None:
    # A port on which nobody listens, on the only address that is surely there.
    words = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    done = installed.playbook("webfleet.fastapi.deploy", "-e", json.dumps(words))
    assert done.returncode == 4, done.stdout + done.stderr
    assert re.search(r"^here +: ok=1 +changed=0 +unreachable=1 +failed=0 ", done.stdout, re.MULTILINE), done.stdout


def test_verify_finds_its_table(installed: Installed) -> None:
    done = installed.playbook("webfleet.fastapi.verify")
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.search(r"HOST +VCPUS +PLANNED", done.stdout), done.stdout
    assert re.search(r"here +- +- .*nowhere is not deployed here", done.stdout), done.stdout


def test_roles_serve_a_playbook_of_somebody_else(installed: Installed, tmp_path: Path) -> None:
    tasks = [
        {"name": "Check", "ansible.builtin.import_role": {"name": "webfleet.fastapi.proxy", "tasks_from": "check"}},
        {"name": "Read", "ansible.builtin.import_role": {"name": "webfleet.fastapi.service", "tasks_from": "plan"}},
    ]
    play: dict[str, Any] = {"name": "Theirs", "hosts": "app", "gather_facts": False, "tasks": tasks}
    (tmp_path / "theirs.yml").write_text(json.dumps([play]))
    done = installed.playbook(tmp_path / "theirs.yml")
    assert "cannot run nowhere" in done.stdout, done.stdout + done.stderr
    assert "ok=3" in done.stdout, "two validations of arguments and the check"


#: What `ansible-doc` is to know, by the folder that has it.
PLUGINS = {
    "module": sorted(
        {path.stem for folder in ("modules", "action") for path in (REPOSITORY / "plugins" / folder).glob("[a-z]*")}
    ),
    **{
        kind: sorted(path.stem for path in (REPOSITORY / "plugins" / kind).glob("[a-z]*.py"))
        for kind in ("lookup", "filter")
    },
    "role": sorted(path.name for path in (REPOSITORY / "roles").iterdir()),
}


@pytest.mark.parametrize("kind", PLUGINS)
def test_every_plugin_and_role_is_listed(installed: Installed, kind: str) -> None:
    done = installed.run("ansible-doc", "--type", kind, "--list", "--json", "webfleet.fastapi")
    assert done.returncode == 0, done.stderr
    listed = {name.removeprefix("webfleet.fastapi."): about for name, about in json.loads(done.stdout).items()}
    assert sorted(listed) == PLUGINS[kind]
    assert all(listed.values())


@pytest.mark.parametrize("kind", ["module", "lookup", "filter"])
def test_every_plugin_has_its_page(installed: Installed, kind: str) -> None:
    names = [f"webfleet.fastapi.{name}" for name in PLUGINS[kind]]
    done = installed.run("ansible-doc", "--type", kind, "--json", *names)
    assert (done.returncode, done.stderr) == (0, "")
    for name, page in json.loads(done.stdout).items():
        assert page["doc"]["short_description"], name
        assert page["doc"]["description"], name
        assert page["doc"]["options"], name
        assert all(option["description"] for option in page["doc"]["options"].values()), name
        assert name in page["examples"], name
        assert page["return"], name
        assert all(each["description"] for each in page["return"].values()), name


def test_every_role_has_its_page(installed: Installed) -> None:
    """With a sentence for each of its entries, and for each setting of it."""
    names = [f"webfleet.fastapi.{name}" for name in PLUGINS["role"]]
    done = installed.run("ansible-doc", "--type", "role", "--json", *names)
    assert (done.returncode, done.stderr) == (0, "")
    pages = json.loads(done.stdout)
    assert sorted(pages) == names
    for name, page in pages.items():
        assert "main" in page["entry_points"], name
        for entry, said in page["entry_points"].items():
            assert said["short_description"], (name, entry)
            assert all(option["description"] for option in said.get("options", {}).values()), (name, entry)


@pytest.mark.parametrize("role", PLUGINS["role"])
def test_every_role_s_example_is_a_playbook(installed: Installed, role: str, tmp_path: Path) -> None:
    """In the installed collection; `molecule/engines/tests/test_readme_examples.py` runs them on a host."""
    text = (REPOSITORY / "roles" / role / "README.md").read_text()
    (example,) = re.findall(r"^```yaml\n(- hosts:.*?)^```", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "example.yml").write_text(example)
    done = installed.playbook(tmp_path / "example.yml", "--list-tasks")
    assert done.returncode == 0, done.stderr
    assert f"webfleet.fastapi.{role} : " in done.stdout
