"""A fleet on AWS against the local API: how long it takes to make one, and what a release to 3 and 30 instances costs.

The local API answers at once and replaces a quarter of the group at each look, so the same number of looks follows a
release whatever the size: times and bytes are the controller's own, not AWS's. Bytes are those of request bodies.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.lab import OWN_CONFIG, PLAYBOOK, REPOSITORY, timed

IMAGE = "ami-1e749f67"  # one of the few that the local API has


def api(command: str, state: Path) -> str:
    """Start or end the local API; return what it says."""
    words = [sys.executable, str(REPOSITORY / "molecule/aws/moto_api.py"), command, f"--state={state}"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def run(playbook: str, **settings: object) -> dict[str, float]:
    """Run a playbook with the inventory of this repository; return wall and CPU seconds."""
    given = {"aws_fleet_image": IMAGE, "aws_fleet_refresh_interval": 1, **settings}
    command = [PLAYBOOK, "-i", "inventory/aws_ec2.yml", "-e", json.dumps(given), playbook]
    return {kind: round(seconds, 1) for kind, seconds in timed(command, REPOSITORY, OWN_CONFIG).items()}


def sent(state: Path) -> int:
    """Return the bytes of all request bodies so far."""
    return sum(
        json.loads(line)["bytes"] for line in (state / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    )


def measure(folder: Path, sizes: list[int]) -> dict[str, dict[str, float]]:
    """Make a fleet, run it again, and release to groups of some sizes."""
    state, source = folder / "api", folder / "app"
    shutil.copytree(REPOSITORY / "app", source, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
    os.environ |= {
        "AWS_ENDPOINT_URL": api("up", state), "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "not-a-key",
        "AWS_SECRET_ACCESS_KEY": "not-a-key", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    try:
        found: dict[str, dict[str, float]] = {
            "provision": run("playbooks/provision.yml"), "provision again": run("playbooks/provision.yml")
        }  # fmt: skip
        for size in sizes:
            settings = {"app_source": str(source), "aws_fleet_min": size, "aws_fleet_max": 2 * size}
            run("playbooks/provision.yml", **settings)
            run("deploy.yml", **settings)  # the first instances, or as many more
            with (source / "main.py").open("a", encoding="utf-8") as main_file:
                main_file.write(f"\nBENCH = {size}\n")
            before = sent(state)
            found[f"release, {size} instances"] = run("deploy.yml", **settings) | {"bytes": sent(state) - before}
            found[f"rollback, {size} instances"] = run("playbooks/rollback.yml", **settings)
        return found
    finally:
        api("down", state)


def main() -> None:
    """Measure, print a table, write the figures."""
    parser = argparse.ArgumentParser(prog="script/bench aws", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[3, 30], help="instances in the group (3 30)")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "bench" / "aws.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), given.sizes)
    print("| what | wall | CPU | bytes sent |\n|---|---|---|---|")
    for what, figures in found.items():
        print(f"| {what} | {figures['wall']} s | {figures['cpu']} s | {figures.get('bytes', '')} |")
    given.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
