"""What uv's errors mean to the person who deploys, and what is never shown of them."""

import pytest

from plugins.module_utils.build.uv import explain, lacks_wheel, redact


@pytest.mark.parametrize(
    ("stderr", "want"),
    [
        ("cause: Hash mismatch for `h11==0.16.0`", "file of h11==0.16.0"),
        ("Because docopt==0.6.2 has no\n usable wheels and", "docopt 0.6.2 has no wheel for Python 3.11"),
        ("Because uvloop==0.19.0 has no wheels with a matching Python ABI tag", "uvloop 0.19.0 has no wheel"),
        ("client error (Connect)", "package index could not be reached while locking for Python 3.11"),
        ("Because zzz was not found in the package registry", "does not have zzz"),
        ("Because there is no version of foo==9 and", "does not have foo==9"),
        ("boom at https://u:p@h/", "uv said:\nboom at https://***@h/"),
    ],
)
def test_what_uv_says_is_explained(stderr: str, want: str) -> None:
    assert want in explain(stderr, "locking", "Python 3.11 on x86_64 (web1)")


def test_uv_says_what_lacks_a_wheel() -> None:
    said = "error: No solution\n  cause: Because Foo_Bar==1.2 has no usable\n  wheels and you require Foo_Bar==1.2"
    assert lacks_wheel(said) == ("foo-bar", "1.2")
    assert lacks_wheel("error: Hash mismatch for `foo==1.2`") is None


def test_credentials_are_redacted() -> None:
    assert redact("at https://me:secret@host/x and ssh://git@host") == "at https://***@host/x and ssh://***@host"
