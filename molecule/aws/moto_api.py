"""A local AWS API for the tests: moto's server, and what it lacks for a scaling fleet.

    python molecule/aws/moto_api.py up --state DIR [--port N]     serves on 127.0.0.1, in the background
    python molecule/aws/moto_api.py down --state DIR              ends it

DIR/url then holds the address, DIR/pid the process. DIR/faults.json, where it is there, makes the API answer otherwise:

    {"refuse": {"CreateAutoScalingGroup": ["LimitExceeded", "…"]},   an error for an action
     "launch": "You have requested more vCPU capacity …",            no instance of a group starts, for this reason
     "refresh": "failed",                                            a refresh does not get past its half
     "drain": "never"}                                               a target that is deregistered goes on draining

DIR/requests.jsonl has a line for each request: the action or path, the instances that it names, and the bytes sent.
What is added: instance refreshes (each look at one moves it on by a quarter of the group), rollbacks, group attributes,
template versions with user data in groups, targets that drain (until the second look at them).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from moto.autoscaling.exceptions import AutoscalingClientError
from moto.autoscaling.models import Activity, FakeAutoScalingGroup, InstanceState
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult, BaseResponse, EmptyResult
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.launch_templates import LaunchTemplate
from moto.ec2.utils import parse_user_data
from moto.elbv2.models import FakeHealthStatus, FakeTargetGroup
from moto.elbv2.responses import ELBV2Response
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

STEPS = 4  # looks at a refresh until it has replaced all instances
ACTIVE = {"Pending", "InProgress", "RollbackInProgress"}
DONE = 100  # per cent
PATIENCE = 120  # seconds for it to answer


class State:
    """What the API shall answer otherwise, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.refreshes: dict[str, list[dict[str, Any]]] = {}

    def fault(self, name: str) -> Any:
        """Return what is set for a kind of fault, None where nothing is."""
        try:
            return json.loads((self.folder / "faults.json").read_text(encoding="utf-8")).get(name)
        except FileNotFoundError:
            return None

    def note(self, what: str, size: int, body: str = "") -> None:
        """Add a line to the requests."""
        named = sorted(set(re.findall(r"\bi-[0-9a-f]{17}\b", body)))
        with self.lock, (self.folder / "requests.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"what": what, "bytes": size, "instances": named}) + "\n")


def launched(group: FakeAutoScalingGroup, count: int, version: str) -> None:
    """Start instances of a group from a version of its template."""
    before = group.launch_template_version
    group.launch_template_version = version
    try:
        group.replace_autoscaling_group_instances(count, group.get_propagated_tags())
    finally:
        group.launch_template_version = before


def replace(group: FakeAutoScalingGroup, count: int, version: str) -> None:
    """Replace so many of a group's instances that do not have the version."""
    old = [state for state in group.instance_states if state.template_version != version][:count]  # type: ignore[attr-defined]
    if not old:
        return
    launched(group, len(old), version)
    group.autoscaling_backend.ec2_backend.terminate_instances([state.instance_id for state in old])
    group.instance_states = [state for state in group.instance_states if state not in old]
    group.autoscaling_backend.update_attached_target_groups(group.name)


def advance(state: State, group: FakeAutoScalingGroup, refresh: dict[str, Any]) -> None:
    """Move a refresh on by one step."""
    if refresh["Status"] == "RollbackInProgress":
        replace(group, len(group.instance_states), refresh["before"])
        refresh |= {"Status": "RollbackSuccessful", "PercentageComplete": DONE, "EndTime": utcnow()}
        return
    refresh["Status"] = "InProgress"
    wanted = refresh["DesiredConfiguration"]["LaunchTemplate"]["Version"]
    if state.fault("refresh") == "failed" and refresh["PercentageComplete"] >= DONE // 2:
        reason = "The alarm went into ALARM state"
        rolls_back = refresh["Preferences"].get("AutoRollback")
        refresh |= {"Status": "RollbackInProgress" if rolls_back else "Failed", "StatusReason": reason}
        if rolls_back:
            refresh["RollbackDetails"] = {"RollbackReason": reason}
        return
    replace(group, -(-len(group.instance_states) // STEPS), wanted)
    left = sum(found.template_version != wanted for found in group.instance_states)  # type: ignore[attr-defined]
    refresh["InstancesToUpdate"] = left
    refresh["PercentageComplete"] = DONE - DONE * left // max(len(group.instance_states), 1)
    if not left:
        group._set_launch_configuration("", refresh["DesiredConfiguration"]["LaunchTemplate"], None)
        refresh |= {"Status": "Successful", "EndTime": utcnow()}


class Refreshes:
    """The actions of AutoScalingResponse that moto lacks."""

    state: State
    autoscaling_backend: Any
    _get_param: Any
    _get_params: Any

    def _group(self) -> FakeAutoScalingGroup:
        name = self._get_param("AutoScalingGroupName")
        try:
            group: FakeAutoScalingGroup = self.autoscaling_backend.autoscaling_groups[name]
        except KeyError:
            raise AutoscalingClientError("ValidationError", f"AutoScalingGroup name not found - {name}") from None
        return group

    def start_instance_refresh(self) -> ActionResult:
        """Begin to replace a group's instances."""
        group, found = self._group(), self.state.refreshes.setdefault(self._get_param("AutoScalingGroupName"), [])
        if any(refresh["Status"] in ACTIVE for refresh in found):
            raise AutoscalingClientError(
                "InstanceRefreshInProgress", "An Instance Refresh is already in progress and blocks this"
            )
        refresh = {
            "InstanceRefreshId": str(uuid.uuid4()),
            "AutoScalingGroupName": group.name,
            "Status": "Pending",
            "StartTime": utcnow(),
            "PercentageComplete": 0,
            "InstancesToUpdate": len(group.instance_states),
            "DesiredConfiguration": self._get_param("DesiredConfiguration", {}),
            "Preferences": self._get_param("Preferences", {}),
            "before": group.launch_template_version,
        }
        found.insert(0, refresh)
        return ActionResult({"InstanceRefreshId": refresh["InstanceRefreshId"]})

    def describe_instance_refreshes(self) -> ActionResult:
        """Return a group's refreshes, the newest first; one that is under way goes on meanwhile."""
        group, found = self._group(), self.state.refreshes.get(self._get_param("AutoScalingGroupName"), [])
        asked = self._get_param("InstanceRefreshIds")
        for refresh in found:
            if asked and refresh["InstanceRefreshId"] in asked and refresh["Status"] in ACTIVE:
                advance(self.state, group, refresh)
        return ActionResult(
            {"InstanceRefreshes": [item for item in found if not asked or item["InstanceRefreshId"] in asked]}
        )

    def cancel_instance_refresh(self) -> ActionResult:
        """Stop where it is."""
        return self._end("Cancelled")

    def rollback_instance_refresh(self) -> ActionResult:
        """Turn back."""
        return self._end("RollbackInProgress")

    def _end(self, status: str) -> ActionResult:
        for refresh in self.state.refreshes.get(self._get_param("AutoScalingGroupName"), []):
            if refresh["Status"] in ACTIVE:
                refresh["Status"] = status
                return ActionResult({"InstanceRefreshId": refresh["InstanceRefreshId"]})
        raise AutoscalingClientError(
            "ActiveInstanceRefreshNotFound", "No in progress or pending Instance Refresh found"
        )

    def describe_scaling_activities(self) -> ActionResult:
        """Return why no instance starts, where that is so."""
        reason = self.state.fault("launch")
        if not reason:
            return ActionResult({"Activities": []})
        group = self._group()
        activity = Activity("Launching a new EC2 instance", "At …", group, status_code="Failed")
        activity.status_message = reason  # type: ignore[attr-defined]
        return ActionResult({"Activities": [activity] * (group.min_size or 1)})

    def disable_metrics_collection(self) -> ActionResult:
        """Take it."""
        self._group().metrics = []
        return EmptyResult()


def extend(state: State) -> None:
    """Put into moto what it lacks."""
    _extend_responses(state)
    _add_group_attributes(state)
    _add_template_versions(state)
    _add_draining(state)


def _add_group_attributes(state: State) -> None:
    """Have the API keep refreshes and attributes of a scaling group."""
    own: Any = AutoScalingResponse
    Refreshes.state = state
    for name, method in vars(Refreshes).items():
        if callable(method):
            setattr(own, name, method)
    own.state = state

    keep = own.update_auto_scaling_group

    def update(self: Any) -> Any:
        group = self._group()
        for name, kept in (
            ("DefaultInstanceWarmup", "default_instance_warmup"),
            ("InstanceMaintenancePolicy", "instance_maintenance_policy"),
            ("CapacityRebalance", "capacity_rebalance"),
        ):
            if (value := self._get_param(name)) is not None:
                setattr(group, kept, value)
        return keep(self)

    own.update_auto_scaling_group = update


def _add_template_versions(state: State) -> None:
    """Have instances of a group know which version of the launch template they are from, and their user data."""
    launch = FakeAutoScalingGroup.replace_autoscaling_group_instances

    def start(self: Any, count_needed: int, propagated_tags: dict[str, str]) -> None:
        if not state.fault("launch"):
            before = list(self.instance_states)
            launch(self, count_needed, propagated_tags)
            for new in self.instance_states:
                if new not in before:
                    new.template_version = str(self.launch_template_version)

    FakeAutoScalingGroup.replace_autoscaling_group_instances = start  # type: ignore[method-assign]
    FakeAutoScalingGroup.user_data = property(  # type: ignore[method-assign,assignment]
        lambda self: parse_user_data(
            self.ec2_launch_template.get_version(self.launch_template_version).data.get("UserData")
        )
    )
    InstanceState.launch_template = property(  # type: ignore[method-assign,assignment]
        lambda self: {
            "LaunchTemplateId": self.auto_scaling_group.ec2_launch_template.id,
            "LaunchTemplateName": self.auto_scaling_group.ec2_launch_template.name,
            "Version": getattr(self, "template_version", "1"),
        }
    )

    version = LaunchTemplate.create_version

    def described(self: Any, data: dict[str, Any], description: str) -> Any:
        # The template's own tags are none of what instances start with.
        tags = [item for item in data.get("TagSpecifications", []) if item["ResourceType"] != "launch-template"]
        return version(self, data | ({"TagSpecifications": tags} if tags else {}), description)

    LaunchTemplate.create_version = described  # type: ignore[method-assign]


def _extend_responses(state: State) -> None:
    """Have the API note each request, and refuse what a fault says."""
    call = BaseResponse.call_action

    def answer(self: Any) -> Any:
        refused = (state.fault("refuse") or {}).get(self._get_action())
        state.note(self._get_action() or self.path, 0, str(self.querystring))
        if refused:
            error = EC2ClientError if self.service_name == "ec2" else AutoscalingClientError
            status, headers, body = self.serialized(ActionResult(error(*refused)))
            headers["status"] = status
            return status, headers, body
        with state.lock:
            return call(self)

    BaseResponse.call_action = answer  # type: ignore[method-assign]
    _ = ELBV2Response  # loaded before the first request, which is then as fast as the others


def _add_draining(state: State) -> None:
    """Have a target that is deregistered drain for a while."""
    health = FakeTargetGroup.health_for
    polls: Counter[str] = Counter()

    def health_for(self: Any, target: dict[str, Any], ec2_backend: Any) -> FakeHealthStatus:
        status = health(self, target, ec2_backend)
        name = target["Id"]
        if status.reason != "Target.NotRegistered" or name not in self.deregistered_targets:
            polls.pop(name, None)
            return status
        polls[name] += 1
        if state.fault("drain") != "never" and polls[name] > 1:
            return status
        return FakeHealthStatus(
            name, status.port, status.health_check_port, "draining", "Target.DeregistrationInProgress", "It drains"
        )

    FakeTargetGroup.health_for = health_for  # type: ignore[method-assign]


def serve(folder: Path, port: int) -> None:
    """Serve until terminated."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    state = State(folder)
    extend(state)
    app = DomainDispatcherApplication(create_backend_app)

    def counted(environ: dict[str, Any], answer: Any) -> Any:
        state.note(environ["PATH_INFO"], int(environ.get("CONTENT_LENGTH") or 0))
        return app(environ, answer)

    server = make_server("127.0.0.1", port, counted, threaded=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    (folder / "pid").write_text(str(os.getpid()), encoding="utf-8")
    (folder / "url").write_text(f"http://127.0.0.1:{server.server_port}", encoding="utf-8")
    server.serve_forever()


def up(folder: Path, port: int = 0) -> str:
    """Start it as a process of its own and return its address; TimeoutError with its words where it does not answer."""
    down(folder)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    with log.open("w", encoding="utf-8") as output:
        command = [sys.executable, __file__, "serve", f"--state={folder}", f"--port={port}"]
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
        )
    until = time.monotonic() + PATIENCE
    while not (folder / "url").exists():
        if process.poll() is not None or time.monotonic() > until:
            raise TimeoutError(f"the local AWS API does not start: {log.read_text(encoding='utf-8')[-2000:]}")
        time.sleep(0.1)
    return (folder / "url").read_text(encoding="utf-8")


def down(folder: Path) -> None:
    """End the one that a folder knows of, if it runs, and forget all that it kept."""
    if (folder / "pid").exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int((folder / "pid").read_text(encoding="utf-8")), signal.SIGTERM)
    for name in ("pid", "url", "faults.json", "requests.jsonl"):
        (folder / name).unlink(missing_ok=True)


def main() -> None:
    """Start, serve or end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["up", "down", "serve"])
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    if given.command == "up":
        print(up(given.state, given.port))
    elif given.command == "down":
        down(given.state)
    else:
        serve(given.state, given.port)


if __name__ == "__main__":
    main()
