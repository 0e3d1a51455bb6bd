"""DICOM segmentations, written by highdicom over made series."""

import copy
import dataclasses
import io
import zipfile

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSNearLossless,
    RLELossless,
    generate_uid,
)

from sagemaker_monai.budget import Budget, spending
from sagemaker_monai.errors import CallerError, PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.dicom.pixels import read_frames
from sagemaker_monai.images.volumes import Traits
from sagemaker_monai.masks.mask import Grid
from sagemaker_monai.masks.read_mask import read_mask
from sagemaker_monai.messages.remarks import REMARKS
from tests.support.dicom_series import ORIENTATIONS, SHAPE, SPACING, to_bytes, write_series
from tests.support.segmentations import grid_of, segmentation, series, written

VALUES = np.random.default_rng(5).integers(0, 3, SHAPE).astype(np.uint8)  # (D, H, W)
VALUES[2] = 0  # a slice without a frame
EXPECTED = VALUES.transpose(2, 1, 0)
FILES = series()
GRID = grid_of(FILES)
SEGS = {
    "BINARY": segmentation(FILES, VALUES),
    "LABELMAP": segmentation(FILES, VALUES, "LABELMAP"),
    "FRACTIONAL": segmentation(FILES, np.stack([VALUES == 1, VALUES == 2], axis=3) * 0.8, "FRACTIONAL"),
}


def changed(kind="BINARY"):
    """A copy to change."""
    return copy.deepcopy(SEGS[kind])


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_each_kind_gives_the_segments_of_each_voxel(tmp_path, kind):
    mask = read_mask(written(tmp_path / "a", SEGS[kind]), GRID)

    assert np.array_equal(mask.values, EXPECTED)
    assert mask.values.dtype == np.uint16
    assert mask.names == {1: "liver", 2: "spleen"}
    assert mask.findings == (("fractional_mask",) if kind == "FRACTIONAL" else ())


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_the_orientation_of_the_series_and_the_order_of_frames_say_nothing(tmp_path, orientation, kind):
    files = series(ORIENTATIONS[orientation])
    seg = segmentation(files[::-1], VALUES[::-1], kind)

    assert np.array_equal(read_mask(written(tmp_path / "a", seg), grid_of(files)).values, EXPECTED)


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(10)))
def test_frames_come_in_any_order(tmp_path, order):
    seg = changed()
    frames = seg.pixel_array
    groups = list(seg.PerFrameFunctionalGroupsSequence)
    assert len(frames) == 10
    seg.PerFrameFunctionalGroupsSequence = [groups[place] for place in order]
    seg.PixelData = np.packbits(frames[list(order)].ravel(), bitorder="little").tobytes()
    seg.PixelData += b"\0" * (len(seg.PixelData) % 2)

    assert np.array_equal(read_mask(written(tmp_path / "a", seg), GRID).values, EXPECTED)


@pytest.mark.parametrize("threshold", [0.07, 0.25, 0.5, 0.51, 1.0])
def test_a_fraction_counts_from_the_threshold_on(tmp_path, threshold):
    fractions = np.random.default_rng(1).integers(0, 101, (*SHAPE, 1)) / 100
    seg = segmentation(FILES, fractions, "FRACTIONAL", ["liver"], max_fractional_value=100)

    mask = read_mask(written(tmp_path / "a", seg), GRID, threshold=threshold)

    assert np.array_equal(mask.values, (fractions[..., 0] >= threshold - 1e-9).transpose(2, 1, 0))


@pytest.mark.parametrize("syntax", [RLELossless, DeflatedExplicitVRLittleEndian])
def test_packed_segmentations_are_read(tmp_path, syntax):
    kind = "BINARY" if syntax == DeflatedExplicitVRLittleEndian else "LABELMAP"
    seg = changed(kind)
    if syntax == RLELossless:
        seg.compress(RLELossless, encoding_plugin="pydicom")
    else:
        seg.file_meta.TransferSyntaxUID = syntax

    assert np.array_equal(read_mask(written(tmp_path / "a", seg), GRID).values, EXPECTED)


def test_a_palette_is_for_display_and_its_index_the_segment(tmp_path):
    seg = changed("LABELMAP")
    seg.PhotometricInterpretation = "PALETTE COLOR"
    for name, table in zip(("Red", "Green", "Blue"), ([0, 9, 3], [0, 1, 200], [0, 7, 7]), strict=True):
        setattr(seg, f"{name}PaletteColorLookupTableDescriptor", [3, 0, 8])
        setattr(seg, f"{name}PaletteColorLookupTableData", bytes([*table, 0]))

    assert np.array_equal(read_mask(written(tmp_path / "a", seg), GRID).values, EXPECTED)


def test_an_empty_segmentation_is_nothing(tmp_path):
    seg = segmentation(FILES, np.zeros(SHAPE, np.uint8), omit_empty_frames=False)

    assert not read_mask(written(tmp_path / "a", seg), GRID).values.any()


def test_a_folder_and_an_archive_with_the_series_have_one_mask(tmp_path):
    write_series(tmp_path / "study", FILES)
    written(tmp_path / "study" / "seg", SEGS["BINARY"])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in (tmp_path / "study").iterdir():
            archive.write(path, path.name)

    assert np.array_equal(read_mask(tmp_path / "study", GRID).values, EXPECTED)
    assert np.array_equal(read_mask(tmp_path / "a.zip", GRID).values, EXPECTED)
    second = changed("LABELMAP")
    written(tmp_path / "study" / "seg2", second)
    with pytest.raises(UnsuitableImage, match="2 DICOM masks"):
        read_mask(tmp_path / "study", GRID)
    with pytest.raises(UnsuitableImage, match="0 DICOM masks"):
        read_mask(write_series(tmp_path / "alone", FILES[:1])[0], GRID)


# --- overlaps and choice ---------------------------------------------------------------------------------------------


def test_segments_that_overlap_are_refused_by_name_unless_one_is_wanted(tmp_path):
    layers = np.stack([VALUES > 0, VALUES == 2], axis=3).astype(np.uint8)
    path = written(tmp_path / "a", segmentation(FILES, layers))

    with pytest.raises(UnsuitableImage, match=rf"liver and spleen \({np.sum(VALUES == 2)} voxels\)"):
        read_mask(path, GRID)

    mask = read_mask(path, GRID, wanted=lambda label: label == "spleen")
    assert np.array_equal(mask.values, np.where(EXPECTED == 2, 2, 0))
    assert (mask.names, mask.left_out) == ({2: "spleen"}, ("liver",))


def test_of_a_labelmap_what_is_not_wanted_is_nothing(tmp_path):
    mask = read_mask(written(tmp_path / "a", SEGS["LABELMAP"]), GRID, wanted=lambda label: label == "spleen")

    assert np.array_equal(mask.values, np.where(EXPECTED == 2, 2, 0))


# --- whose mask it is ------------------------------------------------------------------------------------------------


def test_another_frame_of_reference_is_refused(tmp_path):
    seg = changed()
    seg.FrameOfReferenceUID = generate_uid()

    with pytest.raises(UnsuitableImage, match="FrameOfReferenceUID"):
        read_mask(written(tmp_path / "a", seg), GRID)


def test_the_mask_of_another_series_in_the_same_place_is_refused(tmp_path):
    other = grid_of(series(SeriesInstanceUID=generate_uid()))

    with pytest.raises(UnsuitableImage, match="another series"):
        read_mask(written(tmp_path / "a", SEGS["BINARY"]), other)


def test_the_mask_of_another_phase_of_the_series_is_refused(tmp_path):
    """The same series and place, but the slices are other files."""
    with pytest.raises(UnsuitableImage, match="other slices of the series"):
        read_mask(written(tmp_path / "a", SEGS["BINARY"]), grid_of(series()))


def test_of_several_volumes_in_one_file_nothing_says_whose_frame_is_whose(tmp_path):
    one_file = dataclasses.replace(GRID.identity, sop_instance_uids=GRID.identity.sop_instance_uids[:1], volume="2")

    mask = read_mask(written(tmp_path / "a", SEGS["BINARY"]), dataclasses.replace(GRID, identity=one_file))

    assert np.array_equal(mask.values, EXPECTED)
    assert mask.findings == ("mask_reference_unproved",)


def test_a_mask_that_names_no_series_is_of_the_images_that_its_frames_name(tmp_path):
    seg = changed()
    del seg.ReferencedSeriesSequence
    path = written(tmp_path / "a", seg)

    assert read_mask(path, GRID).findings == ()
    with pytest.raises(UnsuitableImage, match="another series"):
        read_mask(path, grid_of(series(SeriesInstanceUID=generate_uid())))


def test_a_mask_without_references_is_believed_by_its_frame_of_reference_and_that_is_said(tmp_path):
    seg = changed()
    del seg.ReferencedSeriesSequence, seg.SourceImageSequence
    for group in seg.PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence
    assert read_mask(written(tmp_path / "a", seg), GRID).findings == ("mask_reference_unproved",)

    del seg.FrameOfReferenceUID
    with pytest.raises(UnsuitableImage, match="neither a series nor"):
        read_mask(written(tmp_path / "b", seg), GRID)


def test_an_image_that_was_converted_has_its_geometry_only(tmp_path):
    path = written(tmp_path / "a", SEGS["BINARY"])
    mask = read_mask(path, Grid(GRID.shape, GRID.affine))
    assert np.array_equal(mask.values, EXPECTED)
    assert mask.findings == ("mask_reference_unproved",)

    turned = GRID.affine @ [
        [0, 0, -1, SHAPE[2] - 1],
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 1],
    ]  # (H, D, W) to (W, H, D)
    mask = read_mask(path, Grid((SHAPE[1], SHAPE[0], SHAPE[2]), turned))
    assert np.array_equal(mask.values, EXPECTED[::-1].transpose(1, 2, 0))
    with pytest.raises(UnsuitableImage, match="this image has none"):
        read_mask(path, Grid(GRID.shape))


# --- places ----------------------------------------------------------------------------------------------------------


def move(seg, shift_mm):
    places = {
        id(each): each for each in (group.PlanePositionSequence[0] for group in seg.PerFrameFunctionalGroupsSequence)
    }
    for place in places.values():  # which frames of two segments share
        place.ImagePositionPatient = [float(a) + b for a, b in zip(place.ImagePositionPatient, shift_mm, strict=True)]
    return seg


@pytest.mark.parametrize("shift_mm", [(0.04, 0, 0), (0, 0.04, 0), (0, 0, 0.2)])
def test_a_position_may_be_rounded(tmp_path, shift_mm):
    assert np.array_equal(read_mask(written(tmp_path / "a", move(changed(), shift_mm)), GRID).values, EXPECTED)


@pytest.mark.parametrize("shift_mm", [(0.3, 0, 0), (0, 0.3, 0), (0, 0, 0.6), (0, 0, 1.25)])
def test_a_position_beside_the_voxels_is_refused(tmp_path, shift_mm):
    with pytest.raises(UnsuitableImage, match="mm from the nearest slice"):
        read_mask(written(tmp_path / "a", move(changed(), shift_mm)), GRID)


@pytest.mark.parametrize("shift_mm", [(0, 0, 2.5), (0, 0, -2.5)])
def test_frames_on_other_slices_than_they_name_are_refused(tmp_path, shift_mm):
    with pytest.raises(UnsuitableImage, match="another slice"):
        read_mask(written(tmp_path / "a", move(changed(), shift_mm)), GRID)


def test_frames_beyond_the_slices_are_refused(tmp_path):
    seg = move(changed(), (0, 0, 2.5))
    for group in seg.PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence

    with pytest.raises(UnsuitableImage, match="beyond the image's slices"):
        read_mask(written(tmp_path / "a", seg), GRID)


def test_frames_without_a_position_go_to_the_slice_that_they_name(tmp_path):
    seg = changed()
    for group in seg.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence
    assert np.array_equal(read_mask(written(tmp_path / "a", seg), GRID).values, EXPECTED)

    for group in seg.PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence
    with pytest.raises(UnsuitableImage, match="names no slice"):
        read_mask(written(tmp_path / "b", seg), GRID)


@pytest.mark.parametrize("number", range(SHAPE[0]))
def test_of_a_single_slice_the_frames_of_others_are_left_out(tmp_path, number):
    [frame] = read_frames(to_bytes(FILES[number]))
    path = written(tmp_path / "a", SEGS["BINARY"])

    mask = read_mask(path, Grid.of_traits(Traits(frame.identity, size=frame.values.shape[1:])))

    assert mask.values.shape == SHAPE[:0:-1]
    assert np.array_equal(mask.values, EXPECTED[..., number])


def test_an_image_without_a_place_has_the_frame_that_names_it(tmp_path):
    file = copy.deepcopy(FILES[0])
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID"):
        del file[keyword]
    [frame] = read_frames(to_bytes(file))

    assert np.array_equal(read_mask(written(tmp_path / "a", SEGS["BINARY"]), Grid.of(frame)).values, EXPECTED[..., 0])


def test_a_mask_of_another_spacing_is_refused(tmp_path):
    seg = changed()
    seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [SPACING[0] * 1.1, SPACING[1]]

    with pytest.raises(UnsuitableImage, match="mm from the nearest"):
        read_mask(written(tmp_path / "a", seg), GRID)


# --- broken and hostile ----------------------------------------------------------------------------------------------


def two_frames_of_one_place(seg):
    groups = seg.PerFrameFunctionalGroupsSequence
    groups[1] = copy.deepcopy(groups[0])


def segment_twice(seg):
    seg.SegmentSequence[1].SegmentNumber = 1


def segment_unknown(seg):
    seg.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 9


def orientation_none(seg):
    seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 1, 0, 0]


def no_pixels(seg):
    seg.PixelData = b"\0\0"


def no_groups(seg):
    del seg.PerFrameFunctionalGroupsSequence


def one_frame(seg):
    del seg.NumberOfFrames


def another_kind(seg):
    seg.SegmentationType = "SURFACE"


def more_frames(seg):
    seg.NumberOfFrames = 60_000


def endless_frames(seg):
    seg.NumberOfFrames = 2_000_000_000


def tiled(seg):
    seg.TotalPixelMatrixRows = 100


@pytest.mark.parametrize(
    "change",
    [two_frames_of_one_place, segment_twice, segment_unknown, orientation_none, no_pixels, no_groups, one_frame,
     another_kind, more_frames, endless_frames, tiled],
)  # fmt: skip
def test_a_segmentation_that_contradicts_itself_is_refused(tmp_path, change):
    seg = changed()
    change(seg)

    with pytest.raises((UndecodableImage, UnsuitableImage, PayloadTooLarge)):
        read_mask(written(tmp_path / "a", seg), GRID)


def test_values_that_no_segment_has_are_refused(tmp_path):
    seg = changed("LABELMAP")
    seg.PixelData = seg.PixelData.replace(b"\2", b"\7")
    with pytest.raises(UndecodableImage, match="values 7"):
        read_mask(written(tmp_path / "a", seg), GRID)

    seg = changed("FRACTIONAL")
    seg.MaximumFractionalValue = 100
    with pytest.raises(UndecodableImage, match="100 is the most"):
        read_mask(written(tmp_path / "b", seg), GRID)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLSNearLossless, JPEG2000])
def test_lossy_segmentations_are_refused(tmp_path, syntax):
    seg = changed("LABELMAP")
    seg.PixelData = encapsulate([b"frame"] * int(seg.NumberOfFrames))
    seg.file_meta.TransferSyntaxUID = syntax

    with pytest.raises(UnsuitableImage, match="lossy"):
        read_mask(written(tmp_path / "a", seg), GRID)


def test_a_real_segmentation_has_the_pixels_that_pydicom_has(shared_data):
    """One segment on three slices of an image that is not here."""
    path = shared_data / "odd_dicom" / "segmentation_1bit" / "liver.dcm"
    seg = pydicom.dcmread(path)
    affine = np.diag([-0.810547, -0.810547, 1, 1])  # as its header has it, by hand
    affine[:3, 3] = 235.2, 226.8, -128.69

    mask = read_mask(path, Grid((512, 512, 3), affine))

    assert np.array_equal(mask.values, seg.pixel_array.transpose(2, 1, 0))
    assert mask.values.any()
    assert mask.names == {1: "Liver"}


def test_a_mask_that_calls_itself_an_image_is_refused(tmp_path):
    seg = Dataset()
    seg.update(FILES[0])
    seg.SOPClassUID, seg.Modality = CTImageStorage, "SEG"
    seg.file_meta = FILES[0].file_meta

    with pytest.raises(UnsuitableImage, match="no SEG of pixels"):
        read_mask(written(tmp_path / "a", seg), GRID)


def test_what_is_beyond_the_budget_is_refused(tmp_path):
    path = written(tmp_path / "a", SEGS["BINARY"])

    with spending(Budget(path.stat().st_size, 10**12)), pytest.raises(PayloadTooLarge):
        read_mask(path, GRID)


def test_frames_may_be_more_than_a_volume_has(tmp_path, monkeypatch):
    """Each of a hundred structures has frames of its own, which are decoded one after the other."""
    monkeypatch.setattr("sagemaker_monai.images.volumes.MAX_VOXELS", int(np.prod(SHAPE)))

    assert np.array_equal(read_mask(written(tmp_path / "a", SEGS["BINARY"]), GRID).values, EXPECTED)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_never_crashes(tmp_path, data):
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, SEGS["BINARY"], enforce_file_format=True)
    content = bytearray(buffer.getvalue())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "a").write_bytes(content)

    try:
        mask = read_mask(tmp_path / "a", GRID)
    except CallerError:
        return

    assert mask.values.shape == GRID.shape


def test_every_finding_of_segmentations_has_a_sentence():
    assert all("{n}" in REMARKS[code][2] for code in ("fractional_mask", "mask_reference_unproved"))
