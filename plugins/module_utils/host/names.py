"""Whether an app's name belongs to something else on a host: an account, a group, a unit or a folder of the system's.

Looked at before anything is changed. The app would run with the account's rights, a unit of its own would take another
one's place, and systemd would give /var/lib/NAME to it.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .files import read_object
from .records import SECRET_FILES, SLOTS
from .written import EDITED, RECORD

#: The first line of what the bundle writes, and what it writes into the field for the full name of an account.
MARK, COMMENT = "# Written by fastapi-fleet.", "fastapi-fleet app {app}"
UNITS = (
    "etc/systemd/system", "run/systemd/system", "run/systemd/generator", "run/systemd/generator.late",
    "usr/local/lib/systemd/system", "usr/lib/systemd/system",
)  # fmt: skip
#: What deploys write into a folder: a first one that was cut off and an app that was removed in part leave some of it.
#: Below /etc, the key comes first and release.json last; versions before the key have marked the environment.
KEY, ENVIRONMENT = "digest.key", "environment"
OWN = {
    "etc/{app}": {
        KEY, "fleet", "release.json", "releases", RECORD,
        *(name.format(slot=slot) for names in SECRET_FILES.values() for name in names for slot in SLOTS),
    },
    "srv/{app}": {
        "releases", "slots", "live.sock", "live.json", "transaction.json", "bad.json", "history.jsonl",
        "recycled.jsonl",
    },
    "run/{app}": {"blue.sock", "green.sock", "tune.sock"},
    "usr/local/lib/{app}-release": {"__main__.py", "fleet", "fleet_host", "worker"},
}  # fmt: skip
MOST_LETTERS = 31  # of app_name
#: useradd's own choice for a system account, from 999 downwards; packages take numbers from 100 upwards.
LEAST_UID, MOST_UID = 500, 999


def conflict(app: str, user: str, user_given: bool, root: Path = Path("/")) -> str:
    """Say what has the app's name on a host and is not this app's own, "" where nothing has.

    `user_given`: the account was chosen, so it may be anybody's. Everything of the name is the app's where a deploy has
    got as far as its settings, and where the account bears the mark: it is made once nothing was in the way.
    """
    settings = _settings(app, root)
    account = _account(app, user, settings, root) if user == app and not user_given else ""
    files = [] if settings or _is_marked(app, user) else list(_files(app, user, root))
    others = [account] * bool(account) + files
    if not others:
        return ""
    other = f", for example {app}-app" if len(app) <= MOST_LETTERS - len("-app") else ""
    choose = ""
    if not files and account.startswith("the account"):
        choose = f"; or, where the app is to run as that account, set service_user: {user}"
    return (
        f"app_name is {app!r}, but there is already what no deploy of this app has made: {', '.join(others)}. "
        f"Choose another app_name{other}{choose}"
    )


def _settings(app: str, root: Path) -> dict[str, Any]:
    """Return the settings that a deploy of this app has left, an empty object where none has got so far."""
    settings = read_object(root / "etc" / app / "release.json")
    return settings if settings.get("app") == app else {}


def _account(app: str, user: str, settings: dict[str, Any], root: Path) -> str:
    """Say whose account or group the app would get by its name, "" where it is its own or there is none."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        # An account that is made now could have no group of its own.
        return f"the group {user}, without an account of that name" if _group(user) is not None else ""
    # Version 0.1 did not note the user.
    known = bool(settings) and settings.get("user", app) == user
    if known or _is_marked(app, user) or _made_before(account, root):
        return ""
    return f"the account {user} (number {account.pw_uid}, home {account.pw_dir})"


def _is_marked(app: str, user: str) -> bool:
    try:
        return pwd.getpwnam(user).pw_gecos.partition(",")[0] == COMMENT.format(app=app)
    except KeyError:
        return False


def _group(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _made_before(account: pwd.struct_passwd, root: Path) -> bool:
    """Return whether an account is one that an earlier version made for an image: those bear no mark."""
    plain = (account.pw_gecos, account.pw_dir, account.pw_shell) == ("", "/nonexistent", "/usr/sbin/nologin")
    own_group = _group(account.pw_name) == account.pw_gid
    by_useradd = LEAST_UID <= account.pw_uid <= MOST_UID
    return plain and own_group and by_useradd and _ours(root / "etc/nginx/conf.d/00-refuse-unknown-hosts.conf")


def _files(app: str, user: str, root: Path) -> Iterator[str]:
    kinds = [f"{app}{at}.{kind}" for at in ("", "@") for kind in ("service", "socket", "timer")]
    units = [root / folder / name for folder in UNITS for name in kinds]
    written = {root / UNITS[0] / f"{app}@.{kind}" for kind in ("service", "socket")}
    written |= {root / "usr/local/sbin" / f"{app}-release", root / "etc/nginx/conf.d" / f"{app}.conf"}
    for path in dict.fromkeys([*units, root / "etc/init.d" / app, *sorted(written)]):
        if os.path.lexists(path) and not (path in written and _ours(path)):
            yield str(path)
    for pattern, names in OWN.items():
        folder = root / pattern.format(app=app)
        if os.path.lexists(folder) and not _left_by_us(folder, names):
            yield str(folder)
    state = root / "var/lib" / app
    if any(not name.startswith(".") for name in _names(state)) and _belongs_to_another(state, user):
        yield str(state)


def _ours(path: Path) -> bool:
    """Return whether the bundle has written a file: its mark is the first line, or follows what names the shell."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return any(line.startswith(MARK) for line in (stream.readline(), stream.readline()))
    except OSError:
        return False


def _left_by_us(folder: Path, names: set[str]) -> bool:
    there = {name for name in _names(folder) if not _is_passing(name, names)}
    whose = KEY not in names or not there or KEY in there or _ours(folder / ENVIRONMENT)
    return folder.is_dir() and there <= names and whose


def _is_passing(name: str, names: set[str]) -> bool:
    """Return whether this is a lock, a reserve, a kept copy, or what a cut-off write of one of these names has left."""
    passing = any(name.startswith((f".{own}.", f"{own}{EDITED}")) for own in names)
    return passing or name in (".lock", ".reserve")


def _names(folder: Path) -> set[str]:
    """Return what is in a folder. A file system of its own has lost+found, which is nobody's."""
    try:
        return {*os.listdir(folder)} - {"lost+found"}
    except OSError:
        return set()


def _belongs_to_another(folder: Path, user: str) -> bool:
    """Return whether a folder is somebody's who is there, and not the app's user's. Root counts."""
    try:
        return pwd.getpwuid(folder.stat().st_uid).pw_name != user
    except (OSError, KeyError):
        return False
