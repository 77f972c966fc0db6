"""nginx: dead, not started at boot, refused by its own test, or without a way to the app."""

from __future__ import annotations

from collections.abc import Iterator

from ..proxy import entrances, read
from ..sockets import is_good
from .finding import HURTS_AT_RESTART, HURTS_NOW, Finding, Snapshot
from .units import NGINX, ending


def is_down(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that nothing of the app is reached from outside."""
    shown = snapshot.unit(NGINX)
    if _is_used(snapshot) and shown.get("ActiveState", "active") in ("failed", "inactive"):
        text = f"nginx is down: {ending(shown)}{_port_taken(snapshot)}: systemctl start nginx"
        yield Finding(HURTS_NOW, "nginx down", text)


def is_not_enabled(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that nothing starts nginx at boot."""
    state = snapshot.context.systemd.enabled_state(NGINX) if _is_used(snapshot) else ""
    if state and state != "enabled":
        text = f"nginx is {state}: after a reboot nobody reaches the app: systemctl enable nginx"
        yield Finding(HURTS_AT_RESTART, "nginx disabled", text)


def is_refused_by_its_test(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that some file of nginx's, be it another app's, keeps it from starting once more."""
    if _is_used(snapshot) and (trouble := snapshot.context.proxy.test()):
        text = f"nginx would not start with its files as they are: {trouble}: mend that file; nginx -t says when"
        yield Finding(HURTS_AT_RESTART, "nginx refuses its files", text)


def does_not_pass_on(snapshot: Snapshot) -> Iterator[Finding]:
    """Say that the app answers on its own socket, and not through nginx.

    Not asked where nginx is down or the app itself does not answer: that is said already.
    """
    config = snapshot.context.config
    text = read(config.proxy_file)
    if text is None or not snapshot.answers or snapshot.unit(NGINX).get("ActiveState") != "active":
        return
    for entrance in entrances(text):
        status, trouble = snapshot.context.proxy.ask(entrance, config.health_path, config.health_timeout)
        if not is_good(status):
            said = f"answers {status}" if status else f"gives no answer ({trouble})"
            where = f"{entrance.text}{config.health_path}"
            yield Finding(HURTS_NOW, "nginx does not pass on", f"nginx {said} for {where}, the app itself is well")


def _port_taken(snapshot: Snapshot) -> str:
    """Return who has a port that nginx needs for the app, to be put behind a sentence; "" where nobody has."""
    for port in sorted({entrance.port for entrance in entrances(read(snapshot.context.config.proxy_file) or "")}):
        if (holder := snapshot.context.kernel.listener(port)) is not None:
            pid, name = holder
            whose = f"{name} (process {pid})" if pid else "a process that hides"
            return f"; port {port} is taken by {whose}, which has to stop first"
    return ""


def _is_used(snapshot: Snapshot) -> bool:
    """Whether nginx has a file for the app: the role service may be used without the role proxy."""
    return read(snapshot.context.config.proxy_file) is not None
