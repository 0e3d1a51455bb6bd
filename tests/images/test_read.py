import io

import nibabel
import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.errors import UndecodableImage, UnsuitableImage
from sagemaker_monai.images.read import kind_of, read_frames_of, read_volumes_of
from sagemaker_monai.images.sample import Instances, Sample, Sequences
from tests.support.dicom_samples import dicom_bytes, series_bytes, series_values
from tests.support.medical_bodies import as_zip
from tests.support.places import SHARED_DATA

HU = series_values().astype(np.float32) - 1000  # (slices, rows, columns)
VOLUME = HU.transpose(2, 1, 0)[None]


def folder_of(files, folder):
    folder.mkdir()
    for index, data in enumerate(files):
        (folder / f"image {index}").write_bytes(data)
    return folder


def nifti(path, values, spacing=(1, 1, 1), origin=(0, 0, 0)):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    nibabel.save(nibabel.Nifti1Image(np.asarray(values, np.float32), affine), path)
    return path


def test_a_series_is_one_volume_from_a_folder_an_archive_bytes_and_files(tmp_path):
    files = series_bytes()
    archive = tmp_path / "series.zip"
    archive.write_bytes(as_zip(*files))
    samples = [folder_of(files, tmp_path / "series"), archive, archive.read_bytes(), Instances(tuple(files))]

    volumes = [read_volumes_of(Sample(source)) for source in samples]

    for [volume] in volumes:
        assert np.array_equal(volume.values, VOLUME)
        assert np.allclose(volume.affine, np.diag([-1, -1, 2.5, 1]))  # DICOM's x and y are the other way round
        assert len(volume.identity.sop_instance_uids) == 6


def test_a_series_is_a_frame_for_each_slice_in_the_order_of_the_slices(tmp_path):
    for source in (Instances(tuple(series_bytes())), folder_of(series_bytes(), tmp_path / "series")):
        frames = read_frames_of(Sample(source))

        assert np.array_equal(np.stack([frame.values[0].T for frame in frames]), HU)
        assert [frame.identity.sop_instance_uids[0].rsplit(".", 1)[1] for frame in frames] == [
            str(50 - k) for k in range(6)
        ]


def test_one_file_is_its_frames(tmp_path):
    one = dicom_bytes(series_values()[0])
    several = dicom_bytes(series_values())
    path = tmp_path / "no suffix"
    path.write_bytes(one)

    for source in (one, path, Instances((one,)), dicom_bytes(series_values()[0], preamble=False)):
        [frame] = read_frames_of(Sample(source))
        assert np.array_equal(frame.values[0].T, HU[0])
    frames = read_frames_of(Sample(several))
    assert np.array_equal(np.stack([frame.values[0].T for frame in frames]), HU)
    assert [frame.identity.frame for frame in frames] == list(range(1, 7))


def test_series_of_a_request_are_a_volume_each_and_of_a_folder_refused(tmp_path):
    files = series_bytes() + series_bytes(series_values(4, seed=1), series="1.2.3.4")

    assert [volume.values.shape[3] for volume in read_volumes_of(Sample(Instances(tuple(files))))] == [6, 4]
    with pytest.raises(UnsuitableImage, match="2 series or volumes"):
        read_volumes_of(Sample(folder_of(files, tmp_path / "mixed")))


def test_a_localizer_beside_its_series_is_passed_over(tmp_path):
    scout = dicom_bytes(np.zeros((12, 12)), number=99, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])

    [volume] = read_volumes_of(Sample(folder_of([scout, *series_bytes()], tmp_path / "series")))

    assert np.array_equal(volume.values, VOLUME)


def test_files_of_volumes_are_read_by_their_content(tmp_path):
    path = nifti(tmp_path / "a.nii.gz", VOLUME[0], (2, 3, 4))
    np.save(tmp_path / "a.npy", VOLUME[0])

    [volume] = read_volumes_of(Sample(path))
    [bare] = read_volumes_of(Sample(tmp_path / "a.npy"))
    [sent] = read_volumes_of(Sample(path.read_bytes(), ("NIFTI",)))

    for each in (volume, bare, sent):
        assert np.array_equal(each.values, VOLUME)
    assert np.allclose(volume.affine, np.diag([2, 3, 4, 1]))
    assert not bare.has_geometry


def test_a_volume_of_one_slice_is_a_frame_with_its_spacing_and_others_are_not(tmp_path):
    [frame] = read_frames_of(Sample(nifti(tmp_path / "one.nii", VOLUME[0][:, :, :1], (2, 3, 9))))

    assert np.array_equal(frame.values, VOLUME[..., 0])
    assert frame.spacing_mm == pytest.approx((2, 3))
    with pytest.raises(UnsuitableImage, match="not a volume of 6 slices"):
        read_frames_of(Sample(nifti(tmp_path / "six.nii", VOLUME[0])))


def test_raw_values_may_leave_out_the_channel():
    plane, colour = np.zeros((5, 4), np.int16), np.zeros((3, 5, 4), np.uint8)

    assert read_frames_of(Sample(plane))[0].values.shape == (1, 5, 4)
    assert read_frames_of(Sample(plane))[0].values.dtype == np.float32
    assert read_frames_of(Sample(colour))[0].values.dtype == np.uint8
    assert read_frames_of(Sample(np.zeros((2, 5, 4, 1))))[0].values.shape == (2, 5, 4)
    assert read_volumes_of(Sample(np.zeros((5, 4, 3), np.uint8)))[0].values.shape == (1, 5, 4, 3)
    assert read_volumes_of(Sample(np.zeros((2, 5, 4, 3))))[0].values.shape == (2, 5, 4, 3)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(4),
        np.zeros((2, 3, 4, 5, 6)),
        np.zeros((17, 2, 2, 2)),
        np.zeros((0, 3, 3)),
        np.full((4, 4, 4), np.nan),
        np.full((4, 4, 4), 1e300),
        np.full((4, 4, 4), "x"),
        np.zeros((4, 4, 4), complex),
    ],
    ids=lambda values: f"{values.dtype} {values.shape}",
)
def test_raw_values_that_are_no_image_are_refused(values):
    for read in (read_frames_of, read_volumes_of):
        with pytest.raises(UnsuitableImage):
            read(Sample(values if values.ndim != 3 or read is read_volumes_of else values[None, ..., :1].repeat(17, 0)))


def test_pictures_are_grey_where_all_their_colours_are():
    grey = np.random.default_rng(0).integers(0, 256, (7, 9), dtype=np.uint8)
    colour = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)

    for array, expected in (
        (grey, grey.T[None]),
        (np.dstack([grey] * 3), grey.T[None]),
        (colour, colour.transpose(2, 1, 0)),
    ):
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG")
        [frame] = read_frames_of(Sample(buffer.getvalue()))
        assert np.array_equal(frame.values, expected)
    with pytest.raises(UnsuitableImage, match="volumes, not pictures"):
        read_volumes_of(Sample(buffer.getvalue()))


def test_sequences_are_channels_of_one_grid(tmp_path):
    first = nifti(tmp_path / "t1.nii", VOLUME[0], (1, 1, 3))
    second = nifti(tmp_path / "t2.nii.gz", VOLUME[0] * 2, (1, 1, 3), (0.01, 0, 0))

    [volume] = read_volumes_of(Sample(Sequences((first, second))))

    assert np.array_equal(volume.values, np.concatenate([VOLUME, VOLUME * 2]))


@pytest.mark.parametrize(
    "other",
    [
        {"values": VOLUME[0][:, :, :-1]},
        {"spacing": (1, 1, 2.9)},
        {"origin": (0.2, 0, 0)},
    ],
)
def test_sequences_on_other_grids_are_refused(other, tmp_path):
    first = nifti(tmp_path / "t1.nii", VOLUME[0], (1, 1, 3))
    second = nifti(tmp_path / "t2.nii", **{"values": VOLUME[0], "spacing": (1, 1, 3), **other})

    with pytest.raises(UnsuitableImage, match="sequence 2 lies on another voxel grid"):
        read_volumes_of(Sample(Sequences((first, second))))


def test_a_type_that_the_sample_does_not_allow_is_refused(tmp_path):
    for sample in (
        Sample(dicom_bytes(series_values()[0]), ("NIFTI",)),
        Sample(dicom_bytes(series_values()[0]), ("PNG",)),
        Sample(nifti(tmp_path / "a.nii", VOLUME[0]), ("DICOM",)),
        Sample(as_zip(*series_bytes()), ("NIFTI", "NRRD")),
    ):
        with pytest.raises(UndecodableImage, match="expected type"):
            read_volumes_of(sample)


def test_what_is_nothing_is_refused_without_its_name(tmp_path):
    folder = tmp_path / "patient Smith"
    folder.mkdir()
    (folder / "readme.txt").write_text("nothing")

    for source in (folder, folder / "readme.txt", folder / "missing", b"", b"\0" * 1000, as_zip()):
        for read in (read_frames_of, read_volumes_of):
            with pytest.raises((UndecodableImage, UnsuitableImage)) as caught:
                read(Sample(source))
            assert "Smith" not in str(caught.value)


def test_a_file_is_known_by_its_content_and_an_archive_of_dicom_is_dicom(tmp_path):
    path = nifti(tmp_path / "a.nii.gz", VOLUME[0])
    archive = tmp_path / "a.npz"
    np.savez(archive, image=VOLUME[0])

    assert kind_of(path) == kind_of(path.read_bytes()) == "NIFTI"
    assert kind_of(archive) == kind_of(archive.read_bytes()) == "NPZ"
    assert kind_of(as_zip(*series_bytes())) == kind_of(tmp_path) == "DICOM"


@pytest.mark.skipif(not (SHARED_DATA / "dicom_series").is_dir(), reason="needs the shared data")
def test_every_real_series_is_the_same_volume_from_files_and_from_its_folder():
    folders = sorted({path.parent for path in (SHARED_DATA / "dicom_series").rglob("*.dcm")})

    assert folders
    for folder in folders:
        files = tuple(path.read_bytes() for path in folder.iterdir())[::-1]
        [kept], [sent] = read_volumes_of(Sample(folder)), read_volumes_of(Sample(Instances(files)))
        assert np.array_equal(kept.values, sent.values)
        assert np.array_equal(kept.affine, sent.affine)


@pytest.mark.parametrize("end", [0.5, 300])
def test_a_broken_file_in_a_series_folder_refuses_the_series_instead_of_shortening_it(tmp_path, end):
    files = series_bytes()
    last = files[-1]
    for number, content in enumerate([*files[:-1], last[: int(end * len(last)) if end < 1 else end]]):
        (tmp_path / f"{number}.dcm").write_bytes(content)
    (tmp_path / "README.txt").write_text("about these images")

    with pytest.raises(UndecodableImage, match="a DICOM file of the series: ") as refusal:
        read_volumes_of(Sample(tmp_path))
    assert str(tmp_path) not in str(refusal.value)

    (tmp_path / "5.dcm").write_bytes(last)
    assert read_volumes_of(Sample(tmp_path))[0].values.shape[-1] == 6
