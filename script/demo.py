"""The demo's main job: hosts, deploy, proof. Started by script/demo, which prepares the tools."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
HOME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "fastapi-fleet", "demo")
FIRST_PORT, MOST_HOSTS = 8081, 20


def arguments() -> argparse.Namespace:
    """Return what the user asked for; a bad value ends the program with what is allowed."""
    parser = argparse.ArgumentParser(prog="script/demo", description="Deploy an app to systemd hosts on this machine.")
    parser.add_argument("--hosts", type=int, default=3, metavar="N", help=f"how many hosts, 1 to {MOST_HOSTS} (3)")
    parser.add_argument("--source", type=Path, metavar="DIR", help="your own app instead of the sample app")
    parser.add_argument("--module", default="main:app", metavar="M:A", help="what your app's server imports (main:app)")
    parser.add_argument("--health", default="/health", metavar="PATH", help="a path that answers 200 when it is well")
    parser.add_argument("--clean", action="store_true", help="remove the hosts and everything that was made")
    options = parser.parse_args()
    if not 1 <= options.hosts <= MOST_HOSTS:
        parser.error(f"--hosts is {options.hosts}: allowed is a whole number from 1 to {MOST_HOSTS}")
    if options.source and not options.source.is_dir():
        parser.error(f"--source is {options.source}: there is no such folder")
    return options


def is_free(port: int) -> bool:
    """Return whether nothing listens on a port of the loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def hosts(count: int) -> list[dict[str, Any]]:
    """Return the hosts to start: the shared sizes in turn, each with a port of its own on the loopback.

    Ports that an earlier run chose are kept, so that running again changes nothing.
    """
    file = HOME / "hosts.yml"
    earlier = {host["name"]: host for host in yaml.safe_load(file.read_text())} if file.is_file() else {}
    sizes = yaml.safe_load((REPOSITORY / "molecule/shared/hosts.yml").read_text())
    taken = {port for host in earlier.values() for port in host["publish"].values()}
    free = (port for port in range(FIRST_PORT, FIRST_PORT + 1000) if port not in taken and is_free(port))
    machines = []
    for index in range(count):
        name = f"web{index + 1}"
        port = earlier[name]["publish"][80] if name in earlier else next(free)
        machines.append({**sizes[index % len(sizes)], "name": name, "publish": {80: port}})
    return machines


def settings(options: argparse.Namespace, machines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the group variables of the demo's hosts."""
    ports = {host["name"]: host["publish"][80] for host in machines}
    return {
        "app_name": "demo" if options.source else "counter",
        "app_source": str((options.source or REPOSITORY / "app").resolve()),
        "app_module": options.module,
        "service_health_path": options.health,
        "service_boot_timeout": 120,
        "proxy_server_names": ["localhost", "127.0.0.1", "{{ inventory_hostname }}", "{{ ansible_host }}"],
        "demo_ports": ports,
        "app_url": "http://127.0.0.1:{{ demo_ports[inventory_hostname] }}/",
    }


def run(title: str, *command: str | Path) -> None:
    """Run one step with its output to be seen; end with its exit code where it fails."""
    print(f"\n=== {title}", flush=True)
    environment = {**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")}
    environment |= {
        "ANSIBLE_HOME": str(HOME.parent / "ansible"),
        "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
        "ANSIBLE_FORCE_COLOR": str(sys.stdout.isatty()),
    }
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, check=False)
    if done.returncode:
        print(f"\nscript/demo: this step failed: {title}", file=sys.stderr)
        sys.exit(done.returncode)


def main() -> None:
    """Bring the hosts up, deploy, verify, and say what to open."""
    began = time.monotonic()
    options = arguments()
    machines = hosts(options.hosts)
    inventory = HOME / "inventory"
    variables = settings(options, machines)
    lab: list[str | Path] = [sys.executable, REPOSITORY / "molecule/shared/lab.py"]
    before = inventory / "group_vars" / "app.yml"
    if before.is_file() and yaml.safe_load(before.read_text())["app_name"] != variables["app_name"]:
        run(
            "Remove the hosts of the earlier demo: they run another app",
            *lab,
            "down",
            "--name",
            "demo",
            "--keep-engine",
        )
    (inventory / "group_vars").mkdir(parents=True, exist_ok=True)
    (HOME / "hosts.yml").write_text(yaml.safe_dump(machines, sort_keys=False))
    (inventory / "group_vars" / "app.yml").write_text(yaml.safe_dump(variables, sort_keys=False))

    ansible = Path(sys.executable).with_name("ansible-playbook")
    files: list[str | Path] = ["--hosts", HOME / "hosts.yml", "--inventory", inventory / "lab.yml"]
    run(f"Start {options.hosts} hosts", *lab, "up", "--name", "demo", *files)
    run("Deploy: ansible-playbook deploy.yml", ansible, "-i", inventory, "deploy.yml")
    table = HOME / "fleet.txt"
    verify: list[str | Path] = ["playbooks/verify.yml", "-e", f"verify_table={table}"]
    run("Prove the workers: ansible-playbook playbooks/verify.yml", ansible, "-i", inventory, *verify)

    print(f"\n{table.read_text()}")
    reported = yaml.safe_load((inventory / "lab.yml").read_text())["app"]["hosts"]
    for name, host in reported.items():
        print(f"{name} is {host['lab_os']}, {host['lab_size']}")
    print(f"\nReady in {time.monotonic() - began:.0f} s. Open http://127.0.0.1:{machines[0]['publish'][80]}/")
    print("Again: script/demo (changes nothing). Remove all of it: script/demo --clean")


if __name__ == "__main__":
    main()
