"""RT structure sets, written by hand over made series."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from sagemaker_monai.budget import Budget, spending
from sagemaker_monai.errors import CallerError, PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.dicom.pixels import read_frames
from sagemaker_monai.masks import rtstruct
from sagemaker_monai.masks.mask import Grid
from sagemaker_monai.masks.read_mask import read_mask
from sagemaker_monai.messages.remarks import REMARKS
from tests.masks.test_contours import SIZE, expected
from tests.support.dicom_series import ORIENTATIONS, to_bytes
from tests.support.odd_volumes import LPS
from tests.support.segmentations import grid_of, series, written

SHAPE = (5, SIZE[1], SIZE[0])  # slices, rows, columns
FILES = series(shape=SHAPE)
GRID = grid_of(FILES)
SQUARE = [(1.5, 1.5), (5.5, 1.5), (5.5, 4.5), (1.5, 4.5)]
OUTLINE = [(0.5, 0.6), (7.4, 0.7), (7.3, 6.4), (3.1, 6.7), (0.6, 5.2)]
HOLE = [(2.6, 2.4), (4.6, 2.3), (4.4, 4.4)]


def in_mm(voxels, index, grid=GRID):
    """Points (w, h) of a slice in LPS mm."""
    points = np.array([[*point, index, 1] for point in voxels])
    return (LPS @ grid.affine @ points.T)[:3].T


def contour(points_mm, kind="CLOSED_PLANAR", uid=None, **elements):
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points_mm)
    item.ContourData = [f"{number:.6g}" for number in np.ravel(points_mm)]
    if uid is not None:
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", uid
        item.ContourImageSequence = [image]
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def structure_set(structures, files=FILES, syntax=ExplicitVRLittleEndian):
    """From names and contours."""
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = RTStructureSetStorage, generate_uid()
    header.Modality, header.PatientID, header.PatientName = "RTSTRUCT", "P1", "Test^Test"
    header.StudyInstanceUID, header.SeriesInstanceUID = files[0].StudyInstanceUID, generate_uid()
    frame, study, of_series = Dataset(), Dataset(), Dataset()
    of_series.SeriesInstanceUID = files[0].SeriesInstanceUID
    images = []
    for file in files:
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = file.SOPClassUID, file.SOPInstanceUID
        images.append(image)
    of_series.ContourImageSequence = images
    study.RTReferencedSeriesSequence = [of_series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = files[0].FrameOfReferenceUID, [study]
    header.ReferencedFrameOfReferenceSequence = [frame]
    rois, drawn = [], []
    for number, (name, contours) in enumerate(structures, start=7):
        roi, of_roi = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, files[0].FrameOfReferenceUID
        of_roi.ReferencedROINumber, of_roi.ContourSequence = number, contours
        rois.append(roi)
        drawn.append(of_roi)
    header.StructureSetROISequence, header.ROIContourSequence = rois, drawn
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    return header


def read(tmp_path, *contours, grid=GRID, **options):
    return read_mask(written(tmp_path / "a", structure_set([("liver", list(contours))])), grid, **options)


def volume(**planes):
    """Values of slices by `s` and their number, 0 elsewhere."""
    values = np.zeros(GRID.shape, np.uint16)
    for name, plane in planes.items():
        values[..., int(name[1:])] = plane
    return values


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_contours_of_any_orientation_are_filled_with_their_holes(tmp_path, orientation):
    files = series(ORIENTATIONS[orientation], shape=SHAPE)
    grid = grid_of(files)
    liver = [
        contour(in_mm(points, index, grid), uid=files[index].SOPInstanceUID)
        for index, points in ((1, HOLE), (1, OUTLINE), (2, OUTLINE))
    ]
    spleen = [contour(in_mm(SQUARE, 4, grid))]
    path = written(tmp_path / "a", structure_set([("liver", liver), ("spleen", spleen)], files))

    mask = read_mask(path, grid)

    assert np.array_equal(
        mask.values, volume(s1=expected(OUTLINE, HOLE), s2=expected(OUTLINE), s4=2 * expected(SQUARE))
    )
    assert mask.names == {1: "liver", 2: "spleen"}
    assert mask.findings == ()


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(points=st.lists(st.tuples(st.integers(-1, 8), st.integers(-1, 7)), min_size=3, max_size=8, unique=True))
def test_a_contour_is_where_it_was_drawn(tmp_path, points):
    points = [(w + 0.29, h + 0.31) for w, h in points]
    highest = np.max(points, axis=0)
    if (highest < -0.5).any():
        with pytest.raises(UnsuitableImage, match="outside the image"):
            read(tmp_path, contour(in_mm(points, 3)))
        return

    mask = read(tmp_path, contour(in_mm(points, 3)))

    assert np.array_equal(mask.values, volume(s3=expected(points)))


def test_a_sheared_grid_has_its_contours(tmp_path):
    affine = GRID.affine.copy()
    affine[:3, 2] += [0.4, 0.7, 0]
    grid = Grid(GRID.shape, affine)

    mask = read(tmp_path, contour(in_mm(OUTLINE, 3, grid)), grid=grid)

    assert np.array_equal(mask.values, volume(s3=expected(OUTLINE)))
    assert mask.findings == ("mask_reference_unproved",)


def test_points_on_centres_are_on_centres_whatever_a_decimal_of_a_millimetre_does(tmp_path):
    corners = [(1, 1), (4, 1), (4, 3), (1, 3)]
    found = np.zeros(SIZE, bool)
    found[1:4, 1:3] = True
    for shift in (0, 1e-4, -1e-4):
        mask = read(tmp_path, contour(in_mm(corners, 2) + shift))
        assert np.array_equal(mask.values, volume(s2=found))


def test_implicit_files_are_read_alike(tmp_path):
    header = structure_set([("liver", [contour(in_mm(OUTLINE, 1))])], syntax=ImplicitVRLittleEndian)

    assert np.array_equal(read_mask(written(tmp_path / "a", header), GRID).values, volume(s1=expected(OUTLINE)))


def test_structures_that_overlap_are_refused_by_name_unless_one_is_wanted(tmp_path):
    sets = [("BODY", [contour(in_mm(OUTLINE, 1))]), ("liver", [contour(in_mm(SQUARE, 1))])]
    path = written(tmp_path / "a", structure_set(sets))

    with pytest.raises(UnsuitableImage, match=rf"BODY and liver \({expected(SQUARE).sum()} voxels\)"):
        read_mask(path, GRID)

    mask = read_mask(path, GRID, wanted=lambda name: name == "liver")
    assert np.array_equal(mask.values, 2 * volume(s1=expected(SQUARE)))
    assert (mask.names, mask.left_out) == ({2: "liver"}, ("BODY",))


def test_a_structure_set_without_structures_is_refused(tmp_path):
    with pytest.raises(UnsuitableImage, match="has no structures"):
        read_mask(written(tmp_path / "a", structure_set([])), GRID)


def test_two_structures_of_one_name_are_refused(tmp_path):
    sets = [("liver", [contour(in_mm(OUTLINE, 1))]), (" liver", [contour(in_mm(OUTLINE, 3))])]

    with pytest.raises(UnsuitableImage, match="several structures are called liver"):
        read_mask(written(tmp_path / "a", structure_set(sets)), GRID)


# --- what is said ----------------------------------------------------------------------------------------------------


def test_points_and_open_lines_are_left_out(tmp_path):
    others = [contour(in_mm(HOLE, 1), kind) for kind in ("OPEN_PLANAR", "OPEN_NONPLANAR")]
    others += [contour(in_mm(HOLE[:1], 1), "POINT"), contour(in_mm(HOLE[:2], 1))]

    mask = read(tmp_path, contour(in_mm(OUTLINE, 1)), *others)

    assert np.array_equal(mask.values, volume(s1=expected(OUTLINE)))
    assert mask.findings == ("contours_passed_over",)


def test_a_contour_that_comes_twice_counts_once(tmp_path):
    again = contour(in_mm([*OUTLINE[2:], *OUTLINE[:2], OUTLINE[2]][::-1], 1))

    mask = read(tmp_path, contour(in_mm(OUTLINE, 1)), again)

    assert np.array_equal(mask.values, volume(s1=expected(OUTLINE)))
    assert mask.findings == ("contours_repeated",)


def test_contours_that_cross_leave_the_image_or_skip_slices_are_said(tmp_path):
    beside = [(5.5, 2.5), (12.5, 2.5), (12.5, 5.5), (5.5, 5.5)]

    mask = read(tmp_path, contour(in_mm(OUTLINE, 1)), contour(in_mm(beside, 1)), contour(in_mm(HOLE, 3)))

    assert np.array_equal(mask.values, volume(s1=expected(OUTLINE, beside), s3=expected(HOLE)))
    assert set(mask.findings) == {"contours_clipped", "contours_cross", "contours_skip_slices"}


def test_a_structure_between_centres_has_no_voxel_and_that_is_said(tmp_path):
    mask = read(tmp_path, contour(in_mm([(2.2, 2.2), (2.8, 2.2), (2.8, 2.8)], 1)))

    assert not mask.values.any()
    assert mask.findings == ("structures_without_voxels",)
    assert mask.names == {1: "liver"}


def test_a_structure_that_is_listed_and_not_drawn_is_said(tmp_path):
    header = structure_set([("liver", [contour(in_mm(SQUARE, 1))]), ("spleen", [])])

    mask = read_mask(written(tmp_path / "a", header), GRID)

    assert mask.names == {1: "liver", 2: "spleen"}
    assert mask.findings == ("structures_without_contours",)
    del header.ROIContourSequence
    with pytest.raises(UndecodableImage, match="ROIContourSequence"):
        read_mask(written(tmp_path / "b", header), GRID)


# --- whose they are, and where ---------------------------------------------------------------------------------------


def test_contours_of_another_image_are_refused(tmp_path):
    drawn = [("liver", [contour(in_mm(OUTLINE, 1), uid=FILES[1].SOPInstanceUID)])]
    path = written(tmp_path / "a", structure_set(drawn))

    with pytest.raises(UnsuitableImage, match="another series"):
        read_mask(path, grid_of(series(shape=SHAPE, SeriesInstanceUID=generate_uid())))
    with pytest.raises(UnsuitableImage, match="other slices of the series"):
        read_mask(path, grid_of(series(shape=SHAPE)))
    with pytest.raises(UnsuitableImage, match="FrameOfReferenceUID"):
        read_mask(path, grid_of(series(shape=SHAPE, FrameOfReferenceUID=generate_uid())))
    with pytest.raises(UnsuitableImage, match="this image has none"):
        read_mask(path, Grid(GRID.shape))


def test_a_structure_in_another_frame_of_reference_is_refused_where_it_is_wanted(tmp_path):
    sets = [("liver", [contour(in_mm(SQUARE, 1))]), ("spleen", [contour(in_mm(SQUARE, 3))])]
    header = structure_set(sets)
    header.StructureSetROISequence[1].ReferencedFrameOfReferenceUID = generate_uid()
    path = written(tmp_path / "a", header)

    with pytest.raises(UnsuitableImage, match="spleen has another FrameOfReferenceUID"):
        read_mask(path, GRID)
    assert read_mask(path, GRID, wanted=lambda name: name == "liver").names == {1: "liver"}


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (in_mm(SQUARE, 1.5), "up to 1.25 mm"),
        (in_mm(SQUARE, 5), "beyond the image's slices"),
        (in_mm(SQUARE, -1), "beyond the image's slices"),
        (np.vstack([in_mm(SQUARE[:3], 1), in_mm(SQUARE[3:], 1.4)]), "in no slice"),
        (in_mm(np.add(SQUARE, 20), 1), "outside the image"),
    ],
)
def test_contours_that_lie_in_no_slice_are_refused(tmp_path, points, words):
    with pytest.raises(UnsuitableImage, match=words):
        read(tmp_path, contour(points))


def test_a_contour_may_lie_a_tenth_of_a_slice_away_and_no_more(tmp_path):
    assert np.array_equal(read(tmp_path, contour(in_mm(SQUARE, 1.08))).values, volume(s1=expected(SQUARE)))
    with pytest.raises(UnsuitableImage, match=r"up to 0\.3 mm"):
        read(tmp_path, contour(in_mm(SQUARE, 1.12)))


def test_a_contour_that_names_another_slice_is_refused(tmp_path):
    with pytest.raises(UnsuitableImage, match="another slice than it names"):
        read(tmp_path, contour(in_mm(SQUARE, 1), uid=FILES[2].SOPInstanceUID))


@pytest.mark.parametrize("number", range(SHAPE[0]))
def test_a_single_slice_has_its_own_contours(tmp_path, number):
    [frame] = read_frames(to_bytes(FILES[number]))

    mask = read(tmp_path, contour(in_mm(SQUARE, 1)), contour(in_mm(OUTLINE, 2)), grid=Grid.of(frame))

    planes = {1: expected(SQUARE), 2: expected(OUTLINE)}
    assert np.array_equal(mask.values, planes.get(number, np.zeros(SIZE)))


# --- broken and hostile ----------------------------------------------------------------------------------------------

MM = [f"{number:.6g}" for number in np.ravel(in_mm(SQUARE, 1))]


@pytest.mark.parametrize(
    "elements",
    [
        {"ContourData": [*MM[:-1], "1e7"]},
        {"ContourData": MM[:-1]},
        {"ContourData": MM[:-3]},
        {"ContourData": []},
        {"NumberOfContourPoints": 5},
        {"ContourGeometricType": "SPLINE"},
        {"ContourGeometricType": ""},
    ],
)
def test_broken_contours_are_refused(tmp_path, elements):
    with pytest.raises((UndecodableImage, UnsuitableImage)):
        read(tmp_path, contour(in_mm(SQUARE, 1), **elements))


@pytest.mark.parametrize("word", [b"nan", b"inf", b"1e9999", b"a"])
def test_numbers_that_are_none_are_refused(tmp_path, word):
    content = to_bytes(structure_set([("liver", [contour(in_mm(SQUARE, 1))])]))
    old = MM[-1].encode()
    assert content.count(b"\\" + old + b" ") or content.count(b"\\" + old)
    place = content.rindex(b"\\" + old) + 1
    (tmp_path / "a").write_bytes(content[:place] + word[: len(old)].ljust(len(old)) + content[place + len(old) :])

    with pytest.raises(UndecodableImage):
        read_mask(tmp_path / "a", GRID)


def test_contours_without_their_structure_and_numbers_twice_are_refused(tmp_path):
    header = structure_set([("liver", [contour(in_mm(SQUARE, 1))]), ("spleen", [contour(in_mm(SQUARE, 2))])])
    header.ROIContourSequence[0].ReferencedROINumber = 99
    with pytest.raises(UndecodableImage, match="does not describe"):
        read_mask(written(tmp_path / "a", header), GRID)

    header.StructureSetROISequence[1].ROINumber = 7
    with pytest.raises(UndecodableImage, match="ROINumber 7 twice"):
        read_mask(written(tmp_path / "b", header), GRID)


def test_points_and_memory_are_bounded(tmp_path, monkeypatch):
    path = written(tmp_path / "a", structure_set([("liver", [contour(in_mm(OUTLINE, 1))] * 3)]))
    with spending(Budget(path.stat().st_size, 10**12)), pytest.raises(PayloadTooLarge):
        read_mask(path, GRID)

    monkeypatch.setattr("sagemaker_monai.masks.rtstruct.MOST_POINTS", 12)
    with pytest.raises(PayloadTooLarge, match="more than 12 points"):
        read_mask(path, GRID)


CONTENT = to_bytes(structure_set([("liver", [contour(in_mm(OUTLINE, 1)), contour(in_mm(HOLE, 2))])]))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_never_crashes(tmp_path, data):
    content = bytearray(CONTENT)
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "a").write_bytes(content)

    try:
        mask = read_mask(tmp_path / "a", GRID)
    except CallerError:
        return

    assert mask.values.shape == GRID.shape


def test_every_finding_of_contours_has_a_sentence():
    codes = [code for code in REMARKS if code.startswith(("contours_", "structures_")) and REMARKS[code][1] == "files"]

    assert len(codes) == 8
    assert all("{n}" in REMARKS[code][2] for code in codes)


def test_contours_of_too_many_points_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(rtstruct, "MOST_POINTS", 3)
    monkeypatch.setattr(rtstruct, "_points", lambda _: pytest.fail("read"))

    with pytest.raises(PayloadTooLarge, match="more than 3 points"):
        read(tmp_path, contour(in_mm(SQUARE, 1)))
