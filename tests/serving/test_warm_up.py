"""The question before the first request: every model that can be trained answers it."""

import json

import pytest

from sagemaker_monai.outputs.encoding import encode_json
from sagemaker_monai.preprocessing.fits import FITS
from sagemaker_monai.preprocessing.preprocessing import TRANSFORMS, build_preprocessing
from sagemaker_monai.preprocessing.presets import PRESETS, preprocessing_for
from sagemaker_monai.serving.back_end import Response, StartError
from sagemaker_monai.serving.inference import input_fn
from sagemaker_monai.serving.warm_up import QUESTIONS, check_answer, question
from tests.support.bundles import TASKS


def asked(tmp_path, spec):
    (tmp_path / "configs").mkdir(exist_ok=True)
    (tmp_path / "configs" / "inference.json").write_text(json.dumps({"preprocessing": {"transforms": spec}}))
    return question(tmp_path)


@pytest.mark.parametrize("window", ["", "header", "percentile", "zscore", "none", "-600/1500"])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_load_its_question(preset, fit, window, tmp_path):
    is_photo = PRESETS[preset].intensity is None
    for channels in (1, 3) if is_photo else (1, 2, 3, 16):
        spec = preprocessing_for(preset, channels=channels, image_size=8, fit=fit, window="" if is_photo else window)
        request = asked(tmp_path, spec)

        [sample] = input_fn(request.body, request.content_type)
        [(image, traits)] = build_preprocessing(spec).load_each(sample)

        assert tuple(image.shape) == (channels, *[8] * PRESETS[preset].spatial_dims)
        assert image.float().std() > 0
        assert traits.identity is None
        assert len(request.body) < 200_000  # every worker of every model asks it


def test_a_preset_of_one_voxel_can_load_its_question(tmp_path):
    spec = preprocessing_for("mr_volume", channels=1, image_size=1, fit="pad")
    request = asked(tmp_path, spec)

    [sample] = input_fn(request.body, request.content_type)

    assert build_preprocessing(spec).load(sample).numel() == 1


@pytest.mark.parametrize("preset", ["pet_slice", "pet_volume"])
@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_a_model_of_suv_is_asked_a_pet_whose_header_allows_it(preset, fit, tmp_path):
    spec = preprocessing_for(preset, channels=1, image_size=8, fit=fit, window="suv")
    request = asked(tmp_path, spec)

    [sample] = input_fn(request.body, request.content_type)
    [(image, _)] = build_preprocessing(spec).load_each(sample)

    assert image.std() > 0


def test_every_load_half_has_a_question():
    halves = {half.__name__ for half in TRANSFORMS.values() if half.__name__.startswith("Load")}

    assert len(halves) == 4
    assert set(QUESTIONS) == halves


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", '{"preprocessing": 1}', '{"preprocessing": {"transforms": []}}', "[" * 100_000,
        '{"preprocessing": {"transforms": [{"_target_": "x.LoadVolume", "channels": 1e9}]}}',
        '{"preprocessing": {"transforms": [{"_target_": "x.LoadVolume", "channels": 1000000000}]}}',
        '{"preprocessing": {"transforms": [{"_target_": 3, "channels": 1}]}}',
        '{"preprocessing": {"transforms": [{"_target_": "LoadNothing", "channels": 1}]}}',
    ],
)  # fmt: skip
def test_an_artifact_that_is_broken_is_asked_a_picture(text, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "inference.json").write_text(text)

    assert question(tmp_path).content_type == "image/png"


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_sound_answer_of_every_task_is_known_from_one_with_nan(task):
    import torch

    answers = task.answers(torch.zeros(1, task.outputs))
    check_answer(Response(200, "application/json", encode_json(task.predictions(answers), "v")))

    text = encode_json(task.predictions(answers), "v").decode()
    number = json.loads(text)["predictions"][0]
    first = next(iter((number.get("values") or number["probabilities"]).values()))
    with pytest.raises(StartError):
        check_answer(Response(200, "application/json", text.replace(str(first), "NaN").encode()))
