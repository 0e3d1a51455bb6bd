"""Training of structures that overlap, from nnU-Net's dataset.json with regions to answers."""

import csv
import io
import json
import shutil

import nibabel
import numpy as np
import pydicom
import pytest

from sagemaker_monai.data.legends import read_legend
from sagemaker_monai.data.mask_reading import labels_on_grid
from sagemaker_monai.entrypoints import evaluate, train
from sagemaker_monai.errors import NotAcceptable
from sagemaker_monai.images.read import read_volumes_of
from sagemaker_monai.images.sample import Instances, Sample
from sagemaker_monai.masks.mask import Grid
from sagemaker_monai.masks.read_mask import read_mask
from sagemaker_monai.serving.inference import input_fn, model_fn, output_fn, predict_fn
from sagemaker_monai.tasks.regions import Regions
from tests.support.dicom_bodies import zip_of
from tests.support.dicom_series import SAGITTAL, make_series, to_bytes
from tests.support.mask_sets import REGIONS, write_nested

SETTINGS = {
    "network": "unet", "epochs": 14, "network_width": 4, "learning_rate": 0.02, "num_workers": 1, "ema_decay": 0.5,
    "patches_per_image": 3,
}  # fmt: skip


def run(base, **arguments):
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGEMAKER_BASE_DIR", str(base))
        patch.setattr("sys.stdout", printed)
        code = train.main([f"--{name}={value}" for name, value in (SETTINGS | arguments).items()])
    return code, printed.getvalue()


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The folder of a training on nnU-Net's layout, in whose first mask one side is not annotated."""
    base = tmp_path_factory.mktemp("job")
    labels = REGIONS | {"ignore": 5}
    root = write_nested(
        base / "input" / "data" / "training", 7, {"test": 2}, labels=labels, regions_class_order=[1, 2, 4]
    )
    path = root / "labelsTr" / "case0.nii.gz"
    mask = nibabel.load(path)
    values = np.asarray(mask.dataobj).copy()
    values[:6] = 5
    nibabel.save(nibabel.Nifti1Image(values, mask.affine), path)
    code, printed = run(base)
    assert code == 0, printed
    return base


@pytest.fixture(scope="module")
def model(job):
    return model_fn(str(job / "model"))


def ask(model, body, content_type="application/x-nifti+gzip"):
    return predict_fn(input_fn(body, content_type), model)


def test_it_learns_each_region_and_scores_it_as_a_whole(job, model):
    metrics = json.loads((job / "output" / "data" / "metrics.json").read_text())

    assert min(each["dice"] for each in metrics["per_class"].values()) > 0.5
    assert model.task.regions == Regions(((1, 2, 3), (2, 3), (3,)), (1, 2, 3), (1, 2, 4))
    assert model.task.outputs == 3
    inference = json.loads((job / "model" / "configs" / "inference.json").read_text())
    [step] = inference["postprocessing"]["transforms"]
    assert (step["_target_"], step["values"]) == ("sagemaker_monai.tasks.RegionMap", [1, 2, 4])
    rows = csv.DictReader(io.StringIO((job / "output" / "data" / "test_predictions.csv").read_text()))
    image = job / "input" / "data" / "training" / "imagesTs" / "case6_0000.nii.gz"
    answer = ask(model, image.read_bytes())
    mask = np.asarray(nibabel.Nifti1Image.from_bytes(output_fn(answer, "application/x-nifti")[0]).dataobj)
    truth = np.asarray(nibabel.load(image.parent.parent / "labelsTs" / "case6.nii.gz").dataobj)
    [prediction] = json.loads(output_fn(answer, "application/json")[0])["predictions"]
    scored = {row["label"]: float(row["dice"]) for row in rows if "case6" in row["image"]}

    assert set(np.unique(mask)) == {0, 1, 2, 4}
    for name, values in (("whole", (1, 2, 4)), ("core", (2, 4)), ("enhancing", (4,))):
        found, true = np.isin(mask, values), np.isin(truth, values)
        assert scored[name] == pytest.approx(2 * (found & true).sum() / (found.sum() + true.sum()))
        assert prediction["sizes"][name] == pytest.approx(found.sum() / 1000)


def test_evaluate_finds_the_scores_of_training_also_where_masks_have_other_values(job, tmp_path):
    trained = json.loads((job / "output" / "data" / "metrics.json").read_text())
    root = tmp_path / "data"
    shutil.copytree(job / "input" / "data" / "training", root)
    for path in root.glob("labels*/*.nii.gz"):
        mask = nibabel.load(path)
        values = np.array([0, 10, 30, 99, 20, 5])[np.asarray(mask.dataobj)]
        nibabel.save(nibabel.Nifti1Image(values.astype(np.uint8), mask.affine), path)
    content = json.loads((root / "dataset.json").read_text())
    del content["regions_class_order"]
    content["labels"] = {"enhancing": 20, "core": [20, 30], "whole": [10, 20, 30], "ignore": 5}
    (root / "dataset.json").write_text(json.dumps(content))

    assert evaluate.main(["--model", str(job / "model"), "--data", str(root), "--output", str(tmp_path)]) == 0

    assert json.loads((tmp_path / "metrics.json").read_text())["dice"] == trained["dice"]


def test_a_dicom_series_gets_a_segment_and_a_contour_of_each_region(model, tmp_path):
    values = np.asarray(nibabel.load(write_nested(tmp_path / "data", 1) / "imagesTr" / "case0_0000.nii.gz").dataobj)
    files = [to_bytes(file) for file in make_series(values.T.astype(np.int16), SAGITTAL)]
    answer = ask(model, zip_of(*((f"{index}.dcm", file) for index, file in enumerate(files))), "application/zip")
    mask = np.asarray(nibabel.Nifti1Image.from_bytes(output_fn(answer, "application/x-nifti")[0]).dataobj)
    grid = Grid.of(read_volumes_of(Sample(Instances(tuple(files))))[0])

    for kind in ("binary", "rtstruct"):
        (tmp_path / kind).write_bytes(output_fn(answer, f"application/dicom; type={kind}")[0])
        for name, numbers in (("whole", (1, 2, 4)), ("core", (2, 4)), ("enhancing", (4,))):
            alone = read_mask(tmp_path / kind, grid, wanted=lambda label, name=name: label == name)
            assert np.array_equal(alone.values > 0, np.isin(mask, numbers)), (kind, name)
        labels, _ = labels_on_grid(tmp_path / kind, grid, read_legend(REGIONS))
        assert np.array_equal(np.array([0, 1, 2, 4])[labels], mask)
    document = pydicom.dcmread(io.BytesIO(output_fn(answer, "application/dicom")[0]))
    assert (document.SegmentationType, document.SegmentsOverlap) == ("BINARY", "YES")
    assert [item.SegmentLabel for item in document.SegmentSequence] == ["whole", "core", "enhancing"]
    with pytest.raises(NotAcceptable, match=r"structures overlap, .* accept application/dicom; type=binary"):
        output_fn(answer, "application/dicom; type=labelmap")
