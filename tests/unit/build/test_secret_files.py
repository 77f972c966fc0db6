"""Which files may hold secrets, by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.module_utils.build.secret_files import is_secret

PRIVATE = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"


@pytest.mark.fault(71)
@pytest.mark.parametrize(
    "name",
    [
        ".env", ".env.live", "conf/prod.env", "Prod.ENV", ".envrc", "deploy/id_rsa", "id_ed25519", "a.p12", "a.pfx",
        "a.jks", ".netrc", ".pgpass", ".pypirc", ".git-credentials", "credentials.json", "client_secret_7.json",
        "service-account.json", "home/.aws/credentials", ".aws/credentials", "raw.key",
    ],
)  # fmt: skip
def test_names_of_secrets(name: str, tmp_path: Path) -> None:
    assert is_secret(tmp_path, name)


@pytest.mark.parametrize(
    "name",
    ["env.py", "environment", "id_rsa.pub", "credentials.py", "credentials", "keys.json", "a.keys", "main.py", "a.crt"],
)
def test_names_of_other_files(name: str, tmp_path: Path) -> None:
    assert not is_secret(tmp_path, name)


@pytest.mark.fault(71)
@pytest.mark.parametrize("name", ["tls.pem", "tls.key", "TLS.PEM"])
@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (PRIVATE, True),
        (f"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n{PRIVATE}", True),
        ("0f" * 32, True),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", False),
        ("-----BEGIN PGP PUBLIC KEY BLOCK-----\nAAAA\n", False),
    ],
)
def test_content_tells_keys_from_certificates(name: str, text: str, secret: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert is_secret(tmp_path, name) is secret
