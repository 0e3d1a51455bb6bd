"""What belongs together in SageMaker, and the calls that remove it, in an order that can be interrupted.

What costs money goes first, and the configuration last, because the rest is found through it.

Sources: SageMaker API Reference, DeleteEndpoint, DeleteEndpointConfig (not before the endpoint), DeleteModel;
Application Auto Scaling API Reference, DeregisterScalableTarget (deletes policies and their alarms); SageMaker
Developer Guide, "Train using managed warm pools" (ending one by UpdateTrainingJob).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.calls import Call
from sagemaker_monai_aws.core.create import require_ours, tags_of
from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.core.follow import KINDS
from sagemaker_monai_aws.core.inventory import LISTINGS, candidates, executions, named, ours, running_jobs, warm_pools
from sagemaker_monai_aws.core.names import digest, is_ours


@dataclass(frozen=True)
class Step:
    """One call, and what it does in a table for people."""

    verb: str
    what: str
    name: str
    call: Call


def sagemaker(verb: str, noun: str, name: str, what: str) -> Step:
    """DeleteX or StopX of something by its name."""
    return Step(verb.lower(), what, name, Call("sagemaker", f"{verb}{noun}", {f"{noun}Name": name}))


class Finder:
    """Finds what belongs to what; reads only.

    Args:
        account: where.
        project: whose things may go.
        force: whether others may go too.
    """

    def __init__(self, account: Account, project: str, *, force: bool) -> None:
        self._account, self._project, self._force = account, project, force
        self._configs: dict[str, dict[str, Any]] | None = None

    def endpoint(self, name: str) -> list[Step]:
        """An endpoint and what exists only for it, even if the endpoint itself is gone."""
        found = self._account.read("sagemaker", "DescribeEndpoint", EndpointName=name)
        steps: list[Step] = []
        configs = self._configs_of(name)
        if found is not None:
            require_ours(self._account, found["EndpointArn"], self._project, force=self._force)
            configs = dict.fromkeys([found["EndpointConfigName"], *configs])
            if found["EndpointStatus"] != "Deleting":
                # A schedule captures nothing without data capture; AWS does not delete an endpoint that has one.
                captures = (found.get("DataCaptureConfig") or {}).get("CaptureStatus") == "Started"
                steps = self._schedules(name) if captures else []
                steps.append(sagemaker("Delete", "Endpoint", name, "endpoint"))
        steps += self._scaling(name) + self._alarms(name)
        gone = set(configs)
        for config in configs:
            steps += [sagemaker("Delete", "Model", model, "model") for model in self._models_of(config, gone)]
            steps.append(sagemaker("Delete", "EndpointConfig", config, "configuration"))
        return once(steps)

    def job(self, name: str) -> list[Step]:
        """A job that has not ended, or its warm pool."""
        found = named(self._account, name)
        if found is None or found[0] == "endpoint":
            raise CommandError(f"there is no job {name!r} in {self._account.region}: `make status` lists what runs")
        kind, description = found
        noun = LISTINGS[kind].noun
        require_ours(self._account, description[f"{noun}Arn"], self._project, force=self._force)
        status = description[KINDS[kind].status]
        if status not in KINDS[kind].ended:
            return [] if status == "Stopping" else [sagemaker("Stop", noun, name, f"{kind} job")]
        return [_pool(name)] if description.get("WarmPoolStatus", {}).get("Status") == "Available" else []

    def model(self, name: str) -> list[Step]:
        """A model that no endpoint serves."""
        found = self._account.read("sagemaker", "DescribeModel", ModelName=name)
        if found is None:
            return []
        require_ours(self._account, found["ModelArn"], self._project, force=self._force)
        users = sorted(config for config, described in self._all_configs().items() if name in _models_in(described))
        if users:
            raise CommandError(f"the model {name} is in use by {', '.join(users)}: delete the endpoint first")
        return [sagemaker("Delete", "Model", name, "model")]

    def pipeline(self, name: str) -> list[Step]:
        """A pipeline and its executions."""
        found = self._account.read("sagemaker", "DescribePipeline", PipelineName=name)
        if found is None:
            return []
        require_ours(self._account, found["PipelineArn"], self._project, force=self._force)
        steps = [
            Step("stop", "execution", arn.rpartition("/")[2],
                 Call("sagemaker", "StopPipelineExecution", {"PipelineExecutionArn": arn, **_token(arn)}))
            for each in executions(self._account, name)
            if each["PipelineExecutionStatus"] == "Executing" and (arn := each["PipelineExecutionArn"])
        ]  # fmt: skip
        request = {"PipelineName": name, **_token(found["PipelineArn"])}
        return [*steps, Step("delete", "pipeline", name, Call("sagemaker", "DeletePipeline", request))]

    def everything(self) -> list[Step]:
        """Everything that the project has; first what costs money."""
        account, project = self._account, self._project
        every = [step for thing in ours(account, project, candidates(account, project, "endpoint"))
                 for step in self.endpoint(thing.name)]  # fmt: skip
        steps = [step for step in every if step.what in ("endpoint", "schedule")]
        steps += [sagemaker("Stop", LISTINGS[thing.kind].noun, thing.name, f"{thing.kind} job")
                  for thing in running_jobs(account, project) if thing.status == "InProgress"]  # fmt: skip
        steps += [step for thing in warm_pools(account, project) for step in self.job(thing.name)]
        for thing in ours(account, project, candidates(account, project, "pipeline")):
            steps += self.pipeline(thing.name)
        steps += every + self._scaling("") + self._alarms("")
        for kind in ("model", "configuration"):
            steps += [sagemaker("Delete", LISTINGS[kind].noun, thing.name, kind)
                      for thing in ours(account, project, candidates(account, project, kind))]  # fmt: skip
        return once(steps)

    def _all_configs(self) -> dict[str, dict[str, Any]]:
        """Every endpoint configuration of this project by its name, as AWS describes it."""
        if self._configs is None:
            things = ours(self._account, self._project, candidates(self._account, self._project, "configuration"))
            described = {thing.name: self._account.read("sagemaker", "DescribeEndpointConfig",
                                                        EndpointConfigName=thing.name) for thing in things}  # fmt: skip
            self._configs = {name: each for name, each in described.items() if each is not None}
        return self._configs

    def _configs_of(self, endpoint: str) -> dict[str, None]:
        """Configurations of ours for an endpoint that no other endpoint has: by their name or their tag `endpoint`."""
        endpoints = ours(self._account, self._project, candidates(self._account, self._project, "endpoint"))
        others = [thing.name for thing in endpoints if thing.name != endpoint]
        described = [self._account.read("sagemaker", "DescribeEndpoint", EndpointName=name) for name in others]
        used = {each["EndpointConfigName"] for each in described if each is not None}
        found: dict[str, None] = {}
        for name, config in self._all_configs().items():
            # The longest name of an endpoint with which it begins is its own.
            starts = [each for each in [endpoint, *others] if name == each or name.startswith(f"{each}-")]
            if name in used:
                continue
            tags = tags_of(self._account, config["EndpointConfigArn"])
            is_tagged = {"Key": "endpoint", "Value": endpoint} in tags
            if is_ours(tags, self._project) and (is_tagged or (starts and max(starts, key=len) == endpoint)):
                found[name] = None
        return found

    def _models_of(self, config: str, gone: set[str]) -> list[str]:
        """Models of ours in a configuration, except for those in one that stays."""
        described = self._all_configs().get(config) or self._account.read(
            "sagemaker", "DescribeEndpointConfig", EndpointConfigName=config
        )
        if described is None:
            return []
        kept = {name for other, each in self._all_configs().items() if other not in gone for name in _models_in(each)}
        models = []
        for name in _models_in(described):
            found = None if name in kept else self._account.read("sagemaker", "DescribeModel", ModelName=name)
            if found is not None and (self._force or is_ours(tags_of(self._account, found["ModelArn"]), self._project)):
                models.append(name)
        return models

    def _schedules(self, endpoint: str) -> list[Step]:
        found = self._account.pages("sagemaker", "ListMonitoringSchedules", "MonitoringScheduleSummaries",
                                    EndpointName=endpoint)  # fmt: skip
        return [sagemaker("Delete", "MonitoringSchedule", each["MonitoringScheduleName"], "schedule") for each in found]

    def _scaling(self, endpoint: str) -> list[Step]:
        """Scalable targets of an endpoint, with "" of all of the project."""
        start = f"endpoint/{endpoint}/" if endpoint else f"endpoint/{self._project}-"
        others = tuple(f"endpoint/{name}/" for name in self._others(endpoint))
        found = self._account.pages("application-autoscaling", "DescribeScalableTargets", "ScalableTargets",
                                    ServiceNamespace="sagemaker")  # fmt: skip
        return [
            Step("delete", "scaling", each["ResourceId"], Call("application-autoscaling", "DeregisterScalableTarget", {
                key: each[key] for key in ("ServiceNamespace", "ResourceId", "ScalableDimension")}))
            for each in found if each["ResourceId"].startswith(start) and not each["ResourceId"].startswith(others)
        ]  # fmt: skip

    def _others(self, endpoint: str) -> list[str]:
        """Endpoints that begin as the project's do and are another's, of interest where all of the project's are."""
        if endpoint:
            return []
        there = candidates(self._account, self._project, "endpoint")
        own = {thing.name for thing in ours(self._account, self._project, there)}
        return [thing.name for thing in there if thing.name not in own]

    def _alarms(self, endpoint: str) -> list[Step]:
        """Alarms of ours about an endpoint, with "" about all of the project."""
        found = self._account.pages("cloudwatch", "DescribeAlarms", "MetricAlarms", AlarmNamePrefix=f"{self._project}-")
        others = self._others(endpoint)
        names = [each["AlarmName"] for each in found if any(
            dimension["Name"] == "EndpointName" and dimension["Value"] not in others
            and (dimension["Value"] == endpoint or not endpoint)
            for dimension in each.get("Dimensions", []))]  # fmt: skip
        return [
            Step("delete", "alarm", name, Call("cloudwatch", "DeleteAlarms", {"AlarmNames": [name]})) for name in names
        ]


def once(steps: Iterable[Step]) -> list[Step]:
    """The same steps, each only where it comes first."""
    first: dict[tuple[str, str], Step] = {}
    for step in steps:
        first.setdefault((step.what, step.name), step)
    return list(first.values())


def _models_in(config: dict[str, Any]) -> list[str]:
    variants = [*config.get("ProductionVariants", []), *config.get("ShadowProductionVariants", [])]
    return [variant["ModelName"] for variant in variants if "ModelName" in variant]


def _pool(name: str) -> Step:
    request = {"TrainingJobName": name, "ResourceConfig": {"KeepAlivePeriodInSeconds": 0}}
    return Step("end", "warm pool", name, Call("sagemaker", "UpdateTrainingJob", request))


def _token(arn: str) -> dict[str, str]:
    return {"ClientRequestToken": digest(arn, 40)}
