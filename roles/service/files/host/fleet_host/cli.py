"""The command `<app>-release`."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .config import Config, HostError, read_object
from .gate import look
from .switch import RefusedError, activate
from .systemd import Systemd, SystemdError

EXIT_REFUSED, EXIT_NOTHING_DONE = 1, 2


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    top = argparse.ArgumentParser(prog=os.environ.get("FLEET_COMMAND"), description="One app's releases on this host.")
    top.add_argument("--config", type=Path, required=True, help=argparse.SUPPRESS)
    verbs = top.add_subparsers(dest="verb", required=True)
    verbs.add_parser("status", help="what is live, and what its workers are")
    verbs.add_parser("verify", help="prove the live workers: planned = running = answering")
    switch = verbs.add_parser("activate", help="make a release that is on this host the live one")
    switch.add_argument("release")
    switch.add_argument("--in-unit", action="store_true", help=argparse.SUPPRESS)
    for verb in verbs.choices.values():
        verb.add_argument("--json", action="store_true", help="print one JSON object")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 refused or differs, 2 nothing was done."""
    words = sys.argv[1:] if argv is None else argv
    arguments = parser().parse_args(words)
    if arguments.verb == "activate" and not arguments.in_unit and os.geteuid() == 0:
        _run_in_unit(words)
    steps: list[str] = []

    def say(step: str) -> None:
        steps.append(step)
        if not arguments.json:
            _print(f"{time.strftime('%H:%M:%S')} {step}")

    result: dict[str, Any]
    try:
        _require_root()
        config = Config.read(arguments.config)
        if arguments.verb == "activate":
            with _lock(config):
                result, code = {"live": activate(config, Systemd(), arguments.release, say)}, 0
        else:
            result = _verify(config, Systemd())
            code = EXIT_REFUSED if arguments.verb == "verify" and result["differences"] else 0
    except RefusedError as error:
        result, code = {"error": str(error), "log": error.log}, EXIT_REFUSED
    except (HostError, SystemdError, OSError) as error:
        result, code = {"error": str(error)}, EXIT_NOTHING_DONE

    if arguments.json:
        _print(json.dumps({**result, "steps": steps}))
    else:
        _print_plainly(result)
    return code


def _require_root() -> None:
    if os.geteuid() != 0:
        raise HostError("only root can see and change the slots: use sudo")


def _run_in_unit(words: list[str]) -> None:
    """Become a client of the same command in a transient unit, which outlives this terminal or SSH session."""
    runner = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--description=Switch of a release"]
    command = [sys.executable, "-I", "-B", str(Path(__file__).parents[1]), *words, "--in-unit"]
    os.execvp(runner[0], [*runner, *command])


def _verify(config: Config, systemd: Systemd) -> dict[str, Any]:
    """Compare what is planned with what runs and what answers; `differences` are sentences."""
    slot = config.live_slot()
    record = read_object(config.root / "live.json")
    if slot is None or not record:
        return {"live": record, "differences": [f"{config.app} has no live release on this host"]}
    proof = look(config, systemd, slot, int(record["workers"]))
    seen = proof.as_dict()
    checks = [
        (seen["running"] == proof.planned, f"{proof.planned} workers planned, {seen['running']} run"),
        (
            seen["answering"] == seen["running"],
            f"{seen['running']} workers run, {seen['answering']} answer {config.health_path}"
            + (f" ({proof.trouble})" if proof.trouble else ""),
        ),
        (
            proof.releases in ((), (str(record["release"]),)),
            f"release {record['release']} is recorded as live, the workers run {', '.join(proof.releases)}",
        ),
        (
            record["fingerprint"] == config.fingerprint,
            "the settings on disk are not those that the workers run with: deploy",
        ),
    ]
    return {
        "live": record,
        "slot": slot,
        "plan": record["plan"],
        **seen,
        "differences": [text for good, text in checks if not good],
    }


@contextlib.contextmanager
def _lock(config: Config) -> Iterator[None]:
    """Hold the app's lock; the kernel frees it when the holder ends, however it ends."""
    # Readable by root only: whoever can open it can lock it.
    descriptor = os.open(config.root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise HostError(f"another release is being switched on this host: {stream.read().strip()}") from None
        stream.truncate(0)
        stream.write(f"process {os.getpid()}, since {time.strftime('%F %T %Z')}\n")
        stream.flush()
        yield


def _print(text: str) -> None:
    """Print; whoever listened may be gone, which must not stop a switch half-way."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def _print_plainly(result: dict[str, Any]) -> None:
    if "error" in result:
        for line in result.get("log", []):
            _print(f"  | {line}")
        _print(f"not activated: {result['error']}")
        return
    if "planned" in result:
        live = result["live"]
        _print(f"release {live['release']} in the {result['slot']} slot, live since {time.ctime(live['at'])}")
        _print(f"workers: {result['planned']} planned, {result['running']} running, {result['answering']} answering")
        _print(f"planned: {result['plan']['reason']}")
    for difference in result.get("differences", []):
        _print(f"differs: {difference}")
