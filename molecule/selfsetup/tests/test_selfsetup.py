"""Hosts that nobody deploys to: they boot with the user data of an instance and set themselves up from a local S3.

AWS is moto and a stand-in for the metadata service (fleetmoto), which the hosts reach at its usual address. They reach
nothing else: no package index, no mirror, no name server.
"""

from __future__ import annotations

import contextlib
import json
import platform
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import testinfra
from fleetlab import engine, hosts
from fleetmoto import REGION, LocalAws, local_aws
from fleettest import INVENTORY, REPOSITORY, App, inventory, wait_until

from tests.unit.rendering import template

pytest_plugins = ["fleettest"]
testinfra_hosts = ["ansible://self1"]

BUCKET, GROUP, HOOK = "bundles", "counter-test", "counter-test-launch"
SETUP_SECONDS = 180  # for a self-setup on a machine that others use, too; the figure is printed, not asserted
SETTINGS = {
    "app_name": "counter",
    "app_module": "main:app",
    "service_boot_timeout": 90,
    "service_fleet": GROUP,
    "proxy_server_names": ["shop.example.org"],
    # Worked out on the controller; the instance must not read it as a template.
    "service_env": {"COLOUR": "{{ 'a {{ b }} c' }}"},
}


@dataclass
class Instance:
    """A lab host in the part of an EC2 instance."""

    host: Any
    name: str
    aws: LocalAws
    starts: list[str] = field(default_factory=list)

    @property
    def app(self) -> App:
        """The app on it."""
        return App(self.host, "counter", inventory()["_meta"]["hostvars"][self.name])

    def launch(self, bundle: dict[str, Any], **changes: Any) -> str:
        """Return user data for a new instance, whose launch hook begins to wait now."""
        self.starts.append(f"i-{uuid.uuid4().hex[:17]}")
        self.aws.expect(self.app.address, self.starts[-1], GROUP, HOOK)
        return user_data(self.aws, bundle, **changes)

    def run(self, script: str) -> None:
        """Run user data as cloud-init does."""
        self.host.check_output("systemctl reset-failed fleet-setup.service 2>/dev/null; mkdir -p /root/start")
        self.app.write("/root/start/user-data", script)
        self.host.check_output("sh /root/start/user-data")

    def outcome(self, seconds: float = SETUP_SECONDS) -> str:
        """Wait for the launch hook, and return what it was told; the instance says why."""
        wait_until(lambda: bool(self.aws.results(self.starts[-1])), seconds)
        wait_until(lambda: self.host.run("systemctl is-active fleet-setup").stdout.strip() in {"inactive", "failed"})
        (result,) = self.aws.results(self.starts[-1])
        return result

    def said(self) -> str:
        """Return what the last self-setup told the journal."""
        query = "journalctl --no-pager -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID fleet-setup)"
        return str(self.host.check_output(query))

    def answer(self) -> int:
        """Return the status of an answer on port 80, as a load balancer's health check gets it; 0 without one."""
        try:
            return self.app.get("/health", timeout=5)[0]
        except OSError:
            return 0


def user_data(aws: LocalAws, bundle: dict[str, Any], **changes: Any) -> str:
    """Return the user data of an instance, as the role renders it."""
    given = {
        "aws_fleet_bucket": BUCKET,
        "aws_fleet_bundle_key": f"counter/{Path(bundle['path']).name}",
        "aws_fleet_bundle_sha256": bundle["sha256"],
        "aws_fleet_region": REGION,
        "aws_fleet_group_name": GROUP,
        "aws_fleet_launch_hook": HOOK,
        "aws_fleet_endpoint": aws.endpoint,
        "aws_fleet_setup_timeout": SETUP_SECONDS,
    }
    return template("aws_fleet", "user_data.sh.j2", **{**given, **changes})


def network(address: str) -> tuple[str, str]:
    """Return the container with this address, and the address that this machine has on the same bridge."""
    found = engine.find()
    assert found is not None
    for name, facts in hosts.containers(found).items():
        for one in facts["NetworkSettings"]["Networks"].values():
            if one["IPAddress"] == address:
                return name, str(one["Gateway"])
    raise AssertionError(f"no container of the lab has {address}")


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAws]:
    """A local AWS on the bridge that the hosts are on."""
    address = inventory()["_meta"]["hostvars"]["self1"]["ansible_host"]
    gateway = network(address)[1]
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(local_aws(gateway))
        except OSError as error:
            pytest.skip(f"{gateway}, the hosts' way out, is no address of this machine: {error}")
        found.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield found


#: The metadata service's address leads into a network of its own: nginx has port 80 of all the host's addresses.
ALONE = """
here=$(hostname --all-ip-addresses | cut -d ' ' -f 1)
ip route del default
: >/etc/resolv.conf
ip netns add metadata
ip link add metadata type veth peer name service netns metadata
ip link set metadata up
ip route add 169.254.169.254 dev metadata src "$here"
ip -n metadata link set service up
ip -n metadata address add 169.254.169.254/32 dev service
ip -n metadata route add "$here" dev service
"""
UNITS = {
    "lab-alone.service": "[Unit]\nDefaultDependencies=no\nBefore=network-pre.target cloud-init-local.service\n"
    "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=sh -e /root/lab-alone\n"
    "[Install]\nWantedBy=sysinit.target\n",
    "lab-metadata.socket": "[Unit]\nRequires=lab-alone.service\nAfter=lab-alone.service\n[Socket]\n"
    "ListenStream=169.254.169.254:80\nNetworkNamespacePath=/run/netns/metadata\n"
    "[Install]\nWantedBy=sockets.target\n",
    "lab-metadata.service": "[Service]\nExecStart=/usr/lib/systemd/systemd-socket-proxyd {}:{}\n",
}


@pytest.fixture(scope="module")
def instances(aws: LocalAws) -> dict[str, Instance]:
    """The hosts, alone but for the local AWS; at their next boot, too."""
    found = {}
    for name in ("self1", "self2"):
        host = testinfra.get_host(f"ansible://{name}", ansible_inventory=str(INVENTORY), sudo=True)
        found[name] = Instance(host, name, aws)
        found[name].app.write("/root/lab-alone", ALONE)
        for unit, text in UNITS.items():
            found[name].app.write(f"/etc/systemd/system/{unit}", text.format(*aws.metadata))
        host.check_output(
            "systemctl daemon-reload && systemctl stop lab-metadata.service && "
            "systemctl enable --now lab-alone.service lab-metadata.socket"
        )
        assert host.run("getent hosts pypi.org").rc != 0
        assert host.run("timeout 5 bash -c ': </dev/tcp/1.1.1.1/443'").rc != 0
    return found


def bundle(folder: Path, old: str, new: str, hosts: list[Any], **settings: Any) -> dict[str, Any]:
    """Make the bundle of the sample app with other words in it, for the Pythons of these hosts."""
    shutil.copytree(
        REPOSITORY / "app", folder / "app", ignore=shutil.ignore_patterns(".venv", "__pycache__", ".*cache")
    )
    main = folder / "app" / "main.py"
    main.write_text(main.read_text().replace(old, new, 1))
    version = "python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'"
    platforms = [{"python": host.check_output(version), "arch": platform.machine(), "hosts": []} for host in hosts]
    variables = {
        "source": str(folder / "app"), "folder": str(folder), "platforms": platforms,
        "settings": {**SETTINGS, **settings},
    }  # fmt: skip
    program = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,"]
    done = subprocess.run(
        [*program, REPOSITORY / "molecule/selfsetup/bundle.yml", "-e", json.dumps(variables)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((folder / "bundle.json").read_text())
    return found


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, instances: dict[str, Instance]) -> dict[str, dict[str, Any]]:
    """Bundles in S3: of the sample app, also for another fleet, of one that cannot be imported, one not well."""
    each, last = [one.host for one in instances.values()], [instances["self2"].host]
    health, app = '@app.get("/health")', "app = FastAPI("
    folder = tmp_path_factory.mktemp("bundles")
    found = {
        "good": bundle(folder / "good", "", "", each),
        "import": bundle(folder / "import", app, f"import a_module_that_nobody_has\n{app}", last),
        "stranger": bundle(folder / "stranger", "", "", last, service_fleet="counter-other"),
        "500": bundle(folder / "500", health, f"{health[:-1]}, status_code=500)", last, service_boot_timeout=15),
    }
    for one in found.values():
        instances["self1"].aws.client("s3").upload_file(one["path"], BUCKET, f"counter/{Path(one['path']).name}")
    return found


def reboot(instance: Instance) -> None:
    """Boot the host anew."""
    found = engine.find()
    assert found is not None
    found.call("restart", "--time", "30", network(instance.app.address)[0], timeout=120)


def seed(instance: Instance, script: str) -> None:
    """Put user data where cloud-init looks for it at boot."""
    instance.host.check_output("mkdir -p /var/lib/cloud/seed/nocloud")
    instance.app.write("/var/lib/cloud/seed/nocloud/user-data", script)
    instance.app.write("/var/lib/cloud/seed/nocloud/meta-data", f"instance-id: {instance.starts[-1]}\n")


def test_instance_boots_and_sets_itself_up(instances: dict[str, Instance], bundles: dict[str, dict[str, Any]]) -> None:
    """By cloud-init, from nothing but the user data."""
    one, release = instances["self1"], bundles["good"]["release"]
    script = one.launch(bundles["good"])
    assert len(script.encode()) <= 4096
    seed(one, script)
    assert one.answer() == 421, "nginx of the image knows nobody"
    began = time.monotonic()
    reboot(one)
    seen: list[tuple[float, int]] = []
    while not one.aws.results(one.starts[-1]) and time.monotonic() < began + SETUP_SECONDS:
        seen.append((time.monotonic() - began, one.answer()))
        time.sleep(0.1)
    assert one.outcome() == "CONTINUE", one.said()
    assert one.answer() == 200
    serving = [seconds for seconds, status in seen if status == 200]
    print(f"boot to serving {serving[0]:.1f} s, to CONTINUE {time.monotonic() - began:.1f} s (asked: 60 s)")
    app = one.app
    assert app.live["release"] == release
    app.assert_settled(release)
    assert app.get("/health", host="shop.example.org")[0] == 200
    assert app.get("/health", host="another.example.org")[0] == 421
    environment = app.host.check_output(f"tr '\\0' '\\n' < /proc/{app.master}/environ")
    assert "COLOUR=a {{ b }} c" in environment.splitlines()
    assert "b }}" not in one.said(), "settings may be secrets"
    assert app.host.file("/var/lib/fastapi-fleet").mode == 0o700


def test_second_start_changes_nothing(instances: dict[str, Instance], bundles: dict[str, dict[str, Any]]) -> None:
    """As an instance of a warm pool, which meets its hook twice."""
    one = instances["self1"]
    slot, before = one.app.slot, one.app.command("history")[1]["history"]
    one.launch(bundles["good"])
    reboot(one)
    assert one.outcome() == "CONTINUE", one.said()
    assert re.search(r"self .*changed=0 .*failed=0", one.said()), one.said()
    assert (one.app.slot, one.app.command("history")[1]["history"]) == (slot, before)
    assert one.answer() == 200


def test_start_without_a_hook_that_waits(instances: dict[str, Instance], bundles: dict[str, dict[str, Any]]) -> None:
    """As after a plain reboot, or where somebody started the instance by hand."""
    one = instances["self1"]
    before = (one.app.master, one.app.workers)
    one.run(user_data(one.aws, bundles["good"]))
    wait_until(lambda: "launch hook: no lifecycle hook accepted CONTINUE" in one.said(), SETUP_SECONDS)
    wait_until(lambda: one.host.run("systemctl is-active fleet-setup").stdout.strip() == "inactive")
    assert "No active Lifecycle Action" in one.said()
    assert (one.app.master, one.app.workers) == before


def test_bundle_with_another_hash_is_not_unpacked(
    instances: dict[str, Instance], bundles: dict[str, dict[str, Any]]
) -> None:
    two = instances["self2"]
    two.run(two.launch(bundles["good"], aws_fleet_bundle_sha256="0" * 64))
    assert two.outcome() == "ABANDON"
    assert f"has SHA-256 {bundles['good']['sha256']}, not {'0' * 64}" in two.said()
    assert not two.host.file("/var/lib/fastapi-fleet").exists
    assert two.answer() == 421


def test_bucket_that_cannot_be_reached(instances: dict[str, Instance], bundles: dict[str, dict[str, Any]]) -> None:
    two = instances["self2"]
    script = two.launch(bundles["good"])
    away = script.replace(f'BUNDLE = "{two.aws.endpoint}', f'BUNDLE = "http://{two.aws.address}:9')
    assert away != script
    two.run(away)
    assert two.outcome(120) == "ABANDON"
    assert f"no bundle from http://{two.aws.address}:9" in two.said()
    assert two.answer() == 421


def test_setup_that_takes_too_long(instances: dict[str, Instance], bundles: dict[str, dict[str, Any]]) -> None:
    """The hook is told even where the setup was killed."""
    two = instances["self2"]
    two.run(two.launch(bundles["good"], aws_fleet_setup_timeout=2))
    assert two.outcome(120) == "ABANDON"
    assert two.answer() == 421


@pytest.mark.parametrize(
    ("name", "reason"),
    [("import", "No module named 'a_module_that_nobody_has'"), ("500", "/health answers 500")],
)
def test_broken_release_never_serves(
    instances: dict[str, Instance], bundles: dict[str, dict[str, Any]], name: str, reason: str
) -> None:
    two = instances["self2"]
    two.run(two.launch(bundles[name]))
    seen = set()
    end = time.monotonic() + SETUP_SECONDS
    while not two.aws.results(two.starts[-1]) and time.monotonic() < end:
        seen.add(two.answer())
        time.sleep(0.2)
    assert two.outcome() == "ABANDON"
    assert reason in two.said()
    seen.add(two.answer())
    assert seen <= {421, 502}, seen


def test_instance_of_another_system_with_its_own_ansible(
    instances: dict[str, Instance], bundles: dict[str, dict[str, Any]]
) -> None:
    """After the broken releases, on the same host: nothing of them is in the way."""
    two = instances["self2"]
    two.run(two.launch(bundles["good"]))
    assert two.outcome() == "CONTINUE", two.said()
    two.app.assert_settled(bundles["good"]["release"])
    assert two.answer() == 200
    keys = {one.host.check_output("sha256sum < /etc/counter/digest.key") for one in instances.values()}
    assert len(keys) == len(instances), "made from one image, and each has a key of its own"


@pytest.mark.fault(73)
def test_bundle_of_another_fleet_is_refused(instances: dict[str, Instance], bundles: dict[str, dict[str, Any]]) -> None:
    """The instance remembers whose it is, and serves on."""
    two = instances["self2"]
    before = two.app.state()
    assert two.host.check_output("cat /etc/counter/fleet") == GROUP
    two.run(two.launch(bundles["stranger"]))
    assert two.outcome() == "ABANDON"
    assert f'belongs to the fleet {GROUP}, but service_fleet is "counter-other". Nothing was changed' in two.said()
    assert two.app.state() == before
    assert two.answer() == 200
