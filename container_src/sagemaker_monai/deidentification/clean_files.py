"""The one way to de-identify a picture or a volume, for every command that copies one.

The readers decide what a file is (`read.kind_of`): by its content, and by its name only if they use it too. So every
file that can be read here is also cleaned. Files that cannot be taken apart are refused. `Deidentifier` handles DICOM;
archives must be unpacked first.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sagemaker_monai.deidentification.deidentify_nifti import deidentify_nifti
from sagemaker_monai.deidentification.picture_metadata import cleaned
from sagemaker_monai.deidentification.volume_headers import has_texts, is_clean_nifti
from sagemaker_monai.deidentification.volumes_anew import WRITERS, copy_npy, is_clean_npy, write_anew
from sagemaker_monai.errors import CallerError, UnsuitableImage
from sagemaker_monai.images.pictures import read_file
from sagemaker_monai.images.read import DICOM_FORMAT, kind_of
from sagemaker_monai.images.signatures import is_dicom_file
from sagemaker_monai.images.volume_files import read_volume_file
from sagemaker_monai.storage.files import replacing

DICOM, ARCHIVE, PICTURE, VOLUME = "dicom", "archive", "picture", "volume"
_HEAD_BYTES = 512


@dataclass(frozen=True)
class _Cleaner:
    """Checks whether a file is clean, and cleans it.

    `is_clean` may raise what `clean` would; with `is_told`, it does so in every case.
    """

    is_clean: Callable[[Path], bool]
    clean: Callable[[Path, Path], None]
    is_told: bool = False


def sort_of(path: Path) -> str:
    """What a file is: DICOM, ARCHIVE, PICTURE or VOLUME; also PICTURE for anything else, which is refused later."""
    kind = kind_of(path)
    if kind != DICOM_FORMAT:
        return PICTURE if kind == "picture" else VOLUME
    with path.open("rb") as file:
        return DICOM if is_dicom_file(file.read(_HEAD_BYTES)) else ARCHIVE


def is_clean(path: Path) -> bool:
    """Whether `clean_file` would not change a file; False if it refuses it."""
    try:
        return _cleaner_of(path).is_clean(path)
    except CallerError:
        return False


def can_go(path: Path) -> bool:
    """Whether a file is clean; False if `clean_file` can clean it; raises like `clean_file` if it refuses the file."""
    cleaner = _cleaner_of(path)
    if cleaner.is_told or is_clean(path):
        return cleaner.is_clean(path)
    with tempfile.TemporaryDirectory(prefix="clean-") as folder:
        cleaner.clean(path, Path(folder) / "trial")
    return False


def clean_file(source: Path, target: Path) -> None:
    """Write a picture or a volume without anything but the image; whole or not at all.

    Our readers see the same pixels or voxels and geometry.

    Raises:
        UndecodableImage: broken, or an unsupported format.
        UnsuitableImage: DICOM, an archive, or a layout that cannot be taken apart.
        PayloadTooLarge: more than the limits.
    """
    _cleaner_of(source).clean(source, target)


def _cleaner_of(path: Path) -> _Cleaner:
    kind = kind_of(path)
    if kind == DICOM_FORMAT:
        raise UnsuitableImage("DICOM and archives are not cleaned as files; unpack them and use the DICOM import")
    return _CLEANERS[kind]


def _is_clean_picture(path: Path) -> bool:
    content = read_file(path)
    return cleaned(content) == content


def _clean_picture(source: Path, target: Path) -> None:
    new = cleaned(read_file(source))
    with replacing(target) as part:
        part.write_bytes(new)


def _is_clean_npz(path: Path) -> bool:
    return path.read_bytes() == WRITERS["NPZ"](read_volume_file(path, ("NPZ",)))


_NIFTI = _Cleaner(is_clean_nifti, deidentify_nifti)
_CLEANERS = {
    "NIFTI": _NIFTI,
    "ANALYZE": _NIFTI,
    "NRRD": _Cleaner(lambda path: not has_texts(path), partial(write_anew, kind="NRRD")),
    "METAIMAGE": _Cleaner(lambda path: not has_texts(path), partial(write_anew, kind="METAIMAGE")),
    "NPY": _Cleaner(is_clean_npy, copy_npy),
    "NPZ": _Cleaner(_is_clean_npz, partial(write_anew, kind="NPZ")),
    "picture": _Cleaner(_is_clean_picture, _clean_picture, is_told=True),
}
