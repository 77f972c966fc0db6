"""The bundle that an instance sets itself up from, and the user data that fetches it."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import tarfile
import types
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from plugins.module_utils.aws import bundle as bundle_module
from plugins.module_utils.aws.bundle import COLLECTION, make
from plugins.module_utils.build.cache import Cache
from plugins.module_utils.build.uv import BuildError, Uv
from tests.unit.artifacts import write
from tests.unit.rendering import REPOSITORY, template, unit

MANIFEST = {"app": "shop", "module": "main:app", "id": "0123456789ab", "python": "3.12", "arch": "x86_64"}
SETTINGS: dict[str, Any] = {
    "app_name": "shop",
    "app_module": "main:app",
    "app_source": "/home/me/shop",
    "release_index_url": "https://me:secret@index.example.org",
    "release_python": "/usr/bin/python3",
    "fleet_migrate": "alembic upgrade head",
    "aws_fleet_region": "eu-central-1",
    "proxy_server_names": ["shop.example.org"],
    "service_env": {"A": "x{{ y }}", "B": "{% z", "C": "plain", "D": ["{# c"]},
}
USER_DATA = {
    "aws_fleet_bucket": "bundles",
    "aws_fleet_bundle_key": "shop/a.tar.gz",
    "aws_fleet_bundle_sha256": "a" * 64,
    "aws_fleet_region": "eu-central-1",
    "aws_fleet_group_name": "shop-production",
    "aws_fleet_launch_hook": "launch",
    "aws_fleet_endpoint": "",
}


def artifact(folder: Path, **changes: str) -> Path:
    """An artifact with nothing in it."""
    manifest = {**MANIFEST, **changes}
    path = folder / f"{manifest['app']}-{manifest['id']}-py{manifest['python']}-{manifest['arch']}.tar.gz"
    return write(folder, b"", [], about=manifest).rename(path)


@pytest.fixture(autouse=True)
def wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is installed: what uv would do is another test's."""
    (tmp_path / "ansible.tar.gz").write_bytes(b"ansible-core")
    monkeypatch.setattr(bundle_module, "ansible", lambda *_: tmp_path / "ansible.tar.gz")


def bundle(tmp_path: Path, artifacts: list[Path], dest: str = "out", **settings: Any) -> dict[str, Any]:
    cache = Cache(tmp_path / "cache")
    return make(REPOSITORY, artifacts, {**SETTINGS, **settings}, tmp_path / dest, cache, Uv("/no/uv"))


def content(path: str) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive if info.isfile()}  # type: ignore[union-attr]


def test_same_input_is_the_same_file_and_no_change(tmp_path: Path) -> None:
    given = [artifact(tmp_path), artifact(tmp_path, python="3.14")]
    first, second = bundle(tmp_path, given), bundle(tmp_path, given)
    other = bundle(tmp_path, given[::-1], "elsewhere")
    assert first["changed"]
    assert second == {**first, "changed": False}
    assert other["sha256"] == first["sha256"] == hashlib.sha256(Path(first["path"]).read_bytes()).hexdigest()
    assert Path(first["path"]).stat().st_size == first["size"]
    assert Path(first["path"]).stat().st_mode & 0o777 == 0o600, "settings may hold secrets"
    assert bundle(tmp_path, given, service_workers=3)["sha256"] != first["sha256"]


def test_damaged_bundle_is_written_again(tmp_path: Path) -> None:
    given = [artifact(tmp_path)]
    first = bundle(tmp_path, given)
    Path(first["path"]).write_bytes(b"half")
    assert bundle(tmp_path, given) == first


def test_bundle_holds_what_runs_and_no_more(tmp_path: Path) -> None:
    found = content(bundle(tmp_path, [artifact(tmp_path)])["path"])
    assert {
        "setup",
        f"{COLLECTION}deploy.yml",
        f"{COLLECTION}ansible.cfg",
        "inventory/hosts.yml",
        "ansible/3.12-x86_64.tar.gz",
    } <= set(found)
    assert "artifacts/shop-0123456789ab-py3.12-x86_64.tar.gz" in found
    assert found[f"{COLLECTION}playbooks/deploy.yml"] == (REPOSITORY / "playbooks/deploy.yml").read_bytes()
    assert {f"{COLLECTION}roles/service/tasks/main.yml", f"{COLLECTION}plugins/action/rollout.py"} <= set(found)
    assert [name for name in found if "__pycache__" in name or name.endswith(".pyc") or "aws_fleet" in name] == []


def test_settings_are_the_apps_and_plain_text(tmp_path: Path) -> None:
    # One of the user's own, which a template named: on the instance it would be an unknown setting.
    found = content(bundle(tmp_path, [artifact(tmp_path)], app_db="x")["path"])
    settings = json.loads(found["inventory/group_vars/all/settings.json"])
    unsafe = {"__ansible_unsafe": "x{{ y }}"}
    assert settings == {
        "app_name": "shop",
        "app_module": "main:app",
        "release_python": "/usr/bin/python3",
        "bundle_server_names": ["shop.example.org"],
        "service_env": {
            "A": unsafe, "B": {"__ansible_unsafe": "{% z"}, "C": "plain", "D": [{"__ansible_unsafe": "{# c"}],
        },
    }  # fmt: skip
    assert b"secret@" not in b"".join(found.values())


@pytest.mark.parametrize(
    ("changes", "settings", "said"),
    [
        (
            [{}, {"id": "ba9876543210", "python": "3.14"}],
            {},
            "holds artifacts of several releases: 0123456789ab, ba9876543210",
        ),
        ([{"python": "3.10"}], {}, "Python 3.10 on x86_64 cannot set themselves up"),
        ([{}], {"app_name": "store"}, ".tar.gz was built for app_name shop, not store. Set"),
        ([{}], {"app_module": "web:app"}, ".tar.gz was built for app_module main:app, not web:app"),
        ([], {}, "artifacts is an empty list"),
    ],
)
def test_what_an_instance_could_not_deploy_is_refused(
    tmp_path: Path, changes: list[dict[str, str]], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(BuildError) as refused:
        bundle(tmp_path, [artifact(tmp_path, **one) for one in changes], **settings)
    assert said in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_what_is_no_artifact_or_no_project_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"no gzip")
    with pytest.raises(BuildError, match="is no whole artifact of a release build"):
        bundle(tmp_path, [tmp_path / "x.tar.gz"])
    with pytest.raises(BuildError, match=r"has no deploy\.yml"):
        make(tmp_path, [artifact(tmp_path)], SETTINGS, tmp_path / "out", Cache(tmp_path / "cache"), Uv("/no/uv"))


# --- user data -------------------------------------------------------------------------------------


def program(**changes: str) -> types.ModuleType:
    """Return the instance's program as a module; it does nothing by itself."""
    module = types.ModuleType("fleet_setup")
    exec(template("aws_fleet", "fleet-setup.py.j2", **{**USER_DATA, **changes}), module.__dict__)  # noqa: S102
    return module


def test_user_data_stays_small_with_long_names() -> None:
    long = {"bucket": "b" * 63, "bundle_key": "k" * 100, "region": "ap-southeast-1", "group_name": "g" * 60}
    given = {**USER_DATA, **{f"aws_fleet_{name}": text for name, text in long.items()}}
    assert len(template("aws_fleet", "user_data.sh.j2", **{**given, "aws_fleet_launch_hook": "h" * 60})) <= 4096


def test_user_data_puts_a_program_and_its_unit_in_place(tmp_path: Path) -> None:
    """Run as it is, but in another folder and without systemd."""
    text = template("aws_fleet", "user_data.sh.j2", **USER_DATA)
    assert text.startswith("#!/bin/sh\n")
    for folder in ("/usr/local/sbin", "/etc/systemd/system"):
        (tmp_path / folder[1:]).mkdir(parents=True)
        text = text.replace(folder, f"{tmp_path}{folder}")
    text = f'systemctl() {{ echo "$*" >>{tmp_path}/systemctl; }}\n{text}'
    for _ in range(2):  # a second run is no error
        subprocess.run(["sh"], input=text, text=True, check=True)
    placed = tmp_path / "usr/local/sbin/fleet-setup"
    assert placed.stat().st_mode & 0o111
    # Ubuntu 22.04's Python says why its host cannot be set up, so it must be able to read the program.
    ast.parse(placed.read_text(), feature_version=(3, 10))
    found = unit((tmp_path / "etc/systemd/system/fleet-setup.service").read_text())
    assert found["Service.ExecStart"] == [str(placed)]
    assert found["Service.ExecStopPost"] == [f"{placed} tell"]
    assert (tmp_path / "systemctl").read_text().splitlines()[-1] == "start --no-block fleet-setup"


@pytest.mark.parametrize("service", ["s3", "autoscaling"])
def test_requests_are_signed_as_botocore_signs_them(monkeypatch: pytest.MonkeyPatch, service: str) -> None:
    module = program()
    keys = {"AccessKeyId": "AKIA", "SecretAccessKey": "se/cret", "Token": "to+ken"}
    monkeypatch.setattr(module, "meta", lambda path: json.dumps(keys) if path.endswith("role") else "role")
    seen: list[tuple[str, dict[str, str], str, bytes | None]] = []
    monkeypatch.setattr(module, "ask", lambda *given: seen.append(given))
    method, body = ("GET", b"") if service == "s3" else ("POST", b"Action=CompleteLifecycleAction&Version=2011-01-01")
    url = module.BUNDLE if service == "s3" else module.SCALING
    module.aws(service, url, method, body)
    ((sent_to, headers, sent_method, sent_body),) = seen
    assert (sent_to, sent_method, sent_body or b"") == (url, method, body)

    request = AWSRequest(
        method, url, data=body or None, headers={"x-amz-content-sha256": headers["x-amz-content-sha256"]}
    )
    signer = (S3SigV4Auth if service == "s3" else SigV4Auth)(
        Credentials(keys["AccessKeyId"], keys["SecretAccessKey"], keys["Token"]), service, "eu-central-1"
    )
    request.context["timestamp"] = headers["x-amz-date"]
    request.headers["X-Amz-Date"] = headers["x-amz-date"]
    request.headers["X-Amz-Security-Token"] = keys["Token"]
    expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    assert headers["authorization"].rpartition("Signature=")[2] == expected
    assert headers["x-amz-content-sha256"] == hashlib.sha256(body).hexdigest()


def test_addresses_are_awss_or_the_local_apis() -> None:
    assert program().BUNDLE == "https://bundles.s3.eu-central-1.amazonaws.com/shop/a.tar.gz"
    assert program().SCALING == "https://autoscaling.eu-central-1.amazonaws.com/"
    local = program(aws_fleet_endpoint="http://172.18.0.1:5000")
    assert (local.BUNDLE, local.SCALING) == ("http://172.18.0.1:5000/bundles/shop/a.tar.gz", "http://172.18.0.1:5000/")
