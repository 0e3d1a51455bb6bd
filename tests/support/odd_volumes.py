"""Volumes read by independent readers, synthetic volumes, and what becomes of the shared odd NIfTI files."""

import os
from dataclasses import dataclass

import nibabel
import numpy as np
import SimpleITK

from sagemaker_monai.errors import CallerError
from sagemaker_monai.images.volume_files import read_volume_file
from tests.support.places import SHARED_DATA

ODD_NIFTI = SHARED_DATA / "odd_nifti"
HIPPOCAMPUS = SHARED_DATA / "hippocampus_nifti"
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # between ITK's coordinates and RAS

DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")


@dataclass(frozen=True)
class Row:
    """What becomes of a file: `outcome` is "read", with empty `code` and `message`, or "refused"."""

    name: str
    outcome: str
    code: str
    message: str
    shape: tuple[int, ...]
    compared_with: tuple[str, ...]


def ramp(shape, dtype, seed=0):
    """Values over the range of their type, below 2^24 in size so that float32 is exact."""
    dtype = np.dtype(dtype)
    generator = np.random.default_rng(seed)
    if dtype.kind == "f":
        return generator.normal(0, 1000, shape).astype(np.float32).astype(dtype)
    limits = np.iinfo(dtype)
    low, high = max(limits.min, -(1 << 24)), min(limits.max, 1 << 24)
    return generator.integers(low, high, shape, dtype=np.int64, endpoint=True).astype(dtype)


def oblique(spacing=(0.7, 1.1, 2.5), origin=(-31.5, 12.25, 80.0)):
    """A rotation about all three axes, with spacing and origin."""
    affine = np.eye(4)
    for axis, angle in enumerate((0.3, -0.2, 0.5)):
        first, second = [other for other in range(3) if other != axis]
        turn = np.eye(4)
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        affine = affine @ turn
    affine = affine @ np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return affine


def by_nibabel(path):
    """Values (C, W, H, D), rounded once from float64, and the affine."""
    image = nibabel.load(path)
    values = image.get_fdata()
    values = values.reshape(*values.shape[:3], *[size for size in values.shape[3:] if size > 1])
    values = np.moveaxis(values, -1, 0) if values.ndim == 4 else values[np.newaxis]
    return values.reshape(*values.shape, *[1] * (4 - values.ndim)).astype(np.float32), image.affine


def by_simpleitk(path):
    """Values (C, W, H, D) and the affine in RAS."""
    image = SimpleITK.ReadImage(os.fspath(path))
    values = SimpleITK.GetArrayFromImage(image).T  # (C,) W, H, D, T
    rank = image.GetDimension()
    if rank == 4:
        values = np.moveaxis(values, -1, 0)
    elif image.GetNumberOfComponentsPerPixel() == 1:
        values = values[np.newaxis]
    affine = np.eye(4)
    axes = min(rank, 3)
    direction = np.array(image.GetDirection()).reshape(rank, rank)[:axes, :axes]
    affine[:axes, :axes] = direction * np.array(image.GetSpacing())[:axes]
    affine[:axes, 3] = image.GetOrigin()[:axes]
    return values.reshape(*values.shape, *[1] * (4 - values.ndim)).astype(np.float32), LPS @ affine


def write_simpleitk(path, values, affine=None, *, compress=False, is_vector=False):
    """Write (W, H, D), or (C, W, H, D) as vectors, with an affine in RAS."""
    image = SimpleITK.GetImageFromArray(values.T, isVector=is_vector)
    if affine is not None:
        matrix = LPS @ affine
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
        image.SetOrigin(matrix[:3, 3].tolist())
    SimpleITK.WriteImage(image, os.fspath(path), useCompression=compress)


def read_odd_nifti(path):
    """Read a file with our reader and two others, which must agree with it.

    Raises:
        AssertionError: another reader has other values or another affine.
    """
    try:
        volume = read_volume_file(path)
    except CallerError as error:
        return Row(path.name, "refused", error.code, str(error), (), ())
    compared_with = []
    for name, read in {"nibabel": by_nibabel, "SimpleITK": by_simpleitk}.items():
        values, affine = read(path)
        assert np.array_equal(volume.values, values), f"{name} has other values"
        assert np.allclose(volume.affine, affine, atol=1e-4), f"{name} has another affine"
        compared_with.append(name)
    return Row(path.name, "read", "", "", volume.values.shape, tuple(compared_with))
