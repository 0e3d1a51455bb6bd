import bz2
import gzip
import itertools
import os

import nrrd
import numpy as np
import pytest

from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.formats import inflate
from sagemaker_monai.images.volume_files import read_volume_file
from tests.support.odd_volumes import DTYPES, by_simpleitk, oblique, ramp, write_simpleitk
from tests.support.refusals import not_refused, wrongly_refused

SHAPE = (5, 6, 7)
TEXT = """NRRD0004
# made by hand
type: int16
dimension: 3
space: left-posterior-superior
sizes: 2 2 1
space directions: (2,0,0) (0,3,0) (0,0,4)
kinds: domain domain domain
endian: little
encoding: raw
space origin: (10,20,30)

"""
VALUES = np.array([[[1], [3]], [[2], [-4]]], "<i2")  # (W, H, D)
DATA = VALUES.tobytes(order="F")


def by_hand(data=DATA, **fields):
    """TEXT with fields replaced, added, or left out when None; `_` in a name stands for a blank."""
    lines = TEXT.strip().splitlines()
    for name, value in fields.items():
        name = name.replace("_", " ")
        places = [index for index, line in enumerate(lines) if line.startswith(f"{name}:")]
        lines[slice(places[0], places[0] + 1) if places else slice(len(lines), None)] = (
            [] if value is None else [f"{name}: {value}"]
        )
    return ("\n".join(lines) + "\n\n").encode() + data


def test_a_file_written_by_hand_is_read_as_the_standard_says():
    volume = read_volume_file(by_hand())

    assert np.array_equal(volume.values[0], VALUES)
    assert volume.values.dtype == np.float32
    assert volume.has_geometry
    assert np.array_equal(volume.affine, [[-2, 0, 0, -10], [0, -3, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("spaces", "signs"),
    [
        (("right-anterior-superior", "RAS"), (1, 1, 1)),
        (("left-anterior-superior", "LAS"), (-1, 1, 1)),
        (("Left-Posterior-Superior", "LPS"), (-1, -1, 1)),
    ],
)
def test_every_space_of_a_patient_becomes_ras(tmp_path, spaces, signs):
    expected = np.diag([*signs, 1]) @ [[2, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]]
    for space in spaces:
        (tmp_path / "a.nrrd").write_bytes(by_hand(space=space))
        assert np.array_equal(read_volume_file(tmp_path / "a.nrrd").affine, expected)
        assert np.allclose(by_simpleitk(tmp_path / "a.nrrd")[1], expected)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
def test_every_type_and_encoding_is_as_two_other_readers_have_it(tmp_path, encoding):
    affine = oblique()
    header = {"space": "RAS", "space directions": affine[:3, :3].T, "space origin": affine[:3, 3]}
    header |= {"encoding": encoding, "kinds": ["domain"] * 3}
    for dtype, order in itertools.product(DTYPES, ("little", "big")):
        values = ramp(SHAPE, dtype)
        written = values.astype(np.dtype(dtype).newbyteorder(order))
        nrrd.write(str(tmp_path / "a.nrrd"), written, header | {"endian": order})
        volume = read_volume_file(tmp_path / "a.nrrd")

        assert np.array_equal(volume.values[0], values), (dtype, order)
        assert np.array_equal(volume.values[0], nrrd.read(str(tmp_path / "a.nrrd"))[0].astype(np.float32))
        assert np.allclose(volume.affine, affine)
        if encoding != "bzip2":  # ITK has none
            expected, itk_affine = by_simpleitk(tmp_path / "a.nrrd")
            assert np.array_equal(volume.values, expected), (dtype, order)
            assert np.allclose(volume.affine, itk_affine, atol=1e-6)


@pytest.mark.parametrize("compress", [False, True])
def test_what_simpleitk_writes_comes_back(tmp_path, compress):
    write_simpleitk(tmp_path / "a.nrrd", ramp(SHAPE, "i2"), oblique(), compress=compress)
    write_simpleitk(tmp_path / "b.nrrd", ramp((3, *SHAPE), "f4"), oblique(), compress=compress, is_vector=True)
    write_simpleitk(tmp_path / "c.nhdr", ramp(SHAPE, "i2"), oblique(), compress=compress)
    single, several = read_volume_file(tmp_path / "a.nrrd"), read_volume_file(tmp_path / "b.nrrd")

    assert np.array_equal(single.values[0], ramp(SHAPE, "i2"))
    assert np.array_equal(several.values, ramp((3, *SHAPE), "f4"))
    assert np.allclose(single.affine, oblique())
    assert np.allclose(several.affine, oblique())
    assert np.array_equal(read_volume_file(tmp_path / "c.nhdr").values, single.values)


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize(
    "marks",
    [
        {"space_directions": "none (2,0,0) (0,3,0) (0,0,4)", "kinds": "list domain domain domain"},
        {"space_directions": None, "space_origin": None, "space": None, "kinds": "vector space space space"},
        {"space_directions": None, "space_origin": None, "space": None, "kinds": None, "spacings": "nan 2 3 4"},
        {"space_directions": None, "space_origin": None, "space": None, "kinds": "??? ??? ??? ???"}
        | {"spacings": "NaN 2 3 4"},
    ],
)
def test_a_channel_axis_may_come_first_or_last(marks, first):
    def turned(text):
        return text if first or text is None else " ".join([*text.split()[1:], text.split()[0]])

    values = ramp((3, 2, 4, 5), "<i2")
    stored = values if first else np.moveaxis(values, 0, -1)
    fields = {name: turned(text) for name, text in marks.items()}
    sizes = " ".join(map(str, stored.shape))
    volume = read_volume_file(by_hand(stored.tobytes(order="F"), dimension=4, sizes=sizes, **fields))

    assert np.array_equal(volume.values, values)
    assert volume.has_geometry == ("none" in str(fields["space_directions"]))


def test_without_a_patients_space_there_is_only_a_grid():
    scanner = read_volume_file(by_hand(space="scanner-xyz"))
    spacings = read_volume_file(by_hand(space=None, space_directions=None, space_origin=None, spacings="2 0 -4"))
    flat = by_hand(dimension=2, sizes="2 2", space=None, space_dimension=2, kinds=None)
    flat = flat.replace(b"(2,0,0) (0,3,0) (0,0,4)", b"(3,4) (0,2)").replace(b"(10,20,30)", b"(1,2)")
    plane = read_volume_file(flat)

    assert not scanner.has_geometry
    assert np.array_equal(scanner.affine, np.diag([2, 3, 4, 1]))
    assert not spacings.has_geometry
    assert np.array_equal(spacings.affine, np.diag([2, 1, 4, 1]))
    assert not plane.has_geometry
    assert np.array_equal(plane.affine, np.diag([5, 2, 1, 1]))
    assert plane.values.shape == (1, 2, 2, 1)


def test_a_slice_in_the_patient_has_its_normal_for_third_axis():
    volume = read_volume_file(by_hand(dimension=2, sizes="2 2", space_directions="(2,0,0) (0,0,3)", kinds=None))

    assert volume.values.shape == (1, 2, 2, 1)
    assert np.allclose(volume.affine, [[-2, 0, 0, -10], [0, 0, 1, -20], [0, 3, 0, 30], [0, 0, 0, 1]])


def test_units_of_length_become_millimetres():
    for unit, scale in (("mm", 1), ("cm", 10), ("m", 1000), ("um", 0.001), ("microns", 0.001)):
        volume = read_volume_file(by_hand(space_units=f'"{unit}" "{unit}" "{unit}"'))
        assert np.allclose(volume.affine[:3], read_volume_file(by_hand()).affine[:3] * scale), unit


FAULTS = {
    "type": {"type": "int17"},
    "no type": {"type": None},
    "dimension": {"dimension": "3.0"},
    "dimension 0": {"dimension": 0},
    "dimension 17": {"dimension": 17},
    "fewer sizes": {"sizes": "2 2"},
    "size 0": {"sizes": "2 0 1"},
    "negative size": {"sizes": "2 -2 1"},
    "no number": {"sizes": "2 two 1"},
    "too few values": {"sizes": "2 2 2"},
    "no endian": {"endian": None},
    "odd endian": {"endian": "middle"},
    "fewer kinds": {"kinds": "domain domain"},
    "fewer directions": {"space_directions": "(2,0,0) (0,3,0)"},
    "more directions": {"space_directions": "(2,0,0) (0,3,0) (0,0,4) none", "kinds": None},
    "origin empty": {"space_origin": "()"},
    "directions of two lengths": {"space_directions": "(2,0,0) (0,3,0) (0,4)"},
    "no vector": {"space_directions": "(2,0,0) (0,3,0) 0,0,4"},
    "no numbers": {"space_directions": "(2,0,0) (0,3,0) (0,0,x)"},
    "nan": {"space_directions": "(2,0,0) (0,3,0) (0,0,nan)"},
    "inf": {"space_directions": "(2,0,0) (0,3,0) (0,0,inf)"},
    "overflow": {"space_directions": "(2,0,0) (0,3,0) (0,0,1e999)"},
    "zero": {"space_directions": "(2,0,0) (0,0,0) (0,0,4)"},
    "one plane": {"space_directions": "(2,0,0) (4,0,0) (0,0,4)"},
    "origin nan": {"space_origin": "(nan,0,0)"},
    "origin of two": {"space_origin": "(0,0)"},
    "origin none": {"space_origin": "10 20 30"},
    "units": {"space_units": '"mm" "mm" "m"'},
    "spacings": {"space_directions": None, "space": None, "spacings": "1 2"},
}


def test_a_header_that_makes_no_sense_is_refused():
    assert not_refused(FAULTS, lambda fields: read_volume_file(by_hand(**fields)), UndecodableImage) == []


def test_what_is_no_image_of_numbers_is_refused():
    four = {"dimension": 4, "sizes": "17 2 1 1", "kinds": None}
    unknown = {"space_directions": None, "space_origin": None, "space": None}
    rows = [
        ({"type": "block"}, ""),
        ({"encoding": "hex"}, ""),
        ({"encoding": None}, ""),
        ({"kinds": "complex domain domain", "space_directions": None, "space": None}, ""),
        ({"dimension": 3, "space_directions": "none none (1,0,0)", "kinds": None}, ""),
        ({"space": "LPST", "space_directions": "(2,0,0,0) (0,3,0,0) (0,0,4,0)", "space_origin": None}, ""),
        ({**four, "space_directions": "none (2,0,0) (0,3,0) (0,0,4)"}, "17 channels"),
        ({**four, **unknown, "sizes": "2 2 1 1"}, "which axis holds channels"),
    ]

    assert wrongly_refused(rows, lambda fields: read_volume_file(by_hand(bytes(68), **fields)), UnsuitableImage) == []


def test_a_repeated_field_or_a_line_without_one_is_refused():
    for line in (b"type: int16", b"nonsense"):
        with pytest.raises(UndecodableImage, match="an invalid line, or a field twice"):
            read_volume_file(by_hand().replace(b"kinds", line + b"\nkinds"))


def test_free_keys_and_windows_line_ends_are_passed_over():
    head, _, data = by_hand().partition(b"\n\n")
    body = (head + b"\nmodality:=DWMRI\nmodality:=twice").replace(b"\n", b"\r\n") + b"\r\n\r\n" + data

    assert np.array_equal(read_volume_file(body).values[0], VALUES)


def test_a_header_without_end_or_with_terabytes_allocates_nothing(monkeypatch):
    with pytest.raises(UndecodableImage):
        read_volume_file(b"NRRD0004\n" + b"a:=b\n" * 400_000)
    for encoding in ("raw", "gzip", "bzip2", "ascii"):
        for sizes in ("90000 90000 90000", "512 512 512"):
            with pytest.raises((UndecodableImage, PayloadTooLarge)):
                read_volume_file(by_hand(sizes=sizes, encoding=encoding))


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress)])
def test_packed_values_are_bounded_and_checked(monkeypatch, encoding, pack):
    packed = pack(DATA)
    assert np.array_equal(read_volume_file(by_hand(packed, encoding=encoding)).values[0], VALUES)
    for data in (packed[:-3], packed[:12], b"", b"rubbish", packed[:-7] + b"rubbish"):
        with pytest.raises(UndecodableImage):
            read_volume_file(by_hand(data, encoding=encoding))
    monkeypatch.setattr(inflate, "FREE_BYTES", 1 << 20)
    bomb = pack(bytes(8 << 20))
    with pytest.raises(PayloadTooLarge):
        read_volume_file(by_hand(bomb, encoding=encoding, sizes="256 256 64"))
    monkeypatch.setattr(inflate, "FREE_BYTES", 16 << 20)
    with pytest.raises(UndecodableImage, match="much more"):
        read_volume_file(by_hand(bomb, encoding=encoding))


def test_text_that_is_not_the_numbers_is_refused():
    texts = [b"1 2 3", b"1 2 3 4 5", b"", *(b"1 2 3 " + last for last in (b"x", b"40000", b"nan", b"4.5", b"4" * 600))]

    def read(text):
        read_volume_file(by_hand(text, encoding="ascii", endian=None))

    assert not_refused(texts, read, UndecodableImage) == []


def test_text_may_have_any_white_space(monkeypatch):
    monkeypatch.setattr(inflate, "PIECE_BYTES", 3)
    for text in (b"1 2\n3\t-4", b"  1\r\n2 3 -4\n\n"):
        assert np.array_equal(read_volume_file(by_hand(text, encoding="ascii", endian=None)).values[0], VALUES)


# --- detached --------------------------------------------------------------------------------------------------------


def write_detached(folder, name="a.raw", content=DATA, **fields):
    (folder / name).write_bytes(content)
    (folder / "a.nhdr").write_bytes(by_hand(b"", data_file=name, **fields))
    return folder / "a.nhdr"


def test_values_may_lie_in_a_file_of_the_same_folder(tmp_path):
    path = write_detached(tmp_path)

    assert np.array_equal(read_volume_file(path).values[0], VALUES)
    assert np.array_equal(read_volume_file(path).values, by_simpleitk(path)[0])
    with pytest.raises(UnsuitableImage, match="send one file that holds both"):
        read_volume_file(path.read_bytes())


@pytest.mark.parametrize(
    ("before", "fields"),
    [
        (b"one\ntwo\n", {"line_skip": 2}),
        (b"12345", {"byte_skip": 5}),
        (b"one\n12345", {"line_skip": 1, "byte_skip": 5}),
        (b"whatever", {"byte_skip": -1}),
    ],
)
def test_lines_and_bytes_before_the_values_are_skipped(tmp_path, before, fields):
    path = write_detached(tmp_path, content=before + DATA, **fields)

    assert np.array_equal(read_volume_file(path).values[0], VALUES)
    assert np.array_equal(nrrd.read(str(path))[0], VALUES)


def test_bytes_are_skipped_after_unpacking(tmp_path):
    path = write_detached(tmp_path, "a.raw.gz", gzip.compress(b"12345" + DATA), encoding="gzip", byte_skip=5)

    assert np.array_equal(read_volume_file(path).values[0], VALUES)
    assert np.array_equal(by_simpleitk(path)[0][0], VALUES)


def test_a_list_of_files_holds_one_slice_each(tmp_path):
    slices = ramp((2, 2, 3), "<i2")
    for index in range(3):
        (tmp_path / f"{index}.raw").write_bytes(slices[:, :, index].tobytes(order="F"))
    fields = {"sizes": "2 2 3", "space_directions": "(2,0,0) (0,3,0) (0,0,4)"}
    listed = by_hand(b"", **fields).rstrip() + b"\ndata file: LIST\n2.raw\n0.raw\n1.raw\n"
    (tmp_path / "a.nhdr").write_bytes(listed)

    assert np.array_equal(read_volume_file(tmp_path / "a.nhdr").values[0], slices[:, :, [2, 0, 1]])
    assert np.array_equal(by_simpleitk(tmp_path / "a.nhdr")[0][0], slices[:, :, [2, 0, 1]])
    (tmp_path / "a.nhdr").write_bytes(listed.replace(b"\n1.raw\n", b"\n"))
    with pytest.raises(UndecodableImage, match="number of data files"):
        read_volume_file(tmp_path / "a.nhdr")


def test_no_file_outside_the_folder_is_opened(tmp_path):
    (tmp_path / "secret.raw").write_bytes(DATA)
    folder = tmp_path / "inner"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "secret.raw").write_bytes(DATA)
    paths = ["../secret.raw", "/etc/passwd", "sub/secret.raw", "..", ".", "https://example.org/a.raw", "C:\\a.raw"]

    def read(name):
        (folder / "a.nhdr").write_bytes(by_hand(b"", data_file=name))
        read_volume_file(folder / "a.nhdr")

    assert not_refused(paths, read, UnsuitableImage, "^the header names a data file outside its folder;") == []
    assert not_refused(["%03d.raw 0 1 1"], read, UnsuitableImage, "^the NRRD header names its files by a pattern") == []


def test_neither_links_that_lead_out_nor_pipes_nor_folders_are_opened(tmp_path):
    (tmp_path / "secret.raw").write_bytes(DATA)
    folder = tmp_path / "inner"
    (folder / "sub").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "secret.raw")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe")

    for name in ("link", "loop", "pipe", "sub", "missing", "x" * 300):
        (folder / "a.nhdr").write_bytes(by_hand(b"", data_file=name))
        with pytest.raises(UndecodableImage, match="missing in its folder"):
            read_volume_file(folder / "a.nhdr")


def test_spacings_that_contradict_the_directions_are_shown():
    same, other = (read_volume_file(by_hand(spacings=spacings)) for spacings in ("2 3 4", "2 1 4"))

    assert same.remarks == ()
    [remark] = other.remarks
    assert remark.code == "contradicting_spacing"
    assert "2 x 3 x 4" in remark.message
    assert "2 x 1 x 4" in remark.message
    assert np.array_equal(other.affine, same.affine)
