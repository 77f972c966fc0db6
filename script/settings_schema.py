"""The JSON Schema of settings, for editors: it completes and checks a file of group_vars."""

from __future__ import annotations

from typing import Any

from plugins.module_utils.settings.definitions import Definitions, Setting
from plugins.module_utils.settings.rules import allowed, kind_of

#: What Ansible evaluates may become anything.
TEMPLATE = {"type": "string", "pattern": r"\{[{%]"}


def schema(definitions: Definitions) -> dict[str, Any]:
    """Return the schema of a file of variables.

    Names with a prefix of ours that are no settings are refused; those with `app_` are not, as a schema cannot see
    whether another variable names them.
    """
    prefixes = "|".join(prefix for prefix in definitions.prefixes if prefix != "app_")
    names = [*definitions.settings, *sorted(definitions.internal)]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of fastapi-fleet",
        "type": ["object", "null"],
        "propertyNames": {"anyOf": [{"enum": names}, {"not": {"pattern": f"^({prefixes})"}}]},
        "properties": {name: property_of(setting) for name, setting in definitions.settings.items()},
    }


def property_of(setting: Setting) -> dict[str, Any]:
    """Return what the value of one setting may be, or a template."""
    found: dict[str, Any] = {"description": f"{setting.why} Allowed: {allowed(setting.rule)}."}
    if setting.has_default:
        found["default"] = setting.default
    return found | {"anyOf": [value_of(setting), TEMPLATE]}


def value_of(setting: Setting) -> dict[str, Any]:
    """Return the schema of a setting's value, as rules.py checks it."""
    rule, kind = setting.rule, kind_of(setting.rule)
    if kind == "range":
        low, high = rule["range"]
        whole = {"type": "integer", "minimum": low, "maximum": high}
        return {"anyOf": [whole, {"const": rule["or"]}]} if "or" in rule else whole
    if kind == "choices":
        return {"enum": rule["choices"]}
    if kind == "pattern":
        fits = text(rule["pattern"])
        return {"allOf": [fits, {"not": {"enum": rule["except"]}}]} if "except" in rule else fits
    if kind == "each":
        return {"type": "array", "items": text(rule["each"]), "minItems": 0 if rule.get("empty") else 1}
    if kind == "names":
        return {"type": "object", "propertyNames": text(rule["names"])}
    return {"type": "boolean"}


def text(pattern: str) -> dict[str, Any]:
    """Return the schema of a text, or a number, that a pattern matches as a whole; a schema knows no (?i)."""
    insensitive = "(?i)" in pattern
    whole = {} if insensitive else {"pattern": f"^(?:{pattern})$"}
    return {"type": ["string", "number"], **whole}
