"""DICOM RT Structure Set: contours in mm to voxels of the image that they were drawn on.

Contours are closed polygons, each in the plane of a slice. They are brought to the image's voxels by the inverse of its
affine, so that oblique and tilted series need nothing more, and filled by `contours`. The contours of one structure in
one slice are taken together by the even-odd rule: what lies in two of them is a hole.

Refused, for nobody can tell what is meant: a contour between slices, beyond them or wholly beside the image; one that
names another slice than it lies on; two structures of one name, which may be the left and the right one as well as an
old and a new version. Structures that overlap, as an organ and the outline of the body do, have no place in one map:
choose.

Points and open lines have no inside and are left out, which is said. So is what differs from a drawing without doubt:
contours that come twice, that cross, that leave the image, and structures with slices left out between others, which
planning systems interpolate and this does not.

Source: DICOM PS3.3 A.19, C.8.8.5 and C.8.8.6.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from pydicom import Dataset

from sagemaker_monai.budget import lent, spend_bytes, spend_work
from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.dicom.elements import count_written, has_value, items, numbers, text_of, whole_number, word
from sagemaker_monai.images.dicom.geometry import LPS_TO_RAS
from sagemaker_monai.images.dicom.headers import refusing
from sagemaker_monai.images.dicom.media import Instance
from sagemaker_monai.masks.contours import Effort, fill_plane
from sagemaker_monai.masks.mask import MOST_VALUE, Grid, Mask
from sagemaker_monai.masks.mask_references import References, check_references, own_frames_of_reference, slice_uids
from sagemaker_monai.masks.overlaps import Overlaps, lay, refuse_overlaps
from sagemaker_monai.masks.same_grid import is_small
from sagemaker_monai.messages.shortened import some_of

MOST_POINTS = 1 << 22  # of a file
_CLOSED = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})
_WITHOUT_INSIDE = frozenset({"POINT", "OPEN_PLANAR", "OPEN_NONPLANAR"})
_MOST_MM = 1e6  # from the origin
_DECIMALS = 3  # of a voxel: points that were drawn on centres are there again after mm were rounded
_BESIDE = 0.5  # of a thickness from a single slice: a contour further off is of another slice
_NS_A_NUMBER = 300
_BYTES_A_NUMBER = 104  # while it is read, its text and the number as objects: 1.5 GB of 15 million, measured
_BROKEN = "the DICOM structure set is broken; export it again"
_DRAWN = "take the image that the structures were drawn on"


@dataclass(eq=False)
class _Structure:
    """One ROI: its value in the mask, and its contours (n, 2) in voxels by slice and by their points."""

    name: str
    value: int
    frame_of_reference: str
    planes: dict[int, dict[bytes, np.ndarray]] = field(default_factory=lambda: defaultdict(dict))
    is_drawn: bool = False


def read_rtstruct(instance: Instance, grid: Grid, *, tolerance_mm: float, wanted: Callable[[str], bool] | None) -> Mask:
    """Read a structure set.

    Args:
        instance: the file, with its header.
        grid: of the image, which has a geometry.
        tolerance_mm: how far points may lie from their slice, beside a tenth of the distance of slices.
        wanted: as of `read_mask`; asked of ROIName.

    Returns:
        A mask with the number of each structure in the order of the file, from 1, also of those without contours.

    Raises:
        UndecodableImage: broken.
        UnsuitableImage: of another image, or contours and structures as in the module's words.
        PayloadTooLarge: more than the limits.
    """
    header = instance.header
    assert header is not None
    with refusing(_BROKEN):
        structures = _structures(header)
        findings: Counter[str] = Counter()
        drawn = _with_contours(header, structures, wanted)
        listed = [each for each in structures.values() if wanted is None or wanted(each.name)]
        findings["structures_without_contours"] += len(drawn) < len(listed)
        findings.update(check_references(grid, _references(header, drawn)))
        if grid.affine is None:
            raise UnsuitableImage("contours are placed by their image's geometry, and this image has none")
        left = MOST_POINTS
        own = own_frames_of_reference(grid)
        for structure, contours in drawn:
            _check_frame_of_reference(structure, own)
            for contour in contours:
                left -= _add(structure, contour, grid, tolerance_mm, findings, left)
        names = _names([structure for structure, _ in drawn if structure.is_drawn])
        values = _filled([structure for structure, _ in drawn], names, grid, findings)
    left_out = tuple(each.name for each in structures.values() if each not in listed)
    return Mask(values, {each.value: each.name for each in listed if each.name}, tuple(findings), left_out)


def _structures(header: Dataset) -> dict[int, _Structure]:
    """By ROINumber."""
    found: dict[int, _Structure] = {}
    for value, item in enumerate(items(header, "StructureSetROISequence"), start=1):
        number = whole_number(item, "ROINumber", low=-(1 << 31), high=(1 << 31) - 1)
        if number in found:
            raise UndecodableImage(f"the structure set has ROINumber {number} twice; export it again")
        if value > MOST_VALUE:
            raise PayloadTooLarge(f"more than {MOST_VALUE} structures; export fewer at once")
        name = " ".join(text_of(item, "ROIName").split())
        found[number] = _Structure(name, value, text_of(item, "ReferencedFrameOfReferenceUID"))
    return found


def _with_contours(
    header: Dataset, structures: dict[int, _Structure], wanted: Callable[[str], bool] | None
) -> list[tuple[_Structure, list[Dataset]]]:
    """Structures that are wanted and drawn, each with its contours."""
    if not has_value(header, "ROIContourSequence"):
        raise UndecodableImage("the structure set has no ROIContourSequence; export it again")
    drawn: dict[int, list[Dataset]] = {}
    for item in items(header, "ROIContourSequence"):
        number = whole_number(item, "ReferencedROINumber", low=-(1 << 31), high=(1 << 31) - 1)
        if number not in structures:
            raise UndecodableImage("the structure set has contours of a structure that it does not describe")
        contours = list(items(item, "ContourSequence"))
        if contours and (wanted is None or wanted(structures[number].name)):
            drawn.setdefault(number, []).extend(contours)
    return [(structures[number], contours) for number, contours in drawn.items()]


def drawn_structures(header: Dataset) -> tuple[str, ...]:
    """ROIName of every structure with contours.

    Raises:
        UndecodableImage: broken.
        PayloadTooLarge: too many structures.
    """
    return tuple(structure.name for structure, _ in _with_contours(header, _structures(header), None))


def references_of_structures(header: Dataset) -> References:
    """What a structure set was drawn on: the series that it names, or without any the images that contours name.

    Raises:
        UndecodableImage, PayloadTooLarge: as `drawn_structures`.
    """
    return _references(header, _with_contours(header, _structures(header), None))


def _references(header: Dataset, drawn: list[tuple[_Structure, list[Dataset]]]) -> References:
    at = items(header, "ReferencedFrameOfReferenceSequence")
    studies = [study for each in at for study in items(each, "RTReferencedStudySequence")]
    series = [each for study in studies for each in items(study, "RTReferencedSeriesSequence")]
    frames = {structure.frame_of_reference for structure, _ in drawn} - {""}
    frames = frames or {text_of(each, "FrameOfReferenceUID") for each in at}
    references = References.of(frames, series, "ContourImageSequence")
    if references.series:
        return references
    contours = [contour for _, own in drawn for contour in own]
    named = [item for contour in contours for item in items(contour, "ContourImageSequence")]
    return References.of(frames, [], "", images=[text_of(item, "ReferencedSOPInstanceUID") for item in named])


def _check_frame_of_reference(structure: _Structure, own: set[str]) -> None:
    if own and structure.frame_of_reference and structure.frame_of_reference not in own:
        raise UnsuitableImage(
            f"structure {some_of([structure.name or str(structure.value)])} has another FrameOfReferenceUID than its "
            f"image; {_DRAWN}"
        )


def _names(structures: list[_Structure]) -> dict[int, str]:
    twice = [name for name, count in Counter(each.name for each in structures).items() if count > 1]
    if twice:
        raise UnsuitableImage(
            f"several structures are called {some_of([twice[0] or 'nothing'])}, and nothing says whether they are one; "
            "give each a name of its own"
        )
    return {each.value: each.name for each in structures}


# --- contours --------------------------------------------------------------------------------------------------------


def _add(
    structure: _Structure, contour: Dataset, grid: Grid, tolerance_mm: float, findings: Counter[str], left: int
) -> int:
    """Put a contour into its slice; how many points it has."""
    kind = word(contour, "ContourGeometricType").upper()
    if kind not in _CLOSED | _WITHOUT_INSIDE:
        raise UnsuitableImage("a contour of an unknown ContourGeometricType; export it as CLOSED_PLANAR")
    if count_written(contour, "ContourData") > 3 * left:
        raise PayloadTooLarge(f"the structures have more than {MOST_POINTS} points; export fewer at once")
    points = _points(contour)
    if kind in _WITHOUT_INSIDE or len(points) < 3:
        findings["contours_passed_over"] += 1
        return len(points)
    assert grid.affine is not None
    turn = np.linalg.inv(grid.affine)
    voxels = points @ LPS_TO_RAS.T @ turn[:3, :3].T + turn[:3, 3]
    structure.is_drawn = True
    index = _slice_of(voxels[:, 2], grid, tolerance_mm)
    if index is None:
        return len(points)
    named = {text_of(item, "ReferencedSOPInstanceUID") for item in items(contour, "ContourImageSequence")} - {""}
    uids = slice_uids(grid)
    if named and uids and uids[index] not in named:
        raise UnsuitableImage(
            f"a contour lies on another slice than it names; export the structures again, or {_DRAWN}"
        )
    plane = np.round(voxels[:, :2], _DECIMALS)
    ends = np.array(grid.sizes[:2]) - 0.5
    if (plane.min(axis=0) > ends).any() or (plane.max(axis=0) < -0.5).any():
        raise UnsuitableImage(f"a contour lies outside the image; {_DRAWN}")
    if (plane.max(axis=0) > ends).any() or (plane.min(axis=0) < -0.5).any():
        findings["contours_clipped"] += 1
    # The same points are the same contour, wherever it begins, whichever way it goes, and closed by the first or not.
    key = np.unique(plane[:, 0] + 1j * plane[:, 1]).tobytes()
    findings["contours_repeated"] += key in structure.planes[index]
    structure.planes[index][key] = plane
    return len(points)


def _points(contour: Dataset) -> np.ndarray:
    """(n, 3) LPS mm."""
    written = count_written(contour, "ContourData")
    spend_work(_NS_A_NUMBER * written, "the points of contours")
    spend_bytes(8 * written, "the points of contours")
    with lent(_BYTES_A_NUMBER * written, "reading the points of contours"):
        values = np.array(numbers(contour, "ContourData"))
    count, rest = divmod(len(values), 3)
    if has_value(contour, "NumberOfContourPoints"):
        told = whole_number(contour, "NumberOfContourPoints", low=0, high=1 << 31)
        rest = rest or told != count
    if rest or not count:
        raise UndecodableImage("a contour has not as many numbers in ContourData as its points need; export it again")
    if np.abs(values).max() > _MOST_MM:
        raise UndecodableImage(f"a contour lies more than {_MOST_MM:g} mm away; export it again")
    return values.reshape(-1, 3)


def _slice_of(across: np.ndarray, grid: Grid, tolerance_mm: float) -> int | None:
    """The slice of a contour by its points' places across the slices; None beside an image of one slice."""
    assert grid.affine is not None
    middle = float(across.mean())
    if len(grid.shape) == 2 and abs(middle) >= _BESIDE:
        return None
    index = round(middle)
    shift = np.zeros((len(across), 3))
    shift[:, 2] = across - index
    shift_mm = shift @ grid.affine[:3, :3].T
    if not is_small(shift, shift_mm, tolerance_mm):
        most = np.linalg.norm(shift_mm, axis=1).max()
        raise UnsuitableImage(f"a contour lies in no slice of the image, but up to {most:.3g} mm from one; {_DRAWN}")
    if not 0 <= index < grid.sizes[2]:
        raise UnsuitableImage(f"a contour lies beyond the image's slices; {_DRAWN}")
    return index


# --- voxels ----------------------------------------------------------------------------------------------------------


def _filled(structures: list[_Structure], names: dict[int, str], grid: Grid, findings: Counter[str]) -> np.ndarray:
    """uint16 of the grid's shape."""
    count = int(np.prod(grid.sizes))
    spend_bytes(2 * count, f"{count} values of a mask")
    values = np.zeros(grid.sizes, np.uint16, order="F")
    overlaps: Overlaps = Overlaps()
    effort = Effort()
    for structure in structures:
        if not structure.is_drawn:
            continue
        has_voxels = False
        for index, contours in sorted(structure.planes.items()):
            filled, are_crossing = fill_plane(list(contours.values()), (grid.sizes[0], grid.sizes[1]), effort)
            findings["contours_cross"] += are_crossing
            has_voxels = has_voxels or bool(filled.is_inside.any())
            lay(values[:, :, index][filled.box], filled.is_inside * np.uint16(structure.value), overlaps)
        findings["contours_skip_slices"] += bool(np.any(np.diff(sorted(structure.planes)) > 1))
        findings["structures_without_voxels"] += bool(structure.planes) and not has_voxels
    refuse_overlaps(overlaps, names)
    for code in [code for code, times in findings.items() if not times]:
        del findings[code]
    return values.reshape(grid.shape)
