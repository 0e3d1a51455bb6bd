"""Copies of volumes for a data set: each is read once to check it, and loses the texts of its header on request.

NIfTI, Analyze and NPY files are copied, by `clean_file` if they are de-identified: voxels stay bit for bit. All other
formats (their headers have free texts and names of other files), and files with a wrong suffix, are rewritten as
.nii.gz in float32, which is what training sees anyway; the affine is rounded to float32, as in every NIfTI file.
"""

import gzip
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sagemaker_monai.deidentification.clean_files import clean_file
from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.formats.pairs import image_of
from sagemaker_monai.images.formats.voxels import is_unclear
from sagemaker_monai.images.read import kind_of, read_volume_channels, read_volumes_of
from sagemaker_monai.images.sample import Sample, Sequences
from sagemaker_monai.images.signatures import GZIP_MAGIC
from sagemaker_monai.images.volumes import Volume
from sagemaker_monai.prepare.nifti_cases import SUFFIXES

REWRITTEN = ".nii.gz"
_COPIED = {"NIFTI": (".nii", ".nii.gz", ".hdr", ".hdr.gz"), "ANALYZE": (".hdr",), "NPY": (".npy",)}
_HEADERS = (".hdr", ".hdr.gz")
_MAX_NIFTI1_SIDE = 32_767


@dataclass(frozen=True)
class Plan:
    """How a file is copied: its suffix in the data set, the image beside a header, and whether it is rewritten."""

    source: Path
    suffix: str
    image: Path | None
    is_rewritten: bool

    def names(self, stem: str) -> list[str]:
        """The names of the copies: of the file, and of the image beside a header."""
        if self.image is None:
            return [stem + self.suffix]
        return [stem + self.suffix, stem + (".img.gz" if self.image.name.lower().endswith(".gz") else ".img")]


def plan_copy(path: Path) -> Plan:
    """Decide how a file is copied.

    Raises:
        UndecodableImage: it cannot be read, is not a volume, or is a header without its image.
    """
    kind = kind_of(path)
    suffix = next((each for each in SUFFIXES if path.name.lower().endswith(each)), "")
    with path.open("rb") as file:
        is_packed = file.read(2) == GZIP_MAGIC
    if suffix not in _COPIED.get(kind, ()) or suffix.endswith(".gz") != is_packed:
        return Plan(path, REWRITTEN, None, is_rewritten=True)
    return Plan(path, suffix, image_of(path)[0] if suffix in _HEADERS else None, is_rewritten=False)


def read_case(files: Sequence[Path]) -> list[Volume]:
    """The volumes of a case, one for each file, on one grid.

    Raises:
        UndecodableImage, UnsuitableImage, PayloadTooLarge: as `read.read_volumes_of`.
    """
    if len(files) > 1:
        return read_volume_channels(Sequences(tuple(files)))
    volumes = read_volumes_of(Sample(files[0]))
    if len(volumes) != 1:
        raise UnsuitableImage(f"the file holds {len(volumes)} volumes; write one in each file")
    return volumes


def copy_volume(plan: Plan, volume: Volume, out: Path, names: Sequence[str], *, is_private: bool) -> dict[str, int]:
    """Write the copies; returns their names and sizes in bytes.

    Args:
        plan: how to copy.
        volume: the file's content.
        out: the output folder.
        names: of `Plan.names`, relative to it.
        is_private: keep only the image.

    Raises:
        UndecodableImage, UnsuitableImage, PayloadTooLarge: as `clean_file`.
    """
    sources = [plan.source] + ([plan.image] if plan.image is not None else [])
    for source, name in zip(sources, names, strict=True):
        target = out / name
        target.unlink(missing_ok=True)
        if plan.is_rewritten:
            target.write_bytes(encoded(volume))
        elif is_private:
            clean_file(source, target)
        else:
            shutil.copyfile(source, target)
    return {name: (out / name).stat().st_size for name in names}


def encoded(volume: Volume) -> bytes:
    """A volume as the bytes of a .nii.gz file: float32 (W, H, D), or (W, H, D, C) with several channels."""
    import nibabel

    values = np.asarray(volume.values, np.float32)
    array = values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)
    if array.ndim == 4 and is_unclear(array.shape):
        array = array[..., np.newaxis, :]  # the fifth axis is for vectors, so no reader takes it for slices
    kind: Any = nibabel.Nifti1Image if max(array.shape) <= _MAX_NIFTI1_SIDE else nibabel.Nifti2Image
    image = kind(array, volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.affine, code=1 if volume.has_geometry else 0)
    image.set_qform(None, code=0)
    image.header.set_zooms([*np.linalg.norm(volume.affine[:3, :3], axis=0), *([1.0] * (array.ndim - 3))])
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
