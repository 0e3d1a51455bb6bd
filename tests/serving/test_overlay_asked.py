"""Pictures with structures drawn over them, for requests that ask for them."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.budget import Budget, spending
from sagemaker_monai.entrypoints.handler_service import Handler
from sagemaker_monai.images.sample import PICTURE, Held, Instances, Sample
from sagemaker_monai.preprocessing import shown
from sagemaker_monai.serving.back_end import Request
from sagemaker_monai.tasks.mask_colours import colour_of
from tests.support.bundles import write_small_segmenter
from tests.support.dicom_bodies import zip_of
from tests.support.dicom_series import CT, enhanced, make_slice, to_bytes

OVERLAY = "image/png; type=overlay"
RNG = np.random.default_rng(7)


@pytest.fixture(scope="module")
def handlers(tmp_path_factory):
    base, made = tmp_path_factory.mktemp("segmenters"), {}
    for name, preset, patch, channels in (
        ("photo", "photo", (32, 32), 3),
        ("slice", "ct_slice", (32, 32), 1),
        ("deep", "deep", (32, 32), 1),
        ("volume", "mr_volume", (16, 16, 8), 1),
    ):
        more = {"value_range": (0.0, 40_000.0)} if preset == "deep" else {}
        write_small_segmenter(base / name, preset=preset, patch=patch, channels=channels, **more)
        made[name] = Handler(base / name, allow_bundle_code=False)
    return made


def ask(handler, body, content_type, accept=OVERLAY):
    [response] = handler.respond([Request(body, content_type, accept)])
    return response


def opened(response):
    assert (response.status, response.content_type) == (200, "image/png"), response.body
    return Image.open(io.BytesIO(response.body))


def labels_of(handler, body, content_type):
    [response] = handler.respond([Request(body, content_type, "image/png")])
    return np.asarray(opened(response))


def check(drawn, labels, picture):
    """The picture outside of structures, their colours at edges, and a mixture inside."""
    assert drawn.shape == (*labels.shape, 3) == picture.shape
    assert (labels > 0).any()
    assert np.array_equal(drawn[labels == 0], picture[labels == 0])
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:-1] |= labels[1:] != labels[:-1]
    for label in np.unique(labels[labels > 0]):
        assert (drawn[edge & (labels == label)] == colour_of(int(label))).all()
        inside = ~edge & (labels == label)
        assert (
            np.abs(drawn[inside] - (picture[inside] * 0.55 + np.array(colour_of(int(label))) * 0.45)).max(initial=0) < 2
        )


def encoded(pixels, kind="PNG", **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def test_a_photograph_is_drawn_upright_at_its_own_size_and_nothing_else_is_in_the_file(handlers):
    pixels = RNG.integers(0, 256, (21, 50, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "Doe^Jane"  # turned to the right
    body = encoded(pixels, exif=exif)

    image = opened(ask(handlers["photo"], body, "image/png"))

    assert (image.size, image.mode, image.info) == ((21, 50), "RGB", {})
    check(np.asarray(image), labels_of(handlers["photo"], body, "image/png"), np.rot90(pixels, -1))


def test_a_large_jpeg_is_not_drawn_from_the_small_one_that_the_network_sees(handlers):
    body = encoded(RNG.integers(0, 256, (400, 500, 3)).astype(np.uint8), "JPEG", quality=95)

    drawn = np.asarray(opened(ask(handlers["photo"], body, "image/jpeg")))

    labels = labels_of(handlers["photo"], body, "image/jpeg")
    check(drawn, labels, np.asarray(Image.open(io.BytesIO(body)).convert("RGB")))


def windowed(stored, center, width):
    """PS3.3 C.11.2.1.2.1, as bytes."""
    values = stored - 1024.0
    shown_ = np.clip(((values - (center - 0.5)) / (width - 1) + 0.5) * 255, 0, 255)
    return np.repeat(np.floor(shown_ + 0.5).astype(np.uint8)[..., None], 3, axis=2)


def test_dicom_is_drawn_with_its_window_also_where_its_files_are_released(handlers):
    stored = RNG.integers(700, 1500, (24, 30)).astype(np.int16)
    file = to_bytes(make_slice(stored, **CT, WindowCenter=60, WindowWidth=300))
    for body, content_type in ((file, "application/dicom"), (zip_of(("a.dcm", file)), "application/zip")):
        drawn = np.asarray(opened(ask(handlers["slice"], body, content_type)))
        check(drawn, labels_of(handlers["slice"], body, content_type), windowed(stored, 60, 300))
    held = Held(file)
    [answered] = handlers["slice"]._model.answer([Sample(Instances((held,)), extras=frozenset({PICTURE}))])
    assert answered.predictions[0].picture.shape == (24, 30, 3)


def test_dicom_without_a_window_and_deep_pictures_have_their_own_range(handlers):
    stored = RNG.integers(0, 30_000, (24, 30)).astype(np.uint16)
    cases = (
        ("slice", to_bytes(make_slice((stored // 16).astype(np.int16), **CT)), "application/dicom"),
        ("deep", encoded(stored), "image/png"),
    )
    for name, body, content_type in cases:
        drawn = np.asarray(opened(ask(handlers[name], body, content_type)))
        labels = labels_of(handlers[name], body, content_type)
        plain = drawn[..., 0][labels == 0].astype(float)
        assert plain.min() <= 2  # the darkest and brightest pixel may be in a structure
        assert plain.max() >= 253
        assert np.corrcoef(plain, stored[labels == 0])[0, 1] > 0.999


def test_eight_bit_pictures_of_a_model_of_slices_are_drawn_as_they_are(handlers):
    pixels = RNG.integers(90, 150, (24, 30)).astype(np.uint8)

    drawn = np.asarray(opened(ask(handlers["slice"], encoded(pixels), "image/png")))

    check(drawn, labels_of(handlers["slice"], encoded(pixels), "image/png"), np.repeat(pixels[..., None], 3, axis=2))


def test_every_frame_is_drawn(handlers):
    body = to_bytes(enhanced(RNG.integers(700, 1500, (3, 24, 30)).astype(np.int16)))

    response = ask(handlers["slice"], body, "application/dicom")

    assert (response.status, response.content_type) == (200, "application/zip")
    plain = ask(handlers["slice"], body, "application/dicom", "image/png")
    assert response.body != plain.body


@pytest.mark.parametrize("accept", [OVERLAY, "image/png"])
def test_of_a_volume_it_is_refused_before_the_work_unless_something_else_is_accepted(handlers, accept, monkeypatch):
    model = handlers["volume"]._model
    body = io.BytesIO()
    np.save(body, np.zeros((9, 8, 7), np.float32))
    with monkeypatch.context() as patch:
        patch.setattr(model, "answer", lambda _: pytest.fail("worked"))
        response = ask(handlers["volume"], body.getvalue(), "application/x-npy", accept)
    assert response.status == 406
    assert "accept application/x-nifti" in json.loads(response.body)["error"]["message"]

    other = ask(handlers["volume"], body.getvalue(), "application/x-npy", f"{accept}, application/json;q=0.5")

    assert (other.status, other.content_type) == (200, "application/json")


def test_dicom_for_a_model_of_photographs_is_refused_as_without_a_picture(handlers):
    file = to_bytes(make_slice(RNG.integers(700, 1500, (24, 30)).astype(np.int16), **CT))

    answers = [ask(handlers["photo"], file, "application/dicom", accept) for accept in (OVERLAY, "image/png")]

    assert answers[0].status == 422
    assert answers[0] == answers[1]


def test_without_being_asked_for_nothing_is_shown_and_with_it_memory_is_foreseen(handlers, monkeypatch):
    model, body = handlers["photo"]._model, encoded(RNG.integers(0, 256, (200, 300, 3)).astype(np.uint8))
    used = []
    for extras in (frozenset(), frozenset({PICTURE})):
        budget = Budget(1 << 30, 1 << 40)
        with spending(budget):
            model.answer([Sample(body, extras=extras)])
        used.append(budget.used_bytes)
    monkeypatch.setattr(shown, "decode", lambda *_, **_more: pytest.fail("shown"))

    assert used[1] - used[0] == 9 * 200 * 300
    assert ask(handlers["photo"], body, "image/png", "image/png").status == 200
