"""The one way in which a picture or a volume is cleaned of what tells who a patient is, no matter who copies it.

What a file is, the readers decide (`read.kind_of`): by its content, and by its name only where they go by it too. So
there is nothing that is read here and not looked at. What cannot be taken apart is refused. DICOM is for
`Deidentifier`, archives are to be unpacked first.
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
    """Whether a file can go as it is, and how it is written where it cannot.

    `is_clean` may raise what `clean` would. Where `is_told`, it does whenever `clean` would.
    """

    is_clean: Callable[[Path], bool]
    clean: Callable[[Path, Path], None]
    is_told: bool = False


def sort_of(path: Path) -> str:
    """What a file is: DICOM, ARCHIVE, PICTURE or VOLUME; PICTURE too for what is none of them, which is refused then.

    Raises:
        UndecodableImage: it cannot be read.
    """
    kind = kind_of(path)
    if kind != DICOM_FORMAT:
        return PICTURE if kind == "picture" else VOLUME
    with path.open("rb") as file:
        return DICOM if is_dicom_file(file.read(_HEAD_BYTES)) else ARCHIVE


def is_clean(path: Path) -> bool:
    """Whether `clean_file` would leave a file as it is; False for one that it refuses."""
    try:
        return _cleaner_of(path).is_clean(path)
    except CallerError:
        return False


def can_go(path: Path) -> bool:
    """Whether a file can go as it is; False where `clean_file` has to write it first, and can.

    Raises:
        UndecodableImage, UnsuitableImage, PayloadTooLarge: `clean_file` refuses it.
    """
    cleaner = _cleaner_of(path)
    if cleaner.is_told or is_clean(path):
        return cleaner.is_clean(path)
    with tempfile.TemporaryDirectory(prefix="clean-") as folder:
        cleaner.clean(path, Path(folder) / "trial")
    return False


def clean_file(source: Path, target: Path) -> None:
    """Write a picture or a volume without anything beside the image; whole or not at all.

    Pixels, voxels and their geometry are the same to the readers here.

    Raises:
        UndecodableImage: broken, or nothing that is read.
        UnsuitableImage: DICOM, an archive, or a layout that cannot be taken apart.
        PayloadTooLarge: more than the limits.
    """
    _cleaner_of(source).clean(source, target)


def _cleaner_of(path: Path) -> _Cleaner:
    kind = kind_of(path)
    if kind == DICOM_FORMAT:
        raise UnsuitableImage("DICOM, or an archive, is not cleaned as a file; unpack it, and use the DICOM import")
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
