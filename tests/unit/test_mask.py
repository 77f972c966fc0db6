"""Values of service_env in what an app prints: hidden in every usual form, and nothing else is."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import subprocess
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest
from fleet_host.config import Config
from fleet_host.mask import MASKED, Mask, is_secret, mask, parts, values
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.rendering import environment, template

SIGNS = "S3cret \"canary\" 'with' $igns & /slash+plus%20\\ ü"
URL = "postgresql://shop:hunter2%2Fcanary@db.internal:5432/shop?sslmode=require"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEF\nAASCBKcwggSjAgEAAoIBAQ==\n-----END PRIVATE KEY-----\n"


def quoted_by_bash(text: str) -> str:
    words = ["bash", "-c", 'printf %q "$1"', "-", text]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "repr": repr,
    "repr in repr of a dictionary": lambda text: repr({"DB": text}),
    "repr of bytes": lambda text: repr(text.encode()),
    "ascii": ascii,
    "JSON": json.dumps,
    "JSON with letters": lambda text: json.dumps({"DB": text}, ensure_ascii=False),
    "a shell's word": shlex.quote,
    "a shell's word, as set -x shows it": lambda text: f"'{text.replace(chr(39), chr(39) + chr(92) + chr(39) * 2)}'",
    "a shell's word behind backslashes": quoted_by_bash,
    "a shell's double quotes": lambda text: "".join(f"\\{c}" if c in '"\\`$' else c for c in text),
    "a part of a URL": lambda text: urllib.parse.quote(text, safe=""),
    "a path of a URL": urllib.parse.quote,
    "a form's field": urllib.parse.quote_plus,
    "small hexadecimal digits in a URL": lambda text: re.sub(
        "%..", lambda match: match[0].lower(), urllib.parse.quote(text, safe="")
    ),
    "HTML": html.escape,
    "HTML without quotes": lambda text: html.escape(text, quote=False),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
}


@pytest.mark.fault(51)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("secret", [SIGNS, URL, "correct-horse-battery"], ids=["signs", "URL", "plain"])
def test_every_form_is_hidden_and_the_words_around_it_stay(secret: str, form: Callable[[str], str]) -> None:
    printed = form(secret)
    said = Mask([("DB", secret)])(f"RuntimeError: no connection to <{printed}> after 3 attempts")
    assert said.startswith("RuntimeError: no connection to <")
    assert said.endswith("> after 3 attempts")
    assert MASKED in said
    bare = printed.strip("'\"{}b")
    assert bare not in said
    # Nor the half of it.
    assert bare[: len(bare) // 2] not in said
    assert bare[-(len(bare) // 2) :] not in said


@given(st.text(min_size=8).filter(lambda text: is_secret("DB", text.strip()) and len(text.strip()) >= 8))
@example("\\\\\\\\\\\\\\'")
@settings(deadline=None, max_examples=200)
def test_whatever_a_value_is_made_of(secret: str) -> None:
    secret = secret.strip()
    hide = Mask([("DB", secret)])
    for name in ("as it is", "repr", "JSON", "JSON with letters", "repr of bytes", "base64", "a part of a URL"):
        try:
            printed = FORMS[name](secret)
        except UnicodeEncodeError:  # a text that cannot be sent
            continue
        assert secret not in hide(f"error: {printed}!")
        assert MASKED in hide(f"error: {printed}!"), name


@pytest.mark.parametrize("before", ["", "u", "us", "user:", "Bearer "])
def test_base64_of_something_longer_hides_the_secret_in_it(before: str) -> None:
    value = "correct-horse-battery"
    token = base64.b64encode(f"{before}{value} and more".encode()).decode()
    said = Mask([("DB", value)])(f"Authorization: Basic {token}")
    left = said.partition("Basic ")[2]
    # A digit at each end holds some bits of what is beside the secret, too.
    assert len(left.replace(MASKED, "")) <= len(token) - (len(value) * 8 // 6 - 2)
    assert base64.b64encode(value.encode()).decode()[4:-4] not in said


@pytest.mark.parametrize(
    ("value", "alone"),
    [
        (URL, "hunter2%2Fcanary"),
        (URL, "hunter2/canary"),
        ("redis://:s3cr@cache:6379/0", "s3cr"),
        ("redis://:pass-1@a,redis://:pass-2@b", "pass-2"),
        ("amqp://shop:p@ss/word@mq/", "p@ss/word"),
        ("https://0a1b2c3d4e5f@o1.ingest.example/5", "0a1b2c3d4e5f"),
        ("host=db user=shop password=hunter22 sslmode=require", "hunter22"),
        ("Server=db;Uid=shop;Pwd='hunter 22';", "hunter 22"),
        ("https://api.example/v1?user=shop&api_key=k1%2Bk2k3", "k1+k2k3"),
        (PEM, "AASCBKcwggSjAgEAAoIBAQ=="),
        (json.dumps({"type": "x", "private_key": PEM}), "MIIEvQIBADANBgkqhkiG9w0BAQEF"),
        (json.dumps([{"db": "hunter2canary"}]), "hunter2canary"),
    ],
)
def test_a_part_that_is_printed_alone_is_hidden(value: str, alone: str) -> None:
    assert Mask([("CONFIG", value)])(f"refused: {alone}!") == f"refused: {MASKED}!"


def test_keys_in_a_list_are_hidden_one_by_one() -> None:
    assert Mask([("API_KEYS", "k1-abcdef, k2-ghijkl")])("unknown key k2-ghijkl") == f"unknown key {MASKED}"


def test_lines_of_a_key_are_hidden_behind_whatever_a_logger_puts_before_them() -> None:
    said = Mask([("TLS_KEY", PEM)])("\n".join(f"ERROR  {line}" for line in PEM.splitlines()))
    assert [line.removeprefix("ERROR  ") for line in said.splitlines()] == [
        "-----BEGIN PRIVATE KEY-----", MASKED, MASKED, "-----END PRIVATE KEY-----",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("left", "right"),
    [("\n", ""), ("\r\n", ""), ("   │\n│ ", "   │"), ("'\n 'ab ", "'"), ("\\\n    ", ""), (" ┃\n┃ ", "")],
)
@pytest.mark.parametrize("at", [1, 7, 30, -1])
def test_a_value_over_a_line_break_is_hidden(left: str, right: str, at: int) -> None:
    wrapped = f"{URL[:at]}{left.removesuffix('ab ')}{URL[at:]}{right}"
    said = Mask([("DB", URL)])(f"first line\nno connection to {wrapped}\nlast line")
    assert said.startswith(f"first line\nno connection to {MASKED}")
    assert said.endswith("\nlast line")
    assert "hunter2" not in said
    assert len(said) < 70


def test_lines_that_belong_together_by_chance_only_stay_lines() -> None:
    text = "one\ntwo\n\nthree\n"
    assert Mask([("DB", URL)])(text) == text


@pytest.mark.parametrize(
    ("printed", "left"),
    [
        (f"input_value='{URL[:24]}...{URL[-24:]}', input_type=str", "input_value='***...***', input_type=str"),
        (f"got {URL[:12]}…", "got ***…"),
        (f"....{URL[-9:]} is no address", "....*** is no address"),
        ("loading ... done", "loading ... done"),
        ("postg... is away", "postg... is away"),
    ],
)
def test_what_a_library_cuts_in_the_middle_is_hidden(printed: str, left: str) -> None:
    assert Mask([("DB", URL)])(printed) == left


def test_secrets_that_overlap_leave_nothing_of_each_other() -> None:
    hide = Mask([("A", "abcdef-123"), ("B", "123-uvwxyz"), ("C", "abcdef-123-u")])
    assert hide("<abcdef-123-uvwxyz>") == "<***>"


def test_a_password_in_a_url_is_hidden_whoever_made_the_url() -> None:
    """An app puts its address together of parts; a part may be too short to be looked for."""
    assert Mask([])("cannot reach mysql+pymysql://root:pw@db/x or http://a:b") == (
        "cannot reach mysql+pymysql://root:***@db/x or http://a:b"
    )


# What is left as it is


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("DB", "hunter2", True),
        ("DB", "abc12", False),
        ("PASSWORD", "pw12", True),
        ("PASSWORD", "pw1", False),
        ("DB", "sesamstr", True),
        ("DB", "sesamst", False),
        ("SESSION_SECRET", "sesam", True),
        ("DEBUG", "true", False),
        ("TOKEN_CHECK", "False", False),
        ("PORT", "8000", False),
        ("LIMIT", "10485760", False),
        ("ADDRESS", "10.0.0.15:5432", False),
        ("TOKEN_TTL", "3600", False),
        ("PIN_SECRET", "483902", True),
        ("ENVIRONMENT", "production", False),
        ("DB_PASSWORD", "postgres", False),
        ("LOG_LEVEL", "WARNING", False),
        ("DATA", "/etc", False),
        ("KEY_FILE", "/etc/hostname", False),
        ("DATA", "/nowhere/to-be-found", True),
        ("NAME", "counter-shop", False),
        ("EMPTY", "", False),
        ("SECRET", "", False),
    ],
)
def test_rule_says_what_counts_as_a_secret(name: str, value: str, secret: bool) -> None:
    assert is_secret(name, value, frozenset({"counter-shop"})) is secret


def test_a_message_keeps_its_sense_where_settings_are_trivial() -> None:
    secrets = {"DEBUG": "true", "PORT": "8000", "WORKERS": "1", "ENV": "production", "A": "", "B": " ", "C": "\n"}
    text = 'File "/srv/counter/releases/0a1b2c3d4e5f/app/main.py", line 1: port 8000 is true in production\n\n1'
    assert Mask(secrets.items())(text) == text


def test_a_url_without_a_login_is_one_value_and_its_parts_are_none() -> None:
    assert {part for _, part in parts("SITE", "https://example.org/a?b=c")} == {"https://example.org/a?b=c"}


LONG = [" " * 200_000, "a." * 200_000, "." * 200_000, "\n" * 200_000, "x=" * 100_000, "://" * 99_999]


@pytest.mark.parametrize("text", LONG, ids=[text[:3] for text in LONG])
def test_no_text_takes_long(text: str) -> None:
    """Looked at in steps that grow with its length, not with the square of it: the app chooses what it prints."""
    assert Mask([("DB", URL), ("KEY", text[:50_000])])(f"{text}\n{URL}").endswith(MASKED)


# Where the values come from

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r") | st.sampled_from("\\\"'$`\n #;="))


@given(st.dictionaries(NAMES, TEXTS, min_size=1, max_size=5))
@settings(deadline=None, max_examples=60)
def test_values_are_read_as_they_were_set(wanted: dict[str, str]) -> None:
    assert dict(values(template("service", "environment.j2", service_env=wanted))) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "A=b c \nB='$x\\n'\n",
        "# A=1\n;B=2\nno assignment\nC=3",
        'A="\\a\\"\\\\\\$\\`"\n',
        'A = "1"  \n',
        "A='it''s'\n",
        'A="never ended\nB=2\n',
    ],
)
def test_a_file_that_was_edited_by_hand_is_read_like_systemd_does(text: str) -> None:
    try:
        known = environment(text)
    except AssertionError:  # systemd does not take it as it was meant either
        known = {}
    found = dict(values(text))
    assert {name: found.get(name) for name in known} == known


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = Config("counter", tmp_path, tmp_path / "run", tmp_path / "etc", tmp_path / "units", {}, "")
    (made.etc / "releases" / "aaa").mkdir(parents=True)
    return made


PLACES = ["environment", "environment.blue", "environment.green", "releases/aaa/environment"]


@pytest.mark.fault(51)
@pytest.mark.parametrize("place", PLACES)
def test_every_environment_that_is_kept_counts(config: Config, place: str) -> None:
    """The one of a refused deploy, those of both slots, and that of a release that may be gone back to."""
    (config.etc / place).write_text('DB="canary-of-old"\nPORT="8000"\n')
    assert mask(config, "no connection to canary-of-old, port 8000") == "no connection to ***, port 8000"


def test_what_cannot_be_read_or_is_no_text_hides_what_can_be(config: Config) -> None:
    (config.etc / "environment.blue").mkdir()
    (config.etc / "environment.green").write_bytes(b'A="\xff\xfe"\n')
    (config.etc / "environment").write_text('DB="canary-1"\n')
    assert mask(config, "canary-1 and \udcff") == "*** and \udcff"


def test_the_apps_own_name_is_no_secret(config: Config) -> None:
    (config.etc / "environment").write_text('APP="counter"\nUSER_NAME="root"\nHEALTH="/health"\nTOKEN="counter"\n')
    text = "counter@blue.service: /health of counter, user root"
    assert mask(config, text) == text


def test_values_are_looked_up_anew_each_time(config: Config) -> None:
    """A switch writes a slot's copy after the command has begun."""
    assert mask(config, "canary-1") == "canary-1"
    (config.etc / "environment.green").write_text('DB="canary-1"\n')
    assert mask(config, "canary-1") == "***"
