"""Host images: pulled where a registry answers, else built from the distribution's package archive."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import machine
from .definition import Host, LabError
from .engine import LABEL, Engine
from .ubuntu import RELEASES, Choice, Release, Sources, choose

# What an Ubuntu server image has and the roles lean on; python3-apt is there on every real one, too.
PACKAGES = [
    "apt",
    "ca-certificates",
    "dbus",
    "iproute2",
    "logrotate",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
    "util-linux",
]
# Downloaded into the image's apt cache but not installed.
PREFETCHED = ["nginx"]
SETTING = "FLEET_LAB_SOURCE"
IMAGES = "images.shared"  # the label's value on images; no lab can have this name
_PROBE_SECONDS = 4.0
_BUILD_SECONDS = 900
_RECIPE = Path(__file__).parent / "image"
# The package that holds the keys which sign Ubuntu's archive, for machines that do not have it.
# The hash pins it; its 2018 key is F6EC B376 2474 EDA9 D21B 7022 8719 20D1 991B C93C.
_KEYRING_PATH = "pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb"
_KEYRING_SHA256 = "36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8"
_KEYRING_FILE = "usr/share/keyrings/ubuntu-archive-keyring.gpg"


@dataclass(frozen=True)
class Keys:
    """The lab's key pairs: the one to log in with and the one that hosts show."""

    login: Path
    host: Path

    @property
    def host_public(self) -> str:
        """Type and key of the hosts' public key, without its comment."""
        return " ".join(self.host.with_suffix(".pub").read_text().split()[:2])


def keys() -> Keys:
    """Return the lab's keys; make them the first time."""
    folder = machine.private("keys")
    with machine.lock("keys"):
        for name in ("id_ed25519", "host_ed25519"):
            if not (folder / name).exists():
                argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "fastapi-fleet lab", "-f"]
                done = machine.run([*argv, str(folder / name)])
                if done.returncode:
                    raise LabError(f"ssh-keygen failed:\n{machine.tail(done.stderr)}")
    return Keys(folder / "id_ed25519", folder / "host_ed25519")


def _answers(url: str, *codes: int) -> bool:
    """Say whether `url` answers with one of these codes; goes through the machine's proxy, if it has one."""
    opener = urllib.request.build_opener()
    try:
        with opener.open(url, timeout=_PROBE_SECONDS) as answer:
            return answer.status in codes
    except urllib.error.HTTPError as error:
        return error.code in codes
    except (OSError, ValueError):
        return False


def _ubuntu_mirrors() -> tuple[str, str]:
    if platform.machine() in ("x86_64", "amd64"):
        return "http://archive.ubuntu.com/ubuntu", "http://security.ubuntu.com/ubuntu"
    return "http://ports.ubuntu.com/ubuntu-ports", "http://ports.ubuntu.com/ubuntu-ports"


def probe() -> Sources:
    """Find out in a few seconds where images can come from; FLEET_LAB_SOURCE skips the question."""
    said = os.environ.get(SETTING, "auto")
    fixed = {
        "registry": Sources(registry=True, ubuntu_archive=False),
        "archive": Sources(registry=False, ubuntu_archive=True),
        "debian": Sources(registry=False, ubuntu_archive=False),
    }
    if said in fixed:
        return fixed[said]
    if said != "auto":
        raise LabError(f"{SETTING}: {said!r} is not allowed; take auto, {', '.join(fixed)}")
    found: dict[str, bool] = {}

    def ask(name: str, url: str, *codes: int) -> threading.Thread:
        return threading.Thread(target=lambda: found.update({name: _answers(url, *codes)}), daemon=True)

    # A registry says 401 to a stranger; looking a name up has no time limit of its own, hence the threads.
    machine.within(
        _PROBE_SECONDS + 1,
        ask("registry", "https://registry-1.docker.io/v2/", 200, 401),
        ask("archive", f"{_ubuntu_mirrors()[0]}/dists/noble/InRelease", 200),
    )
    can_build = shutil.which("mmdebstrap") is not None
    return Sources(found.get("registry", False), found.get("archive", False) and can_build)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _debian_mirrors() -> dict[str, str]:
    """Return where the machine's own apt gets Debian's archives from, by label; nothing where it is no Debian."""
    if shutil.which("apt-get") is None:
        return {}
    lines = machine.run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)"]).stdout.splitlines()
    rows = (line.split(" ", 2) for line in lines)
    return {row[2]: row[0].rstrip("/") for row in rows if row[1:2] == ["Debian"]}


def _apt_lines(release: Release) -> list[str]:
    if release.family == "ubuntu":
        main, security = _ubuntu_mirrors()
        return [
            f"deb {main} {release.suite} main universe",
            f"deb {main} {release.suite}-updates main universe",
            f"deb {security} {release.suite}-security main universe",
        ]
    mirrors = _debian_mirrors()
    if not {"Debian", "Debian-Security"} <= set(mirrors):
        return []  # mmdebstrap knows Debian's own
    return [
        f"deb {mirrors['Debian']} {release.suite} main",
        f"deb {mirrors['Debian']} {release.suite}-updates main",
        f"deb {mirrors['Debian-Security']} {release.suite}-security main",
    ]


def _apt_proxy() -> str:
    """Return apt.conf lines for the machine's own apt proxy, unless it listens on the machine only."""
    if shutil.which("apt-config") is None:
        return ""
    lines = machine.run(["apt-config", "dump", "Acquire::http::Proxy", "Acquire::https::Proxy"]).stdout
    return "" if "127.0.0.1" in lines or "localhost" in lines else lines


def _context_files() -> dict[str, str]:
    """Return the text files of the Docker build context, by path below `files/`."""
    own = keys()
    files = {
        "setup.sh": (_RECIPE / "setup.sh").read_text(),
        "packages": "\n".join(PACKAGES),
        "prefetched": "\n".join(PREFETCHED),
        "apt-proxy.conf": _apt_proxy(),
        "id_ed25519.pub": own.login.with_suffix(".pub").read_text(),
        "host_ed25519": own.host.read_text(),
        "host_ed25519.pub": own.host.with_suffix(".pub").read_text(),
        "certificates/none": "",
    }
    for index, certificate in enumerate(machine.extra_certificates()):
        files[f"certificates/machine-{index}.crt"] = certificate + "\n"
    return files


def recipe() -> str:
    """Return a hash of everything that goes into an image besides its release."""
    files = _context_files()
    return _hash((_RECIPE / "Dockerfile").read_text(), *(part for item in sorted(files.items()) for part in item))


def _keyring(folder: Path) -> Path:
    """Return Ubuntu's archive keyring: the machine's, else out of the pinned package."""
    installed = Path("/") / _KEYRING_FILE
    if installed.exists():
        return installed
    package = folder / "ubuntu-keyring.deb"
    opener = urllib.request.build_opener()
    try:
        with opener.open(f"{_ubuntu_mirrors()[0]}/{_KEYRING_PATH}", timeout=30) as answer:
            content = answer.read()
    except OSError as error:
        raise LabError(f"Ubuntu's archive keyring cannot be fetched: {error}") from error
    if hashlib.sha256(content).hexdigest() != _KEYRING_SHA256:
        raise LabError(f"{_KEYRING_PATH} is not the package that this lab knows (SHA-256 differs)")
    package.write_bytes(content)
    done = machine.run(["dpkg-deb", "--extract", str(package), str(folder / "keyring")])
    if done.returncode:
        raise LabError(f"Ubuntu's archive keyring cannot be unpacked:\n{machine.tail(done.stderr)}")
    return folder / "keyring" / _KEYRING_FILE


def _bootstrap(engine: Engine, release: Release, tag: str) -> None:
    """Build a bare system from its package archive and hand it to the engine as an image."""
    if shutil.which("mmdebstrap") is None:
        raise LabError(
            "no container registry answers, and mmdebstrap, which builds images without one, is not installed: "
            "run script/bootstrap"
        )
    with tempfile.TemporaryDirectory() as name, open(name + "/log", "w+b") as log:
        Path(name).chmod(0o755)  # apt reads the keyring as a user of its own
        argv = ["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
        argv += ['--aptopt=Acquire::Languages "none"', "--quiet"]
        if release.family == "ubuntu":
            argv.append(f"--keyring={_keyring(Path(name))}")
        argv += [release.suite, "-", *_apt_lines(release)]
        load = engine.argv("import", "--change", f"LABEL {LABEL}={IMAGES}", "-", tag)
        limit, env = _BUILD_SECONDS, engine.env()
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log) as tar:
            try:
                done = subprocess.run(
                    load, stdin=tar.stdout, capture_output=True, text=True, check=False, timeout=limit, env=env
                )
            except subprocess.TimeoutExpired as error:
                tar.terminate()
                raise LabError(f"{release.title} was not built within {limit} s") from error
        if tar.returncode or done.returncode:
            log.seek(0)
            text = log.read().decode(errors="replace") + done.stderr
            engine.works("image", "rm", tag)
            raise LabError(f"{release.title} cannot be built from its package archive:\n{machine.tail(text)}")


def _base(engine: Engine, choice: Choice) -> tuple[str, Choice]:
    """Return the bare image for a choice, and the choice itself, which changes when pulling fails."""
    if choice.via == "registry":
        if engine.works("image", "inspect", choice.taken.pulled) or engine.works(
            "pull", "--quiet", choice.taken.pulled, timeout=_BUILD_SECONDS
        ):
            return choice.taken.pulled, choice
        machine.say(f"the registry answers, but does not give {choice.taken.pulled}")
        archive = shutil.which("mmdebstrap") is not None and _answers(_ubuntu_mirrors()[0] + "/", 200)
        choice = choose(choice.asked, Sources(registry=False, ubuntu_archive=archive))
    tag = f"fastapi-fleet/base:{choice.taken.suite}-{_hash(*PACKAGES, *_apt_lines(choice.taken))}"
    if not engine.works("image", "inspect", tag):
        _bootstrap(engine, choice.taken, tag)
    return tag, choice


def _image(engine: Engine, choice: Choice, wanted: str) -> tuple[str, Choice]:
    """Return the host image for a choice; build it if its recipe has no image yet."""

    def tag(taken: Choice) -> str:
        return f"fastapi-fleet/host:{taken.taken.key}-{taken.via}-{wanted}"

    with machine.lock(f"image-{choice.taken.key}"):
        if engine.works("image", "inspect", tag(choice)):
            return tag(choice), choice
        began = time.monotonic()
        if choice.remark:
            machine.say(choice.remark)
        base, choice = _base(engine, choice)
        with tempfile.TemporaryDirectory(dir=machine.private("build")) as name:
            folder = Path(name)
            for path, text in _context_files().items():
                target = folder / "files" / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
            (folder / "Dockerfile").write_text((_RECIPE / "Dockerfile").read_text().replace("@BASE@", base))
            label = f"{LABEL}={IMAGES}"
            engine.call(
                "build", "--quiet", "--force-rm", "--label", label, "--tag", tag(choice), name, timeout=_BUILD_SECONDS
            )
        machine.say(f"image {choice.taken.title} built in {time.monotonic() - began:.0f} s")
        return tag(choice), choice


def provide(engine: Engine, hosts: list[Host], wanted: str) -> dict[str, tuple[str, Choice]]:
    """Return image and choice for each `os` among the hosts. Builds two at a time where there are two cores."""
    sources = probe()
    choices = {host.os: choose(RELEASES[host.os], sources) for host in hosts}
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        futures = {key: pool.submit(_image, engine, choice, wanted) for key, choice in choices.items()}
        return {key: future.result() for key, future in futures.items()}
