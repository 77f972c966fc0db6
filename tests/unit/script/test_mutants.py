"""The mutation run: which changes it makes, and that it tells the ones that tests notice from the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from script import mutants

TOY = '''"""A docstring with a 1."""
LIMIT = 3


def allowed(number: int, most: int = 9) -> bool:
    """Whether 0 < number."""
    if not number:
        raise ValueError(f"no {number + 1}")
    report(f"at {number}")
    return number < LIMIT and number in range(most)
'''
#: Nobody asks it for more than it has.
TOY_TESTS = """
from plugins.module_utils.host.toy import allowed

def test_allowed():
    assert [allowed(number) for number in (1, 2, 3, 4)] == [True, True, False, False]
"""


def changes(source: str) -> list[str]:
    return [change for change, _ in mutants.mutants(source)]


def test_what_is_changed_and_that_wording_is_not() -> None:
    assert changes(TOY.replace("report(", "# report(")) == changes(TOY) == [
        "2: 3  ->  (4)",
        "2: 3  ->  (2)",
        "5: 9  ->  (10)",
        "5: 9  ->  (8)",
        "7: not number  ->  (number)",
        '8: raise ValueError(f"no {number + 1}")  ->  pass',
        "10: return number < LIMIT and number in range(most)  ->  return None",
        "10: number < LIMIT and number in range(most)  ->  (number < LIMIT or number in range(most))",
        "10: number < LIMIT  ->  (number <= LIMIT)",
        "10: number in range(most)  ->  (number not in range(most))",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "after"),
    [
        ("self.x = y\n", ["pass"]),
        ("self.x, y = z\n", ["pass"]),
        ("x, (y, z) = w\n", []),
        ("x = True\n", ["(False)"]),
        ("f(x, a=b, help=c)\n", ["pass", "(f(x, help=c))"]),
        ("x += y\n", ["pass"]),
        ("print(1)\n", []),
        ("def f(x: Literal[1]) -> Literal[2]:\n    return None\n", []),
        ("a < b == c\n", ["pass", "(a <= b == c)", "(a < b != c)"]),
    ],
)
def test_each_kind_of_change(source: str, after: list[str]) -> None:
    assert [change.partition("  ->  ")[2] for change in changes(source)] == after


def test_a_changed_text_is_the_whole_one_but_for_its_change() -> None:
    texts = dict(mutants.mutants('name = "ä"; x = a is b  # why\n'))
    assert texts == {"1: a is b  ->  (a is not b)": 'name = "ä"; x = (a is not b)  # why\n'}


def test_tests_are_those_of_the_modules_name_and_those_that_test_it_too() -> None:
    library = "plugins/module_utils/host"
    assert mutants.tests_of(f"{library}/gate.py") == ["tests/unit/host/test_gate.py"]
    assert "tests/unit/host/test_switch.py" in mutants.tests_of(f"{library}/cutover.py")
    for test, also in mutants.ALSO.items():
        assert (mutants.REPOSITORY / f"tests/unit/{test}.py").is_file()
        for name in also.split():
            assert (mutants.REPOSITORY / f"{library}/{name}.py").is_file(), "a module that is none"


def test_survivors_are_told_with_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, source = "plugins/module_utils/host/toy.py", "def allowed(number, most=9):\n    return number < 3\n"
    checkout = tmp_path / "checkout"
    for name, text in ((module, source), ("tests/unit/host/test_toy.py", TOY_TESTS)):
        (checkout / name).parent.mkdir(parents=True)
        (checkout / name).write_text(text)
    (checkout / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    chosen = [(module, *mutant) for mutant in mutants.mutants(source) if "(10)" in mutant[0] or "<=" in mutant[0]]
    monkeypatch.setattr(mutants, "REPOSITORY", checkout)
    assert mutants.run(chosen, tmp_path / "copies") == ["survived", "killed"]
    assert capsys.readouterr().out == f"survived: {module}:1: 9  ->  (10)\n"
    assert (checkout / module).read_text() == source
    (checkout / module).write_text("def allowed(number):\n    return False\n")
    with pytest.raises(SystemExit, match="fail before anything is changed"):
        mutants.run(chosen, tmp_path / "others")
