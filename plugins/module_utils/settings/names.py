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
#: Letters that a setting's name without its prefix needs to mean that setting; those that a short word needs.
LEAST_WITHOUT_PREFIX, LEAST_SHORT = 11, 3
#: How many settings a message names.
SHOWN = 3
#: A setting, its bare name, the letters of that, and how many edits it allows.
Form = tuple[str, str, set[str], int]
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


def bare(name: str) -> str:
    """Return a name without what spellings differ in: SERVICE_WORKERS, serviceWorkers."""
    return name.casefold().replace("_", "")


def words(name: str) -> list[str]:
    """Return a name's words, of a plural the singular, sorted."""
    return sorted(word.removesuffix("s") for word in name.casefold().split("_") if word)


def form(name: str) -> str:
    """Return what a name's words are in whatever order."""
    return " ".join(words(name))


def index(settings: Iterable[str]) -> dict[int, list[Form]]:
    """Return, for each length of a bare name, the settings that it could be, with how many edits they allow."""
    by_length: dict[int, list[Form]] = {}
    for setting in settings:
        meant, edits = bare(setting), next((edits for length, edits in EDITS if len(setting) >= length), 0)
        for length in range(len(meant) - edits, len(meant) + edits + 1):
            by_length.setdefault(length, []).append((setting, meant, set(meant), edits))
    return by_length


def near(name: str, lengths: Mapping[int, list[Form]]) -> str:
    """Return the setting that a name without a prefix of ours is most likely meant as, "" for none."""
    plain, candidates = bare(name), []
    letters = set(plain)
    for setting, meant, theirs, edits in lengths.get(len(plain), ()):
        # Cheap, and enough for nearly all: each edit brings in one letter and takes one away at most.
        if plain == meant:
            candidates.append((0, setting))
        elif len(letters ^ theirs) <= 2 * edits:
            # Another spelling counts as one more: my_service_workers is somebody's own.
            apart = min(distance(name.casefold(), setting), distance(plain, meant) + 1)
            candidates += [(apart, setting)] if apart <= edits else []
    return min(candidates)[1] if candidates else ""


def forms(definitions: Definitions) -> dict[str, str]:
    """Return settings by what people write for them where they forget the prefix or the order of the words.

    Not one word, and nothing short: `workers` or `index_url` are as likely somebody's own. AWS's inventory itself has
    `instance_type`.
    """
    by_form = {form(setting): setting for setting in definitions.settings}
    for setting, definition in definitions.settings.items():
        rest = without_prefix(setting, definitions.prefixes)
        if definition.owner != "aws_fleet" and "_" in rest and len(rest) >= LEAST_WITHOUT_PREFIX:
            by_form[form(rest)] = setting
    return by_form


def without_prefix(name: str, prefixes: Iterable[str]) -> str:
    """Return what is behind a name's prefix, the name where it has none of these."""
    return next((name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix)), name)


def guesses(name: str, prefix: str, settings: Iterable[str]) -> list[str]:
    """Return the settings that a name with a prefix of ours is most likely meant as, the best first, three at most."""
    rest = name.removeprefix(prefix)
    apart, setting = min((distance(name, setting), setting) for setting in settings)
    if apart <= max(1, len(rest) // 3):
        return [setting]
    ranked = []
    for setting in settings:
        if setting.startswith(prefix) and (same := alike(words(rest), words(setting.removeprefix(prefix)))):
            ranked.append((same, setting))
    most = max((same for same, _unused in ranked), default=0)
    return [setting for same, setting in ranked if same == most and 2 * most >= len(words(rest))][:SHOWN]


def alike(mine: Iterable[str], theirs: Collection[str]) -> int:
    """Return how many words of a name stand in another one, cut off (`max`), longer, or without vowels (`src`)."""
    return sum(any(is_short(one, other) or one.startswith(other) for other in theirs) for one in mine)


def is_short(short: str, long: str) -> bool:
    """Return whether a word is another one cut off or thinned out."""
    letters = iter(long)
    return len(short) >= LEAST_SHORT and short[0] == long[0] and all(letter in letters for letter in short)


def unknown(
    variables: Mapping[str, Any], definitions: Definitions, own: Iterable[str] = (), verbs: Iterable[str] = ()
) -> list[Suspect]:
    """Return each variable of a host that is meant as a setting and is none, sorted.

    `variables` has their values as they were written, not evaluated. `own`: names that the user claims; `verbs`:
    further prefixes, of the playbook that runs, as `rollback_`.
    """
    settings, claimed = definitions.settings, set(own)
    lengths, written = index(settings), forms(definitions)
    facts = variables.get("ansible_facts") or {}
    prefixes = (*definitions.prefixes, *verbs)
    suspects: dict[str, Suspect] = {}
    for name in map(str, variables):
        if name in settings or name in definitions.internal or name in facts or name.startswith(("_", "ansible_")):
            continue
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        meant = guesses(name, prefix, settings) if prefix else [near(name, lengths) or written.get(form(name), "")]
        if (prefix or meant[0]) and name not in claimed:
            suspects[name] = Suspect(name, prefix, " or ".join(meant))
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
