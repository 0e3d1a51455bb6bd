"""Masks in files of volumes: NIfTI, Analyze, NRRD with what 3D Slicer adds, MetaImage, NumPy.

They are read as images are, by `images.volume_files`, up to the values and the affine. Nothing of an image's
preparation (windows, intensities, resampling) comes near them.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sagemaker_monai.errors import UndecodableImage, UnsuitableImage
from sagemaker_monai.images.volume_files import read_volume_file
from sagemaker_monai.masks.mask import Grid, Mask
from sagemaker_monai.masks.mask_values import replace_values, some_values, values_in, whole_values
from sagemaker_monai.masks.overlaps import Overlaps, lay, refuse_overlaps
from sagemaker_monai.masks.same_grid import on_grid
from sagemaker_monai.masks.slicer_segments import Segment, segments_of

MANY_VALUES = 256  # more than the finest atlas in common use has structures (a guess)
Wanted = Callable[[str], bool]


def read_volume_mask(source: Path, kind: str, grid: Grid, *, wanted: Wanted | None, tolerance_mm: float) -> Mask:
    """Read a mask from a file of a volume.

    Args:
        source: the file.
        kind: what it is, as of `images.read.kind_of`.
        grid: of the image.
        wanted, tolerance_mm: as of `read_mask`.

    Raises:
        UndecodableImage, PayloadTooLarge: as `volume_files.read_volume_file`.
        UnsuitableImage: numbers that are no mask's, another grid, several channels, segments that overlap.
    """
    volume = read_volume_file(source)
    findings = list(volume.findings)
    values, is_rounded = whole_values(volume.values)  # (C, W, H, D)
    findings += ["mask_values_rounded"] if is_rounded else []
    findings += ["mask_values_scaled"] if volume.is_scaled else []
    segments: tuple[Segment, ...] = ()
    if kind == "NRRD":
        from sagemaker_monai.images.formats.nrrd import read_nrrd_keys

        segments = segments_of(read_nrrd_keys(source))
    findings += ["mask_many_values"] if len(values_in(values)) > MANY_VALUES else []
    names: dict[int, str] = {}
    left_out = tuple(each.name for each in segments if wanted is not None and not wanted(each.name))
    if segments:
        layers, names, codes = _of_segments(values, segments, wanted)
        findings += codes
    elif len(values) > 1:
        raise UnsuitableImage(
            f"the mask has {len(values)} channels, and nothing says what they are; write one number a voxel"
        )
    else:
        layers = values[0]
    if kind in ("NPY", "NPZ") and not volume.has_geometry:
        if len(grid.shape) == 2 and layers.shape[0] == 1 and layers.shape[1:] == grid.shape:
            layers = layers.transpose(1, 2, 0)  # (1, W, H), as arrays of one picture are
        sizes = [size for size in layers.shape if size > 1]
        findings += ["mask_axes_by_convention"] if len(set(sizes)) < len(sizes) else []
    placed, unproved = on_grid(layers, volume.affine if volume.has_geometry else None, grid, tolerance_mm=tolerance_mm)
    return Mask(placed, names, tuple(dict.fromkeys([*findings, *unproved])), left_out)


def _of_segments(
    values: np.ndarray, segments: tuple[Segment, ...], wanted: Wanted | None
) -> tuple[np.ndarray, dict[int, str], list[str]]:
    """One map (W, H, D) of layers (C, W, H, D), its names, and findings."""
    if any(each.layer >= len(values) for each in segments):
        raise UndecodableImage(f"a segment lies in a layer that the file's {len(values)} do not have; save it again")
    findings = []
    numbers = [each.value for each in segments]
    if len(set(numbers)) < len(segments):  # the same value in several layers
        numbers = list(range(1, len(segments) + 1))
        findings.append("segments_renumbered")
    overlaps: Overlaps = Overlaps()
    taken: dict[int, str] = {}
    for layer, part in enumerate(values):
        table, nameless = {}, values_in(part)
        for segment, number in zip(segments, numbers, strict=True):
            if segment.layer == layer:
                nameless = [value for value in nameless if value != segment.value]
                if wanted is None or wanted(segment.name):
                    table[segment.value] = number
                    taken[number] = segment.name
        if nameless and len(values) > 1:
            raise UnsuitableImage(
                f"layer {layer + 1} of the segmentation has the values {some_values(nameless)}, which no segment has; "
                "save it again"
            )
        if nameless:
            findings.append("mask_values_unnamed")
            table |= {value: value for value in nameless}
        replace_values(part, table)
        if layer > 0:
            lay(values[0], part, overlaps)
    names = {number: name for number, name in taken.items() if name}
    refuse_overlaps(overlaps, names)
    return values[0], names, findings
