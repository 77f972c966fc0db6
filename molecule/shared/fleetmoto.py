"""A local AWS for hosts of the lab: moto's server, the launch hook's answer that it lacks, and the metadata service.

Both listen on one address only, the lab's bridge, and end with the process or the fixture that started them.
"""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult, EmptyResult
from moto.server import ThreadedMotoServer

REGION = "eu-central-1"
ROLE = "app-instance"
KEYS = {"Code": "Success", "AccessKeyId": "AKIALOCALTESTS", "SecretAccessKey": "local/secret", "Token": "local-token"}


@dataclass
class LocalAws:
    """One local AWS: S3 and Auto Scaling at `endpoint`, the metadata service at `metadata` as (address, port)."""

    address: str
    endpoint: str = ""
    metadata: tuple[str, int] = ("", 0)
    #: What launch hooks were told: instance, group, hook, result.
    completions: list[dict[str, str]] = field(default_factory=list)
    #: Group, hook and instance of the actions that wait for an answer.
    waiting: set[tuple[str, str, str]] = field(default_factory=set)
    #: The instance for which the metadata service answers, by the address that asks.
    instances: dict[str, str] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        """Return a boto3 client for it."""
        keys = {"aws_access_key_id": KEYS["AccessKeyId"], "aws_secret_access_key": KEYS["SecretAccessKey"]}
        return boto3.client(service, endpoint_url=self.endpoint, region_name=REGION, **keys)

    def results(self, instance: str) -> list[str]:
        """Return what the launch hook was told of an instance, in order."""
        return [one["result"] for one in self.completions if one["instance"] == instance]

    def expect(self, address: str, instance: str, group: str, hook: str) -> None:
        """Let an instance with this address wait for its launch hook; the group is made where it is missing."""
        scaling = self.client("autoscaling")
        if not scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"]:
            scaling.create_launch_configuration(LaunchConfigurationName=group, ImageId="ami-1", InstanceType="t3.small")
            scaling.create_auto_scaling_group(
                AutoScalingGroupName=group, LaunchConfigurationName=group, MinSize=0, MaxSize=0,
                AvailabilityZones=[f"{REGION}a"],
            )  # fmt: skip
        scaling.put_lifecycle_hook(
            AutoScalingGroupName=group, LifecycleHookName=hook, DefaultResult="ABANDON",
            LifecycleTransition="autoscaling:EC2_INSTANCE_LAUNCHING",
        )  # fmt: skip
        self.instances[address] = instance
        self.waiting.add((group, hook, instance))


@contextlib.contextmanager
def local_aws(address: str) -> Iterator[LocalAws]:
    """Run a local AWS on this machine's address `address` for as long as the block lasts."""
    local = LocalAws(address)
    AutoScalingResponse.complete_lifecycle_action = _complete(local)  # type: ignore[attr-defined]
    server = ThreadedMotoServer(address, 0, verbose=False)
    server.start()
    local.endpoint = "http://{}:{}".format(*server.get_host_and_port())
    metadata = _metadata(local)
    try:
        yield local
    finally:
        metadata.shutdown()
        metadata.server_close()
        server.stop()
        del AutoScalingResponse.complete_lifecycle_action  # type: ignore[attr-defined]


def _complete(local: LocalAws) -> Callable[[AutoScalingResponse], ActionResult]:
    """Return CompleteLifecycleAction: recorded where an instance waits for it, else refused in AWS's words."""

    def complete_lifecycle_action(self: AutoScalingResponse) -> ActionResult:
        names = ("AutoScalingGroupName", "LifecycleHookName", "InstanceId", "LifecycleActionResult")
        group, hook, instance, result = (str(self._get_param(name)) for name in names)
        if (group, hook, instance) not in local.waiting or result not in {"CONTINUE", "ABANDON"}:
            raise ValidationError(f"No active Lifecycle Action found with instance ID {instance}")
        local.waiting.discard((group, hook, instance))
        local.completions.append({"group": group, "hook": hook, "instance": instance, "result": result})
        return EmptyResult()

    return complete_lifecycle_action


def _metadata(local: LocalAws) -> ThreadingHTTPServer:
    """Start what answers as the instance metadata service, version 2: nothing without a token."""
    token = uuid.uuid4().hex

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            asked = self.path == "/latest/api/token" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
            self._answer(200 if asked else 400, token)

        def do_GET(self) -> None:
            role = "/latest/meta-data/iam/security-credentials/"
            known = {role: ROLE, role + ROLE: json.dumps(KEYS)}
            known["/latest/meta-data/instance-id"] = local.instances.get(self.client_address[0], "")
            if self.headers.get("X-aws-ec2-metadata-token") != token:
                self._answer(401, "")
            else:
                self._answer(200 if known.get(self.path) else 404, known.get(self.path, ""))

        def _answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((local.address, 0), Handler)
    local.metadata = (local.address, server.server_address[1])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
