# SPDX-License-Identifier: Apache-2.0
"""Find what carries a fleet's tags, and remove it in an order that AWS takes.

Only the tags count, all three of them. Names are used to look at fewer candidates where AWS cannot search by tag
(buckets, roles, alarms).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .client import AwsError, Clients, Fleet, code, explained, pages

PAUSE = 5  # seconds between two tries, while AWS still holds on to something
BATCH = 20  # load balancers or target groups that AWS tells the tags of at a time

#: How EC2 lists each kind: action, list, id. In the order of removal.
EC2_KINDS = {
    "VPC endpoint": ("describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId"),
    "NAT gateway": ("describe_nat_gateways", "NatGateways", "NatGatewayId"),
    "address": ("describe_addresses", "Addresses", "AllocationId"),
    "volume": ("describe_volumes", "Volumes", "VolumeId"),
    "launch template": ("describe_launch_templates", "LaunchTemplates", "LaunchTemplateId"),
    "subnet": ("describe_subnets", "Subnets", "SubnetId"),
    "route table": ("describe_route_tables", "RouteTables", "RouteTableId"),
    "internet gateway": ("describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
    "security group": ("describe_security_groups", "SecurityGroups", "GroupId"),
    "VPC": ("describe_vpcs", "Vpcs", "VpcId"),
}
#: How a kind is deleted where one request does it: service, action, parameter, which takes a list where it ends in "s".
DELETES = {
    "target group": ("elbv2", "delete_target_group", "TargetGroupArn"),
    "alarm": ("cloudwatch", "delete_alarms", "AlarmNames"),
    "VPC endpoint": ("ec2", "delete_vpc_endpoints", "VpcEndpointIds"),
    "address": ("ec2", "release_address", "AllocationId"),
    "volume": ("ec2", "delete_volume", "VolumeId"),
    "launch template": ("ec2", "delete_launch_template", "LaunchTemplateId"),
    "subnet": ("ec2", "delete_subnet", "SubnetId"),
    "VPC": ("ec2", "delete_vpc", "VpcId"),
}
#: All kinds in the order of removal.
ORDER = ("scaling group", "instance", "load balancer", "target group", "alarm", *EC2_KINDS, "bucket", "role")
#: AWS still uses what depends on it: network interfaces go some time after their owner.
BUSY = {"DependencyViolation", "ResourceInUse", "ResourceInUseException", "InvalidIPAddress.InUse", "AuthFailure",
        "OperationNotPermitted", "ResourceContention", "ScalingActivityInProgress", "VolumeInUse"}  # fmt: skip


@dataclass(frozen=True)
class Resource:
    """Something that carries the tags."""

    kind: str
    id: str


class Remover:
    """What is there of a fleet, and its end."""

    def __init__(self, clients: Clients, fleet: Fleet) -> None:
        self.clients, self.fleet, self.name = clients, fleet, fleet.name

    def find(self) -> list[Resource]:
        """Return all that carries the tags, in the order of removal."""
        with explained(self.clients.region):
            resources = [
                *self._groups(), *self._ec2(), *self._balancers(), *self._alarms(), *self._buckets(), *self._roles(),
            ]  # fmt: skip
        return sorted(resources, key=lambda resource: ORDER.index(resource.kind))

    def remove(self, resources: Iterable[Resource], timeout: float) -> None:
        """Remove them; AwsError names what is left when the time is over or AWS refuses."""
        until, left = time.monotonic() + timeout, list(resources)
        with explained(self.clients.region):
            while left:
                kind, reasons = left[0].kind, []
                for resource in [item for item in left if item.kind == kind]:
                    reason = self._try(resource)
                    reasons += [f"{resource.kind} {resource.id}: {reason}"] if reason else []
                    left = left if reason else [item for item in left if item != resource]
                if reasons and time.monotonic() > until:
                    rest = ", ".join(f"{item.kind} {item.id}" for item in left)
                    raise AwsError(
                        f"not removed after {timeout:.0f} s: {'; '.join(reasons)}. Left: {rest}. Run it again"
                    )
                if reasons:
                    time.sleep(PAUSE)
        if still := self.find():
            rest = ", ".join(f"{item.kind} {item.id}" for item in still)
            raise AwsError(f"AWS still has {rest}. Run it again")

    def _try(self, resource: Resource) -> str:
        """Remove one; return "" once it is gone, else why it is not yet."""
        try:
            return "" if self._remove(resource) else "still ending"
        except Exception as error:
            refusal = code(error)
            if refusal in BUSY:
                return str(error)
            if "NotFound" in refusal or refusal in {"NoSuchEntity", "NoSuchBucket"} or "not found" in str(error):
                return ""
            if refusal:
                raise AwsError(f"{resource.kind} {resource.id}: {error}") from error
            raise

    def _remove(self, resource: Resource) -> bool:
        """Remove one; return whether it is gone."""
        if resource.kind in DELETES:
            service, action, parameter = DELETES[resource.kind]
            getattr(self.clients(service), action)(
                **{parameter: [resource.id] if parameter.endswith("s") else resource.id}
            )
            return True
        action_of: Callable[[str], bool] = getattr(self, f"_remove_{resource.kind.lower().replace(' ', '_')}")
        return action_of(resource.id)

    # Finding

    def _groups(self) -> list[Resource]:
        groups = pages(self.clients("autoscaling"), "describe_auto_scaling_groups", "AutoScalingGroups")
        return [
            Resource("scaling group", item["AutoScalingGroupName"]) for item in groups if self.fleet.owns(item["Tags"])
        ]

    def _ec2(self) -> list[Resource]:
        ec2, resources = self.clients("ec2"), [Resource("instance", name) for name in self._instances()]
        own = self.fleet.filters()
        for kind, (action, key, identity) in EC2_KINDS.items():
            listed = (
                pages(ec2, action, key, Filters=own)
                if ec2.can_paginate(action)
                else getattr(ec2, action)(Filters=own)[key]
            )
            # AWS goes on showing NAT gateways and endpoints for a while. The tags are looked at once more: a filter
            # that some API does not know must not cost another fleet its gateway.
            alive = [
                item
                for item in listed
                if str(item.get("State", "")).lower() != "deleted" and self.fleet.owns(item.get("Tags"))
            ]
            resources += [Resource(kind, item[identity]) for item in alive]
        return resources

    def _instances(self) -> list[str]:
        states = ["pending", "running", "shutting-down", "stopping", "stopped"]
        filters = [*self.fleet.filters(), {"Name": "instance-state-name", "Values": states}]
        reservations = pages(self.clients("ec2"), "describe_instances", "Reservations", Filters=filters)
        listed = [item for reservation in reservations for item in reservation["Instances"]]
        return [item["InstanceId"] for item in listed if self.fleet.owns(item["Tags"])]

    def _balancers(self) -> list[Resource]:
        client, resources = self.clients("elbv2"), []
        for kind, action, key, arn in (
            ("load balancer", "describe_load_balancers", "LoadBalancers", "LoadBalancerArn"),
            ("target group", "describe_target_groups", "TargetGroups", "TargetGroupArn"),
        ):
            arns = [item[arn] for item in pages(client, action, key)]
            for start in range(0, len(arns), BATCH):
                described = client.describe_tags(ResourceArns=arns[start : start + BATCH])["TagDescriptions"]
                resources += [
                    Resource(kind, item["ResourceArn"]) for item in described if self.fleet.owns(item["Tags"])
                ]
        return resources

    def _alarms(self) -> list[Resource]:
        client = self.clients("cloudwatch")
        named = pages(client, "describe_alarms", "MetricAlarms", AlarmNamePrefix=f"{self.name}-")
        return [
            Resource("alarm", item["AlarmName"]) for item in named
            if self.fleet.owns(client.list_tags_for_resource(ResourceARN=item["AlarmArn"])["Tags"])
        ]  # fmt: skip

    def _buckets(self) -> list[Resource]:
        client, resources = self.clients("s3"), []
        for item in client.list_buckets()["Buckets"]:
            if item["Name"].startswith(f"{self.name}-") and item["Name"].endswith(self.clients.region):
                try:
                    tag_set = client.get_bucket_tagging(Bucket=item["Name"])["TagSet"]
                except Exception as error:
                    if code(error) not in {"NoSuchTagSet", "AccessDenied"}:
                        raise
                    tag_set = []
                resources += [Resource("bucket", item["Name"])] if self.fleet.owns(tag_set) else []
        return resources

    def _roles(self) -> list[Resource]:
        client = self.clients("iam")
        named = [
            item["RoleName"] for item in pages(client, "list_roles", "Roles")
            if item["RoleName"] == f"{self.name}-{self.clients.region}"
        ]  # fmt: skip
        return [
            Resource("role", name) for name in named if self.fleet.owns(client.list_role_tags(RoleName=name)["Tags"])
        ]

    # Removing: each returns whether it is gone

    def _remove_scaling_group(self, name: str) -> bool:
        client = self.clients("autoscaling")
        groups = client.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
        if groups and not groups[0].get("Status"):
            client.delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)
        return not client.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]

    def _remove_instance(self, name: str) -> bool:
        self.clients("ec2").terminate_instances(InstanceIds=[name])
        return name not in self._instances()

    def _remove_load_balancer(self, arn: str) -> bool:
        client = self.clients("elbv2")
        client.delete_load_balancer(LoadBalancerArn=arn)
        return not client.describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"]

    def _remove_nat_gateway(self, name: str) -> bool:
        client = self.clients("ec2")
        client.delete_nat_gateway(NatGatewayId=name)
        gateways = client.describe_nat_gateways(NatGatewayIds=[name])["NatGateways"]
        return not gateways or bool(gateways[0]["State"] == "deleted")

    def _remove_route_table(self, name: str) -> bool:
        client = self.clients("ec2")
        for table in client.describe_route_tables(RouteTableIds=[name])["RouteTables"]:
            for item in table["Associations"]:
                client.disassociate_route_table(AssociationId=item["RouteTableAssociationId"])
        client.delete_route_table(RouteTableId=name)
        return True

    def _remove_internet_gateway(self, name: str) -> bool:
        client = self.clients("ec2")
        for gateway in client.describe_internet_gateways(InternetGatewayIds=[name])["InternetGateways"]:
            for item in gateway["Attachments"]:
                client.detach_internet_gateway(InternetGatewayId=name, VpcId=item["VpcId"])
        client.delete_internet_gateway(InternetGatewayId=name)
        return True

    def _remove_security_group(self, name: str) -> bool:
        client = self.clients("ec2")
        # Those of one fleet name each other: rules go first.
        for group in client.describe_security_groups(GroupIds=[name])["SecurityGroups"]:
            try:
                if group["IpPermissions"]:
                    client.revoke_security_group_ingress(GroupId=name, IpPermissions=group["IpPermissions"])
            except Exception as error:
                if not code(error).endswith(".NotFound"):  # a group that a rule names is gone already
                    raise
        client.delete_security_group(GroupId=name)
        return True

    def _remove_bucket(self, name: str) -> bool:
        client = self.clients("s3")
        for page in client.get_paginator("list_object_versions").paginate(Bucket=name):
            listed = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            objects = [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in listed]
            if objects:
                client.delete_objects(Bucket=name, Delete={"Objects": objects, "Quiet": True})
        client.delete_bucket(Bucket=name)
        return True

    def _remove_role(self, name: str) -> bool:
        client = self.clients("iam")
        for item in client.list_instance_profiles_for_role(RoleName=name)["InstanceProfiles"]:
            client.remove_role_from_instance_profile(InstanceProfileName=item["InstanceProfileName"], RoleName=name)
            if item["InstanceProfileName"] == name:
                client.delete_instance_profile(InstanceProfileName=name)
        for policy in client.list_role_policies(RoleName=name)["PolicyNames"]:
            client.delete_role_policy(RoleName=name, PolicyName=policy)
        client.delete_role(RoleName=name)
        return True
