"""Compare our volume of a DICOM series with two independent readers, SimpleITK (GDCM) and dcm2niix (its own parser).

Each orders and directs axes in its own way, so both volumes are first turned to the patient's closest axes
(`nibabel.as_closest_canonical`, flips and swaps only).
"""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
from dcm2niix import bin as dcm2niix

from sagemaker_monai.images.dicom.series import Series, find_instances, group_series, read_series

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Row:
    """One series: the largest difference of a voxel to each reader, and of an affine's number to either."""

    series: str
    slices: int
    voxels_simpleitk: float
    voxels_dcm2niix: float
    affine: float


def compare_series(folder: Path) -> list[Row]:
    """Compare every series of a folder."""
    return [compare_one(folder, series) for series in group_series(find_instances(folder))]


def compare_one(folder: Path, series: Series) -> Row:
    """Compare one series; its files must be of a single volume."""
    volume = read_series(series)
    own = nibabel.Nifti1Image(volume.values[0], volume.affine)
    files = [each.source for each in series.instances]
    peers = [read_with_simpleitk(folder, series.uid), read_with_dcm2niix(files)]
    voxels, affines = zip(*(_difference(own, peer) for peer in peers), strict=True)
    return Row(f"{series.modality} {series.description}", len(series.slices), *voxels, max(affines))


def _difference(own: nibabel.Nifti1Image, peer: nibabel.Nifti1Image) -> tuple[float, float]:
    own, peer = nibabel.as_closest_canonical(own), nibabel.as_closest_canonical(peer)
    assert own.shape == peer.shape
    voxels = np.abs(own.get_fdata() - peer.get_fdata()).max()
    return float(voxels), float(np.abs(own.affine - peer.affine).max())


def read_with_simpleitk(folder: Path, uid: str) -> nibabel.Nifti1Image:
    """Read one series of a folder; ITK's geometry is LPS."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), uid))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    values = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)
    return nibabel.Nifti1Image(values.astype(np.float64), LPS_TO_RAS @ affine)


def read_with_dcm2niix(files: list[Path]) -> nibabel.Nifti1Image:
    """Convert the files of one series, as links in a folder of their own, because dcm2niix takes whole folders."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "in").mkdir()
        for index, file in enumerate(files):
            (place / "in" / f"{index}.dcm").symlink_to(file.resolve())
        command = [dcm2niix, "-b", "n", "-z", "n", "-m", "y", "-f", "volume", "-o", str(place), str(place / "in")]
        subprocess.run(command, check=True, capture_output=True)
        [made] = place.glob("*.nii")
        image = nibabel.load(made)
        return nibabel.Nifti1Image(image.get_fdata(), image.affine)
