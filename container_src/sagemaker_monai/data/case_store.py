"""Images of different shapes with their masks, prepared once: one memory-mapped file for each process that read them.

The place of every image and mask in these files stands in an index, with the outcome of reading it; a patch is read
from there without the rest of its image. As in `cache`, a store is a folder named by the hash of everything that
decides its voxels, built under another name and renamed when it is whole, and checked by its checksum when it is
opened.
"""

import contextlib
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sagemaker_monai.data.cache import from_json, publish, to_json
from sagemaker_monai.data.cache_keys import key_of
from sagemaker_monai.data.legends import Legend
from sagemaker_monai.data.mask_reading import labels_on_grid
from sagemaker_monai.errors import CallerError, DatasetError, TrainingStopped
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.scope import pack_traits, unpack_traits
from sagemaker_monai.images.volumes import Traits
from sagemaker_monai.masks.mask import Grid
from sagemaker_monai.messages.progress import track
from sagemaker_monai.preprocessing.preprocessing import Load, Preprocessing, build_load
from sagemaker_monai.preprocessing.ways import labels_forth, with_size
from sagemaker_monai.storage.digests import Digests
from sagemaker_monai.storage.files import sha256_of
from sagemaker_monai.tasks.label_maps import IGNORED

INDEX_FILE = "index.json"
POINTS_OF_A_LABEL = 256  # places of each structure that are kept, to centre patches on
_LAYOUT = 2  # part of the key


@dataclass(frozen=True)
class Case:
    """One image of a store.

    Attributes:
        part: number of the file that has it.
        offset: of its values in bytes; its labels and then its points follow them.
        shape: (W, H) or (W, H, D) of the prepared image.
        lowest: its smallest value, which stands beyond its edges in a patch that sticks out.
        counts: voxels of each structure, then those that nobody annotated.
        points: how many places are kept of each structure.
        spacing_mm: of the prepared image's voxels; pixels count as 1 where it is unknown.
        traits: what is known of the image.
        findings: of its mask.
    """

    part: int
    offset: int
    shape: tuple[int, ...]
    lowest: float
    counts: tuple[int, ...]
    points: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    traits: Traits
    findings: tuple[str, ...]


class CaseStore:
    """Prepared images and masks on disk.

    Attributes:
        cases: one an image, None for those that could not be read.
        faults: why not, by the image's place.
        channels: of the images.
        dtype: of their values.
    """

    def __init__(
        self, folder: Path, cases: Sequence[Case | None], faults: Mapping[int, str], channels: int, dtype: str
    ) -> None:
        self.cases = tuple(cases)
        self.faults = dict(faults)
        self.channels = channels
        self.dtype = np.dtype(dtype)
        parts = {case.part for case in cases if case is not None}
        # Mapped while the folder has this name: the maps stay valid whatever another process does to it.
        self._parts = {part: np.memmap(folder / _part_name(part), np.uint8, "r") for part in parts}

    def _case(self, index: int) -> Case:
        case = self.cases[index]
        assert case is not None, "an unreadable image"
        return case

    def image(self, index: int) -> np.ndarray:
        """(C, *shape), read-only."""
        case = self._case(index)
        count = self.channels * math.prod(case.shape)
        flat = self._parts[case.part][case.offset : case.offset + count * self.dtype.itemsize]
        return flat.view(self.dtype).reshape(self.channels, *case.shape)

    def labels(self, index: int) -> NDArray[np.uint8]:
        """The label map (*shape), read-only."""
        case = self._case(index)
        start = case.offset + _padded(self.channels * math.prod(case.shape) * self.dtype.itemsize)
        labels: NDArray[np.uint8] = self._parts[case.part][start : start + math.prod(case.shape)].reshape(case.shape)
        return labels

    def point(self, index: int, label: int, number: int) -> tuple[int, ...]:
        """The place of one voxel of a structure.

        Args:
            index: of the image.
            label: from 0, without the background.
            number: below `points[label]` of the case.
        """
        case = self._case(index)
        voxels = math.prod(case.shape)
        start = case.offset + _padded(self.channels * voxels * self.dtype.itemsize) + _padded(voxels)
        place = sum(case.points[:label]) + number
        flat = int(self._parts[case.part][start + 8 * place : start + 8 * (place + 1)].view(np.int64)[0])
        return tuple(int(each) for each in np.unravel_index(flat, case.shape))

    def patch(self, index: int, start: Sequence[int], size: Sequence[int]) -> tuple[np.ndarray, NDArray[np.uint8]]:
        """A part of an image and of its label map.

        Args:
            index: of the image.
            start: its first voxel along each axis; it may lie outside, as its last may.
            size: its sides.

        Returns:
            (C, *size), the image's lowest value where it sticks out, and (*size), `IGNORED` there.
        """
        case = self._case(index)
        values = np.full((self.channels, *size), case.lowest, self.dtype)
        labels = np.full(tuple(size), IGNORED, np.uint8)
        inside, target = [], []
        for first, side, extent in zip(start, size, case.shape, strict=True):
            low, high = max(first, 0), min(first + side, extent)
            inside.append(slice(low, high))
            target.append(slice(low - first, high - first))
        values[(slice(None), *target)] = self.image(index)[(slice(None), *inside)]
        labels[tuple(target)] = self.labels(index)[tuple(inside)]
        return values, labels


def _part_name(part: int) -> str:
    return f"part-{part}.raw"


def _padded(count: int) -> int:
    """Bytes up to the next multiple of 8, where a view of any type may begin."""
    return -(-count // 8) * 8


@dataclass(frozen=True)
class ReadCase:
    """An image and its mask.

    Attributes:
        values: (C, *shape), prepared.
        true: label map on the image's own grid.
        traits: what is known of the image, with its size.
        findings: of the mask.
    """

    values: np.ndarray
    true: NDArray[np.uint8]
    traits: Traits
    findings: tuple[str, ...]

    def prepared_labels(self, load: Load) -> NDArray[np.uint8]:
        """The label map on the prepared grid."""
        return np.ascontiguousarray(labels_forth(self.true, load.way(self.traits)), np.uint8)


def read_case(load: Load, sample: Sample, mask: Path, legend: Legend) -> ReadCase:
    """Read an image and its mask.

    Raises:
        CallerError: either cannot be read, or the mask does not lie on the image's grid or has values without a name.
    """
    values, traits = load.pixels_of_one(sample)
    traits = with_size(sample, traits)
    true, findings = labels_on_grid(mask, Grid.of_traits(traits), legend)
    if (true == IGNORED).all():
        # It would count as an image without any structure in which nothing was wrong.
        raise DatasetError("nobody annotated anything in the mask: all of it is ignored; leave the image out")
    return ReadCase(values, true, traits, findings)


def open_store(
    samples: Sequence[Sample],
    masks: Sequence[Path],
    legend: Legend,
    preprocessing: Preprocessing,
    *,
    cache_dir: Path,
    workers: int,
    what: str,
    digests: Digests,
    is_stopping: Callable[[], bool] = lambda: False,
) -> CaseStore:
    """Prepare images and masks, or open what was prepared before.

    Args:
        samples: files, folders with the DICOM files of a series, or sequences of them.
        masks: one a sample.
        legend: of the masks.
        preprocessing: its load half is used.
        cache_dir: where stores are kept.
        workers: number of processes.
        what: for progress lines.
        digests: of the run.
        is_stopping: asked after every image.

    Raises:
        DatasetError: files changed while they were read.
        RuntimeError: a worker ended without finishing.
        TrainingStopped: `is_stopping` said yes.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)

    def key() -> str:
        said = [_LAYOUT, key_of(samples, preprocessing, digests), asdict(legend), _keys(masks, digests)]
        return f"cases-{hashlib.sha256(json.dumps(said).encode()).hexdigest()}"

    name = key()
    folder = cache_dir / name
    if (found := _open(folder, preprocessing)) is not None:
        return found
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".building-", ignore_cleanup_errors=True) as temporary:
        building = Path(temporary) / name
        building.mkdir()
        index = _build(samples, masks, legend, preprocessing, building, workers, what, is_stopping)
        if key() != name:
            raise DatasetError("files came or went while they were read: leave the data set alone and start again")
        (building / INDEX_FILE).write_text(json.dumps(index))
        store = _open(building, preprocessing)
        assert store is not None
        return publish(building, folder, store, lambda: _open(folder, preprocessing))


def _keys(masks: Sequence[Path], digests: Digests) -> list[str]:
    from sagemaker_monai.data.entries import image_files

    files = [image_files(mask) for mask in masks]
    found = digests.of(file for inside in files for file in inside)
    return [found[file] for inside in files for file in inside]


def _open(folder: Path, preprocessing: Preprocessing) -> CaseStore | None:
    """A store that is there and whole."""
    try:
        index = json.loads((folder / INDEX_FILE).read_text())
        if any(sha256_of(folder / name) != digest for name, digest in index["digests"].items()):
            return None
        cases = [None if packed is None else _unpack(packed) for packed in index["cases"]]
        faults = {int(place): fault for place, fault in index["faults"].items()}
        return CaseStore(folder, cases, faults, preprocessing.channels, preprocessing.dtype)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _unpack(packed: Mapping[str, Any]) -> Case:
    many = {key: tuple(packed[key]) for key in ("shape", "counts", "points", "spacing_mm", "findings")}
    return Case(
        packed["part"], packed["offset"], lowest=packed["lowest"], traits=unpack_traits(packed["traits"]), **many
    )


def _build(
    samples: Sequence[Sample],
    masks: Sequence[Path],
    legend: Legend,
    preprocessing: Preprocessing,
    folder: Path,
    workers: int,
    what: str,
    is_stopping: Callable[[], bool],
) -> dict[str, Any]:
    """Read everything with some processes; the index."""
    workers = max(1, min(workers, len(samples)))
    jobs = [
        {
            "file": os.fspath(folder / _part_name(part)),
            "reports": os.fspath(folder / f"part-{part}.reports"),
            "part": part,
            "load": preprocessing.spec[0],
            "legend": asdict(legend),
            "cases": [[to_json(index, samples[index]), os.fsdecode(masks[index])] for index in
                      range(part, len(samples), workers)],
        }
        for part in range(workers)
    ]  # fmt: skip
    cases: list[Any] = [None] * len(samples)
    faults: dict[str, str] = {}
    # Closed before the folder is removed: no worker writes into it any more.
    with contextlib.closing(_work(jobs[0]) if workers == 1 else _in_processes(jobs)) as results:
        for index, told in track(results, total=len(samples), what=what):
            if "fault" in told:
                faults[str(index)] = told["fault"]
            else:
                cases[index] = told
            if is_stopping():
                raise TrainingStopped("training was stopped while images were read, so there is nothing to save")
    for job in jobs:
        Path(str(job["reports"])).unlink(missing_ok=True)
    digests = {path.name: sha256_of(path) for path in sorted(folder.glob("part-*.raw"))}
    return {"cases": cases, "faults": faults, "digests": digests}


def _in_processes(jobs: Sequence[Mapping[str, Any]]) -> Generator[tuple[int, dict[str, Any]], None, None]:
    """Give each process a job, and yield what they report.

    An entry of the index may be longer than a pipe takes in one piece, so that entries of several processes would mix:
    each writes its own into a file, and tells through the shared pipe that there is one more.
    """
    started: list[subprocess.Popen[bytes]] = []
    left = {entry[0][0] for job in jobs for entry in job["cases"]}
    reading, writing = os.pipe()
    with contextlib.ExitStack() as stack:
        stack.callback(_end, started)
        told = stack.enter_context(os.fdopen(reading, "rb"))
        try:
            reports = []
            for job in jobs:
                Path(job["reports"]).touch()
                reports.append(stack.enter_context(Path(job["reports"]).open("rb")))
                worker = subprocess.Popen(
                    [sys.executable, "-m", "sagemaker_monai.data.case_store"], stdin=subprocess.PIPE, stdout=writing
                )
                started.append(worker)
                assert worker.stdin is not None
                with contextlib.suppress(BrokenPipeError), worker.stdin as stdin:  # its exit status is checked later
                    stdin.write(json.dumps(job).encode())
        finally:
            os.close(writing)  # so that reading ends with the last worker
        for line in told:
            part, *fault = map(int, line.split())
            if fault:
                raise OSError(fault[0], os.strerror(fault[0]), jobs[part]["file"])
            index, result = json.loads(reports[part].readline())
            left.discard(index)
            yield index, result
        codes = [worker.wait() for worker in started]
        if any(codes) or left:
            raise RuntimeError(
                f"a process that reads images ended with status {max(codes, key=abs)} before it had read {len(left)} "
                "of them"
            )


def _end(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.kill()
        worker.wait()


def _work(job: Mapping[str, Any]) -> Generator[tuple[int, dict[str, Any]], None, None]:
    """Read the cases of a job into its file; for each its entry of the index, or what is wrong with it."""
    load, told = build_load(job["load"]), job["legend"]
    legend = Legend(tuple(told["values"]), tuple(told["names"]), told["ignored"])
    with Path(job["file"]).open("wb") as file:
        for entry, mask in job["cases"]:
            index, sample = from_json(*entry)
            try:
                yield (
                    index,
                    _write(file, job["part"], read_case(load, sample, Path(mask), legend), load, len(legend.names)),
                )
            except CallerError as error:
                yield index, {"fault": str(error)}


def _write(file: IO[bytes], part: int, case: ReadCase, load: Load, structures: int) -> dict[str, Any]:
    """Append a case to a part; its entry of the index."""
    values, labels, traits = case.values, case.prepared_labels(load), case.traits
    offset = file.tell()
    counts, points = [], []
    places = []
    for label in range(1, structures + 1):
        there = np.flatnonzero(labels == label)
        counts.append(len(there))
        # Evenly spread over the structure: the first ones of an array would lie on one of its sides.
        kept = there[np.linspace(0, len(there) - 1, min(len(there), POINTS_OF_A_LABEL)).astype(np.int64)]
        points.append(len(kept))
        places.append(kept)
    counts.append(int((labels == IGNORED).sum()))
    for body in (values, labels, np.concatenate(places).astype(np.int64)):
        data = np.ascontiguousarray(body).tobytes()
        file.write(data + bytes(_padded(len(data)) - len(data)))
    file.flush()
    spacing = traits.spacing_mm or (1.0,) * labels.ndim
    return {
        "part": part,
        "offset": offset,
        "shape": list(labels.shape),
        "lowest": float(values.min()),
        "counts": counts,
        "points": points,
        "spacing_mm": [abs(axis.step) * spacing[axis.source] for axis in load.way(traits)],
        "traits": pack_traits(traits),
        "findings": list(case.findings),
    }


def _report(job: Mapping[str, Any]) -> None:
    """Do a job: each result is a line of its file of reports, and for each its number goes to standard output.

    A fault of the disk is told there too, as there may be no room for it in the file.
    """
    with Path(job["reports"]).open("wb") as reports:
        try:
            for place, result in _work(job):
                reports.write(json.dumps([place, result]).encode() + b"\n")
                reports.flush()
                os.write(sys.stdout.fileno(), f"{job['part']}\n".encode())
        except OSError as error:
            os.write(sys.stdout.fileno(), f"{job['part']} {error.errno or 0}\n".encode())


if __name__ == "__main__":
    _report(json.loads(sys.stdin.buffer.read()))
