"""The only way for a DICOM object into a data set: de-identified, written, read back, and proved to be clean.

Nothing else writes de-identified objects, so every one is proved, and the proof covers the very bytes that leave. All
objects go this way, even those that claim to be de-identified (PatientIdentityRemoved).
"""

from pathlib import Path

from pydicom import Dataset, dcmwrite

from sagemaker_monai.deidentification.deidentify import Deidentifier, is_blacked_out
from sagemaker_monai.deidentification.pixel_proof import stored_digest
from sagemaker_monai.deidentification.proof import prove_deidentified
from sagemaker_monai.errors import UndecodableImage, UnsuitableImage
from sagemaker_monai.images.dicom.headers import read_instance
from sagemaker_monai.images.dicom.pixel_layout import pixel_tag_of
from sagemaker_monai.storage.files import replacing


def write_deidentified(
    dataset: Dataset, target: Path, deidentifier: Deidentifier, *, stored: bytes | None = None
) -> Dataset:
    """De-identify an object and write it; afterwards the target is complete and proved, or does not exist.

    Args:
        dataset: complete, from `read_instance`; it is not changed.
        target: in an existing folder.
        deidentifier: the rules.
        stored: digest of the object's stored values, from `pixel_proof.stored_digest`, if known.

    Returns:
        The object as read back.

    Raises:
        CallerError: as `Deidentifier`; also UnsuitableImage if the file could not be proved to be clean, or would not
            show the same pixels.
    """
    result = deidentifier(dataset)
    with replacing(target) as part:
        try:
            dcmwrite(part, result, enforce_file_format=True)
        except Exception as error:  # pydicom's exceptions for invalid values are not documented
            if isinstance(error, OSError) and error.errno is not None:  # the disk is full, or the like
                raise
            raise UndecodableImage("the DICOM object has values that cannot be written; export it again") from error
        written = read_instance(part)
        if faults := prove_deidentified(dataset, written):
            raise UnsuitableImage(f"the de-identified file could not be proved to be clean: {faults[0]}; leave it out")
        if not _shows_the_same(dataset, written, stored):
            raise UnsuitableImage(
                "the de-identified file would not show the same pixels, because part of its pixel data could not be "
                "kept; export it again, or leave it out"
            )
    return written


def _shows_the_same(dataset: Dataset, written: Dataset, stored: bytes | None) -> bool:
    if pixel_tag_of(dataset) is None or is_blacked_out(written):
        return True
    return stored_digest(written) == (stored_digest(dataset) if stored is None else stored)
