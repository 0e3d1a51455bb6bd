"""Label maps as NIfTI: the voxels and where they are, and nothing else."""

import gzip
from typing import Any

import numpy as np

SCANNER, UNKNOWN = 1, 0  # NIfTI's codes of the space that an affine leads to
LABEL_INTENT = "label"
MAX_NIFTI1_SIDE = 32_767
SAME_AXES = 1e-4  # of a cosine, from a right angle; headers round


def encode_labels(labels: np.ndarray, affine: np.ndarray | None, *, is_packed: bool) -> bytes:
    """A label map as the bytes of a NIfTI file; the same map gives the same bytes.

    Args:
        labels: uint8 or uint16 (W, H) or (W, H, D).
        affine: (4, 4) from voxel indices to mm, RAS; None where the image has no geometry.
        is_packed: gzip.
    """
    import nibabel

    place = np.eye(4) if affine is None else affine
    kind: Any = nibabel.Nifti1Image if max(labels.shape) <= MAX_NIFTI1_SIDE else nibabel.Nifti2Image
    image = kind(labels, place)
    code = UNKNOWN if affine is None else SCANNER
    image.header.set_sform(place, code)
    image.header.set_qform(place, UNKNOWN if _is_sheared(place) else code)  # a quaternion cannot hold a tilted gantry
    image.header.set_xyzt_units("mm")
    image.header.set_intent(LABEL_INTENT)
    body: bytes = image.to_bytes()
    return gzip.compress(body, mtime=0) if is_packed else body


def _is_sheared(affine: np.ndarray) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > SAME_AXES)
