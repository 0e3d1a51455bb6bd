import itertools
import json

import pytest

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.preprocessing.fits import FITS
from sagemaker_monai.preprocessing.intensity import WINDOWS
from sagemaker_monai.preprocessing.preprocessing import build_preprocessing, photograph_preprocessing
from sagemaker_monai.preprocessing.presets import PRESETS, preprocessing_for
from sagemaker_monai.training.augmentation import AUGMENTATIONS


def spec(preset, **changes):
    return preprocessing_for(preset, **{"channels": 1, "image_size": 32, "fit": "pad", **changes})


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_built_after_json(preset):
    for channels, fit in itertools.product((1, 3), FITS):
        both = build_preprocessing(json.loads(json.dumps(spec(preset, fit=fit, channels=channels))))

        assert both.spatial_dims == PRESETS[preset].spatial_dims
        assert both.size == (32,) * both.spatial_dims
        assert both.channels == channels
        assert both.dtype == ("uint8" if preset == "photo" else "float32")
    assert PRESETS[preset].augmentation in AUGMENTATIONS


def test_photographs_are_prepared_as_they_always_were():
    for fit in ("stretch", "pad", "crop"):
        assert spec("photo", channels=3, fit=fit) == photograph_preprocessing(channels=3, image_size=32, fit=fit)


@pytest.mark.parametrize(
    ("window", "intensity"),
    [
        ("", {"kind": "window", "center": 50, "width": 400}),
        ("preset", {"kind": "window", "center": 50, "width": 400}),
        ("header", {"kind": "header"}),
        ("percentile", {"kind": "percentile", "low": 0.5, "high": 99.5}),
        ("zscore", {"kind": "zscore", "nonzero": True}),
        ("none", {"kind": "none"}),
        ("40/400", {"kind": "window", "center": 40.0, "width": 400.0}),
        ("-600.5/1500", {"kind": "window", "center": -600.5, "width": 1500.0}),
        *((name, {"kind": "window", "center": c, "width": w}) for name, (c, w) in WINDOWS.items()),
    ],
)
def test_a_window_is_numbers_in_the_artifact(window, intensity):
    for preset in ("ct_slice", "ct_volume"):
        load, scale = spec(preset, window=window)
        assert load["intensity"] == intensity
        assert scale["mean"] == ([0.5] if intensity["kind"] in ("window", "header", "percentile") else [0.0])


def test_volumes_have_a_depth_and_a_spacing_unless_they_are_stretched():
    load = spec("ct_volume", image_depth=20)[0]
    assert (load["size"], load["fit"], load["spacing_mm"]) == ([32, 32, 20], "pad", [1.5, 1.5, 3.0])
    assert spec("mr_volume", fit="crop", spacing_mm="2")[0]["spacing_mm"] == [2.0, 2.0, 2.0]
    assert spec("mr_volume", spacing_mm="1,1,3")[0]["spacing_mm"] == [1.0, 1.0, 3.0]
    assert spec("mr_volume", spacing_mm="none")[0]["spacing_mm"] is None
    assert spec("mr_volume", fit="stretch")[0]["spacing_mm"] is None
    assert spec("volume")[0]["spacing_mm"] is None


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("mri", {}, "preset must be one of photo, deep, ct_slice, .*'mri'"),
        ("photo", {"channels": 2}, "1 or 3 channels, got 2"),
        ("photo", {"window": "lung"}, "window is for medical images only"),
        ("photo", {"image_depth": 4}, "image_depth is for volumes only: .*ct_volume"),
        ("xray", {"spacing_mm": "1"}, "spacing_mm is for volumes only: .*ct_volume"),
        ("xray", {"window": "lung"}, "in HU, which preset xray does not have: use one of ct_slice, ct_volume"),
        ("mr_slice", {"channels": 17}, "1 to 16 channels, got 17"),
        ("ct_slice", {"window": "40"}, "window must be one of preset, header.*CENTER/WIDTH.*'40'"),
        ("ct_slice", {"window": "40/0"}, "window 40/0: .*at least 1"),
        ("ct_slice", {"window": "1e999/1"}, "window must be"),
        ("ct_slice", {"fit": "squeeze"}, "fit must be one of stretch, pad, crop"),
        ("ct_volume", {"fit": "stretch", "spacing_mm": "1"}, "spacing_mm needs fit=pad"),
        ("ct_volume", {"spacing_mm": "1,2"}, "one or three numbers .*'1,2'"),
        ("ct_volume", {"spacing_mm": "0"}, "one or three numbers"),
        ("ct_volume", {"spacing_mm": "nan"}, "one or three numbers"),
        ("ct_volume", {"spacing_mm": "a,b,c"}, "one or three numbers"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(preset, changes, message):
    with pytest.raises(ConfigError, match=message):
        spec(preset, **changes)
