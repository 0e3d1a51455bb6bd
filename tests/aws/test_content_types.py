"""What a file is sent as, and series as one request."""

import io
import zipfile

import numpy as np
import pytest

from sagemaker_monai_aws.client.content_types import (
    as_zip,
    content_of,
    files_below,
    type_of_file,
    type_of_name,
    with_series,
)
from tests.support.dicom_samples import dicom_bytes, series_bytes


@pytest.mark.parametrize(("name", "expected"), [
    ("a.DCM", "application/dicom"), ("a.ima", "application/dicom"), ("a.nii", "application/x-nifti"),
    ("scan.v2.NII.GZ", "application/x-nifti+gzip"), ("a.tar.gz", "application/gzip"), ("a.tgz", "application/gzip"),
    ("a.mha", "application/x-metaimage"), ("1.2.840.1", None), ("a.gz", None), ("IM0001", None), ("x.zip/a", None),
])  # fmt: skip
def test_the_longest_suffix_that_is_known_decides(name, expected):
    assert type_of_name(name) == expected


def test_a_file_without_a_known_suffix_is_dicom_by_its_bytes_and_a_directory_of_a_medium_is_none(tmp_path):
    content = dicom_bytes(np.zeros((4, 4)))
    for name in ("IM1", "1.2.840.7", "DICOMDIR"):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "README").write_text("DICM")

    assert {path.name: type_of_file(path) for path in files_below(tmp_path)} == {
        "1.2.840.7": "application/dicom", "DICOMDIR": None, "IM1": "application/dicom", "README": None,
    }  # fmt: skip


def test_a_folder_of_dicom_files_is_one_image_and_other_files_are_themselves(tmp_path):
    for name in ("a/1", "a/2", "b/c/1"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(dicom_bytes(np.zeros((4, 4))))
    for name in ("a/view.png", "b/volume.nii", ".hidden/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    found = [(path.relative_to(tmp_path).as_posix(), kind) for path, kind in with_series(files_below(tmp_path))]

    assert found == [("a", "application/zip"), ("a/view.png", "image/png"), ("b/c", "application/zip"),
                     ("b/volume.nii", "application/x-nifti")]  # fmt: skip


def test_the_zip_of_a_series_has_its_files_and_is_the_same_every_time(tmp_path):
    files = series_bytes()
    for number, content in enumerate(files):
        (tmp_path / f"{number}").write_bytes(content)
    (tmp_path / "notes.txt").write_text("of somebody")

    body = content_of(tmp_path)

    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {str(n): c for n, c in enumerate(files)}
    assert body == content_of(tmp_path) == as_zip((str(n), c) for n, c in enumerate(files))
