"""Rewrites NRRD, MetaImage, NPY and NPZ from what our readers return, so that nothing else of a file remains.

Values are stored as integers if all of them are whole; NPY keeps its type. The geometry is the reader's too. Names,
comments, units and files that a header refers to are not written.
"""

import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sagemaker_monai.errors import UndecodableImage
from sagemaker_monai.images.formats.arrays import MAX_NPY_HEADER_BYTES, parse_npy_header
from sagemaker_monai.images.formats.inflate import PIECE_BYTES, opened
from sagemaker_monai.images.volume_files import read_volume_file
from sagemaker_monai.images.volumes import Volume
from sagemaker_monai.storage.files import replacing

_HEAD_BYTES = 12 + MAX_NPY_HEADER_BYTES
_LEVEL = 6
_WHOLE = ("u1", "i2", "u2", "i4")
_NRRD_TYPES = {"u1": "uint8", "i2": "int16", "u2": "uint16", "i4": "int32", "f4": "float"}
_META_TYPES = {"u1": "MET_UCHAR", "i2": "MET_SHORT", "u2": "MET_USHORT", "i4": "MET_INT", "f4": "MET_FLOAT"}
_TO_LPS = np.array([-1.0, -1.0, 1.0])


def write_anew(source: Path, target: Path, kind: str) -> None:
    """Write a volume as its reader returns it; whole or not at all; raises like `read_volume_file`.

    Args:
        source: the file, or the header of several.
        target: file to write.
        kind: a key of WRITERS.
    """
    content = WRITERS[kind](read_volume_file(source, (kind,)))
    with replacing(target) as part:
        part.write_bytes(content)


def copy_npy(source: Path, target: Path) -> None:
    """Write the values of an .npy after a header as NumPy writes it.

    Raises:
        UndecodableImage: malformed, or the values do not fill the shape exactly.
        UnsuitableImage: objects or structures.
    """
    with opened(source) as (file, size), replacing(target) as part, part.open("wb") as out:
        start, header = _npy_header(file.read(_HEAD_BYTES), size)
        file.seek(start)
        out.write(header)
        while piece := file.read(PIECE_BYTES):
            out.write(piece)


def is_clean_npy(path: Path) -> bool:
    """Whether `copy_npy` would change nothing; raises like it."""
    with opened(path) as (file, size):
        head = file.read(_HEAD_BYTES)
        start, header = _npy_header(head, size)
        return head[:start] == header


def _npy_header(head: bytes, size: int) -> tuple[int, bytes]:
    """The offset of the values, and the header to write."""
    header = parse_npy_header(head)
    if size - header.offset != int(np.prod(header.shape, dtype=object)) * header.dtype.itemsize:
        raise UndecodableImage("the npy values do not fill the shape exactly")
    file = io.BytesIO()
    told = {"descr": header.dtype.str, "fortran_order": header.order == "F", "shape": header.shape}
    np.lib.format.write_array_header_1_0(file, told)
    return header.offset, file.getvalue()


def _stored(values: np.ndarray) -> np.ndarray:
    """The values as integers if all are whole, little-endian."""
    if not (np.signbit(values) & (values == 0)).any() and np.array_equal(values, np.rint(values)):
        low, high = float(values.min()), float(values.max())
        for name in _WHOLE:
            limits = np.iinfo(name)
            if limits.min <= low and high <= limits.max:
                return values.astype(f"<{name}")
    return values.astype("<f4")


def _rows(values: np.ndarray) -> bytes:
    """Bytes of (C, W, H, D) with the first axis fastest."""
    return values.tobytes(order="F")


def _numbers(values: np.ndarray) -> str:
    return " ".join(_number(value) for value in np.ravel(values))


def _number(value: float) -> str:
    return repr(float(value) + 0.0)  # no -0.0


def _nrrd(volume: Volume) -> bytes:
    values = _stored(volume.values)
    channels, *sizes = values.shape
    several = channels > 1
    lines = [
        "NRRD0004",
        f"type: {_NRRD_TYPES[values.dtype.str[1:]]}",
        f"dimension: {3 + several}",
        "sizes: " + " ".join(map(str, [channels] * several + sizes)),
        "encoding: gzip",
        "endian: little",
        "kinds: " + " ".join(["list"] * several + ["domain"] * 3),
    ]
    if volume.has_geometry:
        vectors = ["(" + ",".join(map(_number, column)) + ")" for column in volume.affine[:3].T]
        lines.insert(3, "space: right-anterior-superior")
        lines.append("space directions: " + " ".join(["none"] * several + vectors[:3]))
        lines.append(f"space origin: {vectors[3]}")
    else:
        lines.append("spacings: " + " ".join(["nan"] * several + [_numbers(np.diag(volume.affine)[:3])]))
    packer = zlib.compressobj(_LEVEL, wbits=31)
    return "\n".join([*lines, "", ""]).encode() + packer.compress(_rows(values)) + packer.flush()


def _metaimage(volume: Volume) -> bytes:
    values = _stored(volume.values)
    channels, *sizes = values.shape
    packed = zlib.compress(_rows(values), _LEVEL)
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    lines = ["ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False",
             "CompressedData = True", f"CompressedDataSize = {len(packed)}"]  # fmt: skip
    if volume.has_geometry:
        directions = volume.affine[:3, :3] / spacing * _TO_LPS[:, np.newaxis]
        lines += [f"TransformMatrix = {_numbers(directions.T)}", f"Offset = {_numbers(volume.affine[:3, 3] * _TO_LPS)}"]
    lines += [f"ElementSpacing = {_numbers(spacing)}", "DimSize = " + " ".join(map(str, sizes))]
    lines += [f"ElementNumberOfChannels = {channels}"] * (channels > 1)
    lines += [f"ElementType = {_META_TYPES[values.dtype.str[1:]]}", "ElementDataFile = LOCAL", ""]
    return "\n".join(lines).encode() + packed


def _npz(volume: Volume) -> bytes:
    values = _stored(volume.values)
    geometry = {"affine": volume.affine} if volume.has_geometry else {"spacing": np.diag(volume.affine)[:3]}
    file = io.BytesIO()
    np.savez_compressed(file, image=values if len(values) > 1 else values[0], **geometry)
    return file.getvalue()


WRITERS: dict[str, Callable[[Volume], bytes]] = {"NRRD": _nrrd, "METAIMAGE": _metaimage, "NPZ": _npz}
