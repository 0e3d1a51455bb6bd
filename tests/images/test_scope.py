"""A model takes of a request what it was trained on, says which series that is, and refuses the rest by name."""

import csv
import io
import json

import numpy as np
import pydicom
import pytest

from sagemaker_monai.artifact.bundle import TRAINED_ON
from sagemaker_monai.artifact.predictor import Predictor
from sagemaker_monai.data.cache import load_images
from sagemaker_monai.data.loading import check_kinds
from sagemaker_monai.errors import BundleError, ConfigError, DatasetError, UnsuitableImage
from sagemaker_monai.images.dicom.wanted import Choice
from sagemaker_monai.images.sample import Instances, Sample
from sagemaker_monai.images.scope import Scope, pack_traits, read_scope, scope_of, unpack_traits, write_scope
from sagemaker_monai.images.volumes import Identity, Traits
from sagemaker_monai.preprocessing.preprocessing import build_preprocessing
from sagemaker_monai.preprocessing.presets import preprocessing_for
from sagemaker_monai.serving.inference import input_fn, output_fn, predict_fn
from tests.support.bundles import bundle_parts, write_small_bundle
from tests.support.dicom_series import (
    CORONAL,
    CT,
    enhanced,
    make_series,
    make_slice,
    positions_of,
    to_bytes,
    write_series,
)
from tests.support.exhaustive import exhaustive
from tests.support.medical_bodies import as_json, as_zip
from tests.support.medical_sets import coloured
from tests.support.refusals import not_refused

STORAGE = "1.2.840.10008.5.1.4.1.1."
OF_CT = Scope(("CT",), ("image",), (f"{STORAGE}2",), has_grey=True, spatial_dims=3)
SECRET = "Lovelace"


def series(number, count=6, orientation=(1, 0, 0, 0, 1, 0), **elements):
    values = np.random.default_rng(number).integers(900, 1300, (count, 12, 10)).astype(np.int16)
    header = CT | {"SeriesInstanceUID": f"1.2.3.{number}", "SeriesNumber": number, "PatientID": SECRET} | elements
    return make_series(values, orientation, places=positions_of(count, orientation), **header)


def mask():
    return series(2, SOPClassUID=f"{STORAGE}66.4", Modality="SEG")


def mr():
    return series(3, SOPClassUID=f"{STORAGE}4", Modality="MR")


def report():
    page = coloured(np.zeros((12, 10, 3)), SeriesInstanceUID="1.2.3.4")
    page.Modality = "CT"
    return [page]


OTHERS = {
    "a mask": mask,
    "MR": mr,
    "MR that only its class tells": lambda: series(3, SOPClassUID=f"{STORAGE}4", Modality=None),
    "enhanced MR": lambda: [enhanced(np.zeros((6, 12, 10), np.int16))],
    "a dose": lambda: series(2, 20, SOPClassUID=f"{STORAGE}481.2", Modality="RTDOSE", ImageType=None),
    "a capture": lambda: series(2, 1, SOPClassUID=f"{STORAGE}7", ImageType=["DERIVED", "SECONDARY"]),
    "a report page in colour": report,
    "a scout": lambda: series(2, 1, CORONAL),
    "a structured report": lambda: [
        make_slice(np.zeros((2, 2)), SOPClassUID=f"{STORAGE}88.33", Modality="SR", Rows=None, Columns=None,
                   PixelData=None, SeriesInstanceUID="1.2.3.5")
    ],
}  # fmt: skip


def predictor(folder, preset, scope=OF_CT):
    write_small_bundle(folder, preset=preset, channels=1, labels=("a", "b"), scope=scope)
    return Predictor.read(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return predictor(tmp_path_factory.mktemp("model"), "ct_volume")


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    return predictor(tmp_path_factory.mktemp("slices"), "ct_slice")


def ask(model, *parts, accept="application/json", body=None):
    files = [to_bytes(each) for part in parts for each in part]
    samples = input_fn(body or as_zip(*files), "application/json" if body else "application/zip")
    content, _ = output_fn(predict_fn(samples, model), accept)
    return content


def answers(model, *parts):
    return json.loads(ask(model, *parts))["predictions"]


@pytest.mark.parametrize("name", OTHERS)
def test_one_answer_about_the_ct_whatever_lies_beside_it(model, name):
    [alone] = answers(model, series(1))
    for place, parts in enumerate(((series(1), OTHERS[name]()), (OTHERS[name](), series(1))), start=1):
        [answer] = answers(model, *parts)

        assert answer["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-6)
        told = {"series": place, "modality": "CT", "series_number": 1, "volume": None, "passed_over": 1, "findings": []}
        assert {key: answer[key] for key in told} == told
    assert alone["passed_over"] == 0


@pytest.mark.parametrize(
    ("parts", "held"),
    [
        ([mask], "the study holds SEG (mask)"),
        ([mr], "the study holds MR"),
        ([mr, mask], "the study holds MR, SEG (mask)"),
        ([report], "the file holds CT (screen capture or report page in colour)"),
        ([OTHERS["a dose"], OTHERS["a structured report"]], "the study holds RTDOSE (dose distribution), SR"),
    ],
)
def test_what_the_model_is_not_for_is_refused_and_both_are_named(model, slices, parts, held):
    for each in (model, slices):
        with pytest.raises(UnsuitableImage) as refusal:
            ask(each, *(part() for part in parts))

        assert str(refusal.value).startswith(f"this model is for CT; {held}")
        assert SECRET not in str(refusal.value)


def test_of_slices_those_of_the_modality_are_answered(slices):
    found = answers(slices, mask(), series(1), report(), mr())

    assert len(found) == 6
    assert {(each["modality"], each["passed_over"], each["series"]) for each in found} == {("CT", 3, 2)}


def test_a_file_without_modality_and_class_is_answered_with_a_finding(model):
    bare = series(1, Modality=None)
    for each in bare:
        del each.SOPClassUID
    [answer] = answers(model, bare)

    assert (answer["modality"], answer["findings"]) == ("", ["unknown_modality"])


def test_two_series_are_two_answers_that_say_which(model):
    found = answers(model, series(1), series(7))

    assert [(each["series"], each["series_number"], each["passed_over"]) for each in found] == [(1, 1, 0), (2, 7, 0)]
    text = ask(model, series(1), series(7), accept="text/csv").decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["series"], row["series_number"], row["findings"]) for row in rows] == [("1", "1", ""), ("2", "7", "")]
    assert list(rows[0])[-6:] == ["series", "modality", "series_number", "volume", "passed_over", "findings"]
    assert SECRET not in text
    assert "1.2.3" not in text
    lines = ask(model, series(1), mask(), accept="application/jsonlines").splitlines()
    assert [json.loads(line)["passed_over"] for line in lines] == [1]


def test_a_report_says_what_was_passed_over_and_what_is_odd(model):
    content = ask(model, series(1, ImageType=["DERIVED", "SECONDARY", "MPR"]), mask(), accept="application/dicom")

    assert pydicom.dcmread(io.BytesIO(content)).Modality == "SR"
    assert b"passed over 1 other series" in content
    assert b"finding other_kind" in content


def test_an_artifact_from_before_answers_what_it_did(tmp_path):
    model = predictor(tmp_path, "ct_slice", scope=None)

    assert model.bundle.scope is None
    assert {each["modality"] for each in answers(model, mr())} == {"MR"}
    assert {each["modality"] for each in answers(model, mask())} == {"SEG"}


def test_pictures_are_answered_as_before(tmp_path):
    write_small_bundle(tmp_path, network="resnet10", scope=scope_of([Traits()], spatial_dims=2))
    model = Predictor.read(tmp_path)
    colour = to_bytes(coloured(np.random.default_rng(0).integers(0, 256, (40, 40, 3))))
    [answer] = json.loads(ask(model, body=as_json(colour)))["predictions"]

    assert answer["findings"] == []
    with pytest.raises(UnsuitableImage, match="this model is for images; the file holds SEG"):
        ask(model, mask()[:1])


# --- what is kept of the training


def test_a_scope_is_of_all_training_images_and_survives_json():
    def traits(modality, size, spacing, kind="image", **more):
        return Traits(Identity("1", ("2",), kind=kind, modality=modality, **more), (), size, spacing)

    scope = scope_of(
        [traits("CT", (8, 9, 10), (1, 1, 2)), traits("CT", (6, 12, 30), (0.5, 1, 5), is_colour=True, kind="reformat")],
        spatial_dims=3,
    )

    assert scope.has_grey
    assert scope.has_colour
    assert (scope.modalities, scope.kinds) == (("CT",), ("image", "reformat"))
    assert scope.size == ((6, 8), (9, 12), (10, 30))
    assert scope.spacing_mm == ((0.5, 1), (1, 1), (2, 5))
    assert read_scope(json.loads(json.dumps(write_scope(scope)))) == scope
    assert scope_of([Traits()], spatial_dims=3, modality="MR").modalities == ("MR",)
    assert scope_of([Traits(), traits("CT", (), None)], spatial_dims=3).modalities == ("", "CT")
    assert scope_of([Traits()], spatial_dims=2, modality="DERMOSCOPY") == Scope()


@pytest.mark.parametrize(
    ("modality", "size", "spacing", "codes"),
    [
        ("DX", (10, 10), (1, 1), ()),
        ("CR", (10, 10), (1, 1), ("other_modality",)),
        ("DX", (10, 41), (1, 1), ("size_outside_training",)),
        ("DX", (40, 40), (2.4, 2.4), ()),
        ("DX", (40, 40), (2.6, 1), ("spacing_outside_training",)),
        ("DX", (10, 10), None, ()),
        ("", (10, 10), None, ("unknown_modality",)),
    ],
)
def test_what_training_did_not_have_is_a_finding(modality, size, spacing, codes):
    scope = Scope(("DX",), ("image",), (), False, True, 2, ((10, 20), (10, 20)), ((1, 2), (1, 2)))

    assert scope.findings(Traits(Identity("", (), modality=modality), (), size, spacing)) == codes


def test_traits_are_packed_without_whose_they_are():
    identity = Identity(SECRET, (SECRET,), kind="image", modality="CT", sop_class_uid="1.2")
    packed = pack_traits(Traits(identity, ("x",), (4, 5), (1.0, 2.0)))

    assert SECRET not in json.dumps(packed)
    assert unpack_traits(json.loads(json.dumps(packed))) == Traits(
        Identity("", (), kind="image", modality="CT", sop_class_uid="1.2"), ("x",), (4, 5), (1.0, 2.0)
    )
    assert unpack_traits(pack_traits(Traits())) == Traits()


@pytest.mark.parametrize("workers", exhaustive([1, 2]))
def test_the_cache_keeps_what_images_are(tmp_path, workers):
    write_series(tmp_path / "ct", series(1))
    write_series(tmp_path / "mr", mr())
    both = build_preprocessing(bundle_parts(preset="ct_volume", channels=1)["preprocessing"])
    samples = [Sample(tmp_path / "ct"), Sample(tmp_path / "none"), Sample(tmp_path / "mr")]
    for _ in range(2):
        loaded = load_images(samples, both, cache_dir=tmp_path / "cache", workers=workers, what="reading")

        told = [(each.identity.modality if each.identity else None, each.size) for each in loaded.traits]
        assert told == [("CT", (10, 12, 6)), (None, ()), ("MR", (10, 12, 6))]


def test_a_scope_is_read_from_the_artifact_and_a_broken_one_is_refused(slices):
    broken = [[], {"modalities": []}, write_scope(OF_CT) | {"kinds": [1]}, write_scope(OF_CT) | {"size": 3}]

    assert not_refused(broken, read_scope, BundleError, "artifact's description of its training data is broken") == []
    assert slices.bundle.scope == OF_CT
    assert slices.bundle.metadata["provenance"][TRAINED_ON]["modalities"] == ["CT"]


# --- a folder that is a study


def study(folder, *parts):
    for number, files in enumerate(parts):
        write_series(folder / str(number), files)
    return folder


def prepared(**asked):
    choice = Choice.of(asked.get("modality", ""), asked.get("description", ""), asked.get("series", "only"))
    return build_preprocessing(preprocessing_for("ct_volume", channels=1, image_size=16, fit="stretch", choice=choice))


def test_a_rule_takes_the_same_series_of_a_study_in_training_and_serving(tmp_path):
    thin = series(1, 8, SeriesDescription="Lung thin")
    thick = series(2, 5, SeriesDescription="soft")
    folder = study(tmp_path / "study", mask(), thin, thick, report())
    expected = prepared().load(Sample(study(tmp_path / "one", thin)))

    for asked in ({"series": "most-slices"}, {"description": "*LUNG*"}, {"modality": "CT", "series": "most-slices"}):
        both = prepared(**asked)
        files = tuple(to_bytes(each) for part in (thick, report(), thin) for each in part)
        [(sent, _)] = both.load_each(Sample(Instances(files)))
        assert np.array_equal(both.load(Sample(folder)), expected)
        assert np.array_equal(sent, expected)
        assert build_preprocessing(both.spec).load_pixels.choice == both.load_pixels.choice
    with pytest.raises(UnsuitableImage, match="2 series or volumes"):
        prepared().load(Sample(folder))


def test_masks_are_read_where_they_are_asked_for(tmp_path):
    folder = study(tmp_path, mask(), series(1))

    assert prepared(modality="SEG").load_pixels.pixels_of_one(Sample(folder))[1].identity.modality == "SEG"
    assert prepared().load_pixels.pixels_of_one(Sample(folder))[1].identity.modality == "CT"


def test_of_slices_no_series_is_chosen():
    with pytest.raises(ConfigError, match="are for volumes only"):
        preprocessing_for("ct_slice", channels=1, image_size=32, fit="stretch", choice=Choice(("CT",)))
    with pytest.raises(ConfigError, match="modality must be values"):
        Choice.of("CT;MR", "", "only")


def test_a_mask_among_the_images_of_a_data_set_is_refused(caplog):
    def kinds(*names):
        return [Traits(Identity("", (), kind=name, modality="CT")) for name in names]

    with pytest.raises(DatasetError, match=r"1 of 3 images are not images like the others, but CT \(mask\) \(b\)"):
        check_kinds(["a", "b", "c"], kinds("image", "mask", "image"))
    check_kinds(["a", "b"], kinds("image", "image"))
    assert caplog.text == ""
    check_kinds(["a", "b"], kinds("mask", "mask"))
    assert "2 of 2 images are not plain images: CT (mask)" in caplog.text


def test_what_is_odd_about_a_file_stands_in_the_answer(model, slices):
    one = series(1)
    for each in one:
        each.RescaleSlope = 0

    assert answers(model, one)[0]["findings"] == ["zero_slope"]
    assert {tuple(each["findings"]) for each in answers(slices, one)} == {("zero_slope",)}
