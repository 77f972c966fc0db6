"""What can be read of an app's secrets: in all that Ansible prints, in its cache of facts, in a host's records."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleettest import REPOSITORY, App, playbook, playbook_command, playbook_environment

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://web1"]
pytestmark = pytest.mark.usefixtures("sample_again")

QUICK = {"service_watch_seconds": 3, "service_drain_timeout": 5, "service_boot_timeout": 30}
#: The live release's secrets, and those that a deploy brings.
OLD = {"DB": "postgresql://shop:old-canary%2Fword@db.internal/shop", "API_TOKEN": "old-t0ken"}
NEW = {
    "DB": "postgresql://shop:new-canary%2Fword@db.internal/shop",
    "API_TOKEN": "new-t0ken",
    "TLS_KEY": "-----BEGIN KEY-----\nbmV3LWNhbmFyeS1rZXk0MjQy\n-----END KEY-----\n",
}
TRIVIAL = {"LOG_LEVEL": "debug", "WORKERS_TOKEN_TTL": "3600"}
READ = "import base64, os, sys, threading, time\nDB = os.environ['DB']\n"
HEALTH = "async def health() -> dict[str, str | int]:\n"


def changed_app(folder: Path, more: str, health: str = "") -> str:
    """Return a copy of the sample app with some more code, and some in its health route."""
    copy = Path(shutil.copytree(
        REPOSITORY / "app", folder / "app", ignore=shutil.ignore_patterns(".venv", "__pycache__", ".*cache")
    ))  # fmt: skip
    text = (copy / "main.py").read_text()
    assert text.count(HEALTH) == 1
    (copy / "main.py").write_text(text.replace(HEALTH, HEALTH + health) + f"\n{READ}{more}\n")
    return str(copy)


def traces(*secrets: str) -> set[str]:
    """Return what would show a secret: itself, its password, and both as base64, in a URL and in hexadecimal digits."""
    found = set()
    for secret in secrets:
        parts = {secret, *secret.strip().splitlines()} - {"-----BEGIN KEY-----", "-----END KEY-----"}
        if login := re.search(r"://[^:]*:([^@]*)@", secret):
            parts |= {login[1], urllib.parse.unquote(login[1])}
        for part in parts:
            raw = part.encode()
            found |= {part, raw.hex(), repr(part)[1:-1], urllib.parse.quote(part, safe="")}
            found |= {base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()}
    return found


def shown(text: str, *secrets: str) -> list[str]:
    """Return which traces of secrets a text has, each with what stands around it."""
    found = [(trace, text.find(trace)) for trace in traces(*secrets) if trace in text]
    return [text[max(0, at - 60) : at + len(trace) + 20] for trace, at in found]


def assert_kept(app: App, printed: str) -> None:
    """No trace of any secret is in what Ansible printed, nor in what the host has written down of switches."""
    assert shown(printed, *OLD.values(), *NEW.values()) == []
    written = app.host.check_output(
        f"cd /srv/{app.name} && cat history.jsonl bad.json slots/*.json 2>/dev/null; "
        f"cat /etc/{app.name}/releases/*/record.json 2>/dev/null; "
        f"journalctl --output=cat -t {app.name}-release"
    )
    assert shown(written, *OLD.values(), *NEW.values()) == []


def deploy(*arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    return playbook("deploy.yml", "--limit", "web1", "-vvv", "--diff", *arguments, variables={**QUICK, **variables})


@pytest.fixture(scope="module", autouse=True)
def live(app: App) -> Iterator[str]:
    """The sample app with the old secrets."""
    done = deploy(service_env=OLD)
    assert done.returncode == 0, done.stdout[-3000:]
    assert_kept(app, done.stdout + done.stderr)
    yield str(app.live["release"])
    app.host.run(f"rm -f /srv/{app.name}/bad.json")


PRINT = "print('db', DB, repr(DB), base64.b64encode(DB.encode()).decode(), os.environ['TLS_KEY'], flush=True)"
OLD_TOO = f"print({OLD['DB']!r}, {OLD['API_TOKEN']!r}, flush=True)"  # as an old secret may stand in data
#: What the app does with its secrets, and the words that must stay.
REFUSED: dict[str, tuple[str, str, list[str]]] = {
    "import": (
        f"{OLD_TOO}\nraise RuntimeError(f'no connection to {{DB}}')",
        "",
        ["RuntimeError: no connection to ***"],
    ),
    "health": (
        "",
        "    raise RuntimeError(f\"no connection to {os.environ['DB']} with {os.environ['API_TOKEN']}\")\n",
        ["RuntimeError: no connection to *** with ***"],
    ),
    "loop": (
        f"def tell():\n    while True:\n        {PRINT}\n        time.sleep(0.05)\n"
        "threading.Thread(target=tell, daemon=True).start()\ntime.sleep(1)\nos._exit(3)",
        "",
        ["db *** '***' *** ***"],
    ),
    "cut and wrapped": (
        "raise ValueError(f\"input_value='{DB[:24]}...{DB[-24:]}'\\n{DB[:30]}\\n{DB[30:]} is no address\")",
        "",
        ["ValueError: input_value='***'", "*** is no address"],
    ),
}  # fmt: skip


@pytest.mark.fault(51)
@pytest.mark.parametrize("how", REFUSED)
def test_release_that_prints_a_secret_is_refused_without_it(app: App, live: str, tmp_path: Path, how: str) -> None:
    more, health, words = REFUSED[how]
    done = deploy(app_source=changed_app(tmp_path, more, health), service_env=NEW | TRIVIAL)
    assert done.returncode != 0
    assert_kept(app, done.stdout + done.stderr)
    said = done.stdout.partition("did not take release")[2].partition("PLAY [")[0]
    assert [text for text in [*words, f"Release {live} serves on as before"] if text not in said] == [], said
    assert "*** may stand for a value of service_env. The log as it was printed is in the journal of web1" in said
    journal = app.host.check_output(f"journalctl --output=cat --since=-2min -u '{app.name}@*'")
    assert NEW["DB"] in journal or how == "cut and wrapped", "the message says that it is there"


@pytest.mark.fault(51)
def test_release_that_goes_back_for_what_it_prints_leaves_nothing_in_the_records(
    app: App, live: str, tmp_path: Path
) -> None:
    """It is well until it has traffic; why it was not is kept on the host."""
    late = f"""
def fall():
    def serves():
        slot = os.readlink("/srv/{app.name}/live.sock").rpartition("/")[2].partition(".")[0]
        return os.readlink("/srv/{app.name}/slots/" + slot).endswith(os.environ["FLEET_RELEASE"])
    while not serves():
        time.sleep(0.1)
    time.sleep(0.5)
    print("lost", DB, flush=True)
    os.kill(os.getppid(), 9)
threading.Thread(target=fall, daemon=True).start()
"""
    done = deploy(app_source=changed_app(tmp_path, late), service_env=NEW | TRIVIAL)
    assert done.returncode != 0
    assert_kept(app, done.stdout + done.stderr)
    assert "lost ***" in done.stdout, done.stdout[-3000:]
    assert app.live["release"] == live


@pytest.mark.fault(51)
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("fleet_migrate", "the migration failed: exit code 3"),
        ("service_hook_before", "service_hook_before failed with exit code 3: migrating *** ***"),
    ],
)
def test_command_that_prints_a_secret_and_fails_is_shown_without_it(
    app: App, live: str, tmp_path: Path, setting: str, said: str
) -> None:
    """Even one that has a secret among its own words is in no command line, no diff and no log of sudo."""
    command = f"echo migrating $DB '{NEW['API_TOKEN']}'; exit 3"
    source = changed_app(tmp_path, f"# {setting}")
    began = app.host.check_output("journalctl --quiet --lines=0 --show-cursor").partition(": ")[2].strip()
    done = deploy(app_source=source, service_env=NEW | TRIVIAL, **{setting: command})
    assert done.returncode != 0
    assert_kept(app, done.stdout + done.stderr)
    assert said in done.stdout
    assert "migrating *** ***" in done.stdout
    logged = app.host.check_output(f"journalctl --output=cat --after-cursor='{began}' -t sudo -t python3 || true")
    assert shown(logged, *NEW.values()) == []
    assert app.live["release"] == live


RUN = """
- hosts: app
  gather_facts: false
  become: true
  tasks:
    - ansible.builtin.include_role: {name: service, tasks_from: run, rolespec_validate: false}
      vars:
        release_id: RELEASE
        service_command: |
          echo "got $DB"
          echo "got '$API_TOKEN'" >&2; exit 4
    - ansible.builtin.debug: {msg: "rc {{ service_run.rc }}: {{ service_run.stdout }}"}
"""


@pytest.mark.fault(51)
def test_command_by_hand_is_shown_without_secrets_unless_they_are_asked_for(
    app: App, live: str, tmp_path: Path
) -> None:
    (tmp_path / "run.yml").write_text(RUN.replace("RELEASE", live))
    command = playbook_command(tmp_path / "run.yml", "--limit", "web1", "-vvv")
    done = subprocess.run(
        command, env=playbook_environment(REPOSITORY), cwd=REPOSITORY, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert_kept(app, done.stdout + done.stderr)
    assert "rc 4: " in done.stdout
    assert re.search(r"got \*\*\*\W+got '+\*\*\*", done.stdout), done.stdout[-2000:]
    # What a refused deploy wants is in another file.
    wanted = app.host.check_output(f"cat /etc/{app.name}/environment.{app.slot}")
    database = str(re.search('DB="(.*)"', wanted)[1])  # type: ignore[index]
    by_hand = f"{app.name}-release run {live} {{}} -- sh -c 'echo \"got $DB\"'"
    assert app.host.check_output(by_hand.format("")) == "got ***"
    assert app.host.check_output(by_hand.format("--show-secrets")) == f"got {database}"


# --- hashes ---------------------------------------------------------------------------------------

WEAK = "4711-0815"
ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "blake2b")


def hashes(text: bytes) -> set[str]:
    """Return beginnings of every plain hash of a text, by which it could be searched for."""
    found = set()
    for algorithm in ALGORITHMS:
        digest = hashlib.new(algorithm, text)
        found |= {digest.hexdigest()[:12], base64.b64encode(digest.digest()).decode()[:12]}
    return found


def everything(folder: Path, *runs: subprocess.CompletedProcess[str]) -> str:
    """Return all that Ansible has printed and all that it has kept of facts."""
    kept = [path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()]
    return "\n".join([*kept, *(done.stdout + done.stderr for done in runs)])


@pytest.mark.fault(51)
def test_no_plain_hash_of_a_secret_leaves_the_host(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "facts"
    monkeypatch.setenv("ANSIBLE_CACHE_PLUGIN", "jsonfile")
    monkeypatch.setenv("ANSIBLE_CACHE_PLUGIN_CONNECTION", str(cache))
    runs = [deploy(service_env={"PIN": WEAK})]
    environment = app.host.check_output(f"cat /etc/{app.name}/environment").encode() + b"\n"
    assert WEAK.encode() in environment
    runs += [
        deploy(service_env={"PIN": WEAK}),
        deploy("--check", service_env={"PIN": f"{WEAK}-2"}),
        deploy(service_env={"PIN": f"{WEAK}-2"}),
        playbook("playbooks/verify.yml", "--limit", "web1", "-vvv"),
        playbook("playbooks/rollback.yml", "--limit", "web1", "-vvv", "--check"),
    ]
    assert [done.returncode for done in runs[:5]] == [0] * 5, runs[-2].stdout[-2000:]
    said = everything(cache, *runs)
    assert '"app_probe"' in said, "there is a cache of facts"
    changed = environment.replace(WEAK.encode(), f"{WEAK}-2".encode())
    units = app.host.check_output(f"sha256sum /etc/systemd/system/{app.name}@.service").split()[0]
    assert units in said, "other files are told by their hashes"
    texts = [text for whole in (environment, changed) for text in (whole, whole.rstrip(), whole.splitlines()[-1])]
    texts += [WEAK.encode(), f"{WEAK}-2".encode()]
    assert {text: trace for text in texts for trace in hashes(text) if trace in said} == {}
    assert shown(said, WEAK) == []
    key = app.host.check_output(f"base64 -w 0 /etc/{app.name}/digest.key")
    assert (key in said, base64.b64decode(key).hex() in said) == (False, False)
    assert app.host.check_output(f"stat -c '%a %U %G %s' /etc/{app.name}/digest.key") == "600 root root 32"


def test_two_hosts_with_the_same_secret_have_nothing_in_common_that_shows_it(app: App) -> None:
    same = {"service_env": {"PIN": WEAK}, "service_workers": 2, **QUICK}
    done = playbook("deploy.yml", "--limit", "web2,web3", variables=same)
    assert done.returncode == 0, done.stdout
    again = playbook("deploy.yml", "--limit", "web2,web3", "-vvv", variables=same)
    assert set(re.findall(r"changed=(\d+)", again.stdout)) == {"0"}
    # Molecule has Ansible write what -vvv says to stderr.
    prints = set(re.findall(r'"fingerprint": "(\w+)-(\w+)"', again.stdout + again.stderr))
    assert len({units for units, _ in prints}) == 1, prints
    assert len({secret for _, secret in prints}) == 2, prints
    # One round trip for each host, the read; nothing else is asked.
    assert len(re.findall(r"SSH: EXEC", again.stdout + again.stderr)) == 2
    done = playbook("deploy.yml", "--limit", "web2,web3")
    assert done.returncode == 0, done.stdout


def test_secret_that_was_changed_reaches_the_app_and_a_deploy_that_changes_nothing_asks_once(app: App) -> None:
    for pin in ("1111-aaaa", "2222-bbbb"):
        done = deploy(service_env={"PIN": pin})
        assert done.returncode == 0, done.stdout[-3000:]
        assert f"PIN={pin}" in app.host.check_output(f"tr '\\0' '\\n' < /proc/{app.master}/environ")
        before = (app.master, app.workers)
        done = deploy(service_env={"PIN": pin})
        assert re.findall(r"web1 +: ok=\d+ +changed=(\d+)", done.stdout) == ["0"]
        assert (app.master, app.workers) == before
        assert len(re.findall(r"SSH: EXEC", done.stdout + done.stderr)) == 1
    rc, said = app.command("verify")
    assert (rc, said["differences"], "files" in said["live"]) == (0, [], False)


@pytest.mark.parametrize("what", ["environment", "environment.SLOT", "digest.key", "hooks.json"])
def test_secret_file_that_was_changed_or_lost_is_put_right(app: App, what: str) -> None:
    """A key that is lost is made anew; nobody knows then what the workers run with, so there are new ones."""
    wanted = {"service_env": {"PIN": "3333-cccc"}, "service_hook_after": "true"}
    assert deploy(**wanted).returncode == 0
    path = f"/etc/{app.name}/{what.replace('SLOT', app.slot)}"
    before, content = app.master, app.host.check_output(f"sha256sum {path}")
    app.host.check_output(f"rm {path}" if what in ("digest.key", "hooks.json") else f"echo A=1 >> {path}")
    done = deploy(**wanted)
    assert done.returncode == 0, done.stdout[-3000:]
    path = f"/etc/{app.name}/{what.replace('SLOT', app.slot)}"
    assert app.host.check_output(f"stat -c %a {path}") == "600"
    assert (app.host.check_output(f"sha256sum {path}").split()[0] == content.split()[0]) is (what != "digest.key")
    assert (app.master == before) is (what in ("environment", "hooks.json"))
    assert app.command("verify")[1]["differences"] == []


def test_going_back_brings_the_older_secret_and_the_next_deploy_the_newer_one(app: App, tmp_path: Path) -> None:
    assert deploy(service_env={"PIN": "4444-dddd"}).returncode == 0
    source = changed_app(tmp_path, "# newer")
    assert deploy(service_env={"PIN": "5555-eeee", "DB": "x"}, app_source=source).returncode == 0
    rc, said = app.command("rollback")
    assert rc == 0, said

    def pin() -> str:
        return str(app.host.check_output(f"tr '\\0' '\\n' < /proc/{app.master}/environ | grep ^PIN="))

    assert pin() == "PIN=4444-dddd"
    assert app.command("verify")[1]["differences"] == [], "on purpose"
    # A log of that release may hold the secret of then: it is masked as long as it is kept.
    assert app.host.check_output(f"{app.name}-release run {app.live['release']} -- echo 4444-dddd") == "***"
    assert deploy(service_env={"PIN": "5555-eeee"}).returncode == 0
    assert pin() == "PIN=5555-eeee"


# --- names ----------------------------------------------------------------------------------------


def tree(app: App) -> str:
    """Return a hash of what a deploy could change: names, owners, modes, times."""
    places = "/etc /srv /usr/local /var/lib /run/systemd/system"
    found: str = app.host.check_output(
        f"(find {places} -xdev -printf '%p %M %u %g %s %T@ %l\\n'; getent passwd; getent group) | sort | sha256sum"
    )
    return found


UNIT = "/usr/lib/systemd/system/cron.service"
TAKEN = {
    "backup": "the account backup (number 34, home /var/backups)",
    "mail": "the account mail (number 8, home /var/mail)",
    "deploy": "the account deploy (number 1000, home /home/deploy)",
    "cron": UNIT,
    "dpkg": "/etc/dpkg, /var/lib/dpkg",
    "adm": "the group adm, without an account of that name",
}


@pytest.fixture(scope="module")
def cron(app: App) -> Iterator[None]:
    """A host that has cron, as Ubuntu's own images have."""
    there = app.host.file(UNIT).exists
    app.host.check_output("true" if there else f"printf '[Service]\\nExecStart=/bin/true\\n' > {UNIT}")
    yield
    app.host.check_output("true" if there else f"rm {UNIT}")


@pytest.mark.usefixtures("cron")
@pytest.mark.parametrize("name", TAKEN)
def test_name_of_the_systems_own_is_refused_on_the_host_before_anything_changes(app: App, name: str) -> None:
    before = tree(app)
    done = playbook("deploy.yml", "--limit", "web1", variables={"app_name": name, "proxy_server_names": [name]})
    said = " ".join(done.stdout.split()).replace("''", "'")
    assert done.returncode != 0
    assert f"web1 cannot run {name}: app_name is '{name}', but there is already what no deploy" in said, said
    assert f"has made: {TAKEN[name]}" in said
    assert f"Choose another app_name, for example {name}-app" in said
    assert "Nothing was changed on it." in said
    assert tree(app) == before


REMOVE = """
rm -f /etc/nginx/conf.d/{0}.conf
systemctl stop {0}@blue.socket {0}@green.socket
systemctl disable --now {0}@blue.service {0}@green.service
rm -rf /srv/{0} /etc/{0} /run/{0} /var/lib/{0} /usr/local/lib/{0}-release /usr/local/sbin/{0}-release
rm -f /etc/systemd/system/{0}@* /etc/systemd/system/*/{0}-release* /etc/systemd/system/{0}-release*
systemctl daemon-reload && systemctl reload nginx
userdel {0}
"""


def test_own_name_is_taken_whatever_a_deploy_has_left_and_an_account_that_is_chosen_may_be_anybodys(app: App) -> None:
    own = {"app_name": "shop-x", "proxy_server_names": ["shop-x.example"], "service_workers": 1, **QUICK}

    def deploy_own(**more: Any) -> str:
        done = playbook("deploy.yml", "--limit", "web1", variables={**own, **more})
        assert done.returncode == 0, done.stdout[-3000:]
        return str(app.host.check_output("getent passwd shop-x || true"))

    try:
        app.host.check_output("mkdir /etc/shop-x && head -c 32 /dev/zero > /etc/shop-x/digest.key")
        app.host.check_output("chmod 600 /etc/shop-x/digest.key")
        done = playbook("playbooks/image.yml", "--limit", "web1", variables=own)
        assert "its instances would share a key" in " ".join(done.stdout.split()), done.stdout
        assert app.host.run("getent passwd shop-x").rc != 0
        assert "fastapi-fleet app shop-x" in deploy_own()
        # As after a first deploy that was cut off once the user was made.
        app.host.check_output("rm -r /etc/shop-x")
        assert "fastapi-fleet app shop-x" in deploy_own()
        app.host.run(REMOVE.format("shop-x"))
        # What somebody has made before the first deploy, and says that it is the app's.
        app.host.check_output("mkdir -p /etc/shop-x /var/lib/shop-x && touch /etc/shop-x/x.conf /var/lib/shop-x/data")
        done = playbook("deploy.yml", "--limit", "web1", variables=own)
        said = " ".join(done.stdout.split())
        assert "no deploy of this app has made: /etc/shop-x, /var/lib/shop-x. Choose another app_name" in said, said
        app.host.check_output("useradd --system --comment 'fastapi-fleet app shop-x' shop-x")
        deploy_own()
        assert app.host.check_output("stat -c %U /var/lib/shop-x/data") == "shop-x"
        app.host.run(REMOVE.format("shop-x"))
        assert deploy_own(service_user="games") == ""
        assert app.host.check_output("ps -o user= -p $(systemctl show -P MainPID shop-x@blue)") == "games"
    finally:
        app.host.run(REMOVE.format("shop-x"))
    assert app.host.run("systemctl is-active nginx").stdout.strip() == "active"
