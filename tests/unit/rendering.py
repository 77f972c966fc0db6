"""The roles' own variables and templates, worked out by Ansible's own templar, and read as their readers do."""

from __future__ import annotations

import functools
import itertools
import re
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

from plugins.module_utils.workers.plan import plan_workers

REPOSITORY = Path(__file__).parents[2]
ROLES = REPOSITORY / "roles"

# Without it, no lookup plugin is found: ansible-playbook does the same as its first step.
init_plugin_loader([str(REPOSITORY / "collections")])


def host(
    workers: object = "auto",
    vcpus: int = 2,
    memory_mib: int = 2048,
    measured_mib: int | None = None,
    **probe: object,
) -> dict[str, Any]:
    """Return the facts of a host that nothing was deployed to yet."""
    plan = plan_workers(
        vcpus=vcpus, affinity=vcpus, memory_mib=memory_mib, workers=workers, measured_mib=measured_mib
    ).as_dict()
    return {
        "app_probe": {
            "plan": plan,
            "plan_live": plan,
            "python": "3.12",
            "live": {},
            "serves": {},
            "user": True,
            "nginx": "1.24.0",
            **probe,
        }
    }


@functools.cache
def _own(role: str) -> dict[str, Any]:
    """A role's defaults and constants, as templates that are not yet worked out."""
    loader = DataLoader()
    found: dict[str, Any] = {}
    for path in (ROLES / role / "defaults/main.yml", ROLES / role / "vars/main.yml"):
        if path.exists():
            found |= loader.load_from_file(str(path), trusted_as_template=True)
    return found


def value(role: str, expression: str, **given: object) -> Any:
    """Return what an expression is worth in a task of the role, where the user has given these settings."""
    variables: dict[str, Any] = {
        "app_name": "counter",
        "app_module": "main:app",
        "inventory_hostname": "web1",
        "ansible_search_path": [str(ROLES / role)],
        "ansible_facts": host(),
        "host_files_fingerprint": "0" * 16,
    }
    templar = Templar(loader=DataLoader(), variables={**variables, **_own(role), **given})
    return templar.template(trust_as_template("{{ " + expression + " }}"))


def template(role: str, name: str, **given: object) -> str:
    """Return a role's template, looked up as its tasks do."""
    return str(value(role, f"lookup('ansible.builtin.template', '{name}')", **given))


def unit(text: str) -> dict[str, list[str]]:
    """Read a unit file as systemd does (systemd.syntax(7)): `Section.Key` to its values in their order."""
    found: dict[str, list[str]] = {}
    section = ""
    uncommented = re.sub(r"^[#;].*\n", "", text, flags=re.MULTILINE)
    for line in uncommented.replace("\\\n", " ").splitlines():
        heading = re.fullmatch(r"\[(\w+)\]", line)
        if heading:
            section = heading[1]
        elif line.strip():
            key, equals, setting = line.partition("=")
            assert equals, f"no setting: {line}"
            found.setdefault(f"{section}.{key.strip()}", []).append(setting.strip())
    return found


def environment(text: str) -> dict[str, str]:
    """Read an environment file by the rules of EnvironmentFile= in systemd.exec(5)."""
    found: dict[str, str] = {}
    rest = text
    while rest:
        if re.match(r"\s*[#;]|[^=\n]*(\n|$)", rest):  # a comment, or a line without an assignment
            rest = rest.partition("\n")[2]
            continue
        name, _, rest = rest.partition("=")
        rest = rest.lstrip(" \t\r")
        quote = rest[:1]
        if quote == "'":
            inner, _, rest = rest[1:].partition("'")
        elif quote == '"':
            inner, rest = _double_quoted(rest[1:])
        else:
            found_line = re.match(r"(?:\\[\s\S]|[^\\\n])*", rest)
            assert found_line
            rest = rest[found_line.end() :]
            characters = re.findall(r"\\[\s\S]|[^\\]", found_line[0])
            while characters and characters[-1] in " \t\r":  # a blank after a backslash stays
                characters.pop()
            inner = "".join(character[-1] for character in characters if character != "\\\n")
        after, _, rest = rest.partition("\n")
        assert not after.strip(), f"something follows the value of {name}: {after!r}"
        found[name.strip()] = inner
    return found


def _double_quoted(text: str) -> tuple[str, str]:
    """Return the value up to the closing quote, and what follows it."""
    inner: list[str] = []
    characters = iter(text)
    for character in characters:
        if character == '"':
            return "".join(inner), "".join(characters)
        if character == "\\":
            escaped = next(characters, "")
            # Before any other character, a backslash is one; before a line break, both go.
            inner.append(escaped if escaped in set('"\\`$') else "" if escaped == "\n" else f"\\{escaped}")
        else:
            inner.append(character)
    raise AssertionError("a value's quotation does not end")


def nginx(text: str) -> list[Any]:
    """Read nginx's syntax: a list of [word, …] for a directive and [word, …, [directives]] for a block."""
    words = re.findall(r"""#.*|"[^"]*"|'[^']*'|[{};]|(?:\$\{\w+\}|[^\s;{}])+""", text)
    stream = itertools.filterfalse(lambda word: word.startswith("#"), words)

    def block() -> list[Any]:
        found: list[Any] = []
        current: list[Any] = []
        for word in stream:
            if word == "}":
                break
            if word in {"{", ";"}:
                found.append([*current, block()] if word == "{" else current)
                current = []
            else:
                current.append(word)
        assert not current, f"not ended: {current}"
        return found

    found = block()
    assert list(stream) == []
    return found
