# SPDX-License-Identifier: Apache-2.0
"""Refuse bad settings on the controller: each complaint names the variable, its value and what is allowed.

A task's only option is `rules`, a dictionary from a variable's name to one of

    {whole: [1, 300], unit: seconds}    a whole number, both ends allowed; `or: auto` allows that word, too
    {choices: [a, b]}                   one of these words
    {bool: true}                        true or false
    {pattern: REGEX, allowed: TEXT}     a text that the pattern matches as a whole, and none of `except`
    {each: REGEX, allowed: TEXT}        a list of such texts; `empty: true` allows none
    {names: REGEX, allowed: TEXT}       a dictionary with such names; its values are shown nowhere

`only: {OTHER: VALUE}` refuses a setting that is not off (0, false) where another one has another value.
What a role's argument_specs cannot say (ranges, patterns) or says without the value. `after: OTHER` keeps a setting
that follows another one from being complained about twice; `optional: true` is for one that has its default elsewhere.
No host is asked; one task, however many settings.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

SHOWN = 200  # characters of a value
BOOLS = {"true", "false", "yes", "no", "on", "off", "1", "0"}
#: user:password@ and ://token@
CREDENTIALS = re.compile(r"""(?<=://)[^/\s@'"]+@|[^/\s:@'"]+:[^/\s@'"]+@""")

#: NUL, surrogates and Unicode's noncharacters: systemd drops the whole environment file for one of them.
NO_CHARACTERS = re.compile(
    "[\0\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17))
    + "]"
)


def shown(value: object) -> str:
    """Return a value for a message: as JSON, on one line, not too long, without the credentials of a URL."""
    text = CREDENTIALS.sub("***@", json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} …"


def as_text(value: object) -> str | None:
    """Return what a template would make of a text or number, None for anything else."""
    return str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None


def matches(pattern: str, value: object) -> bool:
    """Return whether a text matches as a whole; a line break at its end counts."""
    text = as_text(value)
    return text is not None and re.fullmatch(pattern, text) is not None


def fault(value: object, rule: Mapping[str, Any]) -> str:
    """Say what is wrong with a value, "" where nothing is."""
    kinds: dict[str, Callable[[object, Mapping[str, Any]], str]] = {
        "whole": _whole, "choices": _choices, "bool": _bool, "pattern": _pattern, "each": _each, "names": _names,
    }  # fmt: skip
    (kind,) = kinds.keys() & rule.keys()
    return kinds[kind](value, rule)


def _whole(value: object, rule: Mapping[str, Any]) -> str:
    low, high = rule["whole"]
    good = matches("[0-9]{1,9}", value) and low <= int(str(value)) <= high
    return "" if good or ("or" in rule and value == rule["or"]) else f"is {shown(value)}"


def _choices(value: object, rule: Mapping[str, Any]) -> str:
    return "" if value in rule["choices"] else f"is {shown(value)}"


def _bool(value: object, _: Mapping[str, Any]) -> str:
    return "" if str(value).lower() in BOOLS else f"is {shown(value)}"


def _pattern(value: object, rule: Mapping[str, Any]) -> str:
    good = matches(rule["pattern"], value) and value not in rule.get("except", ())
    return "" if good else f"is {shown(value)}"


def _each(value: object, rule: Mapping[str, Any]) -> str:
    if not isinstance(value, list) or not (value or rule.get("empty")):
        return f"is {shown(value)}"
    wrong = [item for item in value if not matches(rule["each"], item)]
    return f"has {', '.join(map(shown, wrong))}" if wrong else ""


def storable(text: str | None) -> bool:
    """Return whether systemd takes a text in an environment file."""
    return text is not None and not NO_CHARACTERS.search(text)


def _names(value: object, rule: Mapping[str, Any]) -> str:
    if not isinstance(value, dict):
        return "is no dictionary (its value may be a secret and is not shown)"
    # Whoever writes NAME=VALUE as a name wrote a value there.
    wrong = [str(name).partition("=")[0] for name in value if not matches(rule["names"], name)]
    wrong += [str(name) for name, item in value.items() if not isinstance(item, bool) and not storable(as_text(item))]
    return f"has {', '.join(map(shown, dict.fromkeys(wrong)))}" if wrong else ""


def _alone(value: object, rule: Mapping[str, Any], read: Callable[[str], object]) -> str:
    """Say which other setting a value does not go together with."""
    if str(value).lower() in {"0", "false", "no", "off"}:
        return ""
    others = {}
    for name, needed in rule.get("only", {}).items():
        with contextlib.suppress(KeyError):  # another role's, which is not part of this
            if (other := read(name)) != needed:
                others[name] = other
    return "".join(f"is {shown(value)}, but {name} is {shown(other)}" for name, other in others.items())


def allowed(rule: Mapping[str, Any]) -> str:
    """Say what a rule allows."""
    needs = "".join(f", with {name} {value} only" for name, value in rule.get("only", {}).items())
    return _allowed(rule) + needs


def _allowed(rule: Mapping[str, Any]) -> str:
    if "whole" in rule:
        low, high = rule["whole"]
        unit = f" of {rule['unit']}" if "unit" in rule else ""
        return (f"{rule['or']}, or " if "or" in rule else "") + f"a whole number{unit} from {low} to {high}"
    if "choices" in rule:
        return ", ".join(rule["choices"])
    return "true or false" if "bool" in rule else str(rule["allowed"])


def complaints(rules: Mapping[str, Mapping[str, Any]], read: Callable[[str], object]) -> list[str]:
    """Return a line for each setting that is missing or breaks its rule.

    `read` returns a setting's value; it raises KeyError where there is none, ValueError where it cannot be worked out.
    """
    found: dict[str, str] = {}
    for name, rule in rules.items():
        if rule.get("after") in found:
            continue
        try:
            value = read(name)
        except KeyError:
            said = "" if rule.get("optional") else "is not set"
        except ValueError as error:
            said = f"cannot be worked out ({error})"
        else:
            said = fault(value, rule) or _alone(value, rule, read)
        if said:
            found[name] = f"{name} {said}; allowed: {allowed(rule)}"
    return list(found.values())


class ActionModule(ActionBase):  # type: ignore[misc]
    """Check the settings of one host without asking it."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task for one host."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}

        def read(name: str) -> object:
            value = variables[name]
            try:
                return self._templar.template(value)
            except AnsibleError as error:
                raise ValueError(str(error)) from error

        wrong = complaints(self._task.args["rules"], read)
        if wrong:
            return result | {"failed": True, "msg": "\n".join(["Nothing was changed on any host.", *wrong])}
        return result | {"changed": False}
