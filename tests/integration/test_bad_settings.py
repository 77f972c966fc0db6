"""Bad settings, given as a user gives them: refused on the controller, by name, before any host is asked.

One run of `deploy.yml` with a host for each case: every host says its own message.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
MISSING = type("Missing", (), {"__repr__": lambda _: "missing"})()
GOOD = {"app_name": "counter", "app_source": str(REPOSITORY / "app"), "app_module": "main:app"}

NAME = "1 to 31 of a-z, 0-9 and -, beginning with a letter and not ending with -"
MODULE = "MODULE:ATTRIBUTE, for example main:app"
SOURCE = "a folder with uv.lock, pyproject.toml or requirements.txt; git+URL@REF; a wheel; or an artifact built before"
WORKERS = "auto, or a whole number from 1 to 1024"
PATH = "an absolute path"
LOCK = "the path of a requirements file with hashes or of a pylock.toml, or an empty text"
ENV = "a dictionary of names (letters, digits and _, not beginning with a digit) and texts or numbers"
BATCHES = "a list of numbers of hosts and percentages, for example [1, 25%, 100%]"
HOSTS = "a list of one or more host names, addresses, or names like *.example.org"

#: variable, its value, how the message shows the value, what the message says is allowed
CASES: list[tuple[str, Any, str, str]] = [
    # Missing
    ("app_name", MISSING, "is not set", NAME),
    ("app_source", MISSING, "is not set", SOURCE),
    ("app_module", MISSING, "is not set", MODULE),
    ("app_name", "", 'is ""', NAME),
    ("app_source", "", 'is ""', SOURCE),
    ("app_module", "", 'is ""', MODULE),
    ("app_name", None, "is null", NAME),
    ("app_source", None, "is null", SOURCE),
    ("service_workers", "", 'is ""', WORKERS),
    ("app_source", "{{ nobody_set_this }}", "cannot be evaluated ('nobody_set_this' is undefined)", SOURCE),
    # A name that cannot be a unit's, a user's and a folder's
    ("app_name", "My App", 'is "My App"', NAME),
    ("app_name", "web@1", 'is "web@1"', NAME),
    ("app_name", "-x", 'is "-x"', NAME),
    ("app_name", "x-", 'is "x-"', NAME),
    ("app_name", "../etc", 'is "../etc"', NAME),
    ("app_name", "web\n", r'is "web\n"', NAME),
    ("app_name", "a" * 40, f'is "{"a" * 40}"', NAME),
    ("app_name", 42, "is 42", NAME),
    ("app_name", "root", 'is "root"', f"{NAME} (it names units, a user and a folder), and no name of the system's own"),
    ("app_name", "user", 'is "user"', f"{NAME} (it names units, a user and a folder), and no name of the system's own"),
    # Wrong form
    ("app_module", "main", 'is "main"', MODULE),
    ("app_module", "main:app:x", 'is "main:app:x"', MODULE),
    ("app_module", "ma in:app", 'is "ma in:app"', MODULE),
    ("app_module", "main:app --reload", 'is "main:app --reload"', MODULE),
    ("service_python", "python3", 'is "python3"', PATH),
    ("service_python", "/usr/bin/python3 -X dev", 'is "/usr/bin/python3 -X dev"', PATH),
    ("service_user", "root", 'is "root"', "a system account's name of a-z, 0-9, _ and -, not root"),
    ("service_user", "web user", 'is "web user"', "a system account's name"),
    ("service_proxy_group", "", 'is ""', "a system account's name"),
    ("service_proxy_group", "root", 'is "root"', "a system account's name"),
    ("service_health_path", "health", 'is "health"', "a path that begins with / and has no blanks"),
    ("service_health_path", "/hea lth", 'is "/hea lth"', "a path that begins with / and has no blanks"),
    ("service_health_host", "a host", 'is "a host"', "a host name"),
    ("proxy_server_names", ["good.example", "bad.example; }"], 'has "bad.example; }"', HOSTS),
    ("proxy_server_names", ["*"], 'has "*"', HOSTS),
    ("proxy_body_max", "10 megabytes", 'is "10 megabytes"', "a number with k, m or g behind it, for example 10m"),
    ("proxy_body_max", "-1m", 'is "-1m"', "a number with k, m or g behind it, for example 10m"),
    ("release_python", "python3", 'is "python3"', PATH),
    ("release_lock", ["lock"], 'is ["lock"]', LOCK),
    ("release_cache", ["cache"], 'is ["cache"]', "a path, or an empty text"),
    ("release_uv", False, "is false", "a path, or an empty text"),
    ("release_index_url", "index.example", 'is "index.example"', "a URL that begins with https:// or http://"),
    # Out of range
    ("service_workers", 0, "is 0", WORKERS),
    ("service_workers", -1, "is -1", WORKERS),
    ("service_workers", 10000, "is 10000", WORKERS),
    ("service_workers", 2.5, "is 2.5", WORKERS),
    ("service_workers_max", 0, "is 0", "a whole number from 1 to 1024"),
    ("service_workers_max", 1025, "is 1025", "a whole number from 1 to 1024"),
    ("service_worker_memory_mib", 0, "is 0", "auto, or a whole number of MiB from 1 to 1048576"),
    ("service_worker_memory_mib", 1048577, "is 1048577", "auto, or a whole number of MiB from 1 to 1048576"),
    ("service_even_bursts", "perhaps", 'is "perhaps"', "true or false"),
    (
        "service_worker_memory_max_mib",
        "auto",
        'is "auto"',
        "a whole number of MiB from 0 to 1048576, with service_engine",
    ),
    ("service_reserve_memory_mib", -5, "is -5", "a whole number of MiB from 0 to 1048576"),
    ("service_reserve_memory_mib", 1048577, "is 1048577", "a whole number of MiB from 0 to 1048576"),
    ("service_health_timeout", 0, "is 0", "a whole number of seconds from 1 to 300"),
    ("service_health_timeout", 301, "is 301", "a whole number of seconds from 1 to 300"),
    ("service_health_successes", 0, "is 0", "a whole number from 1 to 100"),
    ("service_health_successes", 101, "is 101", "a whole number from 1 to 100"),
    ("service_boot_timeout", -1, "is -1", "a whole number of seconds from 1 to 3600"),
    ("service_boot_timeout", 0, "is 0", "a whole number of seconds from 1 to 3600"),
    ("service_boot_timeout", 3601, "is 3601", "a whole number of seconds from 1 to 3600"),
    ("service_drain_timeout", 86400, "is 86400", "a whole number of seconds from 0 to 3600"),
    ("service_drain_timeout", -1, "is -1", "a whole number of seconds from 0 to 3600"),
    ("service_worker_timeout", 4, "is 4", "a whole number of seconds from 5 to 3600"),
    ("service_worker_timeout", 3601, "is 3601", "a whole number of seconds from 5 to 3600"),
    ("proxy_read_timeout", 0, "is 0", "a whole number of seconds from 1 to 86400"),
    ("proxy_read_timeout", 86401, "is 86401", "a whole number of seconds from 1 to 86400"),
    (
        "proxy_trusted_proxies",
        ["10.0.0.0/33"],
        'has "10.0.0.0/33"',
        "a list of addresses and networks, as 10.0.0.7 and",
    ),
    ("proxy_trusted_proxies", ["lb.example"], 'has "lb.example"', "a list of addresses and networks, as 10.0.0.7 and"),
    ("proxy_keepalive", 1025, "is 1025", "a whole number of connections from 0 to 1024, with service_engine gunicorn"),
    # Wrong type
    ("service_workers", "many", 'is "many"', WORKERS),
    ("service_workers", True, "is true", WORKERS),
    ("service_workers", [2], "is [2]", WORKERS),
    ("service_workers_max", "x", 'is "x"', "a whole number from 1 to 1024"),
    ("service_worker_memory_mib", "lots", 'is "lots"', "auto, or a whole number of MiB from 1 to 1048576"),
    ("service_boot_timeout", "soon", 'is "soon"', "a whole number of seconds from 1 to 3600"),
    ("service_drain_timeout", "30s", 'is "30s"', "a whole number of seconds from 0 to 3600"),
    ("service_deny_write_execute", "maybe", 'is "maybe"', "true or false"),
    ("service_writable_paths", "/var/lib/counter", 'is "/var/lib/counter"', "a list of absolute paths"),
    ("service_writable_paths", ["data", "/"], 'has "data", "/"', "a list of absolute paths"),
    ("proxy_server_names", "abc", 'is "abc"', HOSTS),
    ("proxy_server_names", [], "is []", HOSTS),
    ("release_exclude", "*.md", 'is "*.md"', "a list of patterns, for example tests or *.md"),
    ("release_exclude", ["tests", ""], 'has ""', "a list of patterns"),
    ("release_exclude", {"tests": True}, 'is {"tests": true}', "a list of patterns"),
    ("app_source", ["app"], 'is ["app"]', SOURCE),
    # The rollout
    ("fleet_batches", 1, "is 1", BATCHES),
    ("fleet_batches", "25%", 'is "25%"', BATCHES),
    ("fleet_batches", [1, "half"], 'has "half"', BATCHES),
    ("fleet_batches", [0, "101%"], 'has 0, "101%"', BATCHES),
    ("fleet_max_failures", -1, "is -1", "a whole number of hosts from 0 to 100000"),
    ("fleet_max_failures", "10%", 'is "10%"', "a whole number of hosts from 0 to 100000"),
    ("fleet_restore", "sometimes", 'is "sometimes"', "true or false"),
    ("fleet_migrate", ["alembic", "upgrade"], 'is ["alembic", "upgrade"]', "a shell command"),
    # Unknown choice
    ("service_engine", "apache", 'is "apache"', "gunicorn"),
    # Secrets: the name is shown, never the value
    ("service_env", "TOKEN=hush", "is no dictionary (its value may be a secret and is not shown)", ENV),
    ("service_env", ["TOKEN=hush"], "is no dictionary (its value may be a secret and is not shown)", ENV),
    ("service_env", {"2TOKEN": "hush"}, 'has "2TOKEN"', ENV),
    ("service_env", {"TOKEN=hush": ""}, 'has "TOKEN"', ENV),
    ("service_env", {"TOKEN": ["hush"]}, 'has "TOKEN"', ENV),
    ("app_source", "git+https://me:hush@example.org/a\nb", r'is "git+https://***@example.org/a\nb"', SOURCE),
]


class Listener(threading.Thread):
    """Stands where every host's SSH would be, and counts who comes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.visits = 0

    def run(self) -> None:
        while True:
            try:
                visitor, _ = self.socket.accept()
            except OSError:
                return
            self.visits += 1
            visitor.close()


class Deploys:
    """Runs of playbooks against hosts that are not to be asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listener = Listener()
        self.listener.start()

    def run(self, playbook: str, hosts: dict[str, dict[str, Any]], *arguments: str) -> subprocess.CompletedProcess[str]:
        everywhere = {"ansible_host": "127.0.0.1", "ansible_port": self.listener.port}
        inventory = self.folder / "hosts.yml"  # JSON is YAML
        inventory.write_text(json.dumps({"app": {"vars": everywhere, "hosts": hosts}}))
        return subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, playbook, *arguments],
            cwd=REPOSITORY,
            env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip


@pytest.fixture(scope="module")
def deploys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deploys]:
    made = Deploys(tmp_path_factory.mktemp("inventory"))
    yield made
    made.listener.socket.close()


@pytest.fixture(scope="module")
def refusals(deploys: Deploys) -> subprocess.CompletedProcess[str]:
    hosts = {}
    for number, (variable, value, _, _) in enumerate(CASES):
        settings = {**GOOD, variable: value}
        hosts[f"case{number}"] = {name: given for name, given in settings.items() if given is not MISSING}
    done = deploys.run("deploy.yml", hosts)
    assert deploys.listener.visits == 0
    return done


def message_of(host: str, output: str) -> str:
    """What the play says of one host."""
    found = re.search(rf"^fatal: \[{host}\]: FAILED! =>(.*?)(?=^\S)", output, re.MULTILINE | re.DOTALL)
    assert found, output
    return found[1]


@pytest.mark.fault(46)
@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{c[0]}-{str(c[1])[:20]!r}" for c in CASES])
def test_bad_setting_is_refused_before_any_host_is_asked(
    refusals: subprocess.CompletedProcess[str], number: int
) -> None:
    variable, _, shown, allowed = CASES[number]
    done = refusals
    said = message_of(f"case{number}", done.stdout)
    assert f"{variable} {shown}; allowed: {allowed}" in said
    assert said.count("; allowed: ") == 1, "one bad setting, one complaint"
    assert re.search(rf"^case{number} +: ok=\d+ +changed=0 +unreachable=0 +failed=1 ", done.stdout, re.MULTILINE)
    assert done.returncode != 0
    assert "hush" not in done.stdout + done.stderr


@pytest.mark.fault(46)
def test_one_bad_host_keeps_all_others_from_being_asked(deploys: Deploys) -> None:
    before = deploys.listener.visits
    done = deploys.run("deploy.yml", {"good": GOOD, "bad": {**GOOD, "proxy_read_timeout": 0}})
    assert done.returncode != 0
    assert deploys.listener.visits == before
    assert re.findall(r"^(\w+) +: .*changed=(\d+) +unreachable=(\d+)", done.stdout, re.MULTILINE) == [
        ("bad", "0", "0"),
        ("good", "0", "0"),
        ("localhost", "0", "0"),
    ]


def test_good_settings_lead_to_the_host(deploys: Deploys) -> None:
    """Texts from the command line count as numbers; and had a host been asked above, it would have been seen."""
    before = deploys.listener.visits
    extra = ["-e", "service_workers=4 service_drain_timeout=30 service_deny_write_execute=no proxy_body_max=1024"]
    done = deploys.run("deploy.yml", {"good": {**GOOD, "ansible_ssh_retries": 0}}, *extra)
    assert "UNREACHABLE" in done.stdout, done.stdout
    assert deploys.listener.visits > before


def test_going_back_looks_at_few_settings(deploys: Deploys) -> None:
    """A wrong setting of the deploy that is to be undone must not keep anybody from undoing it."""
    bad = deploys.run("playbooks/rollback.yml", {"web": {**GOOD, "rollback_to": "../x"}})
    assert 'rollback_to is "../x"; allowed: a release\'s id' in bad.stdout, bad.stdout
    before = deploys.listener.visits
    wrong = {**GOOD, "app_module": "", "service_workers": "many", "ansible_ssh_retries": 0}
    done = deploys.run("playbooks/rollback.yml", {"web": wrong})
    assert deploys.listener.visits > before
    assert "web: not reached: " in done.stdout
    assert done.returncode != 0


MISSPELT = {"service_worker": 2, "service_drain_timout": 600, "proxy_server_name": "hush", "app_modul": "hush"}
MEANT = {
    "app_modul": "app_module",
    "proxy_server_name": "proxy_server_names",
    "service_drain_timout": "service_drain_timeout",
    "service_worker": "service_workers",
}


OWN = {"service_env": {"DB": "{{ app_db }}"}, "app_db": "x"}  # a variable of the user's own that a setting names


@pytest.mark.fault(55)
def test_misspelt_settings_are_refused_on_every_host_before_any_is_asked(deploys: Deploys) -> None:
    before = deploys.listener.visits
    hosts = {"one": {**GOOD, **OWN, **MISSPELT}, "two": {**GOOD, **OWN, "service_worker": 3, "app_version": "hush"}}
    done = deploys.run("playbooks/deploy.yml", hosts, "-e", '{"fleet_own_variables": ["app_version"]}')
    lines = [f"unknown setting {name}; did you mean {meant}?" for name, meant in MEANT.items()]
    assert re.findall("unknown setting .*", message_of("one", done.stdout))[:4] == lines
    assert re.findall("unknown setting .*", message_of("two", done.stdout))[0] == lines[-1]
    assert "rename it, use it in the value of another one, or list it in fleet_own_variables" in done.stdout
    assert "app_db" not in done.stdout
    assert "hush" not in done.stdout + done.stderr
    assert done.returncode != 0
    assert deploys.listener.visits == before


@pytest.mark.fault(55)
@pytest.mark.parametrize("role", ["proxy", "release", "service"])
def test_misspelt_setting_of_a_role_that_is_used_alone_is_refused(deploys: Deploys, role: str, tmp_path: Path) -> None:
    """As the role's README shows it, without the playbooks' check."""
    text = (REPOSITORY / "roles" / role / "README.md").read_text()
    (example,) = re.findall(r"```yaml\n(- hosts: app\n.*?)```", text, re.DOTALL)
    playbook, before = tmp_path / "site.yml", deploys.listener.visits
    playbook.write_text(example)
    done = deploys.run(str(playbook), {"one": GOOD}, "-e", "proxy_server_name=x service_worker=2 vault_database_url=x")
    assert "unknown setting proxy_server_name; did you mean proxy_server_names?" in done.stdout, done.stdout
    assert "unknown setting service_worker; did you mean service_workers?" in done.stdout
    assert deploys.listener.visits == before


@pytest.mark.fault(55)
@pytest.mark.parametrize("playbook", ["rollback", "verify", "tune"])
def test_names_that_a_playbook_does_not_use_keep_it_from_nothing(deploys: Deploys, playbook: str) -> None:
    """A fleet goes back at three in the morning whatever else its inventory holds: it says so, and goes on."""
    before = deploys.listener.visits
    one = {**GOOD, **OWN, **MISSPELT, "app_version": "hush", "ansible_ssh_retries": 0}
    done = deploys.run(f"playbooks/{playbook}.yml", {"one": one}, "-e", "tune_host=one")
    assert deploys.listener.visits > before, done.stdout
    (line,) = {text for text in re.sub(r"\s+", " ", done.stderr).split("[WARNING]: ") if "no settings" in text}
    assert line.startswith("no settings, ignored here, and refused by deploy (docs/settings.md): ")
    assert "app_modul (app_module?), app_version, proxy_server_name (proxy_server_names?)" in line
    assert "hush" not in done.stdout + done.stderr


@pytest.mark.fault(55)
@pytest.mark.parametrize(
    ("playbook", "name", "meant"),
    [
        ("rollback", "rolback_to", "rollback_to"),
        ("rollback", "rollback_too", "rollback_to"),
        ("rollback", "app_nmae", "app_name"),
        ("rollback", "service_fleets", "service_fleet"),
        ("verify", "verify_relase", "verify_release"),
        ("tune", "tune_round", "tune_rounds"),
        ("provision", "aws_fleet_instance_typ", "aws_fleet_instance_type"),
        ("destroy", "aws_fleet_enviroment", "aws_fleet_environment"),
    ],
)
def test_names_like_those_that_a_playbook_goes_by_are_refused_before_hosts_or_aws_are_asked(
    deploys: Deploys, playbook: str, name: str, meant: str
) -> None:
    before = deploys.listener.visits
    more = {**GOOD, "aws_fleet_region": "eu-central-1"} if name.startswith("aws_") else {"tune_host": "one"}
    done = deploys.run(f"playbooks/{playbook}.yml", {"one": GOOD}, "-e", json.dumps({**more, name: "x"}))
    assert f"unknown setting {name}; did you mean {meant}?" in done.stdout
    assert done.returncode != 0
    assert deploys.listener.visits == before


TUNE = {
    "tune_load": (["http://web1/"], 'has "http://web1/"; allowed: a list of paths that begin with /'),
    "tune_workers": ([0, 1025, 2], "has 0, 1025; allowed: a list of whole numbers from 1 to 1024"),
    "tune_rounds": (0, "is 0; allowed: a whole number from 1 to 100"),
    "tune_seconds": ("x", 'is "x"; allowed: a whole number of seconds from 1 to 600'),
    "tune_connections": (-1, "is -1; allowed: a whole number of requests from 0 to 1000"),
    "tune_while_serving": ("x", 'is "x"; allowed: true or false'),
    "tune_report": (["x"], 'is ["x"]; allowed: a folder on the controller'),
    "tune_write": ("../x", 'is "../x"; allowed: a group of the inventory'),
}


def test_measuring_with_bad_settings_is_refused_before_any_host_is_asked(deploys: Deploys) -> None:
    before = deploys.listener.visits
    extra = {"tune_host": "web1", **{name: value for name, (value, _) in TUNE.items()}}
    done = deploys.run("playbooks/tune.yml", {"web1": GOOD, "web2": GOOD}, "-e", json.dumps(extra))
    said = message_of("web1", done.stdout)
    for name, (_, message) in TUNE.items():
        assert f"{name} {message}" in said
    assert done.returncode != 0
    assert deploys.listener.visits == before


@pytest.mark.parametrize("extra", ["tune_rounds=5", "tune_host=app", "tune_host=web3"])
def test_measuring_wants_one_host_by_its_name(deploys: Deploys, extra: str) -> None:
    before = deploys.listener.visits
    done = deploys.run("playbooks/tune.yml", {"web1": GOOD, "web2": GOOD}, "-e", extra)
    assert done.returncode != 0
    assert "-e tune_host=HOST has to name one host of the group app" in done.stdout + done.stderr
    assert deploys.listener.visits == before


def test_misspelt_name_of_the_one_host_is_said_to_be_that(deploys: Deploys) -> None:
    done = deploys.run("playbooks/tune.yml", {"web1": GOOD}, "-e", "tune_hots=web1")
    assert "unknown setting tune_hots; did you mean tune_host?" in done.stdout + done.stderr
    assert "has to name one host" not in done.stdout + done.stderr


@pytest.mark.parametrize("playbook", ["deploy.yml", "playbooks/verify.yml", "playbooks/rollback.yml"])
def test_inventory_without_hosts_is_no_success(tmp_path: Path, playbook: str) -> None:
    (tmp_path / "hosts.yml").write_text("web: {hosts: {web1: {ansible_connection: local}}}\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", tmp_path / "hosts.yml", REPOSITORY / playbook],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "the inventory has no host in the group app" in done.stderr + done.stdout
