"""Label maps and probabilities as NIfTI: the voxels and where they are, and nothing else."""

import gzip
import io
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCANNER, UNKNOWN = 1, 0  # NIfTI's codes of the space that an affine leads to
LABEL_INTENT = "label"
MAX_NIFTI1_SIDE = 32_767
_SLOPE = np.nextafter(np.float32(1 / 255), np.float32(0))  # the nearest float32 would make 255 more than 1
_QUICK = 1  # level of gzip; noise in probabilities takes 10 times as long at 6, and 90 times at 9, to save a tenth
SAME_AXES = 1e-4  # of a cosine, from a right angle; headers round


def encode_labels(labels: np.ndarray, affine: np.ndarray | None, *, is_packed: bool) -> bytes:
    """A label map as the bytes of a NIfTI file; the same map gives the same bytes.

    Args:
        labels: uint8 or uint16 (W, H) or (W, H, D).
        affine: (4, 4) from voxel indices to mm, RAS; None where the image has no geometry.
        is_packed: gzip.
    """
    image = _image(labels, affine)
    image.header.set_intent(LABEL_INTENT)
    body: bytes = image.to_bytes()
    return gzip.compress(body, mtime=0) if is_packed else body


def encode_shares(shares: NDArray[np.uint8], affine: np.ndarray | None, *, is_packed: bool) -> bytes:
    """Numbers from 0 to 1 as the bytes of a NIfTI file: uint8 (W, H, D, K), which the header's slope makes them.

    They are written one map after the other, since nibabel would make floats of all of them at once.

    Args:
        shares: (K, W, H) or (K, W, H, D), 255 for 1; of a single image D is 1 in the file.
        affine, is_packed: as of `encode_labels`.
    """
    shares = shares[..., None] if shares.ndim == 3 else shares
    image = _image(np.broadcast_to(np.uint8(0), (*shares.shape[1:], len(shares))), affine)
    image.update_header()
    header, stream = image.header, io.BytesIO()
    header.set_slope_inter(_SLOPE, 0)
    header.set_data_offset(header.single_vox_offset)
    packing = gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=_QUICK, mtime=0) if is_packed else None
    with packing or nullcontext(stream) as file:
        file.write(header.binaryblock.ljust(header.single_vox_offset, b"\0"))
        for values in shares:
            file.write(values.tobytes("F"))
    return stream.getvalue()


def _image(values: np.ndarray, affine: np.ndarray | None) -> Any:
    import nibabel

    place = np.eye(4) if affine is None else affine
    kind: Any = nibabel.Nifti1Image if max(values.shape) <= MAX_NIFTI1_SIDE else nibabel.Nifti2Image
    image = kind(values, place)
    code = UNKNOWN if affine is None else SCANNER
    image.header.set_sform(place, code)
    image.header.set_qform(place, UNKNOWN if _is_sheared(place) else code)  # a quaternion cannot hold a tilted gantry
    image.header.set_xyzt_units("mm")
    return image


def _is_sheared(affine: np.ndarray) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > SAME_AXES)
