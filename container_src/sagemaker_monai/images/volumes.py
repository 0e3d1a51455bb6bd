"""What a medical image is once it is read: values with their unit, geometry, display window and identity.

Everything that reads a file (`dicom`, `formats`) ends here, and everything that prepares a network's input
(`preprocessing`) begins here. Axes are in MONAI's index order, channel first: (C, W, H) and (C, W, H, D). In
DICOM W runs along the rows of the stored picture, H down its columns, and D along the slices.
"""

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
    """How the header asks for values to be shown.

    Attributes:
        voi: the first window or LUT of the header, None when it has none.
        is_inverted: the smallest value is white: MONOCHROME1, or PresentationLUTShape INVERSE.
        padding: the range of modality values that mean "no pixel" (PixelPaddingValue), lowest and highest, or None.
    """

    voi: Window | Lut | None = None
    is_inverted: bool = False
    padding: tuple[float, float] | None = None


@dataclass(frozen=True)
class Identity:
    """Where an image comes from, for answers that were asked to say so.

    Attributes:
        series_instance_uid: SeriesInstanceUID.
        sop_instance_uids: SOPInstanceUID of every file, in the order of the slices.
        frame: number of the frame within its file from 1, None for a file with one frame or a whole series.
        headers: the files' pydicom datasets without pixel data, in the same order; what an SR quotes.
        kind, modality, is_colour: what the object is, as `dicom.objects` has it; modality "" when unknown.
        sop_class_uid: SOPClassUID of the first file, "" when unknown.
        series: the number of the series among those of the sample, from 1, in the order of the files.
        series_number: SeriesNumber, None when unknown.
        volume: which of several volumes of the series, and what tells it from them; "" where there is one.
        passed_over: how many other series the sample has that are not answered.
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
    """What is known of an image beside its values, once it is prepared for a network.

    Attributes:
        identity: None for what is not DICOM.
        findings: codes of what is odd about it and was read all the same.
        size: voxels along W, H (and D) as stored; empty for 8-bit pictures.
        spacing_mm: their distance along the same axes, None when unknown.
    """

    identity: Identity | None = None
    findings: tuple[str, ...] = ()
    size: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Frame:
    """One 2-D image.

    Attributes:
        values: (C, W, H). Grey: C = 1, float32 in the modality's unit (HU for CT, else what the rescale gives). Colour:
            C = 3, uint8 RGB.
        spacing_mm: distance of pixel centres along W and H, None when unknown.
        display: how the header shows it; without meaning for colour.
        modality: Modality of DICOM ("CT", "MR", "DX", ...), "" when unknown.
        identity: None for what is not DICOM.
        findings: codes of what is odd and was read all the same.
    """

    values: np.ndarray
    spacing_mm: tuple[float, float] | None
    display: Display = Display()
    modality: str = ""
    identity: Identity | None = None
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Volume:
    """One 3-D image, of one channel or several.

    Attributes:
        values: float32 (C, W, H, D) in the modality's unit.
        affine: float64 (4, 4) from voxel indices (w, h, d, 1) to mm, RAS: +x to the patient's right, +y anterior, +z
            superior, as nibabel and MONAI have it. DICOM's own coordinates are LPS: x and y have the other sign.
        display, modality, identity, findings: as for `Frame`.
        has_geometry: False when the file has no geometry and `affine` is only its voxel grid.
        remarks: what is odd about the geometry of a file that is not DICOM.
        is_scaled: its header has a factor or an offset by which the stored values became these.
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
    """Refuse a size before anything of it is allocated.

    Raises:
        PayloadTooLarge: more values than MAX_VOXELS.
    """
    count = 1
    for size in shape:
        count *= max(int(size), 0)
    if count > MAX_VOXELS:
        raise PayloadTooLarge(f"{' x '.join(map(str, shape))} values are more than {MAX_VOXELS}; send a smaller image")
