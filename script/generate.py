"""Make from the definitions of settings what stands elsewhere of them; `script/generate` runs this."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plugins.module_utils.settings.definitions import EFFECTS, PLAYBOOKS, Definitions, Setting, load
from plugins.module_utils.settings.rules import allowed, kind_of
from script.settings_schema import schema

WIDTH = 120
HEAD = "| setting | allowed | default | unit | change | since | why |\n|---|---|---|---|---|---|---|"
PREFACE = """\
# Settings

<!-- {} -->

Set them beside your hosts, in `group_vars/all/app.yml` or for some hosts only; an editor that knows JSON Schema
completes and checks them with [settings.schema.json](settings.schema.json). A value that is not allowed, and a variable
whose name begins like these, or is nearly one of them, and is none, are refused before any host is asked. One of your
own may begin so where another variable's value names it, as `app_db_password` in
`service_env: {{DB: "{{{{ app_db_password }}}}"}}`, or where `fleet_own_variables` lists it. Rollback, verify and tune
go by few settings and refuse only names like those; of others they warn.

What a change does:
"""
READER = '''\
"""The settings that the host's command reads.

{}
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the last deploy set; a default counts where a version before did not know of one."""
'''
NOTICE = "Made by script/generate from {}. Edit that."


def outputs(root: Path) -> dict[str, str]:
    """Return the text of each file that is made, by its name below the project's root."""
    made = load(root)
    files = {
        "docs/settings.md": page(made),
        "docs/settings.schema.json": compact(schema(made)),
        "playbooks/vars/settings.yml": playbook_variables(made),
        "roles/service/templates/settings.json.j2": host_template(made),
        "plugins/module_utils/host/settings.py": host_reader(made),
    }
    for role in (owner for owner in made.owners if owner != PLAYBOOKS):
        files[f"roles/{role}/defaults/main.yml"] = defaults(made, role)
        files[f"roles/{role}/meta/argument_specs.yml"] = specs(made, role)
    return files


def wrapped(text: str, indent: str) -> str:
    """Return a text in lines that begin with `indent` and fit."""
    return textwrap.fill(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def scalar(value: object) -> str:
    """Return a value as YAML in one line; JSON is YAML."""
    return json.dumps(value, ensure_ascii=False)


def about(setting: Setting) -> str:
    """Return why a setting is there, with its unit where that does not say it."""
    unit = str(setting.rule.get("unit", ""))
    return f"{setting.why} In {unit}." if unit and unit not in setting.why else setting.why


def defaults(made: Definitions, role: str) -> str:
    """Return a role's defaults, each with its reason before it."""
    lines = ["---", f"# {NOTICE.format('settings.yml')}"]
    for setting in made.of(role):
        if setting.has_default:
            lines += [wrapped(about(setting), "# "), f"{setting.name}: {scalar(setting.default)}"]
    return "\n".join(lines) + "\n"


def specs(made: Definitions, role: str) -> str:
    """Return a role's argument_specs: every entry knows all settings, and some need more."""
    owner = made.owners[role]
    lines = ["---", f"# {NOTICE.format('settings.yml')}", "argument_specs:"]
    anchor = " &options"
    for entry, text in owner.entries.items():
        lines += [f"  {entry}:", f"    short_description: {text}"]
        more = owner.inputs.get(entry, {})
        if anchor:
            lines += [f"    options:{anchor}", *option_lines(made, role)]
            anchor = ""
        else:
            lines += ["    options:", "      <<: *options"] if more else ["    options: *options"]
        for name, option in more.items():
            lines += [f"      {name}:", *(f"        {key}: {scalar(value)}" for key, value in option.items())]
    return "\n".join(lines) + "\n"


def option_lines(made: Definitions, role: str) -> Iterator[str]:
    """Return the lines of a role's settings, its own and those of others that it uses, as options."""
    for name in dict.fromkeys([*made.owners[role].uses, *(setting.name for setting in made.of(role))]):
        setting = made.settings[name]
        yield f"      {name}:"
        may = "" if "choices" in setting.rule else f" Allowed: {allowed(setting.rule)}."
        yield f"        description: >-\n{wrapped(setting.why + may, ' ' * 10)}"
        for key, value in option(setting, own=setting.owner == role).items():
            yield f"        {key}: {scalar(value)}"


def option(setting: Setting, *, own: bool) -> dict[str, Any]:
    """Return what argument_specs can say of a setting: its type, its choices, its default in its own role."""
    rule = setting.rule
    fields: dict[str, Any] = {"type": "str" if "or" in rule else setting.type}
    fields |= {key: rule[key] for key in ("elements", "choices") if key in rule}
    if rule.get("secret"):
        fields["no_log"] = True
    if not setting.has_default:
        return fields if rule.get("optional") else fields | {"required": True}
    return fields | {"default": setting.default} if own else fields


def playbook_variables(made: Definitions) -> str:
    """Return the playbooks' settings with their defaults, as `_fleet.batches` and `_tune.rounds`: they have no role."""
    casts = {"int": " | int", "bool": " | bool"}
    lines = ["---", f"# {NOTICE.format('playbooks/settings.yml')}"]
    for prefix in (prefix for prefix in made.prefixes if prefix.rstrip("_") not in made.owners and prefix != "app_"):
        lines.append(f"_{prefix.rstrip('_')}:")
        for setting in made.of(PLAYBOOKS):
            if setting.name.startswith(prefix) and setting.has_default:
                value = f"{setting.name} | default({expression(setting.default)}){casts.get(setting.type, '')}"
                lines.append(f'  {setting.name.removeprefix(prefix)}: "{{{{ {value} }}}}"')
    return "\n".join(lines) + "\n"


def expression(default: object) -> str:
    """Return a default as a Jinja expression; one that is a template is one already."""
    if isinstance(default, str) and default.startswith("{{"):
        return default.removeprefix("{{").removesuffix("}}").strip()
    return str(default).lower() if isinstance(default, bool) else repr(default)


def for_host(made: Definitions) -> list[Setting]:
    """Return the settings that the host's command reads."""
    return [setting for setting in made.settings.values() if setting.host]


def host_template(made: Definitions) -> str:
    """Return the template of /etc/APP/release.json; secrets have files of their own."""
    casts = {"int": " | int", "bool": " | bool"}
    lines = [f"{{# {NOTICE.format('settings.yml')} #}}", "{{ _service_host | combine({"]
    lines += [
        f"  '{setting.host}': {setting.name}{casts.get(setting.type, '')},"
        for setting in for_host(made)
        if not setting.rule.get("secret")
    ]
    return "\n".join([*lines, "}) | to_nice_json }}"]) + "\n"


def host_reader(made: Definitions) -> str:
    """Return the module with the fields of those settings, with their defaults for what an older deploy wrote."""
    lines = [READER.format(NOTICE.format("roles/service/settings.yml"))]
    for setting in for_host(made):
        type_, default = field(setting)
        lines += [wrapped(about(setting), "    #: "), f"    {setting.host}: {type_} = {default}"]
    return "\n".join(lines) + "\n"


def field(setting: Setting) -> tuple[str, str]:
    """Return the type and default of a setting's field; tests give numbers with a unit as fractions."""
    default = "" if str(setting.default).startswith("{{") else setting.default
    if setting.type == "list":
        return "tuple[str, ...]", repr(tuple(default)).replace("'", '"')
    if setting.type == "int":
        return ("float", repr(float(default))) if "unit" in setting.rule else ("int", repr(default))
    return ("bool", repr(default)) if setting.type == "bool" else ("str", json.dumps(default))


def compact(fields: dict[str, Any], indent: str = "") -> str:
    """Return JSON with a line for each key of the outer object and each setting."""
    lines = []
    for key, value in fields.items():
        inner = compact(value, " ").rstrip() if key == "properties" else scalar(value)
        lines.append(f"{indent} {scalar(key)}: {inner}")
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}\n"


def page(made: Definitions) -> str:
    """Return docs/settings.md."""
    titles = {PLAYBOOKS: "Playbooks"}
    lines = [PREFACE.format(NOTICE.format("roles/*/settings.yml and playbooks/settings.yml"))]
    lines += [f"- **{effect}**: {text}" for effect, text in EFFECTS.items()]
    for owner in made.owners:
        lines += ["", f"## {titles.get(owner, owner)}", "", HEAD, *map(row, made.of(owner))]
    return "\n".join(lines) + "\n"


def row(setting: Setting) -> str:
    """Return a setting's row in the table."""
    rule = setting.rule
    limits = ("or " if "or" in rule else "") + "{} to {}".format(*rule["range"]) if kind_of(rule) == "range" else ""
    may = f"`{rule['or']}`, " + limits if "or" in rule else limits or allowed({**rule, "only": {}})
    default = f"`{scalar(setting.default)}`" if setting.has_default else "" if rule.get("optional") else "required"
    cells = [
        f"`{setting.name}`",
        may,
        default,
        rule.get("unit", ""),
        ", ".join(setting.effect),
        setting.since,
        setting.why,
    ]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def main() -> int:
    """Write or compare the files; return how the program ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail where something differs")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help=argparse.SUPPRESS)
    options = parser.parse_args()
    files = outputs(options.root)
    differ = [
        name
        for name, text in files.items()
        if not (options.root / name).exists() or (options.root / name).read_text(encoding="utf-8") != text
    ]
    for name in differ:
        if not options.check:
            (options.root / name).write_text(files[name], encoding="utf-8")
        print(f"{name} {'differs from its settings.yml: run script/generate' if options.check else 'has been written'}")
    return 1 if differ and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
