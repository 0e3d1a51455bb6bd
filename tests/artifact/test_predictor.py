"""What a model does with DICOM files of a request that are not all sound, and what it costs those who send pictures."""

import io
import subprocess
import sys

import pydicom
import pytest

from sagemaker_monai.artifact.predictor import Predictor
from sagemaker_monai.errors import UndecodableImage, UnsuitableImage
from sagemaker_monai.serving.inference import READERS, input_fn, model_fn
from tests.support.bundles import write_small_bundle
from tests.support.dicom_samples import dicom_bytes, series_values
from tests.support.exhaustive import exhaustive
from tests.support.medical_bodies import as_zip

FILES = [dicom_bytes(values, number=number, z_mm=number) for number, values in enumerate(series_values(5, 40, 36))]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model of slices and one of photographs."""
    folder = tmp_path_factory.mktemp("models")
    write_small_bundle(folder / "slices", preset="ct_slice", channels=1, labels=("a", "b"))
    write_small_bundle(folder / "photographs")
    return {name: Predictor.read(folder / name) for name in ("slices", "photographs")}


def header_ends():
    """Ends of files within and between the elements of the header, where pydicom finds these."""
    dataset = pydicom.dcmread(io.BytesIO(FILES[0]), stop_before_pixels=True)
    places = [element.file_tell for element in dataset if element.tag > 0x00080016]
    return sorted([*(place - 8 for place in places), *places, *(place - 4 for place in places)])


@pytest.mark.parametrize("kind", ["slices", "photographs"])
def test_no_file_of_a_request_is_left_out_because_it_is_broken(models, kind):
    for end in (200, 300, *header_ends(), len(FILES[0]) - 100):
        with pytest.raises((UndecodableImage, UnsuitableImage)):
            models[kind].answer(input_fn(as_zip(*FILES[1:], FILES[0][:end]), "application/zip"))


def test_a_report_beside_the_images_is_passed_over(models):
    report = pydicom.dcmread(io.BytesIO(FILES[0]))
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(report, keyword)
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, report, enforce_file_format=True)

    [answered] = models["slices"].answer(input_fn(as_zip(*FILES, stream.getvalue()), "application/zip"))

    assert len(answered.predictions) == 5


def test_the_refusal_names_the_place_of_the_file_and_nothing_of_it(models):
    with pytest.raises(UndecodableImage, match=r"^DICOM file 5 of 5") as refusal:
        models["slices"].answer(input_fn(as_zip(*FILES[1:], FILES[0][:301]), "application/zip"))

    assert "1.2." not in str(refusal.value)


@pytest.mark.parametrize("medical", exhaustive(["ct_slice", "mr_volume"]))
def test_readers_are_imported_before_traffic_and_only_by_models_of_medical_images(medical, tmp_path):
    for preset in ("photo", medical):
        write_small_bundle(tmp_path / preset, preset=preset, channels=1)
    code = f"""
import sys
from pathlib import Path
from sagemaker_monai.serving import inference
from sagemaker_monai.serving import warm_up
for preset in ("photo", {medical!r}):
    folder = Path({str(tmp_path)!r}) / preset
    model = inference.model_fn(str(folder))
    print(*(name for name in (*inference.READERS, "highdicom") if name in sys.modules))
    request = warm_up.question(folder)
    inference.output_fn(inference.predict_fn(inference.input_fn(request.body, request.content_type), model), "")
    print(*(name for name in (*inference.READERS, "highdicom") if name in sys.modules))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert [line.split() for line in run.stdout.splitlines()] == [[], [], list(READERS), list(READERS)]


def test_model_fn_reads_what_predictor_reads(tmp_path):
    version = write_small_bundle(tmp_path)

    assert model_fn(str(tmp_path)).model_version == version
