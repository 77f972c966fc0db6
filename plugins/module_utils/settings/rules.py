"""What a setting's value may be, and what is said of one that it may not be.

A rule is a dictionary, `value` of a definition. The kind comes from what it holds:

    range: [1, 300]         a whole number, both ends allowed; `or: auto` allows that word, too
    choices: [a, b]         one of these words
    type: bool              true or false
    pattern: REGEX          a text that the pattern matches as a whole, and none of `except`
    each: REGEX             a list of such texts; `empty: true` allows none
    names: REGEX            a dictionary with such names and with texts or numbers

`allowed` says in words what a pattern allows. `unit` is the unit of a number. `secret: true` keeps the value out of
messages. `only: {OTHER: [VALUE]}`: enabled only while OTHER is one of these. `after: OTHER` keeps one that follows
OTHER from being complained about twice; `optional: true` is for one that may be missing.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

Rule = Mapping[str, Any]

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


def kind_of(rule: Rule) -> str:
    """Return which of the kinds above a rule is."""
    kinds = [kind for kind in ("range", "choices", "pattern", "each", "names") if kind in rule]
    return kinds[0] if kinds else "bool"


def fault(value: object, rule: Rule) -> str:
    """Say what is wrong with a value, "" where nothing is."""
    checks: dict[str, Callable[[object, Rule], str]] = {
        "range": _range, "choices": _choices, "bool": _bool, "pattern": _pattern, "each": _each, "names": _names,
    }  # fmt: skip
    return checks[kind_of(rule)](value, rule)


def _range(value: object, rule: Rule) -> str:
    low, high = rule["range"]
    good = matches("[0-9]{1,9}", value) and low <= int(str(value)) <= high
    return "" if good or ("or" in rule and value == rule["or"]) else f"is {shown(value)}"


def _choices(value: object, rule: Rule) -> str:
    return "" if value in rule["choices"] else f"is {shown(value)}"


def _bool(value: object, _unused: Rule) -> str:
    return "" if str(value).lower() in BOOLS else f"is {shown(value)}"


def _pattern(value: object, rule: Rule) -> str:
    if matches(rule["pattern"], value) and value not in rule.get("except", ()):
        return ""
    return (
        "is none of these (its value may be a secret and is not shown)" if rule.get("secret") else f"is {shown(value)}"
    )


def _each(value: object, rule: Rule) -> str:
    if not isinstance(value, list) or not (value or rule.get("empty")):
        return f"is {shown(value)}"
    wrong = [item for item in value if not matches(rule["each"], item)]
    return f"has {', '.join(map(shown, wrong))}" if wrong else ""


def storable(text: str | None) -> bool:
    """Return whether systemd takes a text in an environment file."""
    return text is not None and not NO_CHARACTERS.search(text)


def _names(value: object, rule: Rule) -> str:
    if not isinstance(value, dict):
        return "is no dictionary (its value may be a secret and is not shown)"
    # Whoever writes NAME=VALUE as a name wrote a value there.
    wrong = [str(name).partition("=")[0] for name in value if not matches(rule["names"], name)]
    wrong += [str(name) for name, item in value.items() if not isinstance(item, bool) and not storable(as_text(item))]
    return f"has {', '.join(map(shown, dict.fromkeys(wrong)))}" if wrong else ""


def _alone(value: object, rule: Rule, read: Callable[[str], object]) -> str:
    """Say while which other setting a value may not be enabled."""
    if str(value).lower() in {"0", "false", "no", "off"}:
        return ""
    others = {}
    for name, needed in rule.get("only", {}).items():
        with contextlib.suppress(KeyError):  # another role's, which is not part of this
            if (other := read(name)) not in needed:
                others[name] = other
    return "".join(f"is {shown(value)}, but {name} is {shown(other)}" for name, other in others.items())


def allowed(rule: Rule) -> str:
    """Say what a rule allows."""
    needs = "".join(f", with {name} {' or '.join(values)} only" for name, values in rule.get("only", {}).items())
    return _allowed(rule) + needs


def _allowed(rule: Rule) -> str:
    kind = kind_of(rule)
    if kind == "range":
        low, high = rule["range"]
        unit = f" of {rule['unit']}" if "unit" in rule else ""
        return (f"{rule['or']}, or " if "or" in rule else "") + f"a whole number{unit} from {low} to {high}"
    if kind == "choices":
        return ", ".join(rule["choices"])
    return "true or false" if kind == "bool" else str(rule["allowed"])


def complaints(rules: Mapping[str, Rule], read: Callable[[str], object]) -> list[str]:
    """Return a line for each setting that is missing or breaks its rule.

    `read` returns a setting's value; it raises KeyError where there is none, ValueError where it cannot be evaluated.
    """
    lines: dict[str, str] = {}
    for name, rule in rules.items():
        if rule.get("after") in lines:
            continue
        try:
            value = read(name)
        except KeyError:
            reason = "" if rule.get("optional") else "is not set"
        except ValueError as error:
            reason = f"cannot be evaluated ({error})"
        else:
            reason = fault(value, rule) or _alone(value, rule, read)
        if reason:
            lines[name] = f"{name} {reason}; allowed: {allowed(rule)}"
    return list(lines.values())
