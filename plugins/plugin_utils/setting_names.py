"""Which of a host's variables are meant as settings and are none, for the actions that refuse them.

On the controller only. Definitions are read once for a run: Ansible loads an action before it forks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleError

from ..module_utils.settings.definitions import load
from ..module_utils.settings.names import OWN, WAY_OUT, Suspect, unknown

DEFINITIONS = load()
UNCHANGED = "Nothing was changed on any host."


def reader(templar: Any, variables: Mapping[str, Any]) -> Callable[[str], object]:
    """Return what evaluates a variable: KeyError where there is none, ValueError where it cannot be evaluated."""

    def read(name: str) -> object:
        value = variables[name]
        try:
            return templar.template(value)
        except AnsibleError as error:
            raise ValueError(str(error)) from error

    return read


def suspects(variables: Mapping[str, Any], read: Callable[[str], object], verbs: Iterable[str] = ()) -> list[Suspect]:
    """Return them, but for those that the user claims. What is wrong with that setting is said where it is checked."""
    try:
        own = read(OWN)
    except (KeyError, ValueError):
        own = []
    return unknown(variables, DEFINITIONS, map(str, own) if isinstance(own, list) else (), verbs)


def refusal(refused: Iterable[object], others: Iterable[str] = ()) -> str:
    """Return the message for names, with the way out, and for what else is wrong; "" where nothing is."""
    lines = [*map(str, refused)]
    lines += [f"{WAY_OUT}."] if lines else []
    lines += others
    return "\n".join([UNCHANGED, *lines]) if lines else ""
