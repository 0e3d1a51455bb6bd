"""What is chosen beside a preset: uneven series, values that are not finite, SUV; the same from files and requests."""

import json

import numpy as np
import pytest

from sagemaker_monai.errors import BundleError, UnsuitableImage
from sagemaker_monai.images.sample import Instances, Sample, Sequences
from sagemaker_monai.preprocessing.preprocessing import build_preprocessing
from sagemaker_monai.preprocessing.presets import preprocessing_for
from tests.support.dicom_series import CT, make_series, positions_of, to_bytes, write_series
from tests.support.medical_sets import pet
from tests.support.refusals import not_refused


def prepared(preset, **changes):
    """A preset after its way through an artifact."""
    asked = {"channels": 1, "image_size": 8, "image_depth": 5, "fit": "pad", "spacing_mm": "none", "window": "none"}
    asked |= changes
    return build_preprocessing(json.loads(json.dumps(preprocessing_for(preset, **asked))))


# --- uneven slices


def ramp(*, left_out=(), places=None):
    """Six slices whose value is ten times their number, some of them left out."""
    values = np.tile(np.arange(6, dtype=np.int16).reshape(6, 1, 1) * 10, (1, 8, 8))
    series = make_series(values, places=places, **(CT | {"RescaleIntercept": 0}))
    return [dataset for index, dataset in enumerate(series) if index not in left_out]


def in_both(preprocessing, files, folder):
    """The tensor of a series folder, which must be that of the same files in a request."""
    write_series(folder, files)
    first = preprocessing.load(Sample(folder))
    [(second, _)] = preprocessing.load_each(Sample(Instances(tuple(to_bytes(each) for each in files[::-1]))))
    assert first.numpy().tobytes() == second.numpy().tobytes()
    return first.numpy()


def test_a_missing_slice_is_refused_or_made_of_its_neighbours(tmp_path):
    files = ramp(left_out=(2,))
    write_series(tmp_path / "refused", files)
    with pytest.raises(UnsuitableImage, match="1 slices are missing within the series"):
        prepared("ct_volume").load(Sample(tmp_path / "refused"))

    found = in_both(prepared("ct_volume", image_depth=6, uneven_slices="resample"), files, tmp_path / "filled")

    assert found[0, 4, 4].tolist() == pytest.approx([0, 10, 20, 30, 40, 50])


def test_uneven_slices_are_interpolated_onto_an_even_grid(tmp_path):
    """At 0, 2.5, 5.5, 7.5, 10 and 12.5 mm: 5 mm lies 5/6 of the way from 10 to 20."""
    places = positions_of(6)
    places[2, 2] += 0.5
    files = ramp(places=places)
    write_series(tmp_path / "refused", files)
    with pytest.raises(UnsuitableImage, match="distance between slices changes"):
        prepared("ct_volume").load(Sample(tmp_path / "refused"))

    found = in_both(prepared("ct_volume", image_depth=6, uneven_slices="resample"), files, tmp_path / "even")

    assert found[0, 4, 4].tolist() == pytest.approx([0, 10, 10 + 10 * 2.5 / 3, 30, 40, 50])


def test_an_even_series_is_the_same_whatever_is_done_about_uneven_ones(tmp_path):
    first = in_both(prepared("ct_volume"), ramp(), tmp_path / "a")
    second = in_both(prepared("ct_volume", uneven_slices="resample"), ramp(), tmp_path / "b")

    assert first.tobytes() == second.tobytes()


def test_every_sequence_is_resampled_alike(tmp_path):
    write_series(tmp_path / "first", ramp(left_out=(2,)))
    write_series(tmp_path / "second", ramp(left_out=(3,)))
    preprocessing = prepared("ct_volume", channels=2, image_depth=6, uneven_slices="resample")

    found = preprocessing.load(Sample(Sequences((tmp_path / "first", tmp_path / "second")))).numpy()

    assert found[0, 4, 4].tolist() == found[1, 4, 4].tolist() == pytest.approx([0, 10, 20, 30, 40, 50])


def test_artifacts_from_before_these_options_are_read_as_what_they_were():
    spec = preprocessing_for("ct_volume", channels=1, image_size=8, fit="pad")
    older = [{name: value for name, value in spec[0].items() if name not in ("uneven_slices", "non_finite")}, spec[1]]

    load = build_preprocessing(older).load_pixels

    assert (load.uneven_slices, load.non_finite) == ("refuse", "refuse")
    assert build_preprocessing(older).spec == older


@pytest.mark.parametrize("name", ["uneven_slices", "non_finite"])
def test_other_values_in_an_artifact_are_refused(name):
    load, scale = preprocessing_for("ct_volume", channels=1, image_size=8, fit="pad")

    def build(value):
        build_preprocessing([load | {name: value}, scale])

    assert not_refused(["warn", "", None, ["refuse"], True], build, BundleError, name) == []


# --- values that are not finite


def test_values_that_are_not_finite_are_refused_or_zero(tmp_path):
    values = np.arange(8 * 8 * 5, dtype=np.float32).reshape(8, 8, 5)
    values[1, 2, 3], values[4, 4, 4] = np.nan, np.inf
    np.save(tmp_path / "x.npy", values)
    body = (tmp_path / "x.npy").read_bytes()
    with pytest.raises(UnsuitableImage, match="2 of 320 values are NaN or infinite"):
        prepared("volume").load(Sample(tmp_path / "x.npy"))

    lenient = prepared("volume", non_finite="zero")

    found = lenient.load(Sample(tmp_path / "x.npy")).numpy()
    assert found.tobytes() == lenient.load(Sample(body, ("NPY",))).numpy().tobytes()
    assert (found[0, 1, 2, 3], found[0, 4, 4, 4], found[0, 1, 1, 1]) == (0, 0, values[1, 1, 1])


# --- SUV


def suv_preprocessing(preset="pet_slice", **changes):
    changes |= {} if preset == "pet_volume" else {"image_depth": 0}
    return prepared(preset, window="suv", **changes)


def test_suv_is_activity_by_dose_and_weight(tmp_path):
    """350 MBq in 70 kg: 2 x 2,500 Bq/ml are 5,000 x 70,000 g / 350e6 Bq = SUV 1, a tenth of the range."""
    stored = np.array([[2_500, 25_000], [0, 12_500]], np.int16)
    (tmp_path / "x.dcm").write_bytes(to_bytes(pet(np.kron(stored, np.ones((4, 4), np.int16)))))
    preprocessing = suv_preprocessing(fit="stretch")

    found = preprocessing.load(Sample(tmp_path / "x.dcm")).numpy()  # (1, W, H)

    assert found[0, [0, 7, 0, 7], [0, 0, 7, 7]].tolist() == pytest.approx([0.1, 1.0, 0.0, 0.5], abs=1e-6)
    assert found.tobytes() == preprocessing.load(Sample((tmp_path / "x.dcm").read_bytes())).numpy().tobytes()
    assert preprocessing.scale(preprocessing.load(Sample(tmp_path / "x.dcm"))[None]).min() == pytest.approx(-2)


def pet_series(weights):
    stored = np.full((8, 8), 2_500, np.int16)
    files = []
    for weight, place in zip(weights, positions_of(len(weights)), strict=True):
        files.append(pet(stored, weight_kg=weight, ImagePositionPatient=[float(number) for number in place]))
    return files


def test_suv_of_a_series(tmp_path):
    found = in_both(suv_preprocessing("pet_volume"), pet_series([140.0] * 5), tmp_path / "series")

    assert np.allclose(found, 0.2, atol=1e-6)


def test_slices_with_other_factors_are_refused(tmp_path):
    write_series(tmp_path, pet_series([70.0, 70.0, 75.0, 70.0, 70.0]))

    with pytest.raises(UnsuitableImage, match="different factors to SUV"):
        suv_preprocessing("pet_volume").load(Sample(tmp_path))


def test_a_header_that_does_not_allow_suv_is_refused():
    preprocessing = suv_preprocessing()

    def load(changes):
        preprocessing.load(Sample(to_bytes(pet(np.full((8, 8), 9, np.int16), **changes))))

    cases = [{"weight_kg": None}, {"dose_bq": None}, {"dose_bq": 0}, {"weight_kg": -1.0}]
    assert not_refused(cases, load, UnsuitableImage, "SUV cannot be computed: .*send the original files") == []


def test_what_is_no_pet_has_no_suv(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((8, 8, 5), np.float32))
    write_series(tmp_path / "ct", ramp())

    for source in (tmp_path / "x.npy", tmp_path / "ct", np.ones((8, 8, 5), np.float32)):
        with pytest.raises(UnsuitableImage, match="SUV cannot be computed"):
            suv_preprocessing("pet_volume").load(Sample(source))


def test_a_range_of_suv_that_makes_no_sense_is_refused():
    load, scale = preprocessing_for("pet_slice", channels=1, image_size=8, fit="pad", window="suv")

    def build(ends):
        build_preprocessing([load | {"intensity": {"kind": "suv", "low": ends[0], "high": ends[1]}}, scale])

    assert not_refused([(1, 1), (5, 1), (0, float("inf")), ("0", 1)], build, BundleError) == []
