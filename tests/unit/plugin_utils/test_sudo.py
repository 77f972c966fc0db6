"""What means that sudo refused, in the words of Ansible, sudo and sudo-rs, and what does not."""

from __future__ import annotations

import pytest
from ansible.plugins.become.sudo import BecomeModule

from plugins.plugin_utils.sudo import refusal

REFUSED = [
    # Ansible
    "Timeout (12s) waiting for privilege escalation prompt:",
    "Missing sudo password",
    "Incorrect sudo password",
    "Premature end of stream waiting for become success.",
    *BecomeModule.fail,
    *BecomeModule.missing,
    # sudo
    "sudo: a password is required",
    "sudo: a terminal is required to read the password; either use ssh's -t option or configure an askpass helper",
    "sudo: no password was provided",
    "sudo: 1 incorrect password attempt",
    "sudo: 3 incorrect password attempts",
    "sudo: sorry, you must have a tty to run sudo",
    "deploy is not in the sudoers file.  This incident will be reported.",
    "Sorry, user deploy is not allowed to execute '/bin/sh -c id' as root on web1.",
    "Sorry, user deploy may not run sudo on web1.",
    "sudo: account validation failure, is your account locked?",
    # sudo-rs, in whose place the name of the program stands before each
    "sudo: interactive authentication is required",
    "sudo-rs: interactive authentication is required",
    "sudo: A terminal is required to authenticate",
    "sudo: Authentication required but not attempted",
    "sudo: Authentication failed, try again.",
    "sudo: maximum 3 incorrect authentication attempts",
    "sudo-rs: Maximum 3 incorrect authentication attempts",
    "sudo: I'm sorry deploy. I'm afraid I can't do that",
    "sudo: Account validation failure, is your account locked?",
]


@pytest.mark.parametrize("message", REFUSED)
def test_refusal_is_known_and_its_words_are_kept(message: str) -> None:
    said = refusal(f"Task failed: {message}")
    assert said.startswith(f"sudo did not make Ansible root: {message}. ")
    assert "(--ask-become-pass)" in said
    assert "ansible_become_exe=sudo.ws" in said


@pytest.mark.parametrize(
    "message",
    [
        "Failed to connect to the host via ssh: ssh: connect to host sudo.example.org port 22: Connection refused",
        "Failed to connect to the host via ssh: sudo@web1: Permission denied (publickey,password).",
        "Failed to connect to the host via ssh: no such identity: /home/me/.ssh/sudo_key: No such file or directory",
        "sudo: unable to resolve host web1: Name or service not known",
        "Timeout (12s) waiting for the output",
        "Missing su password",
        "",
    ],
)
def test_other_messages_are_none_though_they_hold_the_word(message: str) -> None:
    assert refusal(message) == ""


def test_of_a_message_of_several_lines_the_one_of_sudo_is_told() -> None:
    first = "Task failed: Premature end of stream waiting for become success."
    message = f"{first}\n>>> Standard Error\nsudo: a password is required"
    assert refusal(message).startswith("sudo did not make Ansible root: sudo: a password is required. Allow")
