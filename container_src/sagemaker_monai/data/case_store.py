"""Images of different shapes with their masks, prepared once: one memory-mapped file for each process that read them.

The place of every image and mask in these files stands in an index, with the outcome of reading it; a patch is read
from there without the rest of its image. A store is a folder, as `prepared_once` keeps them.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sagemaker_monai.data.cache_keys import key_of
from sagemaker_monai.data.entries import image_files
from sagemaker_monai.data.legends import Legend
from sagemaker_monai.data.mask_reading import ReadCase, read_case
from sagemaker_monai.data.prepared_once import (
    INDEX_FILE,
    checksum,
    in_processes,
    jobs_of,
    prepared_once,
    samples_of,
    tell,
    until_stopped,
)
from sagemaker_monai.errors import CallerError
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.scope import pack_traits, unpack_traits
from sagemaker_monai.images.volumes import Traits
from sagemaker_monai.masks.mask import Parts
from sagemaker_monai.preprocessing.preprocessing import Load, Preprocessing, build_load
from sagemaker_monai.storage.digests import Digests
from sagemaker_monai.tasks.label_maps import IGNORED
from sagemaker_monai.tasks.regions import is_inside

POINTS_OF_A_LABEL = 256  # places of each structure that are kept, to centre patches on
_LAYOUT = 3  # part of the key


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


def open_store(
    samples: Sequence[Sample],
    masks: Sequence[Path | Parts],
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

    def key() -> str:
        said = [_LAYOUT, key_of(samples, preprocessing, digests), asdict(legend), _keys(masks, digests)]
        return f"cases-{hashlib.sha256(json.dumps(said).encode()).hexdigest()}"

    def build(folder: Path) -> CaseStore:
        jobs = jobs_of(samples, workers, {"load": preprocessing.spec[0], "legend": asdict(legend)})
        for job in jobs:
            job["file"] = os.fspath(folder / _part_name(job["part"]))
            job["masks"] = [_names_of(mask) for mask in masks[job["part"] :: len(jobs)]]
        results = _work(jobs[0]) if len(jobs) == 1 else in_processes("sagemaker_monai.data.case_store", jobs)
        told = dict(until_stopped(results, total=len(samples), what=what, is_stopping=is_stopping))
        checksums = {path.name: _checksum(path) for path in sorted(folder.glob("part-*.raw"))}
        index = {"cases": [told[place] for place in range(len(samples))], "crc32": checksums}
        (folder / INDEX_FILE).write_text(json.dumps(index))
        store = _open(folder, preprocessing)
        assert store is not None
        return store

    return prepared_once(cache_dir, key, lambda folder: _open(folder, preprocessing), build)


def _keys(masks: Sequence[Path | Parts], digests: Digests) -> list[list[tuple[str, str]]]:
    """Names, which those of structures may be, and contents."""
    files = [image_files(mask) for mask in masks]
    found = digests.of(file for inside in files for file in inside)
    return [[(file.name, found[file]) for file in inside] for inside in files]


def _names_of(mask: Path | Parts) -> list[str]:
    """A mask for the job of a worker."""
    return [os.fsdecode(file) for file in (mask.files if isinstance(mask, Parts) else (mask,))]


def _mask_of(names: Sequence[str]) -> Path | Parts:
    """What `_names_of` was given."""
    files = tuple(map(Path, names))
    return Parts(files) if len(files) > 1 else files[0]


def _open(folder: Path, preprocessing: Preprocessing) -> CaseStore | None:
    """A store that is there and whole."""
    try:
        index = json.loads((folder / INDEX_FILE).read_text())
        if any(_checksum(folder / name) != expected for name, expected in index["crc32"].items()):
            return None
        faults = {place: told["fault"] for place, told in enumerate(index["cases"]) if "fault" in told}
        cases = [None if "fault" in told else _unpack(told) for told in index["cases"]]
        return CaseStore(folder, cases, faults, preprocessing.channels, preprocessing.dtype)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _unpack(packed: Mapping[str, Any]) -> Case:
    many = {key: tuple(packed[key]) for key in ("shape", "counts", "points", "spacing_mm", "findings")}
    return Case(**{**packed, **many, "traits": unpack_traits(packed["traits"])})


def _checksum(part: Path) -> int:
    return checksum(np.memmap(part, np.uint8, "r")) if part.stat().st_size else 0


def _work(job: Mapping[str, Any]) -> Generator[tuple[int, dict[str, Any]], None, None]:
    """Read the cases of a job into its file; for each its entry of the index, or what is wrong with it."""
    load, legend = build_load(job["load"]), Legend.of(job["legend"])
    with Path(job["file"]).open("wb") as file:
        for (index, sample), mask in zip(samples_of(job), job["masks"], strict=True):
            try:
                case = read_case(load, sample, _mask_of(mask), legend)
            except CallerError as error:
                yield index, {"fault": str(error)}
            else:
                yield index, _write(file, job["part"], case, load, legend.members)


def _write(file: IO[bytes], part: int, case: ReadCase, load: Load, members: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Append a case to a part; its entry of the index, which counts each structure by the numbers that make it."""
    values, labels, traits = case.values, case.prepared_labels(load), case.traits
    offset = file.tell()
    counts, places = [], []
    for numbers in members:
        there = np.flatnonzero(is_inside(labels, numbers))
        counts.append(len(there))
        # Evenly spread over the structure: the first ones of an array would lie on one of its sides.
        places.append(there[np.linspace(0, len(there) - 1, min(len(there), POINTS_OF_A_LABEL)).astype(np.int64)])
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
        "points": list(map(len, places)),
        "spacing_mm": [abs(axis.step) * spacing[axis.source] for axis in load.way(traits)],
        "traits": pack_traits(traits),
        "findings": list(case.findings),
    }


if __name__ == "__main__":
    tell(_work)
