"""SageMaker's control plane: resources, and the operations that create, describe, list, stop, update and delete them.

What a resource does after it was created is a `Life` of its kind; everything that all kinds have in common is here.
Operations that no table here has are answered by moto.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from simulate import shapes
from simulate.faults import ApiError, InternalError, JobError, invalid
from simulate.kinds import KINDS, MISSING, PAGE, TAGGING, TERMINAL, Kind, Resource, arn
from simulate.world import ACCOUNT, World


@dataclass(frozen=True)
class Life:
    """What differs between kinds.

    Attributes:
        check: refuses a request that its shape allows; takes control plane, request and region.
        fields: that a new resource has.
        run: what happens to it, in a thread of its own.
        update: handles Update; takes the resource and the request.
        delete: what Delete does before the resource goes; None: nothing.
    """

    check: Callable[["ControlPlane", Mapping[str, Any], str], None]
    fields: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda _: {}
    run: Callable[[Resource], None] | None = None
    update: Callable[[Resource, Mapping[str, Any]], None] | None = None
    delete: Callable[[Resource], None] | None = None


class ControlPlane:
    """All resources of one simulation."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lives: dict[str, Life] = {}
        self._resources: dict[tuple[str, str], Resource] = {}
        self._lock = threading.RLock()
        verbs = {"Create": self._create, "Describe": self._describe, "Delete": self._delete, "Stop": self._stop,
                 "Update": self._update}  # fmt: skip
        self.operations: dict[str, Callable[[Mapping[str, Any], str], dict[str, Any]]] = {
            "ListTrainingJobsForHyperParameterTuningJob": self._list_of_tuning,
            "AddTags": self._add_tags,
            "ListTags": self._list_tags,
            "DeleteTags": self._delete_tags,
        }
        known = set(shapes.service().operation_names)
        for kind in KINDS.values():
            for verb, handle in verbs.items():
                if f"{verb}{kind.name}" in known and (verb != "Update" or kind.name == "Endpoint"):
                    self.operations[f"{verb}{kind.name}"] = _bound(handle, kind)
            self.operations[f"List{kind.name}s"] = _bound(self._list, kind)

    def knows(self, operation: str, request: Mapping[str, Any]) -> bool:
        """Whether an operation is for this and not for moto; tags are where their resource is."""
        if operation in TAGGING:
            return any(each.arn == request.get("ResourceArn") for each in list(self._resources.values()))
        return operation in self.operations

    def handle(self, operation: str, request: Mapping[str, Any], region: str) -> dict[str, Any]:
        """Answer one request.

        Raises:
            ApiError: it is refused.
        """
        shapes.check(operation, request)
        return shapes.answer(operation, self.operations[operation](request, region))

    def find(self, kind: str, name: str, region: str) -> Resource:
        """A resource by its name.

        Raises:
            ApiError: there is none.
        """
        with self._lock:
            found = self._resources.get((kind, name))
        if found is None:
            default = f'Could not find {KINDS[kind].words} "{arn(KINDS[kind], name, region)}".'
            message = MISSING.get(kind, default).format(name=name, account=ACCOUNT)
            code = "ResourceNotFound" if kind == "HyperParameterTuningJob" else "ValidationException"
            raise ApiError(code, message)
        return found

    def create(self, kind: Kind, request: Mapping[str, Any], region: str, **fields: Any) -> Resource:
        """Create a resource and start its life.

        Raises:
            ApiError: the name is taken, or the request cannot be.
        """
        name = request[f"{kind.name}Name"]
        life = self.lives[kind.name]
        self._refuse_taken(kind, name)
        life.check(self, request, region)
        now = time.time()
        with self._lock:
            self._refuse_taken(kind, name)  # meanwhile
            made = Resource(kind, name, arn(kind, name, region), region, request)
            made.tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags", [])}
            made.fields = {"CreationTime": now, "LastModifiedTime": now, **life.fields(request), **fields}
            self._resources[kind.name, name] = made
        self.world.note(f"{kind.words} {name}: created")
        if life.run is not None:
            self.world.background(self._live, life.run, made)
        return made

    def _refuse_taken(self, kind: Kind, name: str) -> None:
        there = self._resources.get((kind.name, name))
        if there is not None and not kind.is_job:
            raise invalid(f'Cannot create already existing {kind.words} "{there.arn}".')
        if there is not None:
            words = kind.words
            raise ApiError("ResourceInUse", f"{words.capitalize()} names must be unique within an AWS account and "
                           f"region, and a {words} with this name already exists ({there.arn})")  # fmt: skip

    def _live(self, run: Callable[[Resource], None], resource: Resource) -> None:
        try:
            run(resource)
        except (JobError, InternalError, ApiError) as error:
            resource.set(**{resource.kind.status: "Failed", "FailureReason": str(error)})
        except Exception as error:  # a thread that ends in silence would leave the job in progress for ever
            resource.set(**{resource.kind.status: "Failed",
                            "FailureReason": f"InternalServerError: {type(error).__name__}: {error}"})  # fmt: skip
            if not self.world.closing.is_set():
                raise
        finally:
            reason = resource.fields.get("FailureReason")
            self.world.note(
                f"{resource.kind.words} {resource.name}: {resource.status}{f', {reason}' if reason else ''}"
            )

    def forget(self, resource: Resource) -> None:
        """Remove a resource."""
        with self._lock:
            self._resources.pop((resource.kind.name, resource.name), None)
        self.world.note(f"{resource.kind.words} {resource.name}: deleted")

    def all(self, kind: str) -> list[Resource]:
        """Resources of a kind, the oldest first."""
        with self._lock:
            found = [each for (name, _), each in self._resources.items() if name == kind]
        return sorted(found, key=lambda each: float(each.fields["CreationTime"]))

    # Operations

    def _create(self, kind: Kind, request: Mapping[str, Any], region: str) -> dict[str, Any]:
        return self.create(kind, request, region).described()

    def _describe(self, kind: Kind, request: Mapping[str, Any], region: str) -> dict[str, Any]:
        return self.find(kind.name, request[f"{kind.name}Name"], region).described()

    def _delete(self, kind: Kind, request: Mapping[str, Any], region: str) -> dict[str, Any]:
        found = self.find(kind.name, request[f"{kind.name}Name"], region)
        life = self.lives[kind.name]
        if kind.is_job and found.status not in TERMINAL:
            raise invalid(f"The request was rejected because the {kind.words} is in status {found.status}.")
        if life.delete is None:
            self.forget(found)
        else:
            life.delete(found)
        return {}

    def _stop(self, kind: Kind, request: Mapping[str, Any], region: str) -> dict[str, Any]:
        found = self.find(kind.name, request[f"{kind.name}Name"], region)
        with found.lock:
            if found.status in TERMINAL:
                raise invalid(f"The request was rejected because the {kind.words} is in status {found.status}.")
            found.set(**{kind.status: "Stopping"})
        found.stop.set()
        return {}

    def _update(self, kind: Kind, request: Mapping[str, Any], region: str) -> dict[str, Any]:
        found = self.find(kind.name, request[f"{kind.name}Name"], region)
        update = self.lives[kind.name].update
        assert update is not None
        update(found, request)
        return found.described()

    def _list(self, kind: Kind, request: Mapping[str, Any], _: str) -> dict[str, Any]:
        rows = [each.described() for each in self.all(kind.name)]
        rows = [row for row in rows if _matches(row, kind, request)]
        keys = {"Name": f"{kind.name}Name", "Status": kind.status}
        key = keys.get(request.get("SortBy", "CreationTime"), "CreationTime")
        rows.sort(key=lambda row: row[key])
        is_ascending = request.get("SortOrder", "Ascending" if kind.is_ascending else "Descending") == "Ascending"
        return _page(kind.items, rows if is_ascending else rows[::-1], request)

    def _list_of_tuning(self, request: Mapping[str, Any], region: str) -> dict[str, Any]:
        tuning = self.find("HyperParameterTuningJob", request["HyperParameterTuningJobName"], region)
        rows = [job.described() for job in self.all("TrainingJob") if job.fields.get("TuningJobArn") == tuning.arn]
        status = request.get("StatusEquals")
        rows = [row for row in rows if status in (None, row["TrainingJobStatus"])]
        sort = request.get("SortBy", "Name")
        key = {"Name": "TrainingJobName", "Status": "TrainingJobStatus"}.get(sort, sort)
        if key == "FinalObjectiveMetricValue":
            scored = "FinalHyperParameterTuningJobObjectiveMetric"
            rows = [row for row in rows if scored in row]
            rows.sort(key=lambda row: float(row[scored]["Value"]))
        else:
            rows.sort(key=lambda row: row[key])
        if request.get("SortOrder", "Ascending") == "Descending":
            rows.reverse()
        return _page("TrainingJobSummaries", rows, request)

    def _tagged(self, request: Mapping[str, Any]) -> Resource:
        with self._lock:
            return next(each for each in self._resources.values() if each.arn == request["ResourceArn"])

    def _add_tags(self, request: Mapping[str, Any], _: str) -> dict[str, Any]:
        self._tagged(request).tags |= {tag["Key"]: tag["Value"] for tag in request["Tags"]}
        return self._list_tags(request, _)

    def _list_tags(self, request: Mapping[str, Any], _: str) -> dict[str, Any]:
        return {"Tags": [{"Key": key, "Value": value} for key, value in self._tagged(request).tags.items()]}

    def _delete_tags(self, request: Mapping[str, Any], _: str) -> dict[str, Any]:
        for key in request["TagKeys"]:
            self._tagged(request).tags.pop(key, None)
        return {}


def _bound(handle: Callable[..., dict[str, Any]], kind: Kind) -> Callable[[Mapping[str, Any], str], dict[str, Any]]:
    return lambda request, region: handle(kind, request, region)


def _matches(row: Mapping[str, Any], kind: Kind, request: Mapping[str, Any]) -> bool:
    bounds = (
        ("CreationTimeAfter", "CreationTime", 1), ("CreationTimeBefore", "CreationTime", -1),
        ("LastModifiedTimeAfter", "LastModifiedTime", 1), ("LastModifiedTimeBefore", "LastModifiedTime", -1),
    )  # fmt: skip
    return (
        request.get("NameContains", "") in row[f"{kind.name}Name"]
        and request.get("StatusEquals") in (None, row.get(kind.status))
        and all(sign * row[key] >= sign * request[name] for name, key, sign in bounds if name in request)
    )


def _page(items: str, rows: list[dict[str, Any]], request: Mapping[str, Any]) -> dict[str, Any]:
    token, size = request.get("NextToken", "0"), request.get("MaxResults", PAGE)
    if not token.isdecimal():
        raise invalid(f"Invalid NextToken: {token[:50]}")
    start = int(token)
    more = {"NextToken": str(start + size)} if start + size < len(rows) else {}
    return {items: rows[start : start + size], **more}
