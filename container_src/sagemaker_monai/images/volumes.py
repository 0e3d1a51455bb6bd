"""Medical images once they are read: values with their unit, geometry, display window and identity.

All readers (`dicom`, `formats`) return these types, and `preprocessing` starts from them. Axes are in MONAI's index
order, channel first: (C, W, H) and (C, W, H, D). In DICOM, W runs along the rows of the stored picture, H down its
columns, and D along the slices.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from sagemaker_monai.errors import PayloadTooLarge
from sagemaker_monai.messages.remarks import Remark

MAX_VOXELS = 1 << 29  # of one image, all channels together: 512 x 512 x 2,048; 2 GiB as float32


@dataclass(frozen=True)
class Window:
    """A VOI window of a header. `function` is VOILUTFunction: LINEAR, LINEAR_EXACT or SIGMOID."""

    center: float
    width: float
    function: str = "LINEAR"


@dataclass(frozen=True)
class Lut:
    """A VOI LUT of a header: `table[i]` is the display value, 0 to 1, of the modality value `first + i`."""

    first: int
    table: np.ndarray


@dataclass(frozen=True)
class Display:
    """How the header says that values are displayed.

    Attributes:
        voi: the header's first window or LUT, None if it has none.
        is_inverted: the smallest value is white: MONOCHROME1, or PresentationLUTShape INVERSE.
        padding: the lowest and highest modality value that mean "no pixel" (PixelPaddingValue), or None.
    """

    voi: Window | Lut | None = None
    is_inverted: bool = False
    padding: tuple[float, float] | None = None


@dataclass(frozen=True)
class Identity:
    """Where an image comes from, for answers that report it.

    Attributes:
        sop_instance_uids: SOPInstanceUID of every file, in the order of the slices.
        frame: number of the frame within its file from 1, None for a file with one frame or a whole series.
        headers: the files' pydicom datasets without pixel data, in the same order, for structured reports.
        kind, modality, is_colour: as in `dicom.objects`; modality is "" if unknown.
        sop_class_uid: SOPClassUID of the first file, "" if unknown.
        series: the number of the series within the sample, from 1, in the order of the files.
        series_number: SeriesNumber, None if unknown.
        volume: which of the series' volumes this is, and how it differs from the others; "" if it is the only one.
        passed_over: number of other series in the sample that are not answered.
    """

    series_instance_uid: str
    sop_instance_uids: tuple[str, ...]
    frame: int | None = None
    headers: tuple[object, ...] = field(default=(), repr=False, compare=False)
    kind: str = "image"
    modality: str = ""
    is_colour: bool = False
    sop_class_uid: str = ""
    series: int = 1
    series_number: int | None = None
    passed_over: int = 0
    volume: str = ""


@dataclass(frozen=True)
class Traits:
    """What is known about an image beside its values, once it is prepared for a network.

    Attributes:
        identity: None unless it is DICOM.
        findings: codes of oddities that were tolerated.
        size: voxels along W, H (and D) as stored; empty for 8-bit pictures.
        spacing_mm: along the same axes, None if unknown.
        affine: of a volume, as `Volume.affine`; None if it has no geometry, and for all else.
    """

    identity: Identity | None = None
    findings: tuple[str, ...] = ()
    size: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] | None = None
    affine: np.ndarray | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Frame:
    """One 2-D image.

    Attributes:
        values: (C, W, H). Grey: C = 1, float32 in the modality's unit (HU for CT, otherwise as rescaled). Colour: C =
            3, uint8 RGB.
        spacing_mm: distance of pixel centres along W and H, None if unknown.
        display: how the header displays it; meaningless for colour.
        modality: DICOM's Modality ("CT", "MR", "DX", ...), "" if unknown.
        identity, findings: as for `Traits`.
    """

    values: np.ndarray
    spacing_mm: tuple[float, float] | None
    display: Display = Display()
    modality: str = ""
    identity: Identity | None = None
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Volume:
    """One 3-D image of one or more channels.

    Attributes:
        values: float32 (C, W, H, D) in the modality's unit.
        affine: float64 (4, 4) from voxel indices (w, h, d, 1) to mm in RAS, as in nibabel and MONAI: +x to the
            patient's right, +y anterior, +z superior. DICOM itself uses LPS: x and y have the other sign.
        display, modality, identity, findings: as for `Frame`.
        has_geometry: False if the file has no geometry and `affine` is only its voxel grid.
        remarks: on the geometry of a file other than DICOM.
        is_scaled: the header has a factor or an offset, so the stored values were others.
    """

    values: np.ndarray
    affine: np.ndarray
    display: Display = Display()
    modality: str = ""
    identity: Identity | None = None
    has_geometry: bool = True
    findings: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()
    is_scaled: bool = False


def check_voxels(*shape: int) -> None:
    """Refuse more values than MAX_VOXELS with PayloadTooLarge, before they are allocated."""
    if math.prod(max(int(size), 0) for size in shape) > MAX_VOXELS:
        raise PayloadTooLarge(f"{' x '.join(map(str, shape))} values are more than {MAX_VOXELS}; send a smaller image")
