"""Probabilities that a request asks for: the network's on the image's own grid, against torch, MONAI and SciPy."""

import io
import json
import sys

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from PIL import Image
from scipy import ndimage

from sagemaker_monai.artifact.mask_predictor import read_predictor
from sagemaker_monai.budget import Budget, spending
from sagemaker_monai.entrypoints.handler_service import Handler
from sagemaker_monai.errors import PayloadTooLarge
from sagemaker_monai.images.sample import PROBABILITIES, Sample
from sagemaker_monai.serving.back_end import Request
from sagemaker_monai.tasks.regions import Regions
from sagemaker_monai.tasks.segmentation import OVERLAP
from tests.support.bundles import write_small_segmenter
from tests.support.dicom_bodies import zip_of
from tests.support.dicom_series import CORONAL, to_bytes
from tests.support.segmentations import series

PATCH, SPACING = (16, 16, 8), (1.0, 1.0, 2.0)
AFFINE = np.array([[0, -0.6, 0, 9], [0, 0, 2.6, -7], [1.4, 0, 0, 3], [0, 0, 0, 1]], float)  # axes in another order
NIFTI, FRACTIONAL = "application/x-nifti; type=probabilities", "application/dicom; type=fractional"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmenter") / "model"
    write_small_segmenter(folder, fit="pad", spacing_mm="1,1,2", patch=PATCH, patch_spacing_mm=SPACING)
    return folder


@pytest.fixture(scope="module")
def handler(folder):
    return Handler(folder, allow_bundle_code=False)


@pytest.fixture(scope="module")
def volume():
    values = ndimage.gaussian_filter(np.random.default_rng(2).normal(0, 1, (13, 35, 9)), 1.5) * 9000
    return nibabel.Nifti1Image(values.astype(np.int16), AFFINE).to_bytes()


def nifti(content):
    return nibabel.Nifti1Image.from_bytes(content)


def ask(handler, body, accept, content_type="application/x-nifti"):
    [response] = handler.respond([Request(body, content_type, accept)])
    assert response.status == 200, response.body
    return response.body


def test_they_are_the_network_s_on_the_image_s_own_grid(folder, handler, volume, tmp_path):
    image = nifti(ask(handler, volume, NIFTI))
    mask = np.asarray(nifti(ask(handler, volume, "application/x-nifti")).dataobj)
    predictor = read_predictor(folder)
    (tmp_path / "image.nii").write_bytes(volume)
    prepared = predictor.load(Sample(tmp_path / "image.nii"))
    scaled = predictor.bundle.preprocessing.scale(prepared[None])
    pad = "constant"
    inferer = SlidingWindowInferer(PATCH, 1, OVERLAP, "gaussian", padding_mode=pad, cval=float(scaled.min()))
    with torch.inference_mode():
        logits = inferer(scaled, predictor._network)[0].numpy().astype(float)
    shares = np.exp(logits) / np.exp(logits).sum(axis=0)
    # From voxels of the image to those of a RAS grid of 1 x 1 x 2 mm about the same centre.
    extents = np.array(mask.shape)
    centre = AFFINE @ [*((extents - 1) / 2), 1]
    places = np.stack(np.meshgrid(*map(np.arange, extents), np.arange(1), indexing="ij")).astype(float)
    places[3] = 1
    millimetres = np.einsum("ij,jwhdo->iwhd", AFFINE, places) - centre[:, None, None, None]
    grid = np.array(SPACING)[:, None, None, None]
    voxels = millimetres[:3] / grid + (np.array(prepared.shape[1:])[:, None, None, None] - 1) / 2

    expected = np.stack([ndimage.map_coordinates(each, voxels, order=1, mode="nearest") for each in shares[1:]], axis=3)

    assert image.shape == (*mask.shape, 2)
    assert np.allclose(image.affine, AFFINE)
    assert np.abs(image.get_fdata() - expected).max() <= 1.02 / 255
    assert image.get_fdata().sum(axis=3).max() <= 1 + 1 / 255
    with_background = np.concatenate([1 - expected.sum(axis=3, keepdims=True), expected], axis=3)
    largest = np.sort(with_background, axis=3)
    is_clear = largest[..., 2] - largest[..., 1] > 0.3
    assert is_clear.mean() > 0.05
    assert (with_background.argmax(axis=3) == mask)[is_clear].mean() > 0.98
    assert set(np.unique(mask)) == {0, 1, 2}


def test_dicom_has_the_same_as_nifti(handler):
    files = [to_bytes(each) for each in series(CORONAL, (6, 20, 18))]
    body = zip_of(*((f"{index}.dcm", file) for index, file in enumerate(files)))

    document = pydicom.dcmread(io.BytesIO(ask(handler, body, FRACTIONAL, "application/zip")))
    values = nifti(ask(handler, body, NIFTI, "application/zip")).dataobj.get_unscaled()

    sent = [str(pydicom.dcmread(io.BytesIO(each)).SOPInstanceUID) for each in files]
    frames = document.pixel_array
    found = np.zeros_like(values)
    order = sorted(sent, key=lambda uid: pydicom.dcmread(io.BytesIO(files[sent.index(uid)])).ImagePositionPatient[1])
    for frame, group in zip(frames, document.PerFrameFunctionalGroupsSequence, strict=True):
        segment = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        uid = str(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        found[:, :, order.index(uid), segment - 1] = frame.T
    assert min(np.abs(found - values).max(), np.abs(found[:, :, ::-1] - values).max()) == 0
    assert values.max() > 100


def test_requests_answered_together_each_get_what_they_asked_for(handler, volume, monkeypatch):
    asked = [
        NIFTI,
        "application/json",
        FRACTIONAL,
        "application/x-nifti+gzip;type=probabilities",
        "application/x-nifti",
    ]
    extras = []
    segment = handler._model.segment
    monkeypatch.setattr(handler._model, "segment", lambda *all_: extras.append(all_[2]) or segment(*all_))

    together = handler.respond([Request(volume, "application/x-nifti", accept) for accept in asked])

    assert [(each.status, each.content_type) for each in together] == [
        (200, "application/x-nifti"), (200, "application/json"), (406, "application/json"),
        (200, "application/x-nifti+gzip"), (200, "application/x-nifti"),
    ]  # fmt: skip
    assert extras == [{PROBABILITIES}, set(), {PROBABILITIES}, {PROBABILITIES}, set()]
    assert "DICOM" in json.loads(together[2].body)["error"]["message"]


def test_their_memory_is_counted_before_they_are_made(folder, volume, tmp_path):
    predictor = read_predictor(folder)
    (tmp_path / "image.nii").write_bytes(volume)
    used = {}
    for extras in (frozenset(), frozenset({PROBABILITIES})):
        budget = Budget(1 << 30, 1 << 40)
        with spending(budget):
            predictor.answer([Sample(tmp_path / "image.nii", extras=extras)])
        used[extras] = budget
    plain, with_them = used.values()
    values = 2 * 13 * 35 * 9

    assert with_them.used_bytes - plain.used_bytes == values
    assert with_them.most_bytes > plain.most_bytes + values
    with spending(Budget(with_them.most_bytes - 1, 1 << 40)), pytest.raises(PayloadTooLarge, match="beyond"):
        predictor.answer([Sample(tmp_path / "image.nii", extras=frozenset({PROBABILITIES}))])
    with spending(Budget(with_them.most_bytes, 1 << 40)):
        predictor.answer([Sample(tmp_path / "image.nii", extras=frozenset({PROBABILITIES}))])


CODES = {
    "def input_fn(body, content_type):\n from sagemaker_monai.serving import inference\n"
    " return inference.input_fn(body, content_type)": 200,
    "def predict_fn(data, model):\n from sagemaker_monai.serving import inference\n"
    " return inference.predict_fn(data, model)": 200,
    "def predict_fn(data, model, context):\n from sagemaker_monai.serving import inference\n"
    " return inference.predict_fn([type(each)(each.source) for each in data], model)": 406,
    "def output_fn(answer, accept):\n assert all(p.probabilities is None for p in answer.predictions)\n"
    " return b'own', accept": 200,
    "def input_fn(body, content_type):\n return {'own': body}\n"
    "def predict_fn(data, model):\n return data\n"
    "def output_fn(data, accept):\n return str(list(data)), accept": 200,
}


@pytest.mark.parametrize("code", CODES)
def test_a_user_s_own_functions_keep_their_signatures(folder, volume, code):
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code" / "inference.py").write_text(code)
    path = list(sys.path)
    try:
        handler = Handler(folder, allow_bundle_code=True)
        [response] = handler.respond([Request(volume, "application/x-nifti", NIFTI)])
    finally:
        sys.path[:] = path
        sys.modules.pop("inference", None)
        (folder / "code" / "inference.py").unlink()
        (folder / "code").rmdir()

    assert response.status == CODES[code], response.body
    if "output_fn" not in code and response.status == 200:
        assert nifti(response.body).shape == (13, 35, 9, 2)


def test_a_picture_has_probabilities_of_its_own_size(tmp_path):
    write_small_segmenter(tmp_path / "model", preset="photo", patch=(32, 32), channels=3)
    stream = io.BytesIO()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (21, 50, 3)).astype(np.uint8)).save(stream, "PNG")

    image = nifti(ask(Handler(tmp_path / "model", allow_bundle_code=False), stream.getvalue(), NIFTI, "image/png"))

    assert image.shape == (50, 21, 1, 2)
    assert 0 < image.get_fdata().max() <= 1


def test_structures_that_overlap_have_a_probability_each(tmp_path):
    """The inner structure is painted last, so that the label map has it where it is likelier than not."""
    regions = Regions(((1, 2), (2,)), (1, 2), (1, 2))
    write_small_segmenter(tmp_path / "model", labels=("whole", "core"), regions=regions, fit="pad",
                          patch=PATCH, spacing_mm="none")  # fmt: skip
    handler = Handler(tmp_path / "model", allow_bundle_code=False)
    values = ndimage.gaussian_filter(np.random.default_rng(5).normal(0, 1, (20, 18, 9)), 1.5) * 9000
    body = nibabel.Nifti1Image(values.astype(np.int16), np.eye(4)).to_bytes()

    shares = nifti(ask(handler, body, NIFTI)).get_fdata()
    mask = np.asarray(nifti(ask(handler, body, "application/x-nifti")).dataobj)

    assert shares.shape == (20, 18, 9, 2)
    is_clear = np.abs(shares - 0.5) > 1 / 255
    assert 0.02 < (shares > 0.5).mean() < 0.98
    assert ((mask == 2) == (shares[..., 1] > 0.5))[is_clear[..., 1]].all()
    assert ((mask > 0) == (shares > 0.5).any(axis=3))[is_clear.all(axis=3)].all()
    assert (shares.sum(axis=3) > 1.01).any()
