"""The sandbox: what the app cannot do, even when somebody else runs its code.

Defined once, in the app's unit (templates/app@.service.j2); hooks, migrations and `run` get what the unit has.
"""

from __future__ import annotations

#: The directives of a unit that bound what its processes can do and see; systemd.exec(5).
DIRECTIVES = frozenset({
    "NoNewPrivileges", "CapabilityBoundingSet", "AmbientCapabilities", "ProtectSystem", "StateDirectory",
    "StateDirectoryMode", "ReadWritePaths", "ProtectHome", "PrivateTmp", "PrivateDevices", "ProtectClock",
    "ProtectHostname", "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups",
    "ProtectProc", "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID",
    "LockPersonality", "MemoryDenyWriteExecute", "RemoveIPC", "KeyringMode", "SystemCallArchitectures",
    "SystemCallFilter", "SystemCallErrorNumber", "UMask", "LimitNOFILE",
})  # fmt: skip


def sandbox_of(unit: str) -> tuple[tuple[str, str], ...]:
    """Return the sandbox of a service unit's text: each directive with its value, in their order.

    An order it is: a second SystemCallFilter= takes away from what the first one allows.
    """
    lines = (line.strip().partition("=") for line in unit.splitlines())
    return tuple((name, value) for name, _unused, value in lines if name in DIRECTIVES)
