"""Volumes are clean as common writers write them, and not with texts in their headers."""

import gzip

import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK

from sagemaker_monai.deidentification.volume_headers import has_texts, is_clean_nifti

VALUES = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_nifti_file_as_nibabel_writes_it_is_clean(tmp_path, suffix, kind):
    content = kind(VALUES, np.eye(4)).to_bytes()
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(content, mtime=0) if suffix.endswith(".gz") else content)

    assert is_clean_nifti(path)


@pytest.mark.parametrize("content", [b"", b"text", b"\x1f\x8b", b"\x1f\x8b" + bytes(30)])
def test_what_is_no_nifti_file_is_not_clean(tmp_path, content):
    path = tmp_path / "a.nii"
    path.write_bytes(content)

    assert not is_clean_nifti(path)


def test_texts_of_nrrd_and_metaimage_are_found_and_fields_of_the_grid_are_none(tmp_path):
    grid = {"space": "left-posterior-superior", "kinds": ["domain"] * 3, "space directions": np.eye(3)}
    nrrd.write(str(tmp_path / "dated.nrrd"), VALUES, grid)  # pynrrd says when, in a comment
    lines = (tmp_path / "dated.nrrd").read_bytes().split(b"\n\n", 1)
    head = b"\n".join(line for line in lines[0].split(b"\n") if not line.startswith(b"#"))
    values = gzip.compress(gzip.decompress(lines[1]), mtime=0)  # nor does gzip say when
    (tmp_path / "plain.nrrd").write_bytes(head + b"\n\n" + values)
    nrrd.write(str(tmp_path / "pair.nrrd"), VALUES, {"patient": "Jane"})
    nrrd.write(str(tmp_path / "content.nrrd"), VALUES, {"content": "Jane"})
    image = SimpleITK.GetImageFromArray(VALUES)
    SimpleITK.WriteImage(image, str(tmp_path / "plain.mha"))
    image.SetMetaData("PatientName", "Jane")
    SimpleITK.WriteImage(image, str(tmp_path / "told.mha"))

    found = {path.name: has_texts(path) for path in sorted(tmp_path.iterdir())}

    assert found == {"content.nrrd": True, "dated.nrrd": True, "pair.nrrd": True, "plain.mha": False,
                     "plain.nrrd": False, "told.mha": True}  # fmt: skip
