"""The documentation says what is there: tests behind each fault, links, settings, messages."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from bench import engines
from plugins.module_utils.settings.definitions import load

REPOSITORY = Path(__file__).parents[2]
DOCS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "roles/*/*.md", "app/*.md", "molecule/*.md")
    for path in REPOSITORY.glob(pattern)
)
TESTS = [*REPOSITORY.glob("tests/**/test_*.py"), *REPOSITORY.glob("molecule/**/test_*.py")]
#: What stands for a value in a quoted message, and is in the code a variable.
PLACEHOLDER = re.compile(r"…|\b(?:HOST|APP|ID|PATH|VARIABLE|VALUE|404|502|gunicorn|[A-Z])\b")


def name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def marked(path: Path) -> list[tuple[int, str]]:
    """Return the faults that a file's tests are marked with, and the tests' names."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                (number,) = mark.args
                found.append((ast.literal_eval(number), node.name))
    return found


def shown_by() -> dict[int, set[str]]:
    """Return the tests that show each fault."""
    found: dict[int, set[str]] = {}
    for path in TESTS:
        for number, test in marked(path):
            found.setdefault(number, set()).add(test)
    return found


def rows() -> dict[int, list[str]]:
    """Return the cells of the table of faults, by number."""
    text = (REPOSITORY / "docs" / "faults.md").read_text(encoding="utf-8")
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if cells[0].strip().isdigit():
            assert int(cells[0]) not in found
            found[int(cells[0])] = cells
    return found


def test_faults_name_the_tests_that_show_them() -> None:
    there = shown_by()
    for number, cells in rows().items():
        assert len(cells) == 5, cells
        named = set(re.findall(r"`(test_\w+)`", cells[4]))
        assert named == there.get(number, set()), f"docs/faults.md, row {number}"
        assert bool(named) != (cells[4] == "not yet"), f"docs/faults.md, row {number}"
    assert there.keys() <= rows().keys()


def test_all_faults_are_listed() -> None:
    assert sorted(rows()) == list(range(1, 74))


def anchors(path: Path) -> set[str]:
    """Return the names that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", DOCS, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        aim = (page.parent / file).resolve() if file else page
        assert aim.exists(), f"{name(page)} links to {target}"
        assert not anchor or anchor in anchors(aim), f"{name(page)} links to {target}"


def known_names() -> set[str]:
    """Return the settings of the roles and of the rollout, the roles' inputs and results, and the modules."""
    names = {path.stem for path in REPOSITORY.glob("plugins/**/*.py")}
    names |= load().settings.keys() | load().internal
    for file in REPOSITORY.glob("roles/*/tasks/*.yml"):
        for task in yaml.safe_load(file.read_text(encoding="utf-8")):
            names |= {*task.get("ansible.builtin.set_fact", {}), task.get("register", "")}
    return names


@pytest.mark.parametrize("page", DOCS, ids=name)
def test_settings_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:service|proxy|release|fleet|tune)_[a-z_]*[a-z]\b", text))
    assert named <= known_names(), named - known_names()


def test_engines_page_has_the_benchmarks_figures() -> None:
    """`script/bench engines --write` writes both."""
    found = json.loads((REPOSITORY / "bench" / "engines.json").read_text())
    assert engines.PAGE.read_text().partition(engines.BEGIN)[2].partition(engines.END)[0] == engines.table(found)


def test_messages_that_operations_explains_are_the_codes_own() -> None:
    text = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
    explained = text.partition("## What a message means")[2].partition("\n## ")[0]
    folders = [REPOSITORY / folder for folder in ("plugins", "roles", "playbooks")]
    files = [file for folder in folders for kind in ("py", "yml", "j2", "sh") for file in folder.rglob(f"*.{kind}")]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # a text over several lines
    heads = [re.split(r"`: ", item, maxsplit=1)[0] for item in re.findall(r"(?ms)^ *- (`.*?)(?=^ *- |^$)", explained)]
    parts = {
        part.strip(" ,;:().")
        for head in heads
        for quoted in re.findall(r"`([^`]+)`", f"{head}`")
        for part in PLACEHOLDER.split(" ".join(quoted.split()))
    }
    foreign = {"UNREACHABLE", "Failed to start transient service unit", "Access denied", "privilege escalation prompt"}
    missing = {part for part in parts if len(part) > 3 and part not in code and not any(f in part for f in foreign)}
    assert len(parts) > 50
    assert not missing


def installed(role: str, tasks: str) -> list[str]:
    """Every path that a role's task puts on a host, for the app shop."""
    own = {"app_name": "shop", "_service_tool": "/usr/local/lib/shop-release", "_service_fleet_file": "/etc/shop/fleet"}
    own |= {"_service_command": "/usr/local/sbin/shop-release", "_service_key_file": "/etc/shop/digest.key"}
    listed = yaml.safe_load((REPOSITORY / "roles" / role / "tasks" / f"{tasks}.yml").read_text())
    (task,) = (entry["webfleet.fastapi.host_files"] for entry in listed if "webfleet.fastapi.host_files" in entry)
    named = [entry["path"] for entry in task["files"] if entry.get("state") != "absent"]
    paths = [*named, task["record"], *([task["key_file"]] if "key_file" in task else [])]
    return [re.sub(r"\{\{ (\w+) \}\}", lambda match: own[match[1]], path) for path in paths]


def test_recipe_that_removes_an_app_leaves_nothing_of_it(tmp_path: Path) -> None:
    """All that the roles install, what they keep of edits, the slots' own units, and what the app and nginx write."""
    text = (REPOSITORY / "docs/operations.md").read_text().partition("### Remove an app from a host")[2]
    script = text.partition("```sh\n")[2].partition("```")[0]
    files = [*installed("service", "prepare"), *installed("proxy", "main")]
    assert len(files) > 15
    files += [f"{path}.edited-20260101T000000" for path in files]
    for slot in ("blue", "green"):
        files += [f"/etc/systemd/system/shop@{slot}.{kind}" for kind in ("service", "socket")]
        files += [f"/etc/systemd/system/multi-user.target.wants/shop@{slot}.service", f"/run/shop/{slot}.sock"]
    files += ["/srv/shop/slots/blue.json", "/var/lib/shop/data", "/var/log/nginx/shop.watch.log.1"]
    others = ["/etc/systemd/system/shopping@.service", "/srv/shopping/live.sock", "/etc/nginx/nginx.conf"]
    for name in (*files, *others):
        (tmp_path / name[1:]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name[1:]).touch()
    here = re.sub(r"(?<=\s)/(?=(etc|run|srv|usr|var)/)", f"{tmp_path}/", script)
    assert all(path.startswith(str(tmp_path)) for path in re.findall(r"\s(/\S+)", here)), "nothing of this machine"
    only_rm = 'sudo() { case "$1" in rm) "$@" ;; esac; }\n'
    subprocess.run(["sh", "-ec", only_rm + here], check=True)
    left = {f"/{path.relative_to(tmp_path)}" for path in tmp_path.rglob("*") if path.is_file()}
    shared = "/etc/nginx/conf.d/00-refuse-unknown-hosts.conf"
    assert left == {*others, shared, f"{shared}.edited-20260101T000000"}
