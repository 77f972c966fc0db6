"""What a build backend wrote is shown, not what uv says of it."""

import pytest

from plugins.module_utils.build.backend import advice, reason
from plugins.module_utils.build.uv import explain

UV = (
    "error: Failed to build `/app`\n  cause: The build backend returned an error\n"
    "  cause: Call to `hatchling.build.build_wheel` failed (exit status: 1)\n\nhint: Build failures usually indicate\n"
)
TRACEBACK = "Traceback (most recent call last):\n" + '  File "x.py", line 1\n    call()\n' * 20
SCM = "LookupError: unable to detect version for /app.\n\nMake sure that it has git's data.\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            TRACEBACK + "OSError: Readme file does not exist: README.md",
            "OSError: Readme file does not exist: README.md",
        ),
        (TRACEBACK + SCM, "LookupError: unable to detect version for /app."),
        (
            "gcc -c x.c\nerror: [Errno 2] No such file or directory: 'gcc'",
            "error: [Errno 2] No such file or directory: 'gcc'",
        ),
        ("building\nit is broken\n", "it is broken"),
    ],
)
@pytest.mark.parametrize("inside", [False, True], ids=["build", "metadata"])
def test_reason_comes_first_and_the_last_lines_are_the_backends(text: str, why: str, inside: bool) -> None:
    """Of a whole build, uv writes the backend's output before its own; of metadata, within that and indented."""
    stderr = "Building wheel...\n" + text + "\n" + UV
    if inside:
        quoted = "".join(f"         {line}\n" for line in ["[stderr]", *text.splitlines()])
        stderr = UV.replace("\nhint", "\n" + quoted + "\nhint")
    message = explain(stderr, "building the wheel of /app")
    assert message.startswith(
        f"The build backend failed while building the wheel of /app: {why}\nIt was built from the"
    )
    assert message.splitlines()[-1] == text.strip().splitlines()[-1]
    assert "cause:" not in message
    assert "hint:" not in message


def test_nothing_is_no_reason() -> None:
    assert reason("") == ""
    assert "package = false in [tool.uv]" in advice(
        "ValueError: Unable to determine which files to ship inside the wheel"
    )


def test_logins_do_not_show() -> None:
    assert "secret" not in explain(f"fatal: https://me:secret@h/x\n{UV}", "building")
