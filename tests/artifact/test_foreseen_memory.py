"""What a request for a label map will take, by the header alone: refused before decoding, and never more than said."""

import gzip
import io
import struct
import tracemalloc

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from sagemaker_monai.artifact.bundle import write_bundle
from sagemaker_monai.artifact.mask_predictor import read_predictor
from sagemaker_monai.budget import MIB, Budget, spending, until
from sagemaker_monai.errors import CallerError, PayloadTooLarge
from sagemaker_monai.images.expected import Expected
from sagemaker_monai.images.formats import inflate
from sagemaker_monai.images.sample import PROBABILITIES, Held, Instances, Sample
from sagemaker_monai.networks.networks import build_network
from sagemaker_monai.networks.segmenters import plan_levels, segmenter_def
from sagemaker_monai.preprocessing import intensity, resampling, visibility, ways
from sagemaker_monai.preprocessing.presets import preprocessing_for
from sagemaker_monai.tasks.segmentation import Segmentation
from tests.support.dicom_series import enhanced, make_series, to_bytes

WINDOW = (16, 16, 8)


def write_model(folder, preset="ct_volume", spacing_mm=None, labels=("a", "b"), window=WINDOW):
    torch.manual_seed(3)
    task = Segmentation(labels)
    patch = {"patch": window, "patch_spacing_mm": spacing_mm} if preset.endswith("volume") else {}
    definition = segmenter_def("unet", plan_levels(window, (1,) * len(window), 4), in_channels=1,
                               out_channels=task.outputs)  # fmt: skip
    write_bundle(
        folder, network_def=definition, task=task, weights=build_network(definition).state_dict(),
        preprocessing=preprocessing_for(preset, channels=1, image_size=window[0], fit="stretch", **patch),
        train_config={"hyperparameters": {}}, provenance={"dataset_fingerprint": "0" * 64},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Models of volumes at their own spacing and at 1 mm, of photographs and of slices."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "own")
    write_model(folder / "at_1_mm", spacing_mm=(1.0, 1.0, 1.0))
    write_model(folder / "percentile", preset="mr_volume", spacing_mm=(1.0, 1.0, 1.0))
    write_model(folder / "photo", preset="photo", window=(32, 32))
    write_model(folder / "ct_slice", preset="ct_slice", window=(32, 32))
    return {path.name: read_predictor(path) for path in folder.iterdir()}


def nifti(shape, spacing=(1, 1, 1), dtype=np.int16, values=None):
    values = np.random.default_rng(0).integers(0, 200, shape) if values is None else values
    return nibabel.Nifti1Image(values.astype(dtype), np.diag([*spacing, 1.0])).to_bytes()


def header_of_nifti(shape, spacing=(1, 1, 1)):
    header = bytearray(nifti((2, 2, 2), spacing)[:352])
    struct.pack_into("<4h", header, 40, 3, *shape)
    return bytes(header)


def test_a_header_that_claims_too_much_is_refused_without_unpacking_and_the_next_request_is_served(models, monkeypatch):
    budget = Budget(256 * MIB, 1 << 60)
    unpacked = []
    pieces = inflate.Stream.pieces
    monkeypatch.setattr(inflate.Stream, "pieces", lambda *args: unpacked.append(1) or pieces(*args))
    frames = enhanced(np.zeros((2, 8, 8), np.int16))
    frames.NumberOfFrames = 100_000
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "<i2", "fortran_order": False, "shape": (500, 500, 200)})
    nrrd = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 500 500 300\nencoding: gzip\nendian: little\n\n"
    meta = b"ObjectType = Image\nNDims = 3\nDimSize = 500 500 300\nElementType = MET_SHORT\nCompressedData = True\n"
    bodies = {
        "nifti": gzip.compress(header_of_nifti((4000, 4000, 4000)) + bytes(1000)),
        "nifti that is read": gzip.compress(header_of_nifti((500, 500, 300)) + bytes(1000)),
        "dicom": to_bytes(frames),
        "nrrd": nrrd + gzip.compress(bytes(100)),
        "metaimage": meta + b"ElementDataFile = LOCAL\n" + bytes(100),
        "npy": array.getvalue(),
        "spacing of a metre": nifti((20, 20, 20), (1000, 1000, 1000)),
        "spacing of a metre along one axis": nifti((20, 90, 90), (1, 1, 1000)),
    }
    for name, body in bodies.items():
        with spending(budget), pytest.raises(CallerError) as refusal:
            models["at_1_mm"].answer([Sample(Instances((body,)) if name == "dicom" else body)])
        if name != "npy":  # its values do not fill the shape, which is known first
            assert isinstance(refusal.value, PayloadTooLarge), name
        assert not unpacked
        assert budget.most_bytes < MIB

    with spending(budget):
        [answered] = models["at_1_mm"].answer([Sample(nifti((20, 18, 10), (1, 1, 0.001)))])
        assert answered.predictions[0].mask.shape == (20, 18, 10)


def test_many_frames_and_large_pictures_are_refused_before_the_first_is_decoded(models, monkeypatch):
    monkeypatch.setattr("sagemaker_monai.images.dicom.study.each_frame", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr("sagemaker_monai.images.pictures.load", lambda *_: pytest.fail("decoded"))
    frames = to_bytes(enhanced(np.zeros((60, 64, 64), np.int16)))
    picture = io.BytesIO()
    Image.new("L", (3000, 2000)).save(picture, "PNG")

    with (
        spending(Budget(MIB + len(frames), 1 << 60)),
        pytest.raises(PayloadTooLarge, match="60 images, the first of 64 x 64"),
    ):
        models["ct_slice"].answer([Sample(Instances((frames,)))])
    with spending(Budget(16 * MIB, 1 << 60)), pytest.raises(PayloadTooLarge, match="an image of 3000 x 2000"):
        models["photo"].answer([Sample(picture.getvalue())])


def test_a_large_photograph_takes_the_memory_of_its_masks(models):
    """JPEG is decoded at a smaller scale, and what other formats hold is counted when they are opened."""
    foreseen = models["photo"].foresee([Expected((3, 4000, 3000))])

    # Three copies of the label map, and components of up to all of it: 4 bytes and 1.
    assert 0 <= foreseen - 8 * 4000 * 3000 < MIB


def test_files_are_released_where_the_answer_does_not_fit_beside_them(models):
    """Counted: without the files the request fits, so it is answered, and their bytes are free again."""
    model, values = models["own"], np.random.default_rng(0).integers(0, 200, (24, 48, 48)).astype(np.int16)
    files = [to_bytes(each) for each in make_series(values)]
    body = sum(map(len, files))

    asked = []  # what was held when the headers were read, and what was foreseen
    foresee = model.foresee

    def answer(memory_bytes):
        budget = Budget(memory_bytes, 1 << 60)
        budget.used_bytes = body
        held = tuple(Held(each) for each in files)
        with pytest.MonkeyPatch.context() as patch, spending(budget):
            patch.setattr(model, "foresee", lambda *args, **more: asked.append(
                (budget.used_bytes, foresee(*args, **more))) or asked[-1][1])  # fmt: skip
            [answered] = model.answer([Sample(Instances(held))])
        return budget, answered.predictions[0], held

    roomy, expected, kept = answer(1 << 40)
    [(before, foreseen)] = asked
    tight, found, released = answer(before + foreseen - body // 2)

    assert all(each.data for each in kept)
    assert not any(each.data for each in released)
    assert tight.used_bytes == roomy.used_bytes - body
    assert np.array_equal(found.mask, expected.mask)
    with pytest.raises(PayloadTooLarge, match="segmenting an image of 48 x 48 x 24"):
        answer(before + foreseen - body - 1)


def test_a_network_is_rehearsed_and_what_would_take_too_long_is_refused_at_once(models):
    model = models["own"]
    try:
        working_bytes = model.rehearse()

        # At least the logits of all windows: 4 windows of 16 x 16 x 8, 3 outputs.
        assert 4 * 4 * 3 * 16 * 16 * 8 < working_bytes < 16 * MIB
        assert 0 < model._window_s < 5
        before = model.foresee([Expected((1, 64, 64, 64), np.eye(4))])
        model._working_bytes = 0
        assert before == model.foresee([Expected((1, 64, 64, 64), np.eye(4))]) + working_bytes
        model._window_s = 1.0  # and 7 x 7 x 15 windows of half of each other cover the image
        body = nifti((64, 64, 64))
        with (
            until(500),
            pytest.raises(PayloadTooLarge, match=r"735 windows would take about 735 s, .*asynch"),
        ):
            model.answer([Sample(body)])
        with until(700):
            model.foresee([Expected((1, 64, 64, 64), np.eye(4))])
        with until(1), pytest.raises(PayloadTooLarge):  # an axis that no list of windows could be made of
            model.foresee([Expected((1, 1, 1, 1 << 29), np.eye(4))])
    finally:
        model._window_s, model._working_bytes = 0.0, 0


def alive_at_most(run):
    """The most bytes that NumPy and Python hold while `run` does, and those of torch: not at the same time, perhaps."""
    tracemalloc.start()
    run()
    numpy = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    alive = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            alive += event.nbytes()
            most = max(most, alive)
    return numpy, most


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(*[st.integers(2, 50)] * 3), spacing=st.tuples(*[st.sampled_from([0.3, 0.8, 1.0, 1.7])] * 3),
    dtype=st.sampled_from([np.uint8, np.int16, np.float32, np.float64]),
    model=st.sampled_from(["own", "at_1_mm", "percentile"]), extras=st.sampled_from([(), (PROBABILITIES,)]),
)  # fmt: skip
@example(shape=(60, 60, 40), spacing=(1.7, 1.0, 0.8), dtype=np.int16, model="percentile", extras=())
@example(shape=(60, 60, 40), spacing=(0.3, 0.3, 0.3), dtype=np.float64, model="at_1_mm", extras=(PROBABILITIES,))
def test_what_is_counted_and_what_is_held_is_at_most_what_was_foreseen(shape, spacing, dtype, model, extras, models):
    predictor, body, seen = models[model], nifti(shape, spacing, dtype), []
    foresee = predictor.foresee

    def ask():
        budget = Budget(1 << 40, 1 << 60)
        with spending(budget):
            predictor.answer([Sample(body, extras=frozenset(extras))])
        seen.append(budget.most_bytes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor, "foresee", lambda *args, **more: seen.append(foresee(*args, **more)) or seen[-1])
        patch.setattr(predictor, "_logits", lambda windows: torch.zeros(len(windows), 3, *windows.shape[2:]))
        for module, name in ((intensity, "_CHUNK"), (resampling, "_AT_ONCE"), (visibility, "_AT_ONCE"),
                             (ways, "_SLAB_VOXELS")):  # fmt: skip
            patch.setattr(module, name, 1 << 14)  # what is held for a moment belongs to what no budget counts
        ask()  # and import what it needs
        foreseen, counted = seen
        of_numpy, of_torch = alive_at_most(ask)

    assert counted <= foreseen
    assert max(of_numpy, of_torch) <= foreseen + MIB  # objects of Python, such as headers, are not counted
    if foreseen > 2 * MIB and not extras:  # of probabilities, those in a file are foreseen, too
        assert foreseen <= 3 * max(of_numpy, of_torch)
