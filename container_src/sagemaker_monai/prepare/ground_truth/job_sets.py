"""Several labeling jobs that drew masks of the same images, each by another annotator.

The source is then a folder with a manifest for each job, or with the output folder of each. Images are the same if
their references are. Jobs that give classes are not put together: a job has all annotators of its images already.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare.ground_truth.annotations import Names
from sagemaker_monai.prepare.ground_truth.labeling_jobs import Job, JobFiles, find_files, keep_last_answers, read_job
from sagemaker_monai.prepare.ground_truth.manifest import Item
from sagemaker_monai.storage.files import children

MAX_JOBS = 100


def find_jobs(source: Path) -> dict[str, JobFiles]:
    """The files of each job by its name: of one, or of several whose manifests or output folders the source holds.

    Raises:
        DatasetError: as `labeling_jobs.find_files`, or there are too many.
    """
    jobs: dict[str, JobFiles] = {}
    if source.is_dir() and not (source / "manifests").is_dir():
        inside = children(source)
        jobs |= {path.stem: JobFiles(path) for path in inside if path.suffix.lower() == ".manifest" and path.is_file()}
        jobs |= {path.name: find_files(path) for path in inside if (path / "manifests" / "output").is_dir()}
    if len(jobs) > MAX_JOBS:
        raise DatasetError(f"the folder has more than {MAX_JOBS} manifests; name the one to read")
    return jobs if len(jobs) > 1 else {"": find_files(source)}


def read_jobs(jobs: Mapping[str, JobFiles], *, attribute: str | None = None, path: Sequence[str] = ()) -> Job:
    """Read jobs as one, with an annotator for each whose annotators are unknown.

    Args:
        jobs: of `find_jobs`.
        attribute, path: as for `labeling_jobs.read_job`.

    Raises:
        DatasetError: as `labeling_jobs.read_job`; there are several jobs, and not all of them drew masks.
    """
    read = {name: read_job(files, attribute=attribute, path=path) for name, files in jobs.items()}
    if len(read) == 1:
        return next(iter(read.values()))
    if not all(job.has_masks for job in read.values()):
        raise DatasetError(
            f"the folder has several manifests ({some_of(sorted(read))}), and they are read together only if all are "
            "of masks; name the one to read"
        )
    items: dict[str, Item] = {}
    for name, job in sorted(read.items()):
        if twice := len(job.items) - len({item.reference for item in job.items}):
            raise DatasetError(f"images that one manifest names more than once: {twice}; keep one line for each")
        for item in job.items:
            own = [replace(answer, annotator=answer.annotator or f"job {name}") for answer in item.answers]
            if item.reference not in items:
                items[item.reference] = replace(item, answers=own)
            else:
                items[item.reference].answers += own
                items[item.reference].columns = item.columns | items[item.reference].columns
    superseded = sum(keep_last_answers(item) for item in items.values())
    known = tuple(f"job {name}" for name in sorted(read))
    return Job(
        list(items.values()), Names(), is_multilabel=False, has_masks=True, annotators=known,
        superseded=superseded + sum(job.superseded for job in read.values()),
    )  # fmt: skip
