"""The lab's commands: up, down, status, clean."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import yaml

from . import engine as engines
from . import hosts, images, machine
from .definition import LabError, check_name, parse


def _labs() -> list[str]:
    return sorted(path.name for path in machine.private("labs").iterdir() if path.is_dir())


def up(lab: str, definition: Path, inventory: Path) -> None:
    """Bring a lab up to what `definition` says and write its inventory."""
    try:
        wanted = parse(yaml.safe_load(definition.read_text()), str(definition))
    except OSError as error:
        raise LabError(f"{definition}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise LabError(f"{definition} is not YAML: {error}") from error
    began = time.monotonic()
    with machine.lock(f"lab-{lab}"):
        with machine.lock("engine"):
            # The folder is what keeps the engine running while another lab goes down.
            folder = hosts.lab_dir(lab)
            is_new = not folder.exists()
            folder.mkdir(exist_ok=True)
            (folder / "state.json").write_text(json.dumps({"inventory": str(inventory.absolute())}))
            try:
                engine = engines.ensure()
            except LabError:
                if is_new:
                    shutil.rmtree(folder)
                raise
        hosts.bring_up(engine, lab, wanted)
        hosts.write_inventory(engine, lab, wanted, inventory.absolute())
    machine.say(f"lab {lab}: {len(wanted)} hosts up in {time.monotonic() - began:.1f} s; inventory {inventory}")


def down(lab: str, *, keep_engine: bool) -> None:
    """Remove a lab; stop the engine when the lab started it and nobody else needs it."""
    with machine.lock(f"lab-{lab}"), machine.lock("engine"):
        hosts.take_down(engines.find(), lab)
        machine.say(f"lab {lab}: gone")
        if not keep_engine and not _labs():
            engines.stop_own()


def status() -> None:
    """Print the engine and the hosts of all labs."""
    engine = engines.find()
    if engine is None:
        print("engine: none runs; labs: none up")
        return
    print(f"engine: {f'our own, pid {engines.own_pid()}' if engine.own else 'the one that docker names'}")
    for name, facts in sorted(hosts.containers(engine).items()):
        labels = facts["Config"]["Labels"]
        addresses = [one["IPAddress"] for one in facts["NetworkSettings"]["Networks"].values()]
        ports = [
            f"127.0.0.1:{bound[0]['HostPort']} -> {inner}"
            for inner, bound in (facts["NetworkSettings"]["Ports"] or {}).items()
            if bound
        ]
        lab = labels[engines.LABEL]
        short = name.removeprefix(f"fastapi-fleet-{lab}-")
        print(f"{lab}/{short}: {facts['State']['Status']}, {labels.get(hosts.SYSTEM)}, {', '.join(addresses + ports)}")


def clean() -> None:
    """Remove every lab, image, key and cache, and the lab's own engine with its data."""
    with machine.lock("engine"):
        engine = engines.find()
        labs = set(_labs())
        if engine is not None:
            labs |= {facts["Config"]["Labels"][engines.LABEL] for facts in hosts.containers(engine).values()}
        for lab in sorted(labs):
            hosts.take_down(engine, lab)
            machine.say(f"lab {lab}: gone")
        if engine is not None and not engine.own:
            label = f"label={engines.LABEL}={images.IMAGES}"
            for image in dict.fromkeys(engine.call("image", "ls", "--quiet", "--filter", label).split()):
                engine.call("image", "rm", "--force", image)
        engines.stop_own()
        engines.remove_own_files()
        for name in ("labs", "keys", "build"):
            shutil.rmtree(machine.cache() / name, ignore_errors=True)
    shutil.rmtree(machine.cache() / "locks", ignore_errors=True)
    machine.say(f"labs, images, keys and caches below {machine.cache()} are gone")


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit code."""
    parser = argparse.ArgumentParser(prog="lab.py", description="systemd hosts on this machine, reached over SSH")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("up", help="start a lab's hosts and write their inventory")
    one.add_argument("--name", required=True)
    one.add_argument("--hosts", required=True, type=Path, help="list of {name, os, vcpus?, memory_mb?, publish?}")
    one.add_argument("--inventory", required=True, type=Path, help="where to write the Ansible inventory")
    one = commands.add_parser("down", help="remove a lab")
    one.add_argument("--name", required=True)
    one.add_argument("--keep-engine", action="store_true", help="leave an engine that the lab started running")
    commands.add_parser("status", help="show engine and hosts")
    commands.add_parser("clean", help="remove all labs, images, keys and the lab's own engine")
    given = parser.parse_args(argv)
    try:
        if given.command == "up":
            up(check_name("--name", given.name), given.hosts, given.inventory)
        elif given.command == "down":
            down(check_name("--name", given.name), keep_engine=given.keep_engine)
        elif given.command == "status":
            status()
        else:
            clean()
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"lab: interrupted; `lab.py {given.command}` again goes on from here", file=sys.stderr)
        return 130
    return 0
