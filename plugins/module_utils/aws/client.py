# SPDX-License-Identifier: Apache-2.0
"""Shared by the modules for AWS: clients, one error whose message is for people, tags."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

#: Every resource of a fleet carries these. One alone says too little: the app `shop` in `a-b` and the app `shop-a` in
#: `b` both make the name `shop-a-b`.
TAG, APP_TAG, ENVIRONMENT_TAG = "fastapi-fleet:fleet", "fastapi-fleet:app", "fastapi-fleet:environment"
#: The fleet's shape, `instances` or `autoscaling`, on its instances, too.
SHAPE_TAG = "fastapi-fleet:shape"
#: On the launch template: numbers of versions that failed or that somebody went back from, the newest last.
BAD_TAG = "fastapi-fleet:bad"

#: What AWS answers when it does not take who asks.
REFUSED = {
    "AuthFailure", "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}  # fmt: skip
CREDENTIALS = (
    "allowed: the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile named by AWS_PROFILE, "
    "or the role of the machine that runs Ansible"
)


class AwsError(Exception):
    """What went wrong, as a sentence."""


@dataclass(frozen=True)
class Fleet:
    """Whose something is on AWS: an app, its environment, and the name that everything of the fleet has."""

    app: str
    environment: str
    name: str

    @classmethod
    def of(cls, listed: Sequence[Mapping[str, str]] | None) -> Fleet:
        """Return the fleet that AWS's list of tags names; what a tag would say is "" where it is missing."""
        by_key = tags(listed)
        return cls(*(by_key.get(key, "") for key in (APP_TAG, ENVIRONMENT_TAG, TAG)))

    def owns(self, listed: Sequence[Mapping[str, str]] | None) -> bool:
        """Return whether something with these tags is this fleet's: all three have to say so."""
        return Fleet.of(listed) == self

    def filters(self, **more: str) -> list[dict[str, Any]]:
        """Return EC2's filters for what this fleet owns, and for more tags, as `shape`."""
        own = {APP_TAG: self.app, ENVIRONMENT_TAG: self.environment, TAG: self.name}
        own |= {f"fastapi-fleet:{key}": value for key, value in more.items()}
        return [{"Name": f"tag:{key}", "Values": [value]} for key, value in own.items()]

    def __str__(self) -> str:
        return f"app {self.app}, environment {self.environment}"


#: What modules are told of where and whose something is, as the documentation fragment `aws` has it.
REGION_OPTION: dict[str, Any] = {"region": {"type": "str", "required": True}}
FLEET_OPTIONS: dict[str, Any] = REGION_OPTION | {
    "fleet": {
        "type": "dict",
        "required": True,
        "options": {name: {"type": "str", "required": True} for name in ("app", "environment", "name")},
    }
}


def code(error: Exception) -> str:
    """Return the code of an error that AWS answered with, "" for any other."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def explain(error: Exception, region: str) -> str:
    """Say what an error of botocore's means for the person who runs this."""
    kind = type(error).__name__
    if kind in {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError"}:
        return f"AWS credentials: {error}; {CREDENTIALS}"
    if code(error) in REFUSED:
        return f"AWS refuses the credentials ({code(error)}): they are wrong, have expired, or {region} is off for them"
    if kind in {"EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError"}:
        return f"AWS cannot be reached in the region {region}: {error}"
    return str(error)


@contextmanager
def explained(region: str) -> Iterator[None]:
    """Turn what botocore raises into AwsError."""
    try:
        yield
    except AwsError:
        raise
    except Exception as error:
        if not type(error).__module__.startswith(("botocore.", "boto3.")):
            raise
        raise AwsError(explain(error, region)) from error


class Clients:
    """Clients for a region, each made once; AwsError where boto3 is not there or the region is none."""

    def __init__(self, region: str) -> None:
        try:
            import boto3  # noqa: PLC0415  a controller that has nothing to do with AWS needs no boto3
        except ImportError as error:
            raise AwsError(f"{sys.executable} has no boto3; script/bootstrap --aws installs it") from error
        self.region = region
        with explained(region):
            self._session = boto3.session.Session()
        partitions = self._session.get_available_partitions()
        known = {name for part in partitions for name in self._session.get_available_regions("ec2", part)}
        # A region that is newer than botocore is none that it could ask, unless somebody names the address.
        if region not in known and not os.environ.get("AWS_ENDPOINT_URL_EC2"):
            near = sorted(name for name in known if name.startswith(region[:3])) or sorted(known)
            raise AwsError(f"aws_fleet_region is {region!r}; allowed: a region of AWS, such as {', '.join(near[:6])}")
        self._made: dict[str, Any] = {}

    def __call__(self, service: str) -> Any:
        """Return the client of a service."""
        if service not in self._made:
            self._made[service] = self._session.client(service, region_name=self.region)
        return self._made[service]


def pages(client: Any, action: str, key: str, **parameters: object) -> list[dict[str, Any]]:
    """Return all items of a list that AWS gives page by page."""
    return [item for page in client.get_paginator(action).paginate(**parameters) for item in page[key]]


def tags(listed: Sequence[Mapping[str, str]] | None) -> dict[str, str]:
    """Return AWS's list of keys and values as a dictionary."""
    return {tag["Key"]: tag["Value"] for tag in listed or []}


def group(clients: Clients, name: str) -> dict[str, Any] | None:
    """Return a scaling group as AWS describes it, None where there is none."""
    groups = clients("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
    return dict(groups[0]) if groups else None


def template(clients: Clients, name: str) -> dict[str, Any] | None:
    """Return a launch template with its versions, the newest first, None where there is none."""
    ec2 = clients("ec2")
    try:
        described = dict(ec2.describe_launch_templates(LaunchTemplateNames=[name])["LaunchTemplates"][0])
    except Exception as error:
        if code(error).startswith("InvalidLaunchTemplateName."):
            return None
        raise
    own = {"LaunchTemplateId": described["LaunchTemplateId"]}
    versions = pages(ec2, "describe_launch_template_versions", "LaunchTemplateVersions", **own)
    return described | {"versions": sorted(versions, key=lambda version: -int(version["VersionNumber"]))}
