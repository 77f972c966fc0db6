"""Commands of the app's own: before and after a switch, and by hand with `APP-release run`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .config import Config
from .systemd import Command, Systemd


class HookError(Exception):
    """A hook that failed; the message has the end of what it printed."""


def variables(config: Config, release: str, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return what the app is told of its release, by name of the environment variable."""
    folder = config.release_dir(release)
    search_path = ":".join(str(folder / part) for part in manifest["path"])
    # gunicorn takes MODULE:MAKE() where a call makes the app; uvicorn calls it by itself.
    app = manifest["module"].removesuffix("()")
    return {"FLEET_RELEASE": release, "FLEET_MODULE": manifest["module"], "FLEET_APP": app, "PYTHONPATH": search_path}


def command(
    config: Config, release: str, manifest: Mapping[str, Any], environment: Path, words: Sequence[str]
) -> Command:
    """Return a command that runs with a release's code, and with an environment file of the app's."""
    told = {**variables(config, release, manifest), "FLEET_PYTHON": config.python}
    return Command(
        # What the environment file has cannot come before these: it is read by systemd, and env runs after it.
        words=("/usr/bin/env", *(f"{name}={value}" for name, value in told.items()), *words),
        app=config.app,
        user=config.user,
        folder=config.release_dir(release) / "app",
        environment_file=environment,
        limit=config.hook_timeout,
        writable=config.writable_paths,
    )


def unit(config: Config) -> str:
    """Return the unit that hooks run in: one name, so that what a killed switch has left running can be found."""
    return f"{config.app}-release-hook.service"


def run_hook(
    config: Config, systemd: Systemd, name: str, shell: str, slot: str, release: str, manifest: Mapping[str, Any]
) -> None:
    """Run a hook with the slot's own environment; HookError where it fails. An empty one is none."""
    if not shell:
        return
    environment = config.slot_files(slot)["environment"]
    wanted = command(config, release, manifest, environment, ("sh", "-c", shell))
    code, said = systemd.run(dataclasses.replace(wanted, unit=unit(config)))
    if code:
        tail = "\n".join(said.strip().splitlines()[-20:])
        raise HookError(f"{name} failed with exit code {code}: {tail or 'it printed nothing'}")
