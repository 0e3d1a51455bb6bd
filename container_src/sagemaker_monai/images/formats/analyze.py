"""Analyze 7.5, NIfTI's predecessor with a pair of .hdr and .img files; also SPM's variant with a scale factor.

The format does not define the orientation in the patient: programs read the same file as radiological or neurological,
and its `orient` field was never reliable. So the volume has only the grid of pixdim, without a flip; if left and right
matter, convert the files to NIfTI with a program that knows their origin.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spm99analyze import Spm99AnalyzeHeader

from sagemaker_monai.errors import UndecodableImage, UnsuitableImage
from sagemaker_monai.images.formats.affines import grid
from sagemaker_monai.images.formats.inflate import Stream, gunzipping, opened
from sagemaker_monai.images.formats.pairs import header_of, image_of
from sagemaker_monai.images.formats.voxels import (
    NonFinite,
    Stored,
    channel_first,
    check_shape,
    dtype_of,
    expect_volume,
    read_values,
)
from sagemaker_monai.images.volumes import Volume

HEADER_BYTES = 348
MAX_OFFSET_BYTES = 16 << 20

_HEADER_CLASS: Any = Spm99AnalyzeHeader  # nibabel's classes are not typed
# The last three are SPM's own codes.
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 130: "i1", 132: "u2", 136: "u4"}


def read_analyze(source: Path | bytes, non_finite: NonFinite = "refuse") -> Volume:
    """Read the pair by the path of either file.

    Raises:
        UndecodableImage: a broken header, a missing file, truncated values.
        UnsuitableImage: a header alone, colours, complex numbers, a time series, values that are not finite.
        PayloadTooLarge: more than the limits.
    """
    if isinstance(source, bytes):
        raise UnsuitableImage("the header of a pair (.hdr) without its image (.img); send NIfTI (.nii or .nii.gz)")
    header_path = header_of(source)
    with opened(header_path) as (file, size):
        header = _header(gunzipping(file, size).take(HEADER_BYTES))
    shape, channel_axis = _shape(header)
    stored = _stored(header, shape)
    offset = float(header["vox_offset"])
    if not 0 <= offset <= MAX_OFFSET_BYTES or offset != int(offset):
        raise UndecodableImage(f"the Analyze header's vox_offset must be whole, 0 to {MAX_OFFSET_BYTES}")
    expect_volume(shape, channel_axis, None)
    image, packing = image_of(header_path)
    with opened(image) as (file, size):
        stream = Stream(file, size, packing)
        stream.skip(int(offset))
        values = read_values(stream, stored, non_finite)
        stream.finish()
    affine = grid([float(size) for size in header["pixdim"][1:4]])
    return Volume(channel_first(values, channel_axis), affine, has_geometry=False, is_scaled=stored.is_scaled)


def _header(block: bytes) -> Any:
    if len(block) < HEADER_BYTES:
        raise UndecodableImage("the Analyze header is cut off")
    for order in "<>":
        if block[:4] == struct.pack(f"{order}i", HEADER_BYTES):
            return _HEADER_CLASS(block, endianness=order, check=False)
    raise UndecodableImage("not an Analyze header: its length is not 348")


def _shape(header: Any) -> tuple[tuple[int, ...], int | None]:
    rank, *sizes = (int(size) for size in header["dim"])
    if not 2 <= rank <= 7:
        raise UndecodableImage(f"the Analyze header claims {rank} axes; 2 to 4 are possible")
    sizes = sizes[:rank]
    check_shape(sizes)
    if any(size > 1 for size in sizes[4:]):
        raise UnsuitableImage("the Analyze file has more axes than space and channels; send one image")
    if len(sizes) < 4 or sizes[3] == 1:
        return tuple(sizes[:3]), None
    check_shape(sizes[:4], channels=sizes[3])
    return tuple(sizes[:4]), 3


def _stored(header: Any, shape: tuple[int, ...]) -> Stored:
    dtype = dtype_of(header, _TYPES, "Analyze")
    slope = float(header["scl_slope"])  # Analyze's funused1, where SPM keeps its scale factor
    return Stored(dtype, shape, slope if np.isfinite(slope) and slope != 0 else 1.0)
