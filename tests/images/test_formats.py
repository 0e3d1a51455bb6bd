"""docs/formats.md tells what became of the odd files when they were last read."""

import pytest

from develop.format_tables import NATIVE
from develop.markdown import with_blocks
from sagemaker_monai.images.dicom import decoding
from tests.support.formats import BLOCKS, DOCUMENT, FOLDERS, odd_dicom_rows, odd_nifti_rows

needs_data = pytest.mark.skipif(not all(folder.is_dir() for folder in FOLDERS), reason="the shared data is not here")


@pytest.mark.long
@needs_data
def test_the_document_tells_what_becomes_of_every_odd_file():
    text = DOCUMENT.read_text(encoding="utf-8")

    assert with_blocks(text, BLOCKS) == text, "write it anew: .venv/bin/python -m tests.support.formats"


@pytest.mark.long
@needs_data
def test_no_odd_file_is_read_without_anybody_to_compare_with():
    read = [row for row in (*odd_dicom_rows(), *odd_nifti_rows()) if row.outcome == "read"]

    assert [row.name for row in read if not row.compared_with] == []
    assert len(read) > 100


@pytest.mark.long
@needs_data
def test_every_refusal_of_an_odd_file_is_the_senders_fault_by_its_code():
    refused = {row.code for row in (*odd_dicom_rows(), *odd_nifti_rows()) if row.outcome == "refused"}

    assert refused == {"UndecodableImage", "UnsuitableImage"}


def test_the_syntaxes_without_a_decoder_are_all_told():
    assert set(NATIVE) == decoding.NATIVE
