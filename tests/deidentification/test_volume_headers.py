"""Which volumes have texts in their headers."""

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
def test_a_nifti_file_is_clean_without_texts_and_extensions(tmp_path, suffix, kind):
    def write(name, change):
        image = kind(VALUES, np.eye(4))
        change(image)
        plain = tmp_path / "plain.nii"
        nibabel.save(image, plain)
        path = tmp_path / (name + suffix)
        content = plain.read_bytes()
        path.write_bytes(gzip.compress(content, mtime=0) if suffix.endswith(".gz") else content)
        return path

    def told(image):
        image.header["descrip"] = b"Jane Doe"

    def extended(image):
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Jane Doe"))

    assert is_clean_nifti(write("clean", lambda image: None))
    assert not is_clean_nifti(write("told", told))
    assert not is_clean_nifti(write("extended", extended))


def test_a_packed_file_with_a_name_in_it_is_not_clean(tmp_path):
    path = tmp_path / "a.nii.gz"
    with path.open("wb") as raw, gzip.GzipFile("Jane Doe.nii", "wb", fileobj=raw, mtime=0) as file:
        file.write(nibabel.Nifti1Image(VALUES, np.eye(4)).to_bytes())

    assert not is_clean_nifti(path)


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
