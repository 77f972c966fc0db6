"""A name that is something of the system's is refused; what a deploy of the app itself has left is not."""

from __future__ import annotations

import grp
import json
import os
import pwd
from pathlib import Path

import pytest
import yaml

from plugins.action.app_probe import DEFAULT_USER
from plugins.module_utils.host.names import COMMENT, OWN, conflict
from tests.unit.rendering import REPOSITORY, template

MARKED = "# Written by fastapi-fleet.\n"
REFUSE = "etc/nginx/conf.d/00-refuse-unknown-hosts.conf"


class Accounts:
    """The users and groups of a made-up host."""

    def __init__(self) -> None:
        self.users: dict[str, pwd.struct_passwd] = {}
        self.groups: dict[str, int] = {"docker": 990}
        self.add("backup", 34, gecos="backup", home="/var/backups")
        self.add("messagebus", 101, home="/nonexistent")

    def add(self, name: str, uid: int, gecos: str = "", home: str = "/nonexistent", group: int | None = None) -> None:
        self.groups[name] = uid if group is None else group
        self.users[name] = pwd.struct_passwd((name, "x", uid, uid, gecos, home, "/usr/sbin/nologin"))

    def named(self, name: str) -> pwd.struct_passwd:
        return self.users[name]

    def numbered(self, uid: int) -> pwd.struct_passwd:
        return next((user for user in self.users.values() if user.pw_uid == uid), None) or self.users[f"uid {uid}"]

    def group(self, name: str) -> grp.struct_group:
        return grp.struct_group((name, "x", self.groups[name], []))


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> Accounts:
    made = Accounts()
    monkeypatch.setattr(pwd, "getpwnam", made.named)
    monkeypatch.setattr(pwd, "getpwuid", made.numbered)
    monkeypatch.setattr(grp, "getgrnam", made.group)
    return made


def write(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def deployed(root: Path, app: str = "shop", **settings: str) -> None:
    write(root, f"etc/{app}/release.json", json.dumps({"app": app, **settings}))


def test_name_that_nobody_has_is_free(accounts: Accounts, tmp_path: Path) -> None:
    assert conflict("shop", "shop", False, tmp_path) == ""


# Accounts and groups


def test_account_of_the_systems_is_refused_with_what_it_is_and_what_can_be_done(
    accounts: Accounts, tmp_path: Path
) -> None:
    assert conflict("backup", "backup", False, tmp_path) == (
        "app_name is 'backup', but there is already what no deploy of this app has made: the account backup "
        "(number 34, home /var/backups). Choose another app_name, for example backup-app; or, where the app is to run "
        "as that account, set service_user: backup"
    )


def test_long_name_is_not_made_longer_than_a_name_may_be(accounts: Accounts, tmp_path: Path) -> None:
    for name, offered in (("a" * 27, True), ("a" * 28, False)):
        accounts.add(name, 60)
        said = conflict(name, name, False, tmp_path)
        assert (f"{name}-app" in said) is offered
        assert "Choose another app_name" in said


@pytest.mark.parametrize(("app", "user", "given"), [("shop", "backup", True), ("backup", "backup", True)])
def test_account_that_was_chosen_may_be_anybodys(
    accounts: Accounts, tmp_path: Path, app: str, user: str, given: bool
) -> None:
    assert conflict(app, user, given, tmp_path) == ""


def test_group_whose_rights_a_new_account_would_get_is_refused(accounts: Accounts, tmp_path: Path) -> None:
    assert conflict("docker", "docker", False, tmp_path) == (
        "app_name is 'docker', but there is already what no deploy of this app has made: the group docker, without an "
        "account of that name. Choose another app_name, for example docker-app"
    )
    assert conflict("docker", "docker", True, tmp_path) == ""
    assert conflict("shop", "docker", True, tmp_path) == ""


def test_account_with_the_apps_mark_is_its_own(accounts: Accounts, tmp_path: Path) -> None:
    """A first deploy was cut off after it, or playbooks/image.yml made it."""
    for gecos in (COMMENT.format(app="shop"), COMMENT.format(app="shop") + ",,,"):
        accounts.add("shop", 999, gecos=gecos)
        assert conflict("shop", "shop", False, tmp_path) == ""
    accounts.add("shop", 999, gecos=COMMENT.format(app="another"))
    assert "the account shop" in conflict("shop", "shop", False, tmp_path)


@pytest.mark.parametrize(("user", "given"), [("shop", False), ("web", True)])
def test_account_that_somebody_has_marked_says_that_all_of_that_name_is_the_apps(
    accounts: Accounts, tmp_path: Path, user: str, given: bool
) -> None:
    """Settings or data that were there before the first deploy."""
    for path in ("etc/shop/shop.conf", "var/lib/shop/data", "srv/shop/site/index.html"):
        write(tmp_path, path, "mine")
    accounts.add("root", os.geteuid(), gecos="root", home="/root")
    assert f"{tmp_path}/etc/shop, {tmp_path}/srv/shop, {tmp_path}/var/lib/shop" in conflict(
        "shop", user, given, tmp_path
    )
    accounts.add(user, 1002, gecos=COMMENT.format(app="shop"))
    assert conflict("shop", user, given, tmp_path) == ""


def test_mark_is_the_one_that_the_role_makes() -> None:
    (task,) = yaml.safe_load((REPOSITORY / "roles/service/tasks/user.yml").read_text())
    assert task["ansible.builtin.user"]["comment"] == COMMENT.format(app="{{ app_name }}")
    defaults = yaml.safe_load((REPOSITORY / "roles/service/defaults/main.yml").read_text())
    assert defaults["service_user"] == DEFAULT_USER
    for name in ("app@.service.j2", "app@.socket.j2", "environment.j2"):
        assert template("service", name).startswith(MARKED.strip())
    assert template("proxy", "app.conf.j2", proxy_server_names=["a"]).startswith(MARKED)
    assert template("proxy", "refuse-unknown-hosts.conf.j2").startswith(MARKED)
    assert MARKED.strip() in template("service", "release-command.sh.j2").splitlines()[1]


@pytest.mark.parametrize(
    ("settings", "free"),
    [({}, True), ({"user": "shop"}, True), ({"user": "web"}, False)],
    ids=["0.1", "own", "another"],
)
def test_account_that_a_deploy_has_used_before_is_the_apps(
    accounts: Accounts, tmp_path: Path, settings: dict[str, str], free: bool
) -> None:
    """Version 0.1 noted no user; whoever had chosen another one and does so no more would get a strange account."""
    accounts.add("shop", 120, gecos="Shop")
    deployed(tmp_path, **settings)
    assert (conflict("shop", "shop", False, tmp_path) == "") is free


@pytest.mark.parametrize(
    ("change", "free"),
    [
        ({}, True),
        ({"uid": 499}, False),
        ({"uid": 500}, True),
        ({"uid": 999}, True),
        ({"uid": 1000}, False),
        ({"uid": 101}, False),
        ({"uid": 1001}, False),
        ({"gecos": "System Message Bus"}, False),
        ({"home": "/var/lib/shop"}, False),
        ({"group": 100}, False),
    ],
)
@pytest.mark.parametrize("image", [True, False])
def test_account_in_an_image_that_an_earlier_version_made_is_known_by_its_form(
    accounts: Accounts, tmp_path: Path, change: dict[str, object], free: bool, image: bool
) -> None:
    accounts.add("shop", **{"uid": 998, **change})  # type: ignore[arg-type]
    if image:
        write(tmp_path, REFUSE, MARKED)
    assert (conflict("shop", "shop", False, tmp_path) == "") is (free and image)


# Units, folders and files


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("usr/lib/systemd/system/shop.service", ""),
        ("usr/lib/systemd/system/shop@.service", ""),
        ("usr/lib/systemd/system/shop.socket", ""),
        ("usr/lib/systemd/system/shop.timer", ""),
        ("usr/local/lib/systemd/system/shop@.socket", ""),
        ("etc/systemd/system/shop.service", ""),
        ("etc/systemd/system/shop@.service", ""),
        ("run/systemd/generator.late/shop.service", ""),
        ("etc/init.d/shop", ""),
        ("etc/shop/shop.conf", "etc/shop"),
        ("etc/shop/environment", "etc/shop"),
        ("etc/shop", ""),
        ("etc/shop/.profile", "etc/shop"),
        ("etc/shop/release.json", "etc/shop"),
        ("srv/shop/.git/config", "srv/shop"),
        ("srv/shop/index.html", "srv/shop"),
        ("srv/shop/current/a", "srv/shop"),
        ("run/shop/shop.sock", "run/shop"),
        ("var/lib/shop/data", "var/lib/shop"),
        ("usr/local/sbin/shop-release", ""),
        ("usr/local/lib/shop-release/x", "usr/local/lib/shop-release"),
        ("etc/nginx/conf.d/shop.conf", ""),
    ],
)
def test_what_somebody_else_has_made_is_refused_by_its_path(
    accounts: Accounts, tmp_path: Path, path: str, named: str
) -> None:
    write(tmp_path, path, "mine\n")
    accounts.add("root", os.geteuid(), gecos="root", home="/root")
    assert conflict("shop", "shop", False, tmp_path) == (
        f"app_name is 'shop', but there is already what no deploy of this app has made: {tmp_path}/{named or path}. "
        "Choose another app_name, for example shop-app"
    )
    if path not in {"etc/shop", "etc/shop/release.json"}:
        deployed(tmp_path)
        assert conflict("shop", "shop", False, tmp_path) == "", "a host that has the app"


@pytest.mark.parametrize("target", ["/dev/null", "/usr/lib/systemd/system/that-was-removed.service"])
def test_unit_that_is_masked_or_an_alias_is_there(accounts: Accounts, tmp_path: Path, target: str) -> None:
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd/system/shop.service").symlink_to(target)
    assert "shop.service" in conflict("shop", "shop", False, tmp_path)


#: What the steps of a first deploy leave where they are cut off, and an app that was removed in part.
LEFT: dict[str, dict[str, str]] = {
    "unpacked": {"srv/shop/releases/.lock": ""},
    "half unpacked": {"srv/shop/releases/.aaa.tmp-1/app/main.py": ""},
    "the key": {"etc/shop/digest.key": ""},
    "secrets": {"etc/shop/digest.key": "", "etc/shop/environment": "", "etc/shop/hooks.json": ""},
    "a temporary folder": {"etc/shop/.environment.xyz/new": ""},
    "settings that are damaged": {"etc/shop/digest.key": "", "etc/shop/release.json": "\0"},
    "slots' hooks": {
        "etc/shop/digest.key": "",
        "etc/shop/hooks.blue.json": "",
        "etc/shop/hooks.green.json": "",
        "etc/shop/hooks.blue.json.edited-20260101T000000": "",
    },
    "slots' environments": {"etc/shop/digest.key": "", "etc/shop/environment.blue": "", "etc/shop/releases/a/b": ""},
    "the environment of a version without a key": {"etc/shop/environment": MARKED},
    "a lock": {"srv/shop/.lock": ""},
    "file systems of their own": {f"{folder}/shop/lost+found/a": "" for folder in ("etc", "srv", "var/lib")},
    "units": {f"etc/systemd/system/shop@.{kind}": MARKED for kind in ("service", "socket")},
    "the command": {"usr/local/sbin/shop-release": f"#!/bin/sh\n{MARKED}"},
    "the tool": {"usr/local/lib/shop-release/fleet_host/cli.py": ""},
    "nginx": {"etc/nginx/conf.d/shop.conf": MARKED},
    "sockets": {"run/shop/blue.sock": ""},
    "slots": {"srv/shop/slots/blue.json": ""},
    "hidden files only": {"var/lib/shop/.cache": ""},
}


@pytest.mark.parametrize("files", LEFT.values(), ids=LEFT.keys())
def test_what_the_app_has_left_itself_is_no_obstacle(accounts: Accounts, tmp_path: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        write(tmp_path, path, text)
    assert conflict("shop", "shop", False, tmp_path) == ""


@pytest.mark.parametrize(
    ("owner", "free"), [("shop", True), ("nobody any more", True), ("root", False), ("mysql", False)]
)
def test_state_is_the_apps_where_it_is_its_users_or_nobodys(
    accounts: Accounts, tmp_path: Path, owner: str, free: bool
) -> None:
    """systemd would give it to the app. Data of an app that was removed belong to a number without a name."""
    write(tmp_path, "var/lib/shop/data")
    if owner != "nobody any more":
        accounts.add(owner, os.geteuid(), gecos=COMMENT.format(app="shop"))
    assert (conflict("shop", "shop", False, tmp_path) == "") is free


def test_everything_that_is_in_the_way_is_named_at_once(accounts: Accounts, tmp_path: Path) -> None:
    write(tmp_path, "etc/init.d/backup")
    write(tmp_path, "etc/backup/x")
    said = conflict("backup", "backup", False, tmp_path)
    assert f"home /var/backups), {tmp_path}/etc/init.d/backup, {tmp_path}/etc/backup. Choose another app_name" in said
    assert "service_user" not in said, "another account would not help"


def test_folders_of_the_app_are_those_that_the_roles_use() -> None:
    settings = json.loads(template("service", "settings.json.j2"))
    places = {settings[name].removeprefix("/").replace("counter", "{app}") for name in ("root", "run", "etc")}
    assert places < set(OWN)


def test_settings_that_are_damaged_or_of_another_app_are_none(accounts: Accounts, tmp_path: Path) -> None:
    for text in ("", "[]", '{"app": "another"}', "\0"):
        write(tmp_path, "etc/shop/release.json", text)
        assert f"{tmp_path}/etc/shop" in conflict("shop", "shop", False, tmp_path)
