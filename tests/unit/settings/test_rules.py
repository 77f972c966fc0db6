"""What a setting may be: each kind of rule, and what is said of a value that breaks it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from plugins.module_utils.settings.definitions import load
from plugins.module_utils.settings.rules import allowed, complaints, kind_of, shown

SETTINGS = load().settings
RULES = {name: setting.rule for name, setting in SETTINGS.items()}


def check(rule: Mapping[str, Any], value: object) -> str:
    return "\n".join(complaints({"x": rule}, {"x": value}.__getitem__))


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_a_rule_of_its_type(name: str) -> None:
    setting = SETTINGS[name]
    kinds = {"int": {"range"}, "bool": {"bool"}, "list": {"each"}, "dict": {"names"}, "path": {"pattern"}}
    assert kind_of(setting.rule) in kinds.get(setting.type, {"choices", "pattern"})
    assert (setting.type == "list") == ("elements" in setting.rule), "it says of what it is a list"
    assert allowed(setting.rule)


def test_defaults_are_allowed() -> None:
    defaults = {name: s.default for name, s in SETTINGS.items() if s.has_default and "{{" not in str(s.default)}
    assert len(defaults) > 80
    assert complaints({name: RULES[name] for name in defaults}, defaults.__getitem__) == []


@pytest.mark.parametrize("value", [None, [None], {"a": None}, {1: [2]}, "", "\n", "/x y", object(), float("nan"), True])
def test_no_value_stops_the_check_itself(value: object) -> None:
    for line in complaints(RULES, lambda _: value):
        assert "\n" not in line


@hypothesis(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers(-9, 9) | st.text("0123-. a"), st.lists))
def test_only_whole_numbers_in_range_are_taken(value: object) -> None:
    if check({"range": [1, 3]}, value) == "":
        assert not isinstance(value, (bool, float))
        assert 1 <= int(str(value)) <= 3
    else:
        assert isinstance(value, (bool, float)) or value not in [1, 2, 3, "1", "2", "3"]


@pytest.mark.parametrize(
    ("rule", "value", "said"),
    [
        ({"range": [1, 9], "unit": "seconds"}, 10, "x is 10; allowed: a whole number of seconds from 1 to 9"),
        ({"range": [1, 9], "or": "auto"}, "Auto", 'x is "Auto"; allowed: auto, or a whole number from 1 to 9'),
        ({"range": [1, 9]}, "9", ""),
        ({"choices": ["a", "b"]}, "c", 'x is "c"; allowed: a, b'),
        ({"type": "bool"}, "off", ""),
        ({"type": "bool"}, None, "x is null; allowed: true or false"),
        ({"pattern": "[a-z]+", "allowed": "a-z"}, "a\n", 'x is "a\\n"; allowed: a-z'),
        ({"pattern": "[a-z]+", "except": ["no"], "allowed": "a-z"}, "no", 'x is "no"; allowed: a-z'),
        ({"each": "[a-z]", "allowed": "letters"}, "abc", 'x is "abc"; allowed: letters'),
        ({"each": "[a-z]", "allowed": "letters"}, ["a", "B", 3], 'x has "B", 3; allowed: letters'),
        ({"each": "[a-z]", "allowed": "letters"}, [], "x is []; allowed: letters"),
        ({"each": "[a-z]", "allowed": "letters", "empty": True}, [], ""),
        ({"names": "[A-Z]", "allowed": "A-Z"}, {"A": True, "B": 2, "b": ""}, 'x has "b"; allowed: A-Z'),
        ({"names": "[A-Z]", "allowed": "A-Z"}, {"A": None, "B": ["s3cret"]}, 'x has "A", "B"; allowed: A-Z'),
        (
            {"names": "[A-Z]", "allowed": "A-Z"},
            {"A": "a\0b", "B": "\uffff", "C": "é\n"},
            'x has "A", "B"; allowed: A-Z',
        ),
    ],
)
def test_complaint_names_variable_value_and_what_is_allowed(rule: dict[str, Any], value: object, said: str) -> None:
    assert check(rule, value) == said


def test_command_that_may_hold_a_secret_is_not_shown() -> None:
    said = check(RULES["service_hook_before"], "curl -H s3cret\n")
    assert said.startswith("x is none of these (its value may be a secret and is not shown); allowed: a shell command")


@pytest.mark.parametrize("value", ["A=s3cret", ["A=s3cret"], {"A=s3cret": 1}, {"2A": "s3cret"}, {"A": ["s3cret"]}])
def test_secrets_are_not_shown(value: object) -> None:
    said = check(RULES["service_env"], value)
    assert said
    assert "s3cret" not in said


def test_credentials_of_a_url_and_the_rest_of_a_long_value_are_not_shown() -> None:
    assert shown("git+https://me:s3cret@host/x\n") == '"git+https://***@host/x\\n"'
    assert shown(["https://s3cret@host/x", "me:s3cret@host", "web@1"]) == '["https://***@host/x", "***@host", "web@1"]'
    assert len(shown("x" * 10000)) < 300


def test_missing_setting_and_one_that_follows_it() -> None:
    pair = {
        "a": {"pattern": "[a-z]+", "allowed": "a-z"},
        "b": {"after": "a", "pattern": "[a-z]+", "allowed": "a-z"},
    }
    nothing: dict[str, object] = {}
    assert complaints(pair, nothing.__getitem__) == ["a is not set; allowed: a-z"]
    assert complaints(pair, {"a": "x"}.__getitem__) == ["b is not set; allowed: a-z"]


def test_value_that_cannot_be_worked_out() -> None:
    def read(name: str) -> object:
        raise ValueError("'vault_x' is undefined")

    assert complaints({"x": {"type": "bool"}}, read) == [
        "x cannot be evaluated ('vault_x' is undefined); allowed: true or false"
    ]


def test_optional_setting_may_be_missing_but_not_wrong() -> None:
    rule = {"x": {"optional": True, "range": [0, 9]}}
    nothing: dict[str, object] = {}
    assert complaints(rule, nothing.__getitem__) == []
    assert complaints(rule, {"x": 10}.__getitem__) == ["x is 10; allowed: a whole number from 0 to 9"]
    assert complaints(rule, {"x": None}.__getitem__) == ["x is null; allowed: a whole number from 0 to 9"]


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ([1, "25%", "100%"], True), ([], True), (["5"], True), (1, False), ("50%", False), (["0"], False),
        ([0], False), (["101%"], False), (["0%"], False), ([-1], False), ([1.5], False), ([True], False),
    ],
)  # fmt: skip
def test_batches_are_numbers_of_hosts_and_percentages(value: object, good: bool) -> None:
    assert bool(check(RULES["fleet_batches"], value)) != good


@pytest.mark.parametrize(
    ("value", "engine", "said"),
    [
        (60, "gunicorn", []),
        (0, "uvicorn", []),
        ("0", "uvicorn", []),
        (
            60,
            "uvicorn",
            ['x is 60, but engine is "uvicorn"; allowed: a whole number from 0 to 90, with engine gunicorn only'],
        ),
        (99, "uvicorn", ["x is 99; allowed: a whole number from 0 to 90, with engine gunicorn only"]),
    ],
)
def test_setting_that_only_goes_with_another_one(value: int, engine: str, said: list[str]) -> None:
    rule = {"x": {"range": [0, 90], "only": {"engine": ["gunicorn"]}}}
    assert complaints(rule, {"x": value, "engine": engine}.__getitem__) == said


def test_setting_that_goes_with_one_of_a_role_that_is_not_used_is_taken() -> None:
    rule = {"x": {"range": [0, 90], "only": {"engine": ["gunicorn"]}}}
    assert complaints(rule, {"x": 60}.__getitem__) == []
