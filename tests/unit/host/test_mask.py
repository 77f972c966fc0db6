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

import markupsafe
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja2.utils import htmlsafe_json_dumps

from plugins.module_utils.host.config import Config
from plugins.module_utils.host.mask import MASKED, Mask, mask
from plugins.module_utils.host.mask_values import is_named, is_secret, parts, values
from plugins.module_utils.settings.rules import NO_CHARACTERS
from plugins.module_utils.workers.plan import WorkerPlan
from tests.unit.rendering import environment, template

FORMATTED = 'o\'neil$99!</"pass"> & ü'  # quotes of both kinds, and what JSON and HTML escape
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
    "repr in a text with both kinds of quotes": lambda text: repr(f'"it\'s" {text}')[9:],
    "repr of bytes with both kinds of quotes": lambda text: repr(f'"it\'s" {text}'.encode())[10:],
    "ascii of a text with both kinds of quotes": lambda text: ascii(f'"it\'s" {text}')[9:],
    "JSON": json.dumps,
    "JSON with \\/": lambda text: json.dumps(text).replace("/", "\\/"),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "JSON in HTML": lambda text: str(htmlsafe_json_dumps(text)),
    "JSON in HTML, large digits": lambda text: re.sub(
        r"\\u....", lambda match: "\\u" + match[0][2:].upper(), str(htmlsafe_json_dumps(text))
    ),
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
    "HTML of MarkupSafe": lambda text: str(markupsafe.escape(text)),
    "HTML of PHP": lambda text: html.escape(text).replace("&#x27;", "&#39;"),
    "XML": lambda text: html.escape(text).replace("&#x27;", "&apos;"),
    "HTML without quotes": lambda text: html.escape(text, quote=False),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
}


@pytest.mark.fault(51)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize(
    "secret",
    [SIGNS, FORMATTED, "o'neil$99!", URL, "correct-horse-battery"],
    ids=["signs", "marks", "quote", "URL", "plain"],
)
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
@settings(max_examples=200)
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


@pytest.mark.parametrize(
    ("name", "value", "alone"),
    [
        ("BASIC_AUTH", "admin:hunter22", "hunter22"),
        ("API_KEYS", "alice:s3cret1,bob:s3cret2", "s3cret1"),
        ("API_KEYS", "alice: s3cret1; bob: s3cret2", "s3cret2"),
        ("API_KEYS", "alice=s3cret1,bob=s3cret2", "s3cret2"),
        ("API_KEYS", "alice:s3cret1:reader", "s3cret1"),
        ("BASIC_AUTH", "admin:hunter:22", "hunter:22"),
        ("API_KEYS", '{"alice":"s3cr3"}', "s3cr3"),
        ("API_KEYS", "{'alice':'s3cr3'}", "s3cr3"),
        ("API_KEYS", '[{"alice": ["x", "s3cr3"]}]', "s3cr3"),
        ("CLIENTS", '{"api_key": "s3cr3", "name": "x"}', "s3cr3"),
        ("CLIENTS", '{"db": "postgres://u:s3cr3@db/x"}', "s3cr3"),
    ],
)
def test_what_belongs_to_a_name_in_a_value_is_hidden_alone(name: str, value: str, alone: str) -> None:
    assert Mask([(name, value)])(f"refused: {alone}!") == f"refused: {MASKED}!"


def test_words_of_a_connection_string_that_are_no_password_stay() -> None:
    said = Mask([("DB_DSN", "host=dbserver;user=shop;password=hunter22")])("user shop at dbserver: hunter22")
    assert said == "user shop at dbserver: ***"


LINE = "MIIEvQIBADANBgkqhkiG9w0BAQEF"


@pytest.mark.parametrize("line_break", ["\\n", "\\r\\n", "\r\n"])
def test_key_in_one_line_is_hidden_when_the_app_has_made_lines_of_it(line_break: str) -> None:
    key = PEM.replace("\n", line_break)
    for value in (key, json.dumps({"type": "x", "private_key": key}), json.dumps({"private_key": key}, indent=1)):
        for name in ("JWT_SIGNER", "GOOGLE"):
            said = Mask([(name, value)])(f"cannot load\n{PEM}\nor {PEM!r}")
            assert LINE not in said
            assert "AASCBKcwggSjAgEAAoIBAQ" not in said
            assert said.startswith("cannot load\n")


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
        (f"postgres: '{URL[:23]}...{URL[-14:]}'", "postgres: '***...***'"),
        (f"postgresql://: {URL[:23]}………, postgresql://!", "postgresql://: ***………, postgresql://!"),
        (f"……...{URL[-20:]} =require sslmode=require", "……...*** =require sslmode=require"),
        (f"{URL[:20]}...{URL[:30]}...{URL[:25]}...", "***...***...***..."),
    ],
)
def test_what_a_library_cuts_in_the_middle_is_hidden(printed: str, left: str) -> None:
    assert Mask([("DB", URL)])(printed) == left


@pytest.mark.parametrize(
    ("value", "printed", "left"),
    [
        ("sk-ant-sk-ant-0123456789abcdefgh", "bad sk-ant- key: 'sk-ant-sk-ant-0123...'", "bad sk-ant- key: '***...'"),
        ("0123456789-key-end-key-end", "…89-key-end-key-end of key-end", "…*** of key-end"),
        ("abcdef...ghi-jkl-mno", "<abcdef...ghi-j...>", "<***...>"),
        ("abcdef...ghi-jkl-mno", "<...def...ghi-jkl-mno>", "<...***>"),
        ('say "friend" and\nenter', json.dumps('say "friend" and\nenter')[:20] + "...", '"***...'),
    ],
)
def test_a_value_that_begins_or_ends_like_itself_and_is_cut_is_hidden(value: str, printed: str, left: str) -> None:
    assert Mask([("API_KEY", value)])(printed) == left


WORDS = st.text("ab", min_size=4, max_size=9).flatmap(lambda text: st.sampled_from([text, text * 9, text * 20]))


@given(st.sets(WORDS, min_size=1, max_size=5), st.lists(WORDS, max_size=6).map("".join))
@settings(max_examples=300)
def test_every_place_of_every_value_is_found(secrets: set[str], text: str) -> None:
    """Those that begin alike, that overlap, that are longer than what is looked up at once."""
    hidden = {
        place
        for form in secrets
        for at in range(len(text))
        if text.startswith(form, at)
        for place in range(at, at + len(form))
    }
    left = "".join("*" if place in hidden else letter for place, letter in enumerate(text))
    assert Mask([("KEY", form) for form in secrets])(f"<{text}>") == f"<{re.sub(r'[*]+', MASKED, left)}>"


PIECES = st.lists(st.sampled_from(["ab", "abc", "...", "…", "x", "-7"]), min_size=3, max_size=12).map("".join)


@given(PIECES, PIECES, st.integers(6, 20), st.integers(6, 20), st.sampled_from(["...", "…", "....", "……"]))
@settings(max_examples=300)
def test_wherever_it_is_cut(value: str, around: str, head: int, tail: int, ellipsis: str) -> None:
    """Whatever else the text has that begins or ends as the value does."""
    value, around = f"<{value}%", around.replace(".", "").replace("…", "")
    said = Mask([("KEY", value)])(f"{around}{value[:head]}{ellipsis}{value[-tail:]}{around}")
    for shown in (value[:head].rstrip(".…"), value[-tail:].lstrip(".…")):
        assert len(shown) < 6 or shown not in said


@pytest.mark.parametrize("value", ["aba-aba-aba", "k" * 300, "ab" * 100])
def test_values_that_overlap_themselves_leave_nothing(value: str) -> None:
    text = value + value[: len(value) // 2 + 1] if value[0] == "k" else value[:-3] + value
    assert Mask([("KEY", value)])(f"<{text}>").strip("<>").replace(MASKED, "") in ("", value[: len(text) - len(value)])


def test_secrets_that_overlap_leave_nothing_of_each_other() -> None:
    hide = Mask([("A", "abcdef-123"), ("B", "123-uvwxyz"), ("C", "abcdef-123-u")])
    assert hide("<abcdef-123-uvwxyz>") == "<***>"


def test_a_password_in_a_url_is_hidden_whoever_made_the_url() -> None:
    """An app puts its address together of parts; a part may be too short to be looked for."""
    assert Mask([])("cannot reach mysql+pymysql://root:pw@db/x or http://a:b") == (
        "cannot reach mysql+pymysql://root:***@db/x or http://a:b"
    )


@pytest.mark.parametrize(
    ("printed", "left"),
    [
        ("postgresql://u:p@ss@host/db", "postgresql://u:***@host/db"),
        ("postgresql://u:p:a:ss@host/db", "postgresql://u:***@host/db"),
        ("'postgresql://u:p'ss@host/db'", "'postgresql://u:***@host/db'"),
        ('"amqp://u:p"s\'s@host"', '"amqp://u:***@host"'),
        ("smtp://joe@example.org:pw@mail:25", "smtp://joe@example.org:***@mail:25"),
        ("redis://:p@1@a,redis://:p2@b", "redis://:***@a,redis://:***@b"),
        ("postgresql://u:p?s#s@host?x=y", "postgresql://u:***@host?x=y"),
        # No passwords
        ("http://db:5432/x joe@example.org", "http://db:5432/x joe@example.org"),
        ("http://db:5432/joe@example.org", "http://db:5432/joe@example.org"),
        ('{"url":"http://db:5432","to":"joe@example.org"}', '{"url":"http://db:5432","to":"joe@example.org"}'),
        ("('http://db:5432', 'joe@example.org')", "('http://db:5432', 'joe@example.org')"),
        ("['http://db']: 'joe@example.org'", "['http://db']: 'joe@example.org'"),
    ],
)
def test_password_of_a_url_goes_to_its_last_at_sign(printed: str, left: str) -> None:
    assert Mask([])(printed) == left


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
        ("DATA", "/nowhere/to-be-found", False),
        ("UPLOAD_DIR", "/srv/shop/uploads", False),
        ("PASSWORD_FILE", "/run/nowhere/password", False),
        ("SECRET", "/nowhere/to-be-found", True),
        ("DATA", "/nowhere/to be found", True),
        ("DATA", "/Zm9vYmFyYmF6Zm9vYmFy", True),
        ("DATA", "/aGVsbG8+d29ybGQ=", True),
        ("HOOK", "/services/T000/xoxb17xoxb17xoxb17xoxb17", True),
        ("DB_HOST", "db.internal", False),
        ("DB_HOST", "db.internal:5432", False),
        ("ALLOWED_HOSTS", "a.example.org,.b.example.org", False),
        ("DB_HOST", "admin:hunter22@db", True),
        ("DB", "db.internal", True),
        ("DJANGO_SETTINGS_MODULE", "shop.settings", False),
        ("DJANGO_SETTINGS_MODULE", "shop.settings!", True),
        ("SETTINGS", "shop.settings", True),
        ("SESSION_COOKIE_NAME", "session", False),
        ("SESSION_COOKIE_NAME", "shop_session", True),
        ("KEYCLOAK_REALM", "main", False),
        ("AUTH_MODE", "connect", False),
        ("MONKEY", "line", False),
        ("NAME", "counter-shop", False),
        ("EMPTY", "", False),
        ("SECRET", "", False),
    ],
)
def test_rule_says_what_counts_as_a_secret(name: str, value: str, secret: bool) -> None:
    assert is_secret(name, value, frozenset({"counter-shop"})) is secret


NAMED = [
    "KEY", "KEYS", "APIKEY", "API_KEY", "apiKey", "APIKey", "API_KEYs", "api.key", "API_KEY_2", "KEY1", "SECRETKEY",
    "SSHKEY", "KEYPAIR", "DBPASSWORD", "PASSWD", "DB_PASS", "dbPassword", "OLDPWD", "TOKENS", "CREDENTIALS", "CREDS",
    "AUTH", "DB_PW", "OAUTH", "BASICAUTH", "AUTHORIZATION", "SIGNATURE", "SIGNING_KEY", "COOKIE_SIGN", "SALT", "PWSALT",
    "COOKIE", "SENTRY_DSN", "PGDSN", "PRIVATE", "PRIVATEKEY", "SECRET_KEY_BASE", "KEY_HASHED", "AWS_ACCESS_KEY_ID",
]  # fmt: skip
UNNAMED = [
    "MONKEY", "MONKEYS", "DONKEY", "KEYCLOAK_REALM", "KEYCLOAK", "KEYBOARD", "AUTHOR", "AUTHORS", "AUTHORITY", "DESIGN",
    "SIGNAL", "SIGNUP", "ASSIGN", "BASALT", "COOKIECUTTER", "_", "", "DB", "SPWN", "KEY_NAME", "AUTH_MODE", "KEY_TYPE",
    "SECRET_PATH", "DB_PASSWORD_FILE", "KEY_DIR", "AUTH_REALM", "TOKEN_TTL", "AUTH_HOST", "AUTH_PORT", "AUTH_MODULE",
    "TOKEN_HEADER", "SIGNING_ALGORITHM", "apiKeyName",
]  # fmt: skip


def test_names_that_say_so() -> None:
    assert [name for name in NAMED if not is_named(name)] == []
    assert [name for name in UNNAMED if is_named(name)] == []


def test_a_traceback_keeps_its_cause_where_settings_name_places() -> None:
    secrets = {
        "UPLOAD_DIR": "/srv/shop/uploads", "DB_HOST": "db.internal", "DJANGO_SETTINGS_MODULE": "shop.settings",
        "SESSION_COOKIE_NAME": "session", "KEYCLOAK_REALM": "main", "AUTH_MODE": "connect", "MONKEY": "line",
    }  # fmt: skip
    text = (
        "File main.py, line 1, in connect: No module named 'shop.settings'\nFileNotFoundError: '/srv/shop/uploads'\n"
        "could not translate host name db.internal\nno session in __main__"
    )
    assert Mask(secrets.items())(text) == text


def test_a_message_keeps_its_sense_where_settings_are_trivial() -> None:
    secrets = {"DEBUG": "true", "PORT": "8000", "WORKERS": "1", "ENV": "production", "A": "", "B": " ", "C": "\n"}
    text = 'File "/srv/counter/releases/0a1b2c3d4e5f/app/main.py", line 1: port 8000 is true in production\n\n1'
    assert Mask(secrets.items())(text) == text


def test_a_url_without_a_login_is_one_value_and_its_parts_are_none() -> None:
    assert {part for _, part in parts("SITE", "https://example.org/a?b=c")} == {"https://example.org/a?b=c"}


LONG = [
    " " * 200_000, "a." * 200_000, "." * 200_000, "\n" * 200_000, "x=" * 100_000, "://" * 99_999, "…" * 200_000,
    "x…" * 100_000, "a..." * 50_000, "://a:" * 50_000, "://a:'" * 50_000, "a: " * 70_000, "a," * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("text", LONG, ids=[text[:6] for text in LONG])
def test_no_text_takes_long(text: str) -> None:
    """Looked at in steps that grow with its length, not with the square of it: the app chooses what it prints."""
    assert Mask([("DB", URL), ("KEY", text[:5_000])])(f"{text}\n{URL}").endswith(MASKED)


MANY = {
    "URLs": [(f"U{n}", f"https://h{n}.example.org/{n * 7919}") for n in range(200)],
    "keys": [("API_KEYS", ",".join(f"sk_live_{n * 7919:024x}" for n in range(3000)))],
    "tokens": [("TOKENS", ",".join(f"{'eyJhbGciOiJIUzI1NiIs' * 4}{n * 7919:024x}" for n in range(500)))],
}


@pytest.mark.parametrize("line", ["Applying x... OK\n", "…", "sk_live_… https:...", "{}\n", "{:.30}...\n"])
@pytest.mark.parametrize("secrets", MANY.values(), ids=MANY.keys())
def test_many_values_do_not_take_much_longer_than_few(secrets: list[tuple[str, str]], line: str) -> None:
    """Each of them would be looked for in the whole text otherwise, and at each ellipsis."""
    known = [part for _, value in secrets for part in value.split(",")]
    text = "".join(line.format(each) for each in known)
    text *= 200_000 // len(text) + 1
    said = Mask(secrets)(f"{text}\n<{known[-1]}>")
    assert said.endswith("\n<***>")
    assert [each for each in known if each in said] == []


# Where the values come from

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)
#: All that the role's rules allow, and again and again what means something in the file.
TEXTS = st.text(
    st.sampled_from("\\\\\n\n\"'$`\r #;=ab") | st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    max_size=12,
).filter(lambda text: not NO_CHARACTERS.search(text))


@given(st.dictionaries(NAMES, TEXTS, min_size=1, max_size=5))
@example({"APP_SECRET": "sekretline1\\\nsekretline2-more"})
@example({"APP_SECRET": "a\\\\\nb\\", "B": "\\\n"})
@settings(max_examples=150)
def test_values_are_read_as_they_were_set(wanted: dict[str, str]) -> None:
    assert dict(values(template("service", "environment.j2", service_env=wanted))) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "A=b c \nB='$x\\n'\n",
        "# A=1\n;B=2\nno assignment\nC=3",
        'A="\\a\\"\\\\\\$\\`"\n',
        'A = "1"  \n',
        'A="1\\\\\\\n2\\\\\n3"\n',
        "A=1\\\n2\\\\\nB=3\n",
    ],
)
def test_a_file_that_was_edited_by_hand_is_read_like_systemd_does(text: str) -> None:
    known = environment(text)
    found = dict(values(text))
    assert {name: found.get(name) for name in known} == known


SYNTAX = st.lists(st.sampled_from(["\\", "\n", '"', "'", "$", "`", "a", "\\n", " "]), max_size=12).map("".join)


@given(SYNTAX, st.sampled_from(['"{}"', "'{}'", "{}", " {}"]))
@settings(max_examples=300)
def test_escapes_are_read_like_systemd_does_whether_it_knows_them_or_not(inner: str, quotes: str) -> None:
    """systemd.exec(5): in double quotes a backslash escapes " \\ ` $ and a line break, before all else it stays."""
    text = f"A={quotes.format(inner)}\nB=2\n"
    try:
        known = environment(text)
    except AssertionError:  # what follows a text in quotes: the next test
        return
    assert {name: value.strip() for name, value in dict(values(text)).items()} == {
        name: value.strip() for name, value in known.items()
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('A="1"\'2\' "3"4 5\n', "1234 5"),  # one after another, as in src/basic/env-file.c
        ("A='it''s'\n", "its"),
        ('A="never ended\nB=2\n', "never ended\nB=2\n"),
        ('A="1\\', "1"),
        ("A='1\\", "1\\"),
        ("A=1\\", "1"),
        ("A=1\rB=2", "1"),
    ],
)
def test_texts_that_follow_each_other_or_do_not_end_are_read_like_systemd_does(text: str, value: str) -> None:
    assert dict(values(text))["A"] == value


@pytest.mark.fault(51)
def test_line_break_behind_a_backslash_hides_no_part_of_a_secret(config: Config) -> None:
    given = {"APP_SECRET": "sekretline1\\\nsekretline2-more"}
    (config.etc / "environment").write_text(template("service", "environment.j2", service_env=given))
    for text in (given["APP_SECRET"], repr(given["APP_SECRET"]), json.dumps(given["APP_SECRET"])):
        assert not re.search("sekret|line|more", mask(config, f"<{text}>"))


def test_carriage_return_in_a_secret_stays_one(config: Config) -> None:
    (config.etc / "environment").write_bytes(b'DB="ab-1\r\ncd-2"\n')
    assert mask(config, "<ab-1\r\ncd-2> <ab-1\ncd-2> 'ab-1\\r\\ncd-2'") == "<***> <***> '***'"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = Config("counter", tmp_path, tmp_path / "run", tmp_path / "etc", tmp_path / "units", WorkerPlan(0), "")
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
