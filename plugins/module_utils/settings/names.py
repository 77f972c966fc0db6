"""Names that somebody meant as a setting and that are none: unnoticed, the setting would keep its default.

A name is suspect where it begins with a prefix of ours, or is so near to a setting's name that it is hardly anything
else. It is not where it is the project's own (`Definitions.internal`, facts), or where another variable's value names
it: then it is somebody's own variable, such as `app_db_password` in `service_env: {DB: "{{ app_db_password }}"}`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .definitions import Definitions

#: By how many edits a name without a prefix of ours may differ from a setting's, for settings' names of such lengths:
#: a short one is too near to names that mean something else.
EDITS = ((15, 2), (10, 1))
#: What holds other variables once more, or those of other hosts.
VIEWS = frozenset({"vars", "hostvars", "groups", "ansible_facts"})

#: The way out for who has a variable of that name for something else.
OWN = "fleet_own_variables"
WAY_OUT = f"A variable of your own with such a name: rename it, use it in the value of another one, or list it in {OWN}"


@dataclass(frozen=True)
class Suspect:
    """A variable that is meant as a setting and is none: the prefix of ours that it has, and what it could mean."""

    name: str
    prefix: str
    guess: str

    def __str__(self) -> str:
        names = f"names that begin with {self.prefix} are for settings (docs/settings.md)"
        return f"unknown setting {self.name}; {f'did you mean {self.guess}?' if self.guess else names}"


def distance(one: str, other: str) -> int:
    """Return how many letters to insert, leave out, replace or swap with their neighbour make one name the other."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        now = [row]
        for column, against in enumerate(other, 1):
            cost = min(last[column] + 1, now[-1] + 1, last[column - 1] + (letter != against))
            swapped = row > 1 and column > 1 and letter == other[column - 2] and against == one[row - 2]
            now.append(min(cost, before[column - 2] + 1) if swapped else cost)
        before, last = last, now
    return last[-1]


def index(settings: Iterable[str]) -> dict[int, list[tuple[str, int]]]:
    """Return, for each length of a name, the settings that it could be, with how many edits they allow."""
    by_length: dict[int, list[tuple[str, int]]] = {}
    for setting in settings:
        edits = next((edits for length, edits in EDITS if len(setting) >= length), 0)
        for length in range(len(setting) - edits, len(setting) + edits + 1):
            by_length.setdefault(length, []).append((setting, edits))
    return by_length


def near(name: str, lengths: Mapping[int, list[tuple[str, int]]]) -> str:
    """Return the setting that a name without a prefix of ours is most likely meant as, "" for none."""
    letters, candidates = set(name), []
    for setting, edits in lengths.get(len(name), ()):
        # Cheap, and enough for nearly all: each edit brings in one letter and takes one away at most.
        if len(letters.symmetric_difference(setting)) <= 2 * edits and (apart := distance(name, setting)) <= edits:
            candidates.append((apart, setting))
    return min(candidates)[1] if candidates else ""


def nearest(name: str, settings: Iterable[str]) -> str:
    """Return the setting that a name with a prefix of ours is most likely meant as, "" where none is like it."""
    apart, setting = min((distance(name, setting), setting) for setting in settings)
    if apart <= max(2, len(name) // 5):
        return setting
    words = sorted(name.split("_"))
    alike = [setting for setting in settings if sorted(setting.split("_")) == words]
    alike = alike or [setting for setting in settings if setting.startswith(name) or name.startswith(setting)]
    return alike[0] if len(alike) == 1 else ""


def unknown(
    variables: Mapping[str, Any], definitions: Definitions, own: Iterable[str] = (), verbs: Iterable[str] = ()
) -> list[Suspect]:
    """Return each variable of a host that is meant as a setting and is none, sorted.

    `variables` has their values as they were written, not evaluated. `own`: names that the user claims; `verbs`:
    further prefixes, of the playbook that runs, as `rollback_`.
    """
    settings, lengths, claimed = definitions.settings, index(definitions.settings), set(own)
    facts = variables.get("ansible_facts") or {}
    prefixes = (*definitions.prefixes, *verbs)
    suspects: dict[str, Suspect] = {}
    for name in map(str, variables):
        if name in settings or name in definitions.internal or name in facts or name.startswith(("_", "ansible_")):
            continue
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        guess = nearest(name, settings) if prefix else near(name, lengths)
        if (prefix or guess) and name not in claimed:
            suspects[name] = Suspect(name, prefix, guess)
    if suspects:
        for name in used(suspects, variables):
            del suspects[name]
    return sorted(suspects.values(), key=lambda suspect: suspect.name)


def concerns(suspect: Suspect, settings: Collection[str], verbs: Collection[str]) -> bool:
    """Return whether a name is one of these settings, misspelt, or begins as only they do.

    For a playbook that must run whatever else an inventory holds: closer than what is worth a guess.
    """
    if suspect.prefix in verbs or near(suspect.name, index(settings)):
        return True
    return any(distance(suspect.name, setting) <= 1 for setting in settings)


def used(names: Iterable[str], variables: Mapping[str, Any]) -> set[str]:
    """Return those of the names that the value of another variable names."""
    patterns = {name: re.compile(rf"\b{re.escape(name)}\b") for name in names}
    matches: set[str] = set()
    for variable, value in variables.items():
        if variable in VIEWS:
            continue
        for text in texts(value):
            matches |= {name for name, word in patterns.items() if name != variable and word.search(text)}
    return matches


def texts(value: object) -> Iterator[str]:
    """Return the texts in a value, at any depth, that Ansible takes for templates."""
    if isinstance(value, str):
        if "{{" in value or "{%" in value:
            yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from texts(inner)
