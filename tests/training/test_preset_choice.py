"""Which preset and how many channels a data set gets when nobody says."""

import json
import zipfile

import nibabel
import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.data.datasets import Dataset, Record
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.images.sample import Sequences
from sagemaker_monai.images.scope import MODALITY_OF
from sagemaker_monai.training.preset_choice import choose_preprocessing
from tests.support.dicom_series import CT, enhanced, make_series, make_slice, pixels, to_bytes, write_series
from tests.support.medical_sets import coloured, pet


def chosen(images, *, modality="", spatial_dims=None, **hyperparameters):
    """Name of the preset as far as the spec shows it, and channels."""
    records = tuple(Record(image, f"image {index}", 0, str(index), {}) for index, image in enumerate(images))
    dataset = Dataset(("a", "b"), records, (), (), "0" * 64, modality=modality, spatial_dims=spatial_dims)
    [load, _] = choose_preprocessing(TrainConfig(**hyperparameters), dataset)
    target = load["_target_"].rpartition(".")[2]
    return target, load.get("intensity", {}).get("kind"), load["channels"]


def saved(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def ct(**elements):
    return to_bytes(make_slice(pixels()[0], **(CT | elements)))


def test_a_dicom_file_is_a_slice_and_one_with_many_frames_a_volume(tmp_path):
    assert chosen([saved(tmp_path / "a", ct())]) == ("LoadSlice", "window", 1)
    assert chosen([saved(tmp_path / "b", to_bytes(enhanced(pixels())))]) == ("LoadVolume", "zscore", 1)


def test_a_folder_is_a_volume_but_one_with_a_single_slice_a_slice(tmp_path):
    write_series(tmp_path / "series", make_series(pixels(), **CT))
    saved(tmp_path / "xray" / "1", to_bytes(make_slice(pixels()[0], Modality="CR")))

    assert chosen([tmp_path / "series"]) == ("LoadVolume", "window", 1)
    assert chosen([tmp_path / "xray"]) == ("LoadSlice", "header", 1)


def test_a_zip_of_a_series_is_a_volume(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for index, dataset in enumerate(make_series(pixels(), **CT)):
            archive.writestr(str(index), to_bytes(dataset))

    assert chosen([tmp_path / "x.zip"]) == ("LoadVolume", "window", 1)


@pytest.mark.parametrize(
    ("shape", "target"), [((8, 9), "LoadSlice"), ((8, 9, 1), "LoadSlice"), ((8, 9, 4), "LoadVolume")]
)
def test_a_nifti_file_with_one_slice_is_an_image(tmp_path, shape, target):
    nibabel.save(nibabel.Nifti1Image(np.ones(shape, np.float32), np.eye(4)), tmp_path / "x.nii.gz")

    assert chosen([tmp_path / "x.nii.gz"])[0] == target


def test_dataset_json_says_what_an_array_of_three_axes_is(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((2, 40, 40), np.float32))

    assert chosen([tmp_path / "x.npy"]) == ("LoadVolume", "percentile", 1)
    assert chosen([tmp_path / "x.npy"], spatial_dims=2) == ("LoadSlice", "header", 2)


@pytest.mark.parametrize(
    ("modality", "kind"),
    [
        ("CT", "window"),
        ("MRI", "zscore"),
        ("t1w", "zscore"),
        ("FLAIR", "zscore"),
        ("", "percentile"),
        ("odd", "percentile"),
    ],
)
def test_dataset_json_names_the_modality_of_files_that_cannot(tmp_path, modality, kind):
    np.save(tmp_path / "x.npy", np.ones((8, 8, 8), np.float32))

    assert chosen([tmp_path / "x.npy"], modality=modality)[1] == kind


def test_a_header_wins_over_dataset_json(tmp_path):
    assert chosen([saved(tmp_path / "x", ct())], modality="MRI")[1] == "window"


def test_modalities_are_those_of_dicom():
    assert set(MODALITY_OF.values()) == {"MR", "PT"}


def test_pet_is_shown_between_percentiles_unless_suv_is_asked_for(tmp_path):
    path = saved(tmp_path / "x", to_bytes(pet(pixels()[0])))

    assert chosen([path]) == ("LoadSlice", "percentile", 1)
    assert chosen([path], window="suv") == ("LoadSlice", "suv", 1)


def test_colours_are_kept_where_all_have_them_and_become_grey_where_some_have_none(tmp_path):
    colours = [saved(tmp_path / f"c{i}", to_bytes(coloured(np.full((9, 9, 3), (i, 9, 9))))) for i in range(3)]
    grey = saved(tmp_path / "g", ct(Modality="XC"))

    assert chosen(colours) == ("LoadSlice", "header", 3)
    assert chosen([*colours, grey]) == chosen([grey, *colours]) == ("LoadSlice", "header", 1)
    assert chosen(colours, color="grey")[2] == 1
    with pytest.raises(ConfigError, match="color rgb needs colour images, and some are not: set color to auto or"):
        chosen([*colours, grey], color="rgb")
    with pytest.raises(ConfigError, match="color rgb needs colour images, and these are not"):
        chosen([grey], color="rgb")


def test_grey_that_is_stored_in_colour_is_grey_unless_colours_are_asked_for(tmp_path):
    values = np.repeat(np.arange(81).reshape(9, 9, 1), 3, axis=2)
    grey = [saved(tmp_path / f"{index}", to_bytes(coloured(values + index))) for index in range(3)]
    colour = saved(tmp_path / "c", to_bytes(coloured(values + np.array([1, 0, 0]))))

    assert chosen(grey) == ("LoadSlice", "header", 1)
    assert chosen(grey, color="rgb") == ("LoadSlice", "header", 3)
    assert chosen([*grey, colour]) == ("LoadSlice", "header", 3)


def test_photographs_take_grey_and_colours_alike(tmp_path):
    grey = saved(tmp_path / "g", ct(Modality="XC"))
    colour = saved(tmp_path / "c", to_bytes(coloured(np.full((9, 9, 3), (1, 9, 9)))))

    assert chosen([grey, colour], preset="photo") == ("LoadPhotograph", None, 3)


def test_photographs_keep_their_preset_whatever_else_is_said(tmp_path):
    Image.new("RGB", (40, 40), (1, 2, 3)).save(tmp_path / "x.png")

    assert chosen([tmp_path / "x.png"], modality="CT", spatial_dims=2) == ("LoadPhotograph", None, 3)


def test_dicom_may_be_taken_as_photographs(tmp_path):
    assert chosen([saved(tmp_path / "x", ct())], preset="photo") == ("LoadPhotograph", None, 1)
    assert chosen([saved(tmp_path / "x", ct())], preset="photo", color="rgb") == ("LoadPhotograph", None, 3)


def test_pictures_beside_dicom_are_refused_unless_a_preset_is_named(tmp_path):
    Image.new("L", (40, 40), 7).save(tmp_path / "x.png")
    images = [tmp_path / "x.png", saved(tmp_path / "y", ct())]

    with pytest.raises(ConfigError, match=r"1 of 2 training images are pictures .*set preset to photo"):
        chosen(images)
    assert chosen(images, preset="photo")[0] == "LoadPhotograph"
    assert chosen(images, preset="xray")[0] == "LoadSlice"


def test_sequences_are_channels_in_two_and_three_dimensions(tmp_path):
    slices = [saved(tmp_path / f"s{i}", ct(SeriesInstanceUID=f"1.2.{i}")) for i in range(2)]
    for index in range(3):
        np.save(tmp_path / f"{index}.npy", np.ones((8, 8, 8), np.float32))

    assert chosen([Sequences(tuple(slices))]) == ("LoadSlice", "window", 2)
    volumes = Sequences(tuple(tmp_path / f"{index}.npy" for index in range(3)))
    assert chosen([volumes], modality="MRI") == ("LoadVolume", "zscore", 3)
    with pytest.raises(ConfigError, match="preset photo is for single images, and these are volumes"):
        chosen([volumes], preset="photo")
    with pytest.raises(ConfigError, match="preset photo is for single pictures, and these are sequences"):
        chosen([Sequences(tuple(slices))], preset="photo")


def test_what_cannot_be_read_is_passed_over_while_something_can(tmp_path):
    broken = saved(tmp_path / "broken.dcm", ct()[:-30])

    assert chosen([broken, saved(tmp_path / "x", ct())])[1] == "window"
    with pytest.raises(DatasetError, match=r"none of 1 images can be read \(image 0\), the first because: .*; replace"):
        chosen([broken])


def test_the_options_of_volumes_decide_what_can_be_looked_at(tmp_path):
    series = make_series(pixels(), **CT)
    del series[2]
    write_series(tmp_path / "series", series)

    with pytest.raises(DatasetError, match="slices are missing"):
        chosen([tmp_path / "series"])
    assert chosen([tmp_path / "series"], uneven_slices="resample")[0] == "LoadVolume"


def test_a_spec_is_plain_data(tmp_path):
    record = Record(saved(tmp_path / "x", ct()), "x", 0, "x", {})
    spec = choose_preprocessing(TrainConfig(), Dataset(("a", "b"), (record,), (), (), "0" * 64))

    assert json.loads(json.dumps(spec)) == spec
