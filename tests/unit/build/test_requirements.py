"""Requirements files: lines and pins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils.build.requirements import all_hashed, blocks, parse_pins

LOCK = """# a comment
Foo_Bar==1.2 ; python_full_version < '3.11' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via x
baz[extra]==2.0 --hash=sha256:cc
./local
-e ../other
"""


def test_blocks_join_continuations() -> None:
    assert [block.split("\n")[0] for block in blocks(LOCK)] == [
        "Foo_Bar==1.2 ; python_full_version < '3.11' \\",
        "baz[extra]==2.0 --hash=sha256:cc",
        "./local",
        "-e ../other",
    ]


def test_pins() -> None:
    first, second = parse_pins(LOCK)
    assert (first.name, first.version, first.marker) == ("foo-bar", "1.2", 'python_full_version < "3.11"')
    assert first.text.count("--hash=") == 2
    assert (second.name, second.version, second.marker) == ("baz", "2.0", "")


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True),
            st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,2}){0,2}", fullmatch=True),
            st.lists(st.from_regex(r"[0-9a-f]{8}", fullmatch=True), min_size=1, max_size=3),
        ),
        max_size=8,
    )
)
def test_every_pin_is_read_back(rows: list[tuple[str, str, list[str]]]) -> None:
    text = "".join(
        f"{n}=={v} \\\n    " + " \\\n    ".join(f"--hash=sha256:{h}" for h in hs) + "\n" for n, v, hs in rows
    )
    pins = parse_pins(text)
    assert [(pin.name, pin.version) for pin in pins] == [(n, v) for n, v, _ in rows]
    assert all_hashed(text)


@pytest.mark.parametrize(
    "text", ["foo==1\n", "-r more.txt\nfoo==1 --hash=sha256:aa\n", "foo==1 --hash=sha256:a\nbar\n"]
)
def test_what_is_not_fully_hashed_is_resolved(text: str) -> None:
    assert not all_hashed(text)
