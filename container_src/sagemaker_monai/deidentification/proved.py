"""One way for a DICOM object into a data set: de-identified, written, read back, and proved to be clean.

Nothing else writes a de-identified object, so that none leaves without its proof, and what is proved are the bytes that
leave. What a file says of itself (PatientIdentityRemoved) does not count: all go this way.
"""

from collections.abc import Callable
from pathlib import Path

from pydicom import Dataset, dcmwrite

from sagemaker_monai.deidentification.deidentify import Deidentifier
from sagemaker_monai.deidentification.proof import prove_deidentified
from sagemaker_monai.dicom.headers import read_instance
from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.files import replacing


def write_deidentified(
    dataset: Dataset, target: Path, deidentifier: Deidentifier, *, also: Callable[[Dataset], None] | None = None
) -> Dataset:
    """De-identify an object and write it; the target is whole and proved, or not there.

    Args:
        dataset: complete, as `read_instance` gives it; it is not changed.
        target: its folder has to be there.
        deidentifier: the rules.
        also: is given the object that was read back, and raises where the caller would not take it.

    Returns:
        The object as it was read back.

    Raises:
        CallerError: as `Deidentifier`; UnsuitableImage also when the file could not be proved to be clean.
    """
    result = deidentifier(dataset)
    with replacing(target) as part:
        dcmwrite(part, result, enforce_file_format=True)
        written = read_instance(part)
        if faults := prove_deidentified(dataset, written):
            raise UnsuitableImage(f"the de-identified file could not be proved to be clean: {faults[0]}; leave it out")
        if also is not None:
            also(written)
    return written
