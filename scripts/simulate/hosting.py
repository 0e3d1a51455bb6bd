"""Models, endpoint configurations and endpoints: fleets of serving containers, and traffic between them.

One container of a variant stands for all its instances. An update is blue/green as SageMaker's: the new fleet must be
healthy before it gets any traffic, in canary and linear steps it gets a part of it, and when it fails, or an alarm of
AutoRollbackConfiguration rings, the old one stays. Data capture is taken and described, and nothing is captured.
"""

import itertools
import threading
from collections.abc import Mapping
from typing import Any

from simulate.control import ControlPlane, Life
from simulate.faults import ApiError, InternalError, JobError, invalid, not_simulated
from simulate.kinds import Resource
from simulate.objects import split
from simulate.serving import MULTI_MODEL, Server, definition
from simulate.world import World

BUSY = ("Creating", "Updating", "RollingBack", "Deleting")


def check_model(plane: ControlPlane, request: Mapping[str, Any], region: str) -> None:
    """Refuse invalid models, those that are not simulated, and those whose data is not in S3."""
    containers = [*request.get("Containers", []), *filter(None, [request.get("PrimaryContainer")])]
    if len(containers) != 1:
        raise not_simulated("a model without exactly one container")
    if "ExecutionRoleArn" not in request:
        raise invalid("ExecutionRoleArn is required")
    [container] = containers
    if "Image" not in container:
        raise not_simulated("a container without Image (ModelPackageName)")
    if container.get("Mode") == MULTI_MODEL:
        if not container.get("ModelDataUrl", "").endswith("/"):
            raise invalid("ModelDataUrl must be an S3 prefix that ends with / when Mode is MultiModel")
        return
    source = container.get("ModelDataSource", {}).get("S3DataSource", {})
    uri = source.get("S3Uri") or container.get("ModelDataUrl")
    if uri:
        bucket, key = split(uri)
        s3 = plane.world.client("s3", region)
        try:
            found = s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
        except s3.exceptions.ClientError:
            found = []
        if not found or (source.get("S3DataType") != "S3Prefix" and found[0]["Key"] != key):
            raise invalid(f"Could not find model data at {uri}.")


def check_config(plane: ControlPlane, request: Mapping[str, Any], region: str) -> None:
    """Refuse invalid configurations, and those that are not simulated."""
    for name in ("ShadowProductionVariants", "ExplainerConfig"):
        if name in request:
            raise not_simulated(name)
    names = [variant["VariantName"] for variant in request["ProductionVariants"]]
    if len(set(names)) < len(names):
        raise invalid("VariantName must be unique in an endpoint configuration")
    for variant in request["ProductionVariants"]:
        if "ModelName" not in variant:
            raise not_simulated("a variant without ModelName (inference components)")
        model = plane.find("Model", variant["ModelName"], region)
        serverless = variant.get("ServerlessConfig")
        if (serverless is None) == ("InstanceType" not in variant):
            raise invalid(f"Variant {variant['VariantName']} needs either InstanceType or ServerlessConfig")
        if serverless and "AsyncInferenceConfig" in request:
            raise invalid("AsyncInferenceConfig is not supported with ServerlessConfig")
        if serverless and serverless["MemorySizeInMB"] % 1024:
            raise invalid("MemorySizeInMB must be 1024, 2048, 3072, 4096, 5120 or 6144")
        if definition(model).get("Mode") == MULTI_MODEL and (serverless or "AsyncInferenceConfig" in request):
            raise invalid("A multi-model container is neither serverless nor asynchronous")


def check_endpoint(plane: ControlPlane, request: Mapping[str, Any], region: str) -> None:
    """Refuse an endpoint without a configuration."""
    plane.find("EndpointConfig", request["EndpointConfigName"], region)


class Fleet:
    """The servers of one configuration.

    Args:
        world: the simulation.
        endpoint: whose they are.
        config: the configuration.
        models: by name.
    """

    def __init__(self, world: World, endpoint: str, config: Resource, models: Mapping[str, Resource]) -> None:
        self.config = config
        self._world = world
        self.servers: dict[str, Server] = {}
        self._variants = config.request["ProductionVariants"]
        self._turns = itertools.count()
        for variant in self._variants:
            name = variant["VariantName"]
            place = (f"/aws/sagemaker/Endpoints/{endpoint}", name)
            memory_mb = variant.get("ServerlessConfig", {}).get("MemorySizeInMB")
            self.servers[name] = Server(world, models[variant["ModelName"]], place, memory_mb=memory_mb)
        concurrency = [each["ServerlessConfig"]["MaxConcurrency"] for each in self._variants
                       if "ServerlessConfig" in each]  # fmt: skip
        self.is_serverless = bool(concurrency)
        self.free = threading.BoundedSemaphore(sum(concurrency) or world.limits.concurrent_invocations)

    @property
    def async_config(self) -> Mapping[str, Any] | None:
        """Where answers go, if they do not come back."""
        found: Mapping[str, Any] | None = self.config.request.get("AsyncInferenceConfig")
        return found

    def start(self) -> None:
        """Start all servers.

        Raises:
            JobError: one is not healthy; then none is left.
        """
        limits = self._world.limits
        try:
            for variant in self._variants:
                usual = limits.serverless_startup_s if "ServerlessConfig" in variant else limits.startup_s
                seconds = variant.get("ContainerStartupHealthCheckTimeoutInSeconds", usual)
                self.servers[variant["VariantName"]].start(variant["VariantName"], seconds)
        except (JobError, InternalError):
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all servers."""
        for server in self.servers.values():
            server.stop()

    def check_health(self) -> None:
        """Ask for /ping, and replace what has ended."""
        for server in self.servers.values():
            server.is_healthy()

    def choose(self, target: str | None) -> tuple[str, Server]:
        """The variant for the next request: by name, or in turns by weight.

        Raises:
            ApiError: there is no such variant.
        """
        if target is not None:
            if target not in self.servers:
                raise ApiError("ValidationError", f"Variant {target} was not found.")
            return target, self.servers[target]
        weights = [(each["VariantName"], float(each.get("InitialVariantWeight", 1))) for each in self._variants]
        total = sum(weight for _, weight in weights) or 1
        # The golden ratio's multiples are spread evenly: the shares hold for few requests, too, and are no accident.
        place = (next(self._turns) * 0.6180339887 % 1) * total
        for name, weight in weights:
            place -= weight
            if place < 0:
                return name, self.servers[name]
        return weights[-1][0], self.servers[weights[-1][0]]

    def summary(self) -> list[dict[str, Any]]:
        """ProductionVariants of DescribeEndpoint."""
        rows = []
        for variant in self._variants:
            weight, count = variant.get("InitialVariantWeight", 1.0), variant.get("InitialInstanceCount", 1)
            row = {"VariantName": variant["VariantName"], "CurrentWeight": weight, "DesiredWeight": weight}
            if "ServerlessConfig" in variant:
                row |= {"CurrentServerlessConfig": variant["ServerlessConfig"], "CurrentInstanceCount": 0}
            else:
                row |= {"CurrentInstanceCount": count, "DesiredInstanceCount": count}
            rows.append(row)
        return rows


class Hosting:
    """All endpoints of one simulation."""

    def __init__(self, world: World, plane: ControlPlane) -> None:
        self._world, self._plane = world, plane
        self._fleets: dict[str, Fleet] = {}
        self._next: dict[str, tuple[Fleet, float]] = {}  # a fleet under way and its share of the traffic
        self._turns = itertools.count()
        plane.lives |= {
            "Model": Life(check_model),
            "EndpointConfig": Life(check_config),
            "Endpoint": Life(check_endpoint, lambda _: {"EndpointStatus": "Creating"}, self._create, self._update,
                             self._delete),
        }  # fmt: skip

    def settled(self, endpoint: str) -> Fleet | None:
        """The fleet in service, ignoring an update in progress; None if there is none."""
        return self._fleets.get(endpoint)

    def fleet(self, endpoint: str) -> Fleet | None:
        """The fleet that answers the next request; each call counts as one request."""
        fleet, (candidate, share) = self._fleets.get(endpoint), self._next.get(endpoint, (None, 0.0))
        if candidate is not None and next(self._turns) * 0.6180339887 % 1 < share:
            return candidate
        return fleet

    def _make(self, endpoint: Resource, config_name: str) -> Fleet:
        config = self._plane.find("EndpointConfig", config_name, endpoint.region)
        names = [variant["ModelName"] for variant in config.request["ProductionVariants"]]
        models = {name: self._plane.find("Model", name, endpoint.region) for name in names}
        return Fleet(self._world, endpoint.name, config, models)

    def _create(self, endpoint: Resource) -> None:
        try:
            fleet = self._make(endpoint, endpoint.request["EndpointConfigName"])
            fleet.start()
        except InternalError as fault:
            raise JobError(f"InternalServerError: {fault}") from fault
        self._fleets[endpoint.name] = fleet
        self._serve(endpoint, fleet)
        self._watch(endpoint)

    def _serve(self, endpoint: Resource, fleet: Fleet, **fields: Any) -> None:
        request = fleet.config.request
        capture = request.get("DataCaptureConfig")
        if capture:
            self._world.note(f"endpoint {endpoint.name}: data capture is not simulated")
            capture = {**capture, "CaptureStatus": "Stopped",
                       "CurrentSamplingPercentage": capture["InitialSamplingPercentage"]}  # fmt: skip
        endpoint.set(
            EndpointStatus="InService",
            EndpointConfigName=fleet.config.name,
            ProductionVariants=fleet.summary(),
            AsyncInferenceConfig=request.get("AsyncInferenceConfig"),
            DataCaptureConfig=capture,
            **fields,
        )

    def _watch(self, endpoint: Resource) -> None:
        """Ask for /ping until the endpoint goes."""
        self._world.background(self._keep_healthy, endpoint)

    def _keep_healthy(self, endpoint: Resource) -> None:
        while not endpoint.stop.wait(10 * self._world.limits.ping_interval_s) and not self._world.closing.is_set():
            fleet = self._fleets.get(endpoint.name)
            if fleet is not None and endpoint.status == "InService":
                fleet.check_health()

    def _update(self, endpoint: Resource, request: Mapping[str, Any]) -> None:
        with endpoint.lock:
            if endpoint.status in BUSY or endpoint.status == "Failed":
                raise invalid(f'Cannot update in-progress endpoint "{endpoint.arn}".')
            fleet = self._make(endpoint, request["EndpointConfigName"])
            endpoint.set(EndpointStatus="Updating", FailureReason=None)
        self._world.note(f"endpoint {endpoint.name}: Updating")
        self._world.background(self._shift, endpoint, fleet, request.get("DeploymentConfig", {}))

    def _shift(self, endpoint: Resource, fleet: Fleet, deployment: Mapping[str, Any]) -> None:
        try:
            fleet.start()
            for share in shares(deployment):
                self._next[endpoint.name] = (fleet, share)
                self._world.closing.wait(self._world.limits.bake_s)
                self._heed_alarms(endpoint, deployment)
        except (JobError, InternalError) as fault:
            endpoint.set(EndpointStatus="RollingBack")
            self._next.pop(endpoint.name, None)
            fleet.stop()
            endpoint.set(EndpointStatus="InService", FailureReason=str(fault))
        else:
            before, self._fleets[endpoint.name] = self._fleets[endpoint.name], fleet
            self._next.pop(endpoint.name, None)
            self._serve(endpoint, fleet, LastDeploymentConfig=deployment or None)
            before.stop()
        self._world.note(f"endpoint {endpoint.name}: {endpoint.status} {endpoint.fields.get('FailureReason') or ''}")

    def _heed_alarms(self, endpoint: Resource, deployment: Mapping[str, Any]) -> None:
        names = [each["AlarmName"] for each in deployment.get("AutoRollbackConfiguration", {}).get("Alarms", [])]
        if names:
            cloudwatch = self._world.client("cloudwatch", endpoint.region)
            alarms = cloudwatch.describe_alarms(AlarmNames=names)["MetricAlarms"]
            # moto leaves StateValue out of account where names are given.
            ringing = ", ".join(alarm["AlarmName"] for alarm in alarms if alarm["StateValue"] == "ALARM")
            if ringing:
                raise JobError(f"The deployment was rolled back because of alarms in ALARM state: {ringing}")

    def _delete(self, endpoint: Resource) -> None:
        with endpoint.lock:
            if endpoint.status in BUSY:
                raise invalid(f'Cannot update in-progress endpoint "{endpoint.arn}".')
            endpoint.set(EndpointStatus="Deleting")
        endpoint.stop.set()
        self._world.background(self._end, endpoint)

    def _end(self, endpoint: Resource) -> None:
        fleet = self._fleets.pop(endpoint.name, None)
        if fleet is not None:
            fleet.stop()
        self._plane.forget(endpoint)

    def close(self) -> None:
        """Stop all fleets."""
        for fleet in [*self._fleets.values(), *(fleet for fleet, _ in self._next.values())]:
            fleet.stop()


def shares(deployment: Mapping[str, Any]) -> list[float]:
    """The parts of the traffic that a new fleet gets, one step after the other, before it gets all."""
    routing = deployment.get("BlueGreenUpdatePolicy", {}).get("TrafficRoutingConfiguration", {})
    kind = routing.get("Type", "ALL_AT_ONCE")
    if kind == "ALL_AT_ONCE":
        return [1.0]
    size = routing.get(
        "CanarySize" if kind == "CANARY" else "LinearStepSize", {"Type": "CAPACITY_PERCENT", "Value": 50}
    )
    part = size["Value"] / 100 if size["Type"] == "CAPACITY_PERCENT" else 0.5
    return [part, 1.0] if kind == "CANARY" else [min(1.0, part * step) for step in range(1, 1 + int(-(-1 // part)))]
