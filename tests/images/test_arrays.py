import io

import numpy as np
import pytest

from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.formats import inflate
from sagemaker_monai.images.volume_files import read_volume_file
from tests.support.dicom_bodies import npy, zip_of
from tests.support.odd_volumes import oblique, ramp
from tests.support.refusals import allocating_less_than, not_refused, wrongly_refused

DTYPES = ("b1", "u1", "i1", "<u2", ">i2", "<u4", ">i4", "<i8", ">u8", "<f2", ">f4", "<f8")


def npz(packed=True, **arrays):
    buffer = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def zipped(**members):
    return zip_of(*members.items())


def values_of(dtype, shape=(3, 4, 5)):
    return (np.arange(np.prod(shape)).reshape(shape) % 100).astype(dtype)


@pytest.mark.parametrize("order", "CF")
def test_every_type_and_order_comes_back(tmp_path, order):
    for dtype in DTYPES:
        values = np.asarray(values_of(dtype), order=order)
        np.save(tmp_path / "a.npy", values)

        for source in (tmp_path / "a.npy", npy(values), npz(image=values), npz(packed=False, anything=values)):
            volume = read_volume_file(source)
            assert volume.values.dtype == np.float32
            assert np.array_equal(volume.values[0], values.astype(np.float32)), dtype
            assert np.array_equal(volume.affine, np.eye(4))
            assert not volume.has_geometry


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize(
    ("shape", "full"), [((4, 5), (1, 4, 5, 1)), ((3, 4, 5), (1, 3, 4, 5)), ((2, 3, 4, 5), (2, 3, 4, 5))]
)
def test_two_to_four_axes_are_a_slice_a_volume_or_channels(shape, full, order):
    values = np.asarray(values_of("<i4", shape), order=order)

    assert np.array_equal(read_volume_file(npy(values)).values, values.reshape(full))


def test_what_is_no_volume_of_numbers_is_refused():
    cases = {
        "1 axis": np.zeros(3),
        "5 axes": np.zeros((1, 1, 1, 1, 1)),
        "no axis": np.zeros(()),
        "17 channels": np.zeros((17, 2, 2, 2)),
        "complex": np.zeros((2, 2), np.complex64),
        "text": np.zeros((2, 2), "U3"),
        "structured": np.zeros((2, 2), [("a", "u1"), ("b", "u1")]),
    }

    assert not_refused(cases, lambda values: read_volume_file(npy(values)), UnsuitableImage) == []
    assert not_refused(cases, lambda values: read_volume_file(npz(image=values)), UnsuitableImage) == []


class Bomb:
    def __reduce__(self):
        return (exit, (1,))


def test_nothing_is_unpickled():
    values = np.array([[Bomb()]], dtype=object)
    for source in (npy(values), npz(image=values), npz(image=np.zeros((2, 2)), affine=values)):
        with pytest.raises((UnsuitableImage, UndecodableImage)):
            read_volume_file(source)


def test_values_that_do_not_fill_the_shape_are_refused():
    body = npy(values_of("<i2"))
    for wrong in (body[:-1], body + b"\0", body[:60]):
        assert not_refused([wrong, zipped(**{"image.npy": wrong})], read_volume_file, UndecodableImage) == []


@pytest.mark.parametrize("shape", ["(0, 4, 5)", "(90000, 90000, 90000)", "(3, 4)", "(999999999, 999999999)"])
def test_a_claim_that_the_values_do_not_keep_allocates_nothing(shape):
    body = npy(values_of("<i2")).replace(b"(3, 4, 5)", shape.encode())
    start = body.index(b"}") + 1
    end = body.index(b"\n", start)
    excess = len(shape) - len("(3, 4, 5)")
    body = body[:start] + (b" " * (end - start - excess)) + body[end:]
    with allocating_less_than(1 << 20), pytest.raises((UndecodableImage, PayloadTooLarge)):
        read_volume_file(body)


def test_an_npz_may_have_its_geometry_beside_the_image():
    values = values_of("<i2")
    by_affine = read_volume_file(npz(image=values, affine=oblique(), other=values))
    by_spacing = read_volume_file(npz(image=values, spacing=np.array([2, 3, 0.5])))

    assert by_affine.has_geometry
    assert np.array_equal(by_affine.affine, oblique())
    assert not by_spacing.has_geometry
    assert np.array_equal(by_spacing.affine, np.diag([2, 3, 0.5, 1]))
    assert np.array_equal(read_volume_file(npz(a=values, affine=np.asarray(oblique(), order="F"))).affine, oblique())


def test_geometry_that_makes_no_sense_is_refused():
    cases = [
        {"affine": np.eye(3)},
        {"affine": np.zeros((4, 4))},
        {"affine": np.diag([1, 1, np.nan, 1])},
        {"affine": np.diag([1, 1, 1, 2])},
        {"affine": np.diag([1, 0, 1, 1])},
        {"spacing": np.ones(2)},
        {"spacing": np.ones((3, 1))},
    ]

    def read(geometry):
        read_volume_file(npz(image=values_of("<i2"), **geometry))

    assert not_refused(cases, read, UndecodableImage) == []


def test_an_npz_without_one_image_or_with_an_archive_in_it_is_refused():
    inner = npz(image=values_of("<i2"))
    rows = [
        (npz(a=np.zeros((2, 2)), b=np.zeros((2, 2))), "name the one that is the image"),
        (npz(affine=np.eye(4)), "name the one that is the image"),
        (zipped(**{"spacing.npy": npy(np.ones(3)), "image.npz": inner}), ""),
    ]

    assert wrongly_refused(rows, read_volume_file, UnsuitableImage) == []
    with pytest.raises(UndecodableImage):
        read_volume_file(zipped(**{"image.npy": inner}))


def test_bombs_and_heaps_of_members_are_refused(monkeypatch):
    monkeypatch.setattr(inflate, "FREE_BYTES", 1 << 20)
    with pytest.raises(PayloadTooLarge):
        read_volume_file(npz(image=np.zeros((256, 256, 128), np.uint8)))
    with pytest.raises(PayloadTooLarge):
        read_volume_file(npz(**{f"a{index}": np.zeros((2, 2)) for index in range(100)}))


@pytest.mark.parametrize(("claim", "error"), [("(1, 64, 1)", UndecodableImage), ("(99999, 99999,)", PayloadTooLarge)])
def test_a_member_is_inflated_no_further_than_its_header_says(claim, error):
    body = npy(np.zeros((16, 1 << 20), np.uint8)).replace(b"(16, 1048576)", claim.ljust(13).encode())
    packed = zipped(**{"image.npy": body})
    with allocating_less_than(4 << 20), pytest.raises(error):
        read_volume_file(packed)


def test_a_damaged_archive_is_refused():
    body = npz(image=ramp((3, 4, 5), "<i2"))
    flipped = bytearray(body)
    flipped[len(body) // 2] ^= 255

    assert not_refused([body[:-1], body[:-30], body[:-100], bytes(flipped)], read_volume_file, UndecodableImage) == []
