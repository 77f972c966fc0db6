"""What the roles write on hosts, rendered without a host and read by the rules of whoever reads it there."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fleetlab import machine
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.action.host_files import with_templates
from plugins.module_utils.host.cli import read_words
from plugins.module_utils.host.config import Config
from plugins.module_utils.host.digests import FINGERPRINT, keyed
from plugins.module_utils.host.records import SLOTS
from plugins.module_utils.host.slots import closes_kept
from plugins.module_utils.settings.definitions import load
from plugins.module_utils.workers.engines import ENGINES
from plugins.module_utils.workers.engines.base import SHUTDOWN_SECONDS
from plugins.module_utils.workers.plan import WorkerPlan
from tests.unit.rendering import REPOSITORY, ROLES, environment, host, nginx, template, unit, value

SERVICE = "app@.service.j2"
SOCKET = "app@.socket.j2"
BOTH = (SERVICE, SOCKET)
#: The machine's own, else the one that script/bootstrap --tests has unpacked.
NGINX = shutil.which(
    "nginx",
    path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin:{machine.cache() / 'bootstrap' / 'nginx' / 'usr' / 'sbin'}",
)


def option(command: str, name: str) -> str:
    words = shlex.split(command)
    return words[words.index(name) + 1]


# The service unit


def test_number_release_and_module_come_from_the_slots_own_file() -> None:
    """A change of the plan changes no unit: one text for all hosts, and for what memory lets a slot begin with."""
    found = unit(template("service", SERVICE))
    (command,) = found["Service.ExecStart"]
    assert option(command, "--workers") == "${FLEET_WORKERS}"
    assert shlex.split(command)[-1] == "${FLEET_MODULE}", "the release says what is imported: an older one may differ"
    assert found["Service.EnvironmentFile"][-1] == "/srv/counter/slots/%i.env", "last, so that the app's cannot win"
    texts = {template("service", SERVICE, ansible_facts=host(workers=workers)) for workers in (1, 5, 17)}
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("variable", "setting", "key", "expected"),
    [
        ("service_deny_write_execute", True, "MemoryDenyWriteExecute", ["yes"]),
        ("service_deny_write_execute", False, "MemoryDenyWriteExecute", ["no"]),
        ("service_deny_write_execute", "false", "MemoryDenyWriteExecute", ["no"]),
        ("service_writable_paths", [], "ReadWritePaths", None),
        ("service_writable_paths", ["/var/lib/a", "/srv/b"], "ReadWritePaths", ["/var/lib/a /srv/b"]),
        ("service_user", "web", "User", ["web"]),
        ("service_user", "web", "Group", ["web"]),
        ("service_boot_timeout", 7, "TimeoutStartSec", ["7"]),
        ("service_boot_timeout", "7", "TimeoutStartSec", ["7"]),
    ],
)
def test_unit_follows_the_settings(variable: str, setting: object, key: str, expected: list[str] | None) -> None:
    assert unit(template("service", SERVICE, **{variable: setting})).get(f"Service.{key}") == expected


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("drain", [0, 30, "45"])
def test_systemd_waits_longer_than_the_workers_may_take_to_end(drain: int | str, engine: str) -> None:
    found = unit(template("service", SERVICE, service_drain_timeout=drain, service_engine=engine))
    name = "--timeout-graceful-shutdown" if engine == "uvicorn" else "--graceful-timeout"
    seconds = int(option(found["Service.ExecStart"][0], name))
    assert seconds == int(drain) + (0 if engine == "uvicorn" else SHUTDOWN_SECONDS)
    assert int(found["Service.TimeoutStopSec"][0]) > int(drain) + SHUTDOWN_SECONDS


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_gets_its_own_command_and_everything_else_stays(engine: str) -> None:
    default, found = (unit(template("service", SERVICE, **given)) for given in ({}, {"service_engine": engine}))
    (command,) = found["Service.ExecStart"]
    assert option(command, "--workers") == "${FLEET_WORKERS}"
    assert option(command, "--forwarded-allow-ips") == "*"
    limit = "--timeout-worker-healthcheck" if engine == "uvicorn" else "--timeout"
    assert option(command, limit) == "60", "uvicorn's 5 s would kill apps that take longer to import"
    assert found["Service.KillMode"] == ["mixed"], "uvicorn's workers outlive a main process that is killed"
    differ = {key for key in default if default[key] != found[key]}
    assert differ == {
        "gunicorn": set(), "asgi": {"Service.ExecStart"}, "uvicorn": {"Service.ExecStart", "Service.Type"}
    }[engine]  # fmt: skip


def settings_read_on_host(folder: Path, **given: Any) -> Config:
    """Return what the host's command makes of what a deploy writes for it."""
    (folder / "release.json").write_text(template("service", "settings.json.j2", **given))
    (folder / "hooks.json").write_text(template("service", "hooks.json.j2", **given))
    return Config.read(folder / "release.json")


def test_units_and_host_tool_mean_the_same_places(tmp_path: Path) -> None:
    config = settings_read_on_host(tmp_path)
    units = {file.replace("app", "counter").removesuffix(".j2"): unit(template("service", file)) for file in BOTH}
    for slot in SLOTS:
        service = units[config.service(slot).replace(slot, "")]
        socket = units[config.socket_unit(slot).replace(slot, "")]
        assert socket["Socket.ListenStream"][0].replace("%i", slot) == str(config.socket(slot))
        assert service["Unit.Requires"][0].replace("%i", slot) == config.socket_unit(slot)
        assert service["Service.WorkingDirectory"][0].replace("%i", slot) == str(config.root / "slots" / slot / "app")
        # The last one wins: what the user sets must not change which release runs.
        files = [file.replace("%i", slot) for file in service["Service.EnvironmentFile"]]
        assert files == [str(config.etc / f"environment.{slot}"), str(config.root / "slots" / f"{slot}.env")]
        assert Path(files[0]) in config.slot_files(slot).values()


def test_what_a_crash_left_is_looked_after_at_boot_where_the_command_left_it(tmp_path: Path) -> None:
    config = settings_read_on_host(tmp_path)
    found = unit(template("service", "recover.service.j2"))
    assert found["Unit.ConditionPathExists"] == [str(config.transaction)]
    command, *words = found["Service.ExecStart"][0].split()
    assert command == value("service", "_service_command")
    given = read_words(["--config", "x", *words])
    assert (given.verb, given.in_unit) == ("recover", True)
    assert found["Install.WantedBy"] == ["multi-user.target"]


def test_settings_cannot_hold_what_systemd_would_expand() -> None:
    """In units, `%` begins a specifier and `$` a variable: only the templates themselves may use the first."""
    rules = {name: setting.rule for name, setting in load().settings.items()}
    used = {name for file in BOTH for name in re.findall(r"\b(?:app|service)_\w+", source(file))}
    texts = {name: rules[name].get("pattern") or rules[name].get("each") for name in used if name in rules}
    assert {"app_name", "service_user", "service_writable_paths"} <= set(texts)
    for name, pattern in texts.items():
        for good in ("main:app", "counter", "/usr/bin/python3"):
            for sign in "%$\\\"' \n":
                assert not re.fullmatch(pattern or "", good + sign + "n"), f"{name} may hold {sign!r}"
    for file in BOTH:
        text = template("service", file, service_env={"SECRET": "100%n"})
        assert set(re.findall("%.", text)) == {"%i"}
        assert "SECRET" not in text, "units are readable for everybody"


def source(name: str) -> str:
    return (ROLES / "service" / "templates" / name).read_text()


@pytest.fixture
def units_on_disk(tmp_path: Path) -> Path:
    """The folder with an app's units, for a Python that this machine has."""
    given = {"service_python": sys.executable, "service_writable_paths": ["/srv"]}
    for file in BOTH:
        (tmp_path / file.removesuffix(".j2").replace("app", "counter")).write_text(template("service", file, **given))
    return tmp_path


def analyze(*words: str | Path) -> str:
    """Run systemd-analyze, which needs no running systemd for this; skip where it is not installed or too old."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze, which is not on this machine")
    done = subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip(f"needs a newer systemd-analyze: {done.stderr.strip()}")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def test_systemd_finds_nothing_wrong_with_the_units(units_on_disk: Path) -> None:
    said = analyze("verify", "--man=no", units_on_disk / "counter@.service", units_on_disk / "counter@.socket")
    assert str(units_on_disk) not in said
    assert "counter@" not in said


def test_unit_leaves_the_app_little_to_attack(units_on_disk: Path) -> None:
    said = analyze("security", "--offline=yes", "--no-pager", units_on_disk / "counter@.service")
    level = re.search(r"Overall exposure level .*: ([0-9.]+)", said)
    assert level, said
    assert float(level[1]) <= 1.5, said  # 0 is best, 10 is worst, 9.2 is a unit without any of the switches


# The app's environment

#: What man systemd.exec allows in the file: no NUL, no surrogates, no byte order mark, no noncharacters.
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff").filter(
        lambda c: ord(c) & 0xFFFE != 0xFFFE and not 0xFDD0 <= ord(c) <= 0xFDEF
    )
    | st.sampled_from("\\\\\"\"''$`\n\r\t #;=%{}")
)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)


def through_the_file(wanted: dict[str, Any]) -> dict[str, str]:
    return environment(template("service", "environment.j2", service_env=wanted))


@given(st.dictionaries(NAMES, TEXTS, min_size=1, max_size=8))
@settings(max_examples=60)
def test_environment_reaches_the_app_as_it_was_set(wanted: dict[str, str]) -> None:
    assert through_the_file(wanted) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        " leading and trailing ",
        'a "quoted" $value \\ here',
        "$HOME ${HOME} `id` $(id) %n %% \\n",
        "ends with a backslash \\",
        "-----BEGIN KEY-----\nMII=\n-----END KEY-----\n",
        "windows\r\nline ends\r\n",
        "# no comment\n; nor this\nNOT_A_NAME=1",
        '"; Environment=LD_PRELOAD=/x',
        "grüße, 世界 🚀",
        "{{ 7 * 7 }} {% raw %} {# no comment #}",
    ],
)
def test_difficult_value_reaches_the_app(text: str) -> None:
    assert through_the_file({"A": text, "B": "next"}) == {"A": text, "B": "next"}


def test_numbers_are_written_as_they_are_set() -> None:
    assert through_the_file({"PORT": 8000, "RATIO": 0.5}) == {"PORT": "8000", "RATIO": "0.5"}


def test_no_settings_make_an_empty_environment() -> None:
    assert through_the_file({}) == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A=b c \nB='$x\\n'\n", {"A": "b c", "B": "$x\\n"}),
        ("# A=1\n;B=2\nno assignment\nC=3", {"C": "3"}),
        ('A="\\a\\"\\\\\\$\\`"\n', {"A": '\\a"\\$`'}),
        ('A="one \\\ntwo"\nB=three\\\nfour\\ \n', {"A": "one two", "B": "threefour "}),
        ('A = "1"  \n', {"A": "1"}),
    ],
)
def test_reference_reader_knows_the_rules_of_systemd(text: str, found: dict[str, str]) -> None:
    """Each of these was also read by systemd 255 and 259, with the same outcome."""
    assert environment(text) == found


# What a new worker is needed for


def fingerprint(**given: Any) -> str:
    """Return the fingerprint that the task of roles/service/tasks/prepare.yml gives."""
    tasks = yaml.safe_load((ROLES / "service/tasks/prepare.yml").read_text())
    task = next(task["webfleet.fastapi.host_files"] for task in tasks if "webfleet.fastapi.host_files" in task)
    salt = value("service", task["salt"].strip("{ }"), **given)
    items = [item for item in task["files"] if item.get("fingerprint")]
    found, digest = with_templates(items, lambda name, more: template("service", name, **given, **more), salt)
    secrets = [item["content"] for item in found if item.get("secret")]
    return "-".join([digest, *(keyed(bytes(32), text.encode()) for text in secrets)])


@pytest.mark.parametrize(
    ("changed", "given"),
    [
        (False, {"service_health_path": "/up"}),
        (False, {"service_health_successes": 9}),
        (False, {"service_hook_before": "true"}),
        (False, {"ansible_facts": host(memory_mib=3000)}),
        (True, {"ansible_facts": host(workers=1)}),
        (True, {"service_env": {"A": "1"}}),
        (True, {"ansible_facts": host(python="3.14")}),
        (True, {"service_deny_write_execute": False}),
        (True, {"service_proxy_group": "nginx"}),
    ],
)
def test_fingerprint_is_of_what_workers_depend_on(changed: bool, given: dict[str, Any]) -> None:
    before, after = (fingerprint(**extra) for extra in ({}, given))
    assert FINGERPRINT.fullmatch(before)
    assert (before != after) is changed


def test_host_is_asked_about_all_secret_files_that_a_deploy_puts_there_and_no_others() -> None:
    tasks = yaml.safe_load((ROLES / "service/tasks/prepare.yml").read_text())
    items = next(task["webfleet.fastapi.host_files"] for task in tasks if "webfleet.fastapi.host_files" in task)[
        "files"
    ]
    put = [
        {"path": item["path"].replace("{{ app_name }}", "counter"), "template": item["template"]}
        for item in items
        if item.get("secret")
    ]
    assert put == value("service", "_service_secrets")


@pytest.mark.parametrize(("release", "workers"), [("new", 3), ("live", 2)])
def test_only_another_release_is_planned_with_what_was_measured_now(release: str, workers: int) -> None:
    """A second deploy of the same release would else replace its workers whenever they have grown."""
    facts = host(live={"release": "live"})
    facts["app_probe"] |= {"plan": {"workers": 3}, "plan_live": {"workers": 2}}
    settings = json.loads(template("service", "settings.json.j2", ansible_facts=facts, release_id=release))
    assert settings["plan"]["workers"] == workers


def test_deploying_twice_changes_nothing_after_a_measurement() -> None:
    first = host(memory_mib=972, measured_mib=150)["app_probe"]["plan"]
    record = {"release": "new", "plan": first}
    again = host(memory_mib=972, live=record, measured_mib=WorkerPlan.parse(first).measured_mib)
    grown = host(memory_mib=972, measured_mib=300)["app_probe"]["plan"]
    assert grown["workers"] != first["workers"]
    again["app_probe"]["plan"] = grown  # what the workers take by now
    assert value("service", "_service_plan", ansible_facts=again, release_id="new") == first
    assert value("service", "_service_plan", ansible_facts=again, release_id="newer") == grown


# The host's command and its settings


def test_settings_are_those_that_the_host_tool_reads(tmp_path: Path) -> None:
    facts = host(workers=7)
    times = {"service_boot_timeout": "90", "service_drain_timeout": 0, "service_health_timeout": 2}
    given = {"service_health_path": '/up?a="b"', "host_files_fingerprint": "f" * 16, **times}
    given |= {"service_hook_before": "echo 'a \"b\"' $HOME", "ansible_facts": facts}
    config = settings_read_on_host(tmp_path, **given)
    text = (tmp_path / "release.json").read_text()
    assert (config.hook_before, config.hook_after) == (given["service_hook_before"], "")
    assert "echo" not in text, "a diff shows it"
    assert (config.app, config.root, config.run) == ("counter", Path("/srv/counter"), Path("/run/counter"))
    assert (config.etc, config.units) == (Path("/etc/counter"), Path("/etc/systemd/system"))
    assert (config.boot_timeout, config.drain_timeout, config.health_timeout) == (90, 0, 2)
    assert config.health_path == '/up?a="b"'
    assert (config.workers, config.plan.as_dict()) == (7, facts["app_probe"]["plan"])
    assert config.fingerprint == "f" * 16 + "-", "and behind it, the digest of the environment"
    assert {type(field) for name, field in json.loads(text).items() if "timeout" in name} == {int}


def test_settings_that_a_version_before_wrote_are_read_and_new_ones_have_their_defaults(tmp_path: Path) -> None:
    """An upgrade finds what 0.1 wrote until the first deploy with it has ended."""
    settings_read_on_host(tmp_path, service_drain_timeout=7)
    written = json.loads((tmp_path / "release.json").read_text())
    kept = {"app", "root", "run", "etc", "units", "plan", "fingerprint", "user", "drain_timeout"}
    assert kept < written.keys()
    (tmp_path / "release.json").write_text(json.dumps({name: written[name] for name in kept}))
    config = Config.read(tmp_path / "release.json")
    assert (config.drain_timeout, config.user, config.boot_timeout, config.warmup_paths) == (7, "counter", 60, ())
    defaults = {setting.host: setting.default for setting in load().settings.values() if setting.host}
    for name in defaults.keys() - kept - {"hook_before", "hook_after"}:
        found = getattr(config, name)
        assert (list(found) if isinstance(found, tuple) else found) == defaults[name], name


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """The command as it is installed, with the tool taken from the repository."""
    found = tmp_path / "nowhere-release"
    for package in ("host", "workers"):
        shutil.copytree(REPOSITORY / "plugins/module_utils" / package, tmp_path / "fleet" / package)
    shutil.copy(ROLES / "service/files/main.py", tmp_path / "__main__.py")
    text = template("service", "release-command.sh.j2", app_name="nowhere", _service_tool=str(tmp_path))
    found.write_text(text)
    found.chmod(0o755)
    if not Path("/usr/bin/python3").exists():
        pytest.skip("needs /usr/bin/python3, which is not on this machine")
    return found


def test_command_calls_itself_by_the_name_it_has(command: Path) -> None:
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: nowhere-release ")


def test_command_says_where_the_settings_should_be_and_passes_words_whole(command: Path) -> None:
    done = subprocess.run([command, "status", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done
    reason = "/etc/nowhere/release.json" if os.geteuid() == 0 else "use sudo"
    assert reason in json.loads(done.stdout)["error"]
    done = subprocess.run([command, "no such *"], capture_output=True, text=True, check=False)
    assert "invalid choice: 'no such *'" in done.stderr


def refusal(**said: object) -> list[str]:
    """Return the lines about a host whose command said this, "" where it said nothing."""
    switch = {"stdout": json.dumps(said) if said else "", "stderr": "sudo: a password is required", "rc": 1}
    return template("service", "refusal.txt.j2", service_switch=switch, release_id="new123").splitlines()


ANSWERS = {"release": "old", "answers": True, "trouble": ""}
DEAD = {"release": "old", "answers": False, "trouble": "/health answers 500"}
NOTHING = "Nothing serves now: release old is live, but /health answers 500."


@pytest.mark.parametrize("log", [[], ["Traceback:", "  KeyError: '{{ x }}'"]])
def test_refusal_says_why_with_the_log_and_what_serves_on(log: list[str]) -> None:
    lines = refusal(outcome="refused", error="no worker came up", log=log, live={"release": "old"}, serving=ANSWERS)
    assert lines[0] == "web1 did not take release new123: no worker came up"
    assert [line.removeprefix("  | ") for line in lines if line.startswith("  | ")] == log
    assert lines[-1].startswith("Release old serves on as before; no request went to the slot")


@pytest.mark.parametrize(
    ("outcome", "serving", "last"),
    [
        ("refused", {}, ["No release was live before, and none is now."]),
        ("refused", DEAD, ["No request went to the slot that was refused.", NOTHING]),
        ("nothing done", ANSWERS, ["What serves was not changed."]),
        ("nothing done", DEAD, ["What serves was not changed.", NOTHING]),
        ("went back", ANSWERS, ["It had traffic, then the host went back by itself: release old serves again."]),
        ("went back", DEAD, ["It had traffic, then the host went back by itself.", NOTHING]),
        ("kept live although unhealthy", {**ANSWERS, "release": "new123"}, ["Release new123 is live now."]),
        ("unfinished", ANSWERS, ["Release old is live now."]),
    ],
)
def test_each_outcome_is_told_as_what_it_is(outcome: str, serving: dict[str, Any], last: list[str]) -> None:
    live = {"release": serving["release"]} if serving else {}
    said = refusal(outcome=outcome, error="why", live=live, serving=serving)
    what = {
        "kept live although unhealthy": "web1 keeps release new123 live although it is unhealthy",
        "unfinished": "The switch of web1 to release new123 failed",
    }
    assert said == [f"{what.get(outcome, 'web1 did not take release new123')}: why", *last]


def test_host_that_said_nothing_is_not_said_to_be_unchanged() -> None:
    assert refusal() == [
        "The switch of web1 to release new123 failed: sudo: a password is required",
        "What came of it is not known: counter-release history, on the host, says.",
    ]


# nginx


def servers(text: str) -> list[dict[str, list[str]]]:
    """The directives of each server block, without its locations."""
    blocks = [entry[-1] for entry in nginx(text) if entry[0] == "server"]
    return [{directive[0]: directive[1:] for directive in block} for block in blocks]


def proxy_conf(**given: object) -> str:
    return template("proxy", "app.conf.j2", **given)


def test_app_answers_only_to_its_names() -> None:
    (app,) = servers(proxy_conf(proxy_server_names=["a.example", "*.b.example"]))
    (refusal,) = servers(template("proxy", "refuse-unknown-hosts.conf.j2"))
    assert app["server_name"] == ["a.example", "*.b.example"]
    assert "default_server" not in app["listen"]
    assert "default_server" in refusal["listen"]
    status, body = refusal["return"]
    assert (status, "proxy_server_names adds it" in body) == ("421", True)
    assert not [name for name in app["server_name"] if name in body]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, ["web1"]),
        ({"ansible_host": "10.0.0.7"}, ["web1", "10.0.0.7"]),
        ({"ansible_host": "web1"}, ["web1"]),
        ({"ansible_host": "fd00::7"}, ["web1", "[fd00::7]"]),
    ],
)
def test_app_answers_to_what_ansible_calls_the_host(given: dict[str, str], names: list[str]) -> None:
    (app,) = servers(proxy_conf(**given))
    assert app["server_name"] == names


def test_requests_go_to_the_link_that_the_switch_moves(tmp_path: Path) -> None:
    link = settings_read_on_host(tmp_path).live_link
    assert ["proxy_pass", f"http://unix:{link}"] in location(proxy_conf())


def test_connections_are_kept_only_to_workers_that_hand_them_over() -> None:
    """Workers that were started before the setting would be asked over kept connections until they are stopped."""

    def kept(live: dict[str, Any], **given: Any) -> bool:
        text = proxy_conf(ansible_facts=host(live=live), **given)
        upstreams = [entry for entry in nginx(text) if entry[0] == "upstream"]
        assert ["proxy_pass", "http://fleet_counter"] in location(text) or not upstreams
        return bool(upstreams)

    assert not kept({})
    assert kept({}, proxy_keepalive=8), "nothing serves yet"
    assert not kept({"release": "aaa"}, proxy_keepalive=8)
    assert kept({"release": "aaa", "closes_kept": True}, proxy_keepalive=8)
    assert not kept({"release": "aaa", "closes_kept": True})


@pytest.mark.parametrize("keepalive", [8, 0])
def test_switch_knows_units_whose_workers_hand_kept_connections_over(keepalive: int) -> None:
    text = template("service", SERVICE, proxy_keepalive=keepalive)
    assert closes_kept(text.encode()) == bool(keepalive)
    command = unit(text)["Service.ExecStart"][0]
    assert ("--keep-alive 75" in command) == bool(keepalive)


def location(text: str) -> list[list[str]]:
    ((_, server),) = (entry for entry in nginx(text) if entry[0] == "server")
    (found,) = (entry[-1] for entry in server if entry[0] == "location")
    return list(found)


@pytest.mark.parametrize(
    "header", ["host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "forwarded", "proxy"]
)
def test_no_header_that_the_app_trusts_comes_from_the_client(header: str) -> None:
    """The unit tells Gunicorn to trust the proxy's headers; so each is nginx's own word."""
    (sent,) = (entry[2] for entry in location(proxy_conf()) if entry[:2] == ["proxy_set_header", header])
    assert sent in {"$remote_addr", "$scheme", "$host$fleet_counter_port", '""'}


TRUSTED = {
    "proxy_trusted_proxies": ["10.80.0.0/16", "192.0.2.7", "fd00::/8"],
    "proxy_trusted_headers": ["CF-Connecting-IP", "x-forwarded-host"],
}


@pytest.mark.parametrize("given", [{}, TRUSTED, {"proxy_trusted_headers": ["X-Tenant", "FORWARDED"]}])
def test_each_header_is_sent_once_and_none_is_forgotten(given: dict[str, Any]) -> None:
    """nginx would send one twice that is set twice; a name without a value is the client's own no more."""
    names = [entry[1] for entry in location(proxy_conf(**given)) if entry[0] == "proxy_set_header"]
    own = {*value("proxy", "_proxy_seen"), *value("proxy", "_proxy_claims"), "Upgrade", "Connection"}
    assert len(names) == len({name.lower() for name in names})
    assert set(names) == own | {name.lower() for name in given.get("proxy_trusted_headers", [])}


def test_scheme_is_a_balancers_word_only_where_one_is_trusted() -> None:
    """By trusted.conf.j2, which nobody needs who has none."""

    def scheme(text: str) -> str:
        return next(entry[2] for entry in location(text) if entry[:2] == ["proxy_set_header", "x-forwarded-proto"])

    text = proxy_conf(**TRUSTED)
    assert (scheme(proxy_conf()), scheme(text)) == ("$scheme", "$fleet_counter_scheme")
    (believed,) = (entry[-1] for entry in nginx(text) if entry[0] == "geo")
    assert believed == [["default", "0"], *([address, "1"] for address in TRUSTED["proxy_trusted_proxies"])]


OWN_VARIABLES = (
    "$request_method", "$server_protocol", "$http_upgrade", "$http_connection", "$http_content_length",
    "$http_transfer_encoding", "$http_sec_websocket_version", "$http_sec_websocket_key", "$http_host", "$host", "$port",
    "$remote_addr", "$scheme", "$msec", "$request_time", "$upstream_addr", "$upstream_status", "$realip_remote_addr",
    "$http_x_forwarded_proto", "$http_cf_connecting_ip", "$http_x_forwarded_host",
)  # fmt: skip


def test_apps_of_one_host_share_no_nginx_variable() -> None:
    """`map` makes variables for all servers; a second app must neither redefine nor read another one's."""
    pattern = load().settings["app_name"].rule["pattern"]
    apps = ["a-b", "a_b", "ab", "a-b-connection", "a--b", "sent-http", "http", "arg"]
    made = {}
    for app in (app for app in apps if re.fullmatch(pattern, app)):
        text = proxy_conf(app_name=app, proxy_keepalive=8, **TRUSTED)
        variables = [entry[2] for entry in nginx(text) if entry[0] in ("map", "geo")]
        directives = "".join(line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("#"))
        assert set(re.findall(r"\$\w+", directives)) <= {*variables, *OWN_VARIABLES}
        made[app] = variables
    assert "a_b" not in made, "an app's name has no underscore, so that - may become one"
    every = [variable for variables in made.values() for variable in variables]
    assert len(set(every)) == len(every) >= 10
    built_in = re.compile(r"\$(arg|cookie|http|sent_http|sent_trailer|upstream|ssl|proxy|time|request)_")
    assert [variable for variable in every if built_in.match(variable)] == []


@pytest.mark.parametrize(
    "apps",
    [
        {"counter": {}},
        {"a-b": {"proxy_server_names": ["a.example"]}, "ab": {"proxy_server_names": ["b.example", "*.c.example"]}},
        {"sent-http": {"proxy_server_names": ["10.0.0.7", "fd00::7"], "proxy_body_max": "1g"}},
        {"counter": {"proxy_server_names": [f"ec2-203-0-113-25.{'x' * 63}.compute.amazonaws.com"]}},
        {"counter": {"proxy_server_names": [f"host{number}.example.org" for number in range(700)]}},
        {
            "a-b": {"proxy_server_names": ["a.example"], "proxy_keepalive": 8, **TRUSTED},
            "ab": {"proxy_server_names": ["b.example"], "proxy_keepalive": 16, **TRUSTED},
        },
    ],
    ids=["one app", "two apps", "an app called sent-http", "a long name", "many names", "all settings"],
)
def test_nginx_takes_its_files(tmp_path: Path, apps: dict[str, dict[str, Any]]) -> None:
    if NGINX is None:
        pytest.skip("needs nginx, which is not on this machine: script/bootstrap --tests")
    files = [template("proxy", "refuse-unknown-hosts.conf.j2")]
    files += [proxy_conf(app_name=app, **given) for app, given in apps.items()]
    # The distribution's nginx.conf, as far as it bears on the files; a port that needs no root, and logs of our own.
    places = "".join(f"{n}_temp_path {tmp_path}/{n};" for n in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    text = re.sub(r"\blisten (\[::\]:)?80\b", r"listen \g<1>18080", "\n".join(files))
    text = text.replace("/var/log/nginx", str(tmp_path))
    main = f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off; {places}\n{text}\n}}\n"
    (tmp_path / "nginx.conf").write_text(main)
    command: list[str | Path] = [NGINX, "-t", "-q", "-e", "stderr", "-p", tmp_path, "-c", tmp_path / "nginx.conf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# The fleet as a table


def proof(name: str, workers: int = 5, vcpus: int = 2) -> dict[str, Any]:
    plan = host(workers=workers, vcpus=vcpus)["app_probe"]["plan"]
    counts = {"planned": workers, "running": workers, "answering": workers}
    return {
        "service_proof": {"plan": plan, **counts, "live": {"release": "0123456789ab"}, "differences": []},
        "app_url": f"http://{name}/",
    }


def table(hosts: dict[str, dict[str, Any]]) -> list[str]:
    text = value(
        "service",  # any; the playbooks' folder is where it is looked for
        "lookup('ansible.builtin.template', 'templates/fleet.txt.j2')",
        ansible_search_path=[str(REPOSITORY / "playbooks")],
        ansible_play_hosts_all=list(hosts),
        hostvars=hosts,
    )
    return str(text).splitlines()


LONG = "ec2-203-0-113-25.eu-central-1.compute.amazonaws.com"


def test_table_names_releases_as_people_call_them() -> None:
    hosts = {"web1": proof("web1"), "web2": proof("web2")}
    hosts["web2"]["service_proof"]["label"] = "v1.4.2 (3f2a91c)"
    head, first, second = table(hosts)
    assert "0123456789ab v1.4.2 (3f2a91c)" in second
    assert first[head.index("URL") :] == "http://web1/"
    assert second[head.index("URL") :] == "http://web2/"


@pytest.mark.parametrize("names", [["web1"], ["web1", LONG], [LONG]])
def test_table_lines_up_whatever_hosts_are_called(names: list[str]) -> None:
    head, *rows = table({name: proof(name, workers=1024) for name in names})
    assert [row.split()[0] for row in rows] == names
    for name, row in zip(names, rows, strict=True):
        for title, cell in [("PLANNED", "1024"), ("RUNNING", "1024"), ("ANSWERING", "1024")]:
            end = head.index(title) + len(title)
            assert row[:end].endswith(f" {cell}"), f"{title} of {name}\n{head}\n{row}"
        for title, cell in [("BOUND BY", "setting"), ("RELEASE", "0123456789ab"), ("URL", f"http://{name}/")]:
            assert row[head.index(title) :].startswith(cell), f"{title} of {name}\n{head}\n{row}"


def test_table_has_what_each_host_said_of_its_states_below() -> None:
    web2 = proof("web2")
    web2["service_proof"]["findings"] = [{"severity": "hurts_at_restart", "state": "nginx disabled", "text": "so: do"}]
    assert table({"web1": proof("web1"), "web2": web2})[3:] == ["web2: hurts at the next restart: so: do"]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "not reached"),
        ({"service_proof": {"differences": ["counter is not deployed here: no such file"]}}, "counter is not deployed"),
        (
            {"service_proof": {"live": {}, "differences": ["counter has no live release"]}},
            "counter has no live release",
        ),
    ],
)
def test_table_shows_a_host_without_proof(variables: dict[str, Any], said: str) -> None:
    head, good, bad = table({"web1": proof("web1"), "web2": variables})
    assert good.split()[:5] == ["web1", "2", "5", "5", "5"]
    assert bad.split()[:5] == ["web2", "-", "-", "-", "-"]
    assert bad[head.index("URL") :].startswith(said)


def report(**state: object) -> list[str]:
    """Return the lines that a rollout ends with."""
    rows = [
        {"host": "web1", "was": "old", "now": "new", "now_named": "new v2 (3f2a91c)", "what": "switched"},
        {"host": "web2.example.org", "was": "unknown", "now": "unknown", "what": "not reached: no route to host"},
    ]
    given: dict[str, Any] = {"release": "new", "label": "new v2 (3f2a91c)", "stop": "", "failed": {}, "notes": []}
    given |= {"rows": rows, **state}
    given["rows"] = [{"was_named": row["was"], "now_named": row["now"], **row} for row in given["rows"]]
    places = [str(REPOSITORY / "playbooks/templates")]
    return template("service", "rollout.txt.j2", _rollout=given, ansible_search_path=places).splitlines()


def test_report_has_a_line_for_every_host_where_one_failed() -> None:
    lines = report(stop="1 of 2 hosts failed", failed={"web2.example.org": "not reached: no route to host"})
    assert [line.split() for line in lines[:2]] == [
        ["HOST", "WAS", "NOW", "RUNS", "WHAT", "HAPPENED"],
        ["web1", "old", "new", "v2", "(3f2a91c)", "switched"],
    ]
    assert len({line.index(text) for line, text in zip(lines, ("WAS", "old", "unknown"), strict=False)}) == 1
    assert len({line.index(text) for line, text in zip(lines, ("WHAT", "switched", "not r"), strict=False)}) == 1
    assert lines[2].endswith("not reached: no route to host")
    assert lines[3:] == ["The rollout stopped: 1 of 2 hosts failed."]


def test_report_is_short_where_all_is_well() -> None:
    rows = [
        {
            "host": f"web{number}",
            "was": "old",
            "now": "new",
            "what": "already up to date" if number == 3 else "switched",
        }
        for number in (1, 2, 3)
    ]
    assert report(rows=rows, notes=["web1: began with fewer workers"]) == [
        "Release new v2 (3f2a91c): 1 already up to date (web3)",
        "Release new v2 (3f2a91c): 2 switched (web1, web2)",
        "Note: web1: began with fewer workers",
    ]


def fleet_plan(**given: Any) -> str:
    there = {"exists": False, "instances": 0, "image": "ami-1", "policies": []}
    machine = {"vcpus": 2, "memory_mib": 2048, "architecture": "x86_64"}
    probe = {"account": "1", "zones": ["eu-1a", "eu-1b"], "machine": machine, "fleet": there}
    settings = {"aws_fleet_region": "eu-1", "aws_fleet_zones": 2, "__aws_fleet_probe": probe, **given}
    return template("aws_fleet", "plan.txt.j2", **settings)


def test_plan_of_a_fleet_names_sizes_types_and_what_costs() -> None:
    text = fleet_plan()
    assert "Fleet counter-production in eu-1, account 1" in text
    assert "3 to 9 instances in a scaling group (new; 0 run now), none before the first deploy" in text
    assert "t3.small: 2 vCPUs, 2048 MiB, x86_64; 16 GiB gp3, encrypted; IMDSv2" in text
    assert "2 public and 2 private subnets, 1 internet gateway, 1 NAT gateway(s)" in text
    assert "scaling by CPU at 60 %" in text


def test_plan_of_a_fleet_of_hosts_in_a_network_that_is_there() -> None:
    hosts = {
        "before": 4, "starts": [], "zones": {"eu-1a": 2, "eu-1b": 1}, "stopped": ["i-2"],
        "ends": [{"id": "i-4", "zone": "eu-1b", "state": "running"}],
    }  # fmt: skip
    given = {"aws_fleet_shape": "instances", "__aws_fleet_hosts": hosts, "aws_fleet_certificate": "arn:x"}
    text = fleet_plan(aws_fleet_vpc="vpc-1", **given)
    assert "\n  hosts: 3 (2 in eu-1a, 1 in eu-1b), now 4\n" in text
    assert "\n    end: i-4 (eu-1b, running), once it has left the load balancer and drained\n" in text
    assert "\n    counted, but not running: i-2; once it runs, provision again: the load balancer may not" in text
    assert "\n    a new one is t3.small: 2 vCPUs" in text
    assert "start" not in text
    new = fleet_plan(**given | {"__aws_fleet_hosts": hosts | {"before": 0, "starts": ["eu-1a", "eu-1b"], "ends": []}})
    assert "\n  hosts: 3 (2 in eu-1a, 1 in eu-1b)\n    start: 2 (eu-1a, eu-1b)\n" in new
    assert "end:" not in new
    assert "your VPC vpc-1" in text
    assert "HTTPS, for 0.0.0.0/0" in text
    assert "bucket" not in text


def test_every_template_is_rendered_here() -> None:
    """A template that nobody renders here is one that only a host can find broken."""
    tested = "".join(file.read_text() for file in Path(__file__).parent.rglob("test_*.py"))
    files = [*ROLES.glob("*/templates/*"), *REPOSITORY.glob("playbooks/templates/*")]
    assert len(files) >= 9
    rendered = {file for file in files if file.name in tested}
    included = {name for file in rendered for name in re.findall(r"{% include '([^']+)' %}", file.read_text())}
    assert [file.name for file in files if file not in rendered and file.name not in included] == []


# Who asks


@pytest.mark.parametrize("tasks", ["switch", "restore", "rollback"])
@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"service_by": "ann (GitHub run 7)"}, "ann (GitHub run 7)"),
        ({"service_by": "ann", "fleet_by": "bot"}, "ann"),
        ({"fleet_by": "release bot"}, "release bot"),
        ({}, "octocat (GitHub run 77)"),
    ],
)
def test_role_that_is_used_alone_names_who_deploys_as_the_playbooks_do(
    monkeypatch: pytest.MonkeyPatch, tasks: str, given: dict[str, str], name: str
) -> None:
    for variable, text in (("GITHUB_ACTIONS", "true"), ("GITHUB_ACTOR", "octocat"), ("GITHUB_RUN_ID", "77")):
        monkeypatch.setenv(variable, text)
    (task,) = yaml.safe_load((ROLES / "service/tasks" / f"{tasks}.yml").read_text())
    argv = task["webfleet.fastapi.host_command"]["argv"]
    words = [argv] if isinstance(argv, str) else argv[argv.index("--by") + 1 :][:1]
    live = host(live={"release": "0123456789ab"})
    (text,) = (word.strip().removeprefix("{{").removesuffix("}}") for word in words)
    by = value("service", text, release_id="0123456789ab", ansible_facts=live, **given)
    assert (by[by.index("--by") + 1] if isinstance(argv, str) else by) == name
