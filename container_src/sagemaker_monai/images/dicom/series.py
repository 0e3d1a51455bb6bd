"""A stack of slices to one volume, decoded slice by slice into one array.

Colour stacks are refused: networks for volumes take grey values with a unit, and colour pictures (an ultrasound cine, a
cryosection) are better used one by one. Stacks without geometry become volumes that say so.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import numpy as np
from pydicom import Dataset

from sagemaker_monai.budget import has_room, lent, spend_bytes
from sagemaker_monai.errors import UndecodableImage, UnsuitableImage
from sagemaker_monai.images.dicom.decoding import DECODERS, stored_frames
from sagemaker_monai.images.dicom.findings import Finding, Policy
from sagemaker_monai.images.dicom.geometry import affine_of, normal_of, spread_of
from sagemaker_monai.images.dicom.grouping import Series, group_series
from sagemaker_monai.images.dicom.headers import refusing
from sagemaker_monai.images.dicom.media import Instance, find_instances
from sagemaker_monai.images.dicom.modality import modality_transform
from sagemaker_monai.images.dicom.pixel_layout import names_padding
from sagemaker_monai.images.dicom.pixels import display_for, header_of
from sagemaker_monai.images.expected import Expected
from sagemaker_monai.images.sample import Held
from sagemaker_monai.images.volumes import Identity, Volume, check_voxels

__all__ = ["Instance", "Series", "find_instances", "group_series", "read_series"]

MAX_THREADS = 8
# Slice size from which threads pay off for raw pixels: on 2 cores, slices of 1,024 x 1,024 were read 1.4 times as fast,
# but slices of 512 x 512, whose headers take longer than their pixels, 0.8 times as fast.
PIXELS_FOR_THREADS = 1 << 20
ON_SLICE = 1e-3  # of the distance of slices
MAX_STRETCH = 4  # times as many slices, at most, after resampling

DEFAULT_POLICY = Policy()


def read_series(
    series: Series,
    *,
    policy: Policy = DEFAULT_POLICY,
    threads: int | None = None,
    done: Sequence[Instance] = (),
    ahead_bytes: int = 0,
) -> Volume:
    """Decode a stack of slices.

    Args:
        series: from `group_series`.
        policy: what to do about its findings.
        threads: how many decode in parallel; does not change the result. None: one for each CPU, at most MAX_THREADS,
            for compressed or large slices, else one.
        done: files that are not needed afterwards; the request's copies in memory are released if space is short.
        ahead_bytes: that the series and what follows will take at once, from `expect`.

    Returns:
        A volume (1, W, H, D): modality values, each slice with its own rescale; d along the normal of the slices (row
        direction x column direction). In memory each slice is contiguous as DICOM stores it. The display is the first
        slice's. Without geometry the affine has only the spacing.

    Raises:
        UnsuitableImage: a finding that the policy refuses, colour, or no slices.
        UndecodableImage: the pixels of a slice are broken.
        PayloadTooLarge: more voxels than `volumes.MAX_VOXELS`.
    """
    if not series.slices:
        raise UnsuitableImage("the DICOM series has no pictures; send files with pixel data")
    actions = _actions(series.findings, policy)
    first = series.slices[0]
    values, headers = _decoded(series, threads, done, ahead_bytes)
    affine = _affine(series)
    if "resample" in actions:
        values, affine = _on_even_grid(values, affine, series)
    display, codes = display_for(headers[id(first.instance)], first.frame, values)
    return Volume(
        values=values.transpose(2, 1, 0)[np.newaxis],
        affine=affine,
        display=display,
        modality=series.modality,
        identity=Identity(
            series_instance_uid=series.uid,
            sop_instance_uids=tuple(each.sop_instance_uid for each in series.instances),
            headers=tuple(headers[id(each)] for each in series.instances),
        ),
        has_geometry=series.has_geometry,
        findings=tuple(dict.fromkeys([*(each.code for each in series.findings if each.severity != "note"), *codes])),
    )


def expected_of(series: Series, policy: Policy) -> Expected:
    """What `read_series` will return, by the headers.

    Raises:
        UnsuitableImage: as `read_series`.
    """
    first, count = series.slices[0].instance, len(series.slices)
    actions, affine = _actions(series.findings, policy), _affine(series)
    decoding_bytes = 2 * max(each.size_bytes for each in series.instances)
    if "resample" in actions:
        decoding_bytes += 4 * count * first.rows * first.columns
        count = _even_places(series)[1]
        affine = _even_affine(affine, len(series.slices), count)
    return Expected(
        (1, first.columns, first.rows, count),
        affine if series.has_geometry else None,
        decoding_bytes=decoding_bytes,
        has_padding=first.header is None or names_padding(first.header),
    )


def _actions(findings: Sequence[Finding], policy: Policy) -> set[str]:
    for found in findings:
        if policy.action(found.code) == "refuse":
            raise UnsuitableImage(found.message)
    return {policy.action(found.code) for found in findings}


def _affine(series: Series) -> np.ndarray:
    first, last = series.slices[0].plane, series.slices[-1].plane
    if not series.has_geometry:
        between_rows, between_columns = first.spacing or (1.0, 1.0)
        return np.diag([between_columns, between_rows, first.thickness or 1.0, 1.0])
    assert first.orientation
    assert first.spacing
    assert first.position
    assert last.position
    step = normal_of(first.orientation) * (first.thickness or 1.0)
    if len(series.slices) > 1:
        step = np.subtract(last.position, first.position) / (len(series.slices) - 1)
    return affine_of(first.orientation, first.spacing, first.position, step)


# --- decoding --------------------------------------------------------------------------------------------------------


def _decoded(
    series: Series, threads: int | None, done: Sequence[Instance], ahead_bytes: int
) -> tuple[np.ndarray, dict[int, Dataset]]:
    """The values (D, H, W), and the header of each file by the `id` of its instance."""
    first = series.slices[0].instance
    check_voxels(len(series.slices), first.rows, first.columns)
    size = f"{len(series.slices)} slices of {first.columns} x {first.rows} pixels"
    needed = 4 * len(series.slices) * first.rows * first.columns
    leaving: list[Held] = []
    freed = 0
    if has_room(max(needed, ahead_bytes)):
        spend_bytes(needed, size)
    else:
        # Each file is released once its slices are in the volume, which makes room for those that follow.
        leaving = [each.source for each in done if isinstance(each.source, Held)]
        freed = sum(len(each.data) for each in leaving)
        spend_bytes(max(needed - freed, 0), size)
    values = np.empty((len(series.slices), first.rows, first.columns), np.float32)
    headers = _decode(series, values, threads, leaving)
    if freed:
        spend_bytes(min(needed, freed), size)
    return values, headers


def _decode(series: Series, values: np.ndarray, threads: int | None, leaving: Sequence[Held]) -> dict[int, Dataset]:
    """Fill `values` (D, H, W) and return the headers; the files of `leaving` are released as soon as they are read."""
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)  # of a file: (place in the volume, frame)
    for place, each in enumerate(series.slices):
        places[id(each.instance)].append((place, each.frame))
    headers: dict[int, Dataset] = {}
    given_back = set(map(id, leaving))

    def fill(instance: Instance) -> None:
        with lent(2 * instance.size_bytes, "the pixels of a DICOM file"):
            dataset = instance.read()
            _fill(values, dataset, places[id(instance)])
            headers[id(instance)] = instance.header or header_of(dataset)
        if isinstance(instance.source, Held) and id(instance.source) in given_back:
            instance.source.release()

    if threads is None:
        is_compressed = any(each.transfer_syntax_uid in DECODERS for each in series.instances)
        pays = is_compressed or values[0].size >= PIXELS_FOR_THREADS
        threads = min(MAX_THREADS, len(os.sched_getaffinity(0))) if pays else 1
    if threads == 1 or len(series.instances) == 1:
        for instance in series.instances:
            fill(instance)
    else:
        contexts = [copy_context() for _ in series.instances]  # with the request's budget
        with ThreadPoolExecutor(threads) as pool:
            # `map` keeps the order, so the first broken slice is reported.
            for _ in pool.map(lambda context, instance: context.run(fill, instance), contexts, series.instances):
                pass
    return headers


def _fill(values: np.ndarray, dataset: Dataset, part: Sequence[tuple[int, int]]) -> None:
    frames = stored_frames(dataset, [frame for _, frame in part])
    for frame_values, (place, frame) in zip(frames, part, strict=True):
        if frame_values.shape != values.shape[1:]:
            raise UndecodableImage("the pixels of a slice do not have the size given in its header; export it again")
        with refusing("the modality transform of the DICOM header is broken; correct it"):
            values[place] = modality_transform(dataset, frame).apply(frame_values)


# --- resampling ------------------------------------------------------------------------------------------------------


def _on_even_grid(values: np.ndarray, affine: np.ndarray, series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate linearly between the slices, (D, H, W), onto a grid at their usual distance; the ends stay."""
    along, count = _even_places(series)
    check_voxels(count, *values.shape[1:])
    spend_bytes(4 * count * values[0].size, f"{count} slices at even distances")
    even = np.empty((count, *values.shape[1:]), np.float32)
    wanted = np.linspace(0, along[-1], count)
    before = np.clip(np.searchsorted(along, wanted, side="right") - 1, 0, len(along) - 2)
    share = (wanted - along[before]) / (along[before + 1] - along[before])
    for place, (index, weight) in enumerate(zip(before, share, strict=True)):
        if weight < ON_SLICE or weight > 1 - ON_SLICE:
            even[place] = values[index + round(weight)]  # as measured, regardless of rounding in its position
        else:
            even[place] = (1 - weight) * values[index] + weight * values[index + 1]
    return even, _even_affine(affine, len(along), count)


def _even_places(series: Series) -> tuple[np.ndarray, int]:
    """Where the slices lie along their normal in mm, from the first one, and how many there are at even distances."""
    orientation = series.slices[0].plane.orientation
    assert orientation is not None
    positions = np.array([each.plane.position for each in series.slices])
    normal = normal_of(orientation)
    along = (positions - positions[0]) @ normal
    count = round(along[-1] / spread_of(positions, normal).usual_mm) + 1
    if count > MAX_STRETCH * len(along):
        raise UnsuitableImage(
            f"the gaps between slices are so wide that {count} slices would be made from {len(along)}; export the "
            "complete series"
        )
    return along, count


def _even_affine(affine: np.ndarray, slices: int, count: int) -> np.ndarray:
    affine = affine.copy()
    affine[:3, 2] *= (slices - 1) / (count - 1)
    return affine
