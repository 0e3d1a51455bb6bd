import gzip
import struct
import zlib

import nibabel
import numpy as np
import pytest

from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.formats import inflate
from sagemaker_monai.images.volume_files import read_volume_file
from tests.support.odd_volumes import (
    DTYPES,
    HIPPOCAMPUS,
    ODD_NIFTI,
    by_nibabel,
    by_simpleitk,
    oblique,
    ramp,
    read_odd_nifti,
)
from tests.support.refusals import allocating_less_than, not_refused, wrongly_refused

SHAPE = (5, 6, 7)


def nifti(values=None, affine=None, version=nibabel.Nifti1Image, **fields):
    """The bytes of a file; fields of the header are set last."""
    values = ramp(SHAPE, "i2") if values is None else values
    image = version(values, oblique() if affine is None else affine, dtype=values.dtype)
    body = image.to_bytes()
    return patched(body, **fields)


def patched(body, **fields):
    size = struct.unpack("<i", body[:4])[0]
    header_class = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}[size]
    header = header_class(body[:size], endianness="<", check=False)
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + body[size:]


def with_pixdim(body, **by_index):
    pixdim = nibabel.Nifti1Header(body[:348], check=False)["pixdim"].copy()
    for index, value in by_index.items():
        pixdim[int(index[1:])] = value
    return patched(body, pixdim=pixdim)


@pytest.mark.parametrize("order", "<>")
def test_every_type_and_byte_order_is_as_two_other_readers_have_it(tmp_path, order):
    for dtype in DTYPES:
        values = ramp(SHAPE, dtype)
        header = nibabel.Nifti1Header(endianness=order)
        header.set_data_dtype(np.dtype(dtype).newbyteorder(order))
        nibabel.save(nibabel.Nifti1Image(values, oblique(), header), tmp_path / "a.nii")
        volume = read_volume_file(tmp_path / "a.nii")

        assert nibabel.load(tmp_path / "a.nii").header.endianness == order
        assert (volume.values.dtype, volume.affine.dtype, volume.has_geometry) == (np.float32, np.float64, True)
        assert np.array_equal(volume.values[0], values), dtype
        for read in (by_nibabel, by_simpleitk):
            expected, affine = read(tmp_path / "a.nii")
            assert np.array_equal(volume.values, expected), dtype
            assert np.allclose(volume.affine, affine, atol=1e-4)


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
def test_slope_and_intercept_give_what_float64_gives_rounded_once(tmp_path, dtype):
    (tmp_path / "a.nii").write_bytes(nifti(ramp(SHAPE, dtype), scl_slope=0.3, scl_inter=-1024.7))
    volume = read_volume_file(tmp_path / "a.nii")

    by_hand = ramp(SHAPE, dtype).astype(np.float64) * float(np.float32(0.3)) + float(np.float32(-1024.7))
    assert np.array_equal(volume.values[0], by_hand.astype(np.float32))
    assert np.array_equal(volume.values, by_nibabel(tmp_path / "a.nii")[0])
    assert np.allclose(volume.values, by_simpleitk(tmp_path / "a.nii")[0], rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_a_slope_that_is_none_scales_nothing(slope):
    assert np.array_equal(read_volume_file(nifti(scl_slope=slope, scl_inter=5)).values[0], ramp(SHAPE, "i2"))


def test_every_kind_of_file_holds_the_same_image(tmp_path):
    values, expected = ramp(SHAPE, "i2"), read_volume_file(nifti())
    kinds = {"a.nii": nibabel.Nifti1Image, "b.nii.gz": nibabel.Nifti1Image, "c.img": nibabel.Nifti1Pair}
    kinds |= {"d.nii": nibabel.Nifti2Image, "e.nii.gz": nibabel.Nifti2Image, "f.hdr": nibabel.Nifti2Pair}
    for name, image_class in kinds.items():
        nibabel.save(image_class(values, oblique()), tmp_path / name)
    (tmp_path / "g.hdr.gz").write_bytes(gzip.compress((tmp_path / "c.hdr").read_bytes()))
    (tmp_path / "g.img.gz").write_bytes(gzip.compress((tmp_path / "c.img").read_bytes()))
    (tmp_path / "without_suffix").write_bytes((tmp_path / "b.nii.gz").read_bytes())

    for name in [*kinds, "c.hdr", "f.img", "g.hdr.gz", "g.img.gz", "without_suffix"]:
        volume = read_volume_file(tmp_path / name)
        assert np.array_equal(volume.values, expected.values), name
        assert np.allclose(volume.affine, expected.affine, atol=1e-5), name


def test_header_extensions_are_passed_over():
    image = nibabel.Nifti1Image(ramp(SHAPE, "i2"), oblique())
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * 5000))

    assert np.array_equal(read_volume_file(image.to_bytes()).values[0], ramp(SHAPE, "i2"))


@pytest.mark.parametrize("shape", [(5, 6, 7, 3), (5, 6, 7, 1, 3), (5, 6, 1, 3), (5, 6, 7, 16)])
def test_the_fourth_or_fifth_axis_holds_channels(tmp_path, shape):
    (tmp_path / "a.nii").write_bytes(nifti(ramp(shape, "i2")))
    volume = read_volume_file(tmp_path / "a.nii")

    channels = shape[-1]
    assert volume.values.shape == (channels, *shape[:3])
    assert np.array_equal(volume.values, np.moveaxis(ramp(shape, "i2").reshape(*shape[:3], channels), -1, 0))
    assert np.array_equal(volume.values, by_nibabel(tmp_path / "a.nii")[0])


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 1, 1)])
def test_a_slice_is_a_volume_of_depth_one(shape):
    volume = read_volume_file(nifti(ramp(shape, "i2")))

    assert volume.values.shape == (1, 5, 6, 1)
    assert np.array_equal(volume.values.reshape(shape), ramp(shape, "i2"))


def test_what_is_no_single_image_of_real_numbers_is_refused():
    shapes = {(2, 2, 2, 17): "17 channels", (2, 2, 2, 2, 2): "axes", (2, 2, 2, 1, 1, 2): "axes", (9,): "one axis"}
    rows = [(nifti(ramp(shape, "i2")), word) for shape, word in shapes.items()]
    for dtype in (np.complex64, np.complex128, [("R", "u1"), ("G", "u1"), ("B", "u1")]):
        rows.append((nifti(np.zeros(SHAPE, dtype)), "send integers or floating point"))
    # Without the magic number it is taken for half of an Analyze pair.
    rows.append((nifti(magic=b"n+3"), "without its image"))

    assert wrongly_refused(rows, read_volume_file, UnsuitableImage) == []


FAULTS = {
    "length": {"sizeof_hdr": 349},
    "no axes": {"dim": [0, 5, 6, 7, 1, 1, 1, 1]},
    "eight axes": {"dim": [8, 5, 6, 7, 1, 1, 1, 1]},
    "negative size": {"dim": [3, 5, -6, 7, 1, 1, 1, 1]},
    "size 0": {"dim": [3, 5, 0, 7, 1, 1, 1, 1]},
    "fourth size 0": {"dim": [4, 5, 6, 7, 0, 1, 1, 1]},
    "datatype": {"datatype": 5},
    "bitpix": {"bitpix": 8},
    "offset in the header": {"vox_offset": 348},
    "offset 0": {"vox_offset": 0},
    "offset beyond": {"vox_offset": 1e6},
    "offset far beyond": {"vox_offset": 1e30},
    "offset nan": {"vox_offset": np.nan},
    "offset not whole": {"vox_offset": 352.5},
    "intercept": {"scl_slope": 2, "scl_inter": np.inf},
    "larger than the data": {"dim": [3, 5, 6, 8, 1, 1, 1, 1]},
    "sform nan": {"srow_x": [np.nan, 0, 0, 0]},
    "sform inf": {"srow_y": [0, 0, 0, np.inf]},
    "sform singular": {"srow_x": [0, 0, 0, 0]},
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["nii", "nii.gz"])
def test_a_header_that_makes_no_sense_is_refused(pack):
    assert not_refused(FAULTS, lambda fields: read_volume_file(pack(nifti(**fields))), UndecodableImage) == []


@pytest.mark.parametrize("version", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("size", [1 << 9, 1 << 14])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["nii", "nii.gz"])
def test_a_header_that_promises_terabytes_allocates_nothing(version, size, pack):
    body = pack(nifti(version=version, dim=[3, size, size, size, 1, 1, 1, 1]))
    with pytest.raises((UndecodableImage, PayloadTooLarge)):  # the imports are done
        read_volume_file(body)
    with allocating_less_than(1 << 20), pytest.raises((UndecodableImage, PayloadTooLarge)):
        read_volume_file(body)


def test_nifti_2_with_sizes_of_64_bits_does_not_overflow():
    for size in (1 << 40, (1 << 62) + 1, -(1 << 62)):
        with pytest.raises((UndecodableImage, PayloadTooLarge)):
            read_volume_file(nifti(version=nibabel.Nifti2Image, dim=[3, size, size, size, 1, 1, 1, 1]))


# --- geometry --------------------------------------------------------------------------------------------------------


def test_the_sform_counts_where_the_qform_says_otherwise(tmp_path):
    other = oblique(spacing=(1, 2, 3), origin=(1, 2, 3))
    image = nibabel.Nifti1Image(ramp(SHAPE, "i2"), None)
    image.set_sform(oblique(), 1)
    image.set_qform(other, 1)
    body = image.to_bytes()

    assert np.allclose(read_volume_file(body).affine, oblique(), atol=1e-5)
    assert np.allclose(read_volume_file(patched(body, sform_code=0)).affine, other, atol=1e-5)


def test_without_codes_there_is_no_geometry_but_the_grid():
    body = with_pixdim(nifti(sform_code=0, qform_code=0), _1=2, _2=-3, _3=np.nan)
    volume = read_volume_file(body)

    assert not volume.has_geometry
    assert np.array_equal(volume.affine, np.diag([2.0, 3.0, 1.0, 1.0]))


@pytest.mark.parametrize("qfac", [-1, 0, 1, 7])
def test_the_qform_turns_the_third_axis_only_for_qfac_minus_one(qfac):
    quarter = {"quatern_b": 0, "quatern_c": 0, "quatern_d": np.sqrt(0.5)}  # 90 degrees about z: x to y, y to -x
    places = {"qoffset_x": 1, "qoffset_y": 2, "qoffset_z": 3}
    body = with_pixdim(nifti(sform_code=0, qform_code=1, **quarter, **places), _0=qfac, _1=2, _2=3, _3=4)
    third = -4 if qfac == -1 else 4

    expected = [[0, -3, 0, 1], [2, 0, 0, 2], [0, 0, third, 3], [0, 0, 0, 1]]
    assert np.allclose(read_volume_file(body).affine, expected, atol=1e-5)


def two_transforms(sform=None, qform=None, shape=SHAPE, pixdim=None):
    """A file that claims both; `sform` as rows, `qform` as an affine."""
    image = nibabel.Nifti1Image(ramp(shape, "i2"), None)
    image.set_qform(oblique() if qform is None else qform, 1)
    image.set_sform(oblique() if sform is None else sform, 1)
    body = image.to_bytes()
    return body if pixdim is None else with_pixdim(body, **pixdim)


def codes_of(body):
    return [each.code for each in read_volume_file(body).remarks]


@pytest.mark.parametrize(
    "rows",
    [np.zeros((4, 4)), np.diag([1.0, 0, 1, 1]), np.full((4, 4), np.nan), np.ones((4, 4)), np.diag([1e30, 1, 1, 1])],
    ids=["zeros", "a row of zeros", "not finite", "one plane", "beyond reason"],
)
def test_a_useless_sform_gives_way_to_a_sound_qform_and_is_named(rows):
    body = two_transforms()
    body = patched(body, **{f"srow_{axis}": rows[place] for place, axis in enumerate("xyz")})

    volume = read_volume_file(body)

    assert np.allclose(volume.affine, oblique(), atol=1e-5)
    [remark] = volume.remarks
    assert (remark.code, "sform" in remark.message, "qform" in remark.message) == ("useless_transform", True, True)
    with pytest.raises(UndecodableImage, match="sform"):
        read_volume_file(patched(body, qform_code=0))
    with pytest.raises(UndecodableImage, match="sform"):
        read_volume_file(patched(body, quatern_b=np.nan))
    assert codes_of(patched(body, sform_code=0)) == []


def test_a_useless_qform_beside_a_sound_sform_is_named():
    body = patched(two_transforms(), quatern_b=np.nan)

    assert np.allclose(read_volume_file(body).affine, oblique(), atol=1e-5)
    assert codes_of(body) == ["useless_transform"]


def test_transforms_that_contradict_each_other_are_shown_both():
    shifted = oblique()
    shifted[0, 3] += 40

    [remark] = read_volume_file(two_transforms(qform=shifted)).remarks

    assert remark.code == "contradicting_transforms"
    assert f"{oblique()[0, 3]:.4g}" in remark.message
    assert f"{shifted[0, 3]:.4g}" in remark.message
    nearly = oblique()
    nearly[0, 3] += 1e-3
    assert codes_of(two_transforms()) == codes_of(two_transforms(qform=nearly)) == []


def test_a_spacing_that_contradicts_the_directions_is_shown():
    body = patched(two_transforms(sform=np.diag([2.0, 2, 3, 1]), qform=np.diag([2.0, 2, 3, 1])), qform_code=0)

    assert codes_of(body) == []
    [remark] = read_volume_file(with_pixdim(body, _3=1.5)).remarks
    assert remark.code == "contradicting_spacing"
    assert "2 x 2 x 3" in remark.message
    assert "2 x 2 x 1.5" in remark.message
    assert codes_of(with_pixdim(body, _3=0)) == []  # which says nothing


def test_axes_that_may_stand_in_another_order_are_asked_about_and_others_are_not():
    unclear = [(1, 32, 32, 12), (1, 32, 32, 24), (1, 8, 8, 2), (4, 64, 64, 24), (3, 32, 32, 8), (32, 32, 1, 14),
               (32, 32, 1, 40)]  # fmt: skip
    for shape in [(32, 32, 12, 3), (32, 32, 1, 3), (12, 32, 32, 4), (1, 32, 32), (1, 32, 32, 1), (6, 6, 6, 16)]:
        assert read_volume_file(nifti(ramp(shape, "i2"))).values.shape[1:] == shape[:3]

    def read(shape):
        read_volume_file(nifti(ramp(shape, "i2")))

    assert not_refused(unclear, read, UnsuitableImage, "order of the file's axes is unclear") == []


def test_a_unit_of_time_tells_that_the_fourth_axis_is_time():
    body = nifti(ramp((32, 32, 1, 14), "i2"), xyzt_units=2 | 8)

    assert read_volume_file(body).values.shape == (14, 32, 32, 1)


def test_a_qform_that_makes_no_sense_is_refused():
    cases = [{"quatern_b": np.nan}, {"quatern_b": 2}, {"quatern_c": np.inf}, {"qoffset_x": np.nan}]

    def read(fields):
        read_volume_file(nifti(sform_code=0, qform_code=1, **fields))

    assert not_refused(cases, read, UndecodableImage) == []


@pytest.mark.parametrize("size", [0, np.nan, np.inf, 1e30])
def test_a_spacing_that_makes_no_sense_is_refused_where_geometry_is_claimed(size):
    body = nifti(sform_code=0, qform_code=1)

    with pytest.raises(UndecodableImage):
        read_volume_file(with_pixdim(body, _2=size))
    assert read_volume_file(with_pixdim(patched(body, qform_code=0), _2=size)).affine[1, 1] == 1


def test_a_slice_without_thickness_gets_the_normal_of_its_plane():
    affine = oblique()
    affine[:3, 2] = 0
    flat = nifti(ramp((5, 6, 1), "i2"), sform_code=1, **{f"srow_{name}": affine[i] for i, name in enumerate("xyz")})
    by_qform = with_pixdim(nifti(ramp((5, 6, 1), "i2"), sform_code=0, qform_code=1), _3=0)

    normal = oblique(spacing=(1, 1, 1))[:3, 2]
    assert np.allclose(read_volume_file(flat).affine[:3, 2], normal, atol=1e-5)
    assert np.allclose(read_volume_file(by_qform).affine[:3, 2], normal, atol=1e-5)


@pytest.mark.parametrize("codes", [{}, {"sform_code": 0, "qform_code": 1}, {"sform_code": 0, "qform_code": 0}])
def test_units_of_length_become_millimetres(codes):
    plain = read_volume_file(nifti(**codes)).affine
    for unit, scale in [(0, 1), (1, 1000), (2, 1), (3, 0.001), (10, 1), (11, 0.001), (5, 1)]:
        scaled = read_volume_file(nifti(xyzt_units=unit, **codes)).affine
        assert np.allclose(scaled[:3], plain[:3] * scale), unit
        assert np.array_equal(scaled[3], [0, 0, 0, 1]), unit


# --- gzip ------------------------------------------------------------------------------------------------------------


def test_several_members_padding_and_rubbish_after_the_end_change_nothing():
    body, expected = nifti(), read_volume_file(nifti()).values
    split = b"".join(gzip.compress(body[start : start + 100]) for start in range(0, len(body), 100))

    for packed in (split, gzip.compress(body) + bytes(600), split + b"rubbish", split + bytes(5) + b"\x1frubbish"):
        assert np.array_equal(read_volume_file(packed).values, expected)
    assert np.array_equal(read_volume_file(body + b"rubbish").values, expected)


def test_pieces_that_end_within_a_value_lose_nothing(monkeypatch):
    monkeypatch.setattr(inflate, "PIECE_BYTES", 13)
    monkeypatch.setattr(inflate, "_INPUT_BYTES", 7)
    body = nifti(ramp(SHAPE, "f8"))

    for packed in (body, gzip.compress(body)):
        assert np.array_equal(read_volume_file(packed).values[0], ramp(SHAPE, "f8"))


def test_a_file_that_is_cut_off_damaged_or_packed_twice_is_refused():
    cut = [body[:-count] for count in (1, 8, 9, 100, 400) for body in (nifti(), gzip.compress(nifti()))]
    wrong_sum = bytearray(gzip.compress(nifti()))
    wrong_sum[-6] ^= 1

    rows = [*((body, "") for body in cut), (bytes(wrong_sum), "damaged"), (gzip.compress(gzip.compress(nifti())), "")]
    assert wrongly_refused(rows, read_volume_file, UndecodableImage) == []


def zeros_packed(count):
    deflater = zlib.compressobj(9, wbits=31)
    return b"".join([deflater.compress(bytes(1 << 20)) for _ in range(count >> 20)] + [deflater.flush()])


def test_a_bomb_is_refused_before_it_goes_off(monkeypatch):
    monkeypatch.setattr(inflate, "FREE_BYTES", 8 << 20)
    header = nifti(dim=[3, 256, 256, 128, 1, 1, 1, 1])[:352]
    packed = gzip.compress(header) + zeros_packed(16 << 20)

    with pytest.raises(PayloadTooLarge, match="unpacks to more"):
        read_volume_file(packed)


def test_a_bomb_behind_a_small_image_is_refused_without_unpacking_it():
    packed = gzip.compress(nifti()) + zeros_packed(16 << 20)
    with allocating_less_than(4 << 20), pytest.raises(UndecodableImage, match="much more than its header says"):
        read_volume_file(packed)


def test_many_empty_members_are_refused_soon():
    with pytest.raises(PayloadTooLarge):
        read_volume_file(gzip.compress(nifti()) + gzip.compress(b"") * 5000)


# --- pairs -----------------------------------------------------------------------------------------------------------


def test_half_a_pair_says_which_half_is_missing(tmp_path):
    nibabel.save(nibabel.Nifti1Pair(ramp(SHAPE, "i2"), oblique()), tmp_path / "a.img")
    header = (tmp_path / "a.hdr").read_bytes()
    (tmp_path / "b.hdr").write_bytes(header)
    (tmp_path / "c.img").write_bytes((tmp_path / "a.img").read_bytes())

    with pytest.raises(UndecodableImage, match=r"image \(.img\) of this header"):
        read_volume_file(tmp_path / "b.hdr")
    with pytest.raises(UndecodableImage, match=r"header \(.hdr\) of this image"):
        read_volume_file(tmp_path / "c.img")
    with pytest.raises(UnsuitableImage, match="without its image"):
        read_volume_file(header)


def test_analyze_has_values_and_spacing_but_no_place(tmp_path):
    values = ramp(SHAPE, "i2")
    image = nibabel.AnalyzeImage(values, np.diag([-2.0, 3.0, 4.0, 1.0]))
    nibabel.save(image, tmp_path / "a.img")
    for name in ("a.img", "a.hdr"):
        volume = read_volume_file(tmp_path / name)

        assert not volume.has_geometry
        assert np.array_equal(volume.affine, np.diag([2.0, 3.0, 4.0, 1.0]))
        assert np.array_equal(volume.values[0], values)
        assert np.array_equal(volume.values, by_nibabel(tmp_path / name)[0])
        assert np.array_equal(volume.values, by_simpleitk(tmp_path / name)[0])
    with pytest.raises(UnsuitableImage, match="without its image"):
        read_volume_file((tmp_path / "a.hdr").read_bytes())


@pytest.mark.parametrize("order", "<>")
def test_analyze_of_every_type_with_spms_scale_is_as_nibabel_has_it(tmp_path, order):
    for dtype in ("u1", "i2", "i4", "f4", "f8"):
        header = nibabel.Spm2AnalyzeImage.header_class(endianness=order)
        header.set_data_dtype(np.dtype(dtype).newbyteorder(order))
        image = nibabel.Spm2AnalyzeImage(ramp(SHAPE, dtype), np.eye(4), header)
        image.header.set_slope_inter(0.25, 0)
        nibabel.save(image, tmp_path / "a.img")

        assert np.array_equal(read_volume_file(tmp_path / "a.hdr").values, by_nibabel(tmp_path / "a.img")[0]), dtype


# --- real files ------------------------------------------------------------------------------------------------------

ODD = {
    "anatomical.nii": ("read", (1, 33, 41, 25)),
    "example4d.nii.gz": ("read", (2, 128, 96, 24)),
    "functional.nii": ("UnsuitableImage", ()),
    "hippocampus_118_image_without_label.nii.gz": ("read", (1, 37, 52, 33)),
    "nifti1.hdr": ("UndecodableImage", ()),
    "standard.nii.gz": ("read", (1, 4, 5, 7)),
}


@pytest.mark.skipif(not ODD_NIFTI.is_dir(), reason="needs the shared data")
@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_as_two_other_readers_have_them_or_refused(name):
    row = read_odd_nifti(ODD_NIFTI / name)

    assert (row.code or row.outcome, row.shape) == ODD[name]
    assert row.compared_with == (("nibabel", "SimpleITK") if row.outcome == "read" else ())


@pytest.mark.skipif(not HIPPOCAMPUS.is_dir(), reason="needs the shared data")
def test_real_volumes_and_labels_are_as_two_other_readers_have_them():
    paths = sorted(HIPPOCAMPUS.glob("*Tr/*.nii.gz"))[::12]

    assert len(paths) > 20
    assert {read_odd_nifti(path).outcome for path in paths} == {"read"}
