import gzip
import zlib

import numpy as np
import pytest

from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.formats import inflate
from sagemaker_monai.images.volume_files import read_volume_file
from tests.support.odd_volumes import DTYPES, by_simpleitk, oblique, ramp, write_simpleitk
from tests.support.refusals import not_refused, wrongly_refused

SHAPE = (5, 6, 7)
TEXT = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 0 1 0 -1 0 0 0 0 1
Offset = 10 20 30
CenterOfRotation = 0 0 0
ElementSpacing = 2 3 4
DimSize = 2 2 1
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""
VALUES = np.array([[[1], [3]], [[2], [-4]]], "<i2")  # (W, H, D)
DATA = VALUES.tobytes(order="F")
ELEMENT_TYPES = ("UCHAR", "CHAR", "USHORT", "SHORT", "UINT", "INT", "ULONG_LONG", "LONG_LONG", "FLOAT", "DOUBLE")
NAMES = dict(zip(DTYPES, ELEMENT_TYPES, strict=True))


def by_hand(data=DATA, **fields):
    """TEXT with fields replaced, put before the last one, or left out when None."""
    lines = TEXT.splitlines()
    for name, value in fields.items():
        places = [index for index, line in enumerate(lines) if line.startswith(f"{name} =")] or [len(lines) - 1]
        length = 1 if lines[places[0]].startswith(f"{name} =") else 0
        lines[places[0] : places[0] + length] = [] if value is None else [f"{name} = {value}"]
    return ("\n".join(lines) + "\n").encode() + data


def test_a_file_written_by_hand_is_read_as_the_format_says(tmp_path):
    (tmp_path / "a.mha").write_bytes(by_hand())
    volume = read_volume_file(tmp_path / "a.mha")

    # The first axis runs along +y of LPS, 2 mm a step, the second along -x, 3 mm a step.
    assert np.array_equal(volume.affine, [[0, 3, 0, -10], [-2, 0, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]])
    assert volume.has_geometry
    assert volume.values.dtype == np.float32
    assert np.array_equal(volume.values[0], VALUES)
    assert np.array_equal(by_simpleitk(tmp_path / "a.mha")[1], volume.affine)


@pytest.mark.parametrize(("big", "order"), [("True", ">"), ("False", "<")])
def test_every_type_and_byte_order_is_as_simpleitk_has_it(tmp_path, big, order):
    for dtype, name in NAMES.items():
        values = ramp(SHAPE, dtype)
        data = values.astype(np.dtype(dtype).newbyteorder(order)).tobytes(order="F")
        fields = {"ElementType": f"MET_{name}", "DimSize": "5 6 7", "BinaryDataByteOrderMSB": big}
        (tmp_path / "a.mha").write_bytes(by_hand(data, **fields))
        volume = read_volume_file(tmp_path / "a.mha")

        assert np.array_equal(volume.values[0], values), dtype
        assert np.array_equal(volume.values, by_simpleitk(tmp_path / "a.mha")[0]), dtype


@pytest.mark.parametrize("name", ["LONG", "ULONG"])
def test_a_long_has_four_bytes(tmp_path, name):
    (tmp_path / "a.mha").write_bytes(by_hand(VALUES.astype("<i4").tobytes(order="F"), ElementType=f"MET_{name}"))
    expected = VALUES.astype("<i4").view("<u4" if name == "ULONG" else "<i4").astype(np.float32)

    assert np.array_equal(read_volume_file(tmp_path / "a.mha").values[0], expected)
    assert np.array_equal(by_simpleitk(tmp_path / "a.mha")[0][0], expected)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_what_simpleitk_writes_comes_back(tmp_path, suffix, compress):
    single, several = (tmp_path / f"{name}{suffix}" for name in "ab")
    write_simpleitk(single, ramp(SHAPE, "f4"), oblique(), compress=compress)
    write_simpleitk(several, ramp((3, *SHAPE), "i2"), oblique(), compress=compress, is_vector=True)

    for path, values in ((single, ramp((1, *SHAPE), "f4")), (several, ramp((3, *SHAPE), "i2"))):
        volume = read_volume_file(path)
        assert np.array_equal(volume.values.ravel(), values.ravel())
        assert np.array_equal(volume.values, by_simpleitk(path)[0])
        assert np.allclose(volume.affine, oblique())


def test_two_and_four_axes_are_a_slice_and_channels(tmp_path):
    write_simpleitk(tmp_path / "slice.mha", ramp((5, 6), "i2"))
    write_simpleitk(tmp_path / "channels.mha", ramp((5, 6, 7, 3), "i2"))
    plane, several = read_volume_file(tmp_path / "slice.mha"), read_volume_file(tmp_path / "channels.mha")

    assert np.array_equal(plane.values[0, :, :, 0], ramp((5, 6), "i2"))
    assert not plane.has_geometry
    assert np.array_equal(several.values, np.moveaxis(ramp((5, 6, 7, 3), "i2"), -1, 0))
    assert np.array_equal(several.values, by_simpleitk(tmp_path / "channels.mha")[0])
    assert np.allclose(several.affine, by_simpleitk(tmp_path / "channels.mha")[1])


def test_without_matrix_and_offset_there_is_only_a_grid():
    volume = read_volume_file(by_hand(TransformMatrix=None, Offset=None, ElementSpacing="2 0 -4"))

    assert not volume.has_geometry
    assert np.array_equal(volume.affine, np.diag([2, 1, 4, 1]))
    assert read_volume_file(by_hand(TransformMatrix=None)).has_geometry


def test_other_names_and_the_centre_of_rotation_mean_what_they_mean_to_itk(tmp_path):
    text = by_hand(CenterOfRotation="7 8 9", AnatomicalOrientation="RAI").replace(b"TransformMatrix", b"Orientation")
    (tmp_path / "a.mha").write_bytes(text.replace(b"Offset", b"Position").replace(b"\n", b"\r\n", 4))

    assert np.array_equal(read_volume_file(tmp_path / "a.mha").affine, read_volume_file(by_hand()).affine)
    assert np.array_equal(by_simpleitk(tmp_path / "a.mha")[1], read_volume_file(by_hand()).affine)


def test_values_written_as_text_are_read(tmp_path):
    (tmp_path / "a.mha").write_bytes(by_hand(b"1 2\n3 -4\n", BinaryData="False"))

    assert np.array_equal(read_volume_file(tmp_path / "a.mha").values[0], VALUES)
    assert np.array_equal(by_simpleitk(tmp_path / "a.mha")[0][0], VALUES)


FAULTS = {
    "no dims": {"NDims": None},
    "dims": {"NDims": "three"},
    "fewer sizes": {"DimSize": "2 2"},
    "size 0": {"DimSize": "2 0 1"},
    "negative size": {"DimSize": "2 -2 1"},
    "too few values": {"DimSize": "2 2 2"},
    "channels 0": {"ElementNumberOfChannels": "0"},
    "negative channels": {"ElementNumberOfChannels": "-3"},
    "truth": {"CompressedData": "Perhaps"},
    "order": {"BinaryDataByteOrderMSB": "2"},
    "spacing": {"ElementSpacing": "2 3"},
    "spacing 0": {"ElementSpacing": "2 0 4"},
    "spacing nan": {"ElementSpacing": "2 nan 4"},
    "spacing no number": {"ElementSpacing": "2 3 0x4"},
    "matrix": {"TransformMatrix": "1 0 0 0 1 0 0 0"},
    "matrix inf": {"TransformMatrix": "1 0 0 0 1 0 0 0 inf"},
    "matrix flat": {"TransformMatrix": "1 0 0 1 0 0 0 0 1"},
    "offset": {"Offset": "1 2"},
    "offset nan": {"Offset": "1 2 nan"},
    "no end": {"ElementDataFile": None},
}


def test_a_header_that_makes_no_sense_is_refused():
    assert not_refused(FAULTS, lambda fields: read_volume_file(by_hand(**fields)), UndecodableImage) == []


def test_what_is_no_single_image_of_numbers_is_refused():
    no_place = {"ElementSpacing": None, "TransformMatrix": None, "Offset": None}
    rows = [
        ({"ObjectType": "Tube"}, ""),
        ({"NDims": 5, "DimSize": "2 2 1 1 1"}, ""),
        ({"NDims": 1, "DimSize": "4"}, ""),
        ({"ElementType": "MET_SHORT_ARRAY"}, ""),
        ({"ElementType": None}, ""),
        ({"ElementNumberOfChannels": 17}, ""),
        ({"NDims": 4, "DimSize": "1 1 1 17", **no_place}, ""),
        ({"NDims": 4, "DimSize": "1 1 1 2", "ElementNumberOfChannels": 2, "ElementSpacing": None}, ""),
        ({"NDims": 4, "DimSize": "1 2 2 2", "CenterOfRotation": None, **no_place}, "order of the file's axes"),
        ({"ElementToIntensityFunctionSlope": "2"}, ""),
        ({"ElementDataFile": "a%03d.raw 1 3 1"}, ""),
    ]

    assert wrongly_refused(rows, lambda fields: read_volume_file(by_hand(bytes(100), **fields)), UnsuitableImage) == []


def test_a_repeated_field_or_a_line_without_one_is_refused():
    for line in (b"NDims = 3", b"nonsense"):
        with pytest.raises(UndecodableImage):
            read_volume_file(by_hand().replace(b"DimSize", line + b"\nDimSize"))


def test_terabytes_and_headers_without_end_are_refused():
    for compressed in ("True", "False"):
        for sizes in ("90000 90000 90000", "512 512 512"):
            with pytest.raises((UndecodableImage, PayloadTooLarge)):
                read_volume_file(by_hand(DimSize=sizes, CompressedData=compressed))
    with pytest.raises(UndecodableImage):
        read_volume_file(b"ObjectType = Image\nNDims = 3\n" + b"".join(b"a%d = b\n" % i for i in range(200_000)))


def test_packed_values_are_bounded_and_checked(monkeypatch):
    for pack in (zlib.compress, gzip.compress):
        packed = pack(DATA)
        assert np.array_equal(read_volume_file(by_hand(packed, CompressedData="True")).values[0], VALUES)
        for data in (packed[:-1], packed[:5], b"", b"rubbish"):
            with pytest.raises(UndecodableImage):
                read_volume_file(by_hand(data, CompressedData="True"))
    monkeypatch.setattr(inflate, "FREE_BYTES", 1 << 20)
    with pytest.raises(PayloadTooLarge):
        read_volume_file(by_hand(zlib.compress(bytes(8 << 20)), CompressedData="True", DimSize="256 256 64"))


# --- detached --------------------------------------------------------------------------------------------------------


def test_values_may_lie_in_a_file_of_the_same_folder(tmp_path):
    for before, fields in ((b"", {}), (b"12345", {"HeaderSize": 5}), (b"whatever", {"HeaderSize": -1})):
        (tmp_path / "a.raw").write_bytes(before + DATA)
        (tmp_path / "a.mhd").write_bytes(by_hand(b"", ElementDataFile="a.raw", **fields))

        assert np.array_equal(read_volume_file(tmp_path / "a.mhd").values[0], VALUES)
        assert np.array_equal(by_simpleitk(tmp_path / "a.mhd")[0][0], VALUES)
    with pytest.raises(UnsuitableImage, match="send one file that holds both"):
        read_volume_file((tmp_path / "a.mhd").read_bytes())


def test_a_list_of_files_holds_one_slice_each(tmp_path):
    slices = ramp((2, 2, 3), "<i2")
    for index in range(3):
        (tmp_path / f"{index}.raw").write_bytes(slices[:, :, index].tobytes(order="F"))
    (tmp_path / "a.mhd").write_bytes(by_hand(b"2.raw\n0.raw\n1.raw\n", DimSize="2 2 3", ElementDataFile="LIST"))

    assert np.array_equal(read_volume_file(tmp_path / "a.mhd").values[0], slices[:, :, [2, 0, 1]])
    assert np.array_equal(by_simpleitk(tmp_path / "a.mhd")[0][0], slices[:, :, [2, 0, 1]])


def test_no_file_outside_the_folder_is_opened_and_a_missing_one_is_named_so(tmp_path):
    (tmp_path / "secret.raw").write_bytes(DATA)
    (tmp_path / "inner").mkdir()

    def read(name):
        (tmp_path / "inner" / "a.mhd").write_bytes(by_hand(b"", ElementDataFile=name))
        read_volume_file(tmp_path / "inner" / "a.mhd")

    names = ["../secret.raw", "/etc/passwd", "sub/a.raw", "..", "s3://bucket/a.raw", "C:\\a.raw"]
    assert not_refused(names, read, UnsuitableImage, "outside its folder") == []
    assert not_refused(["a.raw"], read, UndecodableImage, "missing in its folder") == []
