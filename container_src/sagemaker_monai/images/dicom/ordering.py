"""Orders a stack's slices along their normal, and reports oddities in their positions and values."""

from collections import Counter
from dataclasses import replace

import numpy as np

from sagemaker_monai.images.dicom.findings import Finding, finding
from sagemaker_monai.images.dicom.geometry import normal_of, spread_of
from sagemaker_monai.images.dicom.stacks import Stack, by_number, place_numbers, tolerance_mm


def sort_slices(stack: Stack) -> None:
    """Sort along the normal, or by InstanceNumber without geometry, and add findings about the positions."""
    slices = stack.slices
    if any("LOCALIZER" in each.instance.image_type for each in slices):
        stack.findings.append(finding("localizer", len(slices)))
    if len(slices) == 1:
        stack.findings.append(finding("single_slice", 1))
    orientation = slices[0].plane.orientation
    if orientation is None:
        _sort_by_number(stack)
        return
    positions = np.array([each.plane.position for each in slices])
    normal = normal_of(orientation)
    order = np.argsort(place_numbers(slices), kind="stable")
    stack.slices = [slices[index] for index in order]
    if len(slices) == 1:
        return
    beside = np.diff(positions[order] @ normal) <= tolerance_mm(slices)
    if beside.any():  # tiles or several slabs: not a volume
        stack.findings.append(finding("shifted_slices", int(beside.sum())))
        return
    spread = spread_of(positions[order], normal)
    for code, count in (
        ("missing_slices", spread.missing),
        ("uneven_spacing", spread.uneven),
        ("shifted_slices", spread.shifted),
        ("gantry_tilt", len(slices) if spread.is_tilted and not spread.shifted else 0),
    ):
        if count:
            stack.findings.append(finding(code, count))


def _sort_by_number(stack: Stack) -> None:
    slices = stack.slices
    stack.slices = sorted(slices, key=by_number)
    invalid = sum(each.plane.is_invalid for each in slices)
    if invalid:
        found = finding("invalid_geometry", invalid)
        fault = next((each.plane.fault for each in slices if each.plane.fault), "")
        stack.findings.append(replace(found, message=f"{found.message}: {fault}") if fault else found)
    if invalid < len(slices):
        stack.findings.append(finding("missing_geometry", len(slices) - invalid))
    files = {id(each.instance): each.instance.instance_number for each in slices}
    unknown = sum(count for number, count in Counter(files.values()).items() if number is None or count > 1)
    if len(files) > 1 and unknown:
        stack.findings.append(finding("missing_order", unknown))


def findings_of_values(stack: Stack) -> list[Finding]:
    """Findings about differences between the slices of one stack, and about colour."""
    first = stack.slices[0]
    spacing = first.plane.spacing
    in_colour = [each.instance.samples_per_pixel > 1 or "PALETTE" in each.instance.photometric_interpretation
                 for each in stack.slices]  # fmt: skip
    counts = {
        "colour": sum(in_colour),
        "packed_slices": sum(bool(each.instance.packing) for each in stack.slices),
        "counted_frames": sum(each.plane.is_counted for each in stack.slices),
        "mixed_spacing": sum(not _is_close(each.plane.spacing, spacing) for each in stack.slices),
        "mixed_photometric": sum(
            each.instance.photometric_interpretation != first.instance.photometric_interpretation
            for each in stack.slices
        ),
        "mixed_rescale": sum(each.plane.rescale != first.plane.rescale for each in stack.slices),
    }
    counts |= Counter(code for each in stack.slices for code in each.instance.oddities)
    return [finding(code, count) for code, count in counts.items() if count]


def _is_close(spacing: tuple[float, float] | None, other: tuple[float, float] | None) -> bool:
    if spacing is None or other is None:
        return spacing is other
    return bool(np.allclose(spacing, other, rtol=1e-4, atol=0))
