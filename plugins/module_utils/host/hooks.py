"""Commands of the app's own: before and after a switch, and by hand with `APP-release run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .config import Config
from .context import Context
from .log_excerpt import of_output
from .sandbox import sandbox_of
from .systemd import Command


class HookError(Exception):
    """A hook that failed; the message has its reason, `log` the end of what it printed."""

    def __init__(self, message: str, log: Sequence[str]) -> None:
        super().__init__(message)
        self.log = tuple(log)


def variables(config: Config, release: str, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return what the app is told of its release, by name of the environment variable."""
    folder = config.release_dir(release)
    search_path = ":".join(str(folder / part) for part in manifest["path"])
    # gunicorn takes MODULE:MAKE() where a call makes the app; uvicorn calls it by itself.
    app = manifest["module"].removesuffix("()")
    return {"FLEET_RELEASE": release, "FLEET_MODULE": manifest["module"], "FLEET_APP": app, "PYTHONPATH": search_path}


def command(
    config: Config, release: str, manifest: Mapping[str, Any], files: Mapping[str, Path], words: Sequence[str],
    unit: str = "",
) -> Command:  # fmt: skip
    """Return a command that runs with a release's code, in the environment and the sandbox of a slot's `files`."""
    environment = {**variables(config, release, manifest), "FLEET_PYTHON": config.python}
    return Command(
        # What the environment file has cannot come before these: it is read by systemd, and env runs after it.
        words=("/usr/bin/env", *(f"{name}={value}" for name, value in environment.items()), *words),
        app=config.app,
        user=config.user,
        folder=config.release_dir(release) / "app",
        environment_file=files["environment"],
        limit=config.hook_timeout,
        sandbox=sandbox_of(files["service"].read_text(encoding="utf-8", errors="replace")),
        unit=unit,
    )


def unit(config: Config) -> str:
    """Return the unit that hooks run in: one name, so that what a killed switch has left running can be found."""
    return f"{config.app}-release-hook.service"


def run_hook(context: Context, when: str, slot: str, release: str, manifest: Mapping[str, Any]) -> None:
    """Run the hook `before` or `after` a switch, where there is one, as the slot's app; HookError where it fails."""
    config = context.config.of(slot)
    shell = {"before": config.hook_before, "after": config.hook_after}[when]
    if not shell:
        return
    hook = command(config, release, manifest, config.slot_files(slot), ("sh", "-c", shell), unit(config))
    code, output = context.systemd.run(hook)
    if code:
        printed = of_output(output.strip())
        last = next(iter(printed.lines[-1:]), "it printed nothing")
        raise HookError(f"service_hook_{when} failed with exit code {code}: {printed.cause or last}", printed.lines)
