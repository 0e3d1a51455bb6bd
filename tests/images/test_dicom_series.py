import contextlib
import time

import nibabel
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from sagemaker_monai.errors import CallerError, ConfigError, PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.dicom.findings import MESSAGES, Policy, finding
from sagemaker_monai.images.dicom.media import find_instances, find_media
from sagemaker_monai.images.dicom.series import group_series, read_series
from tests.support.compare_series import compare_series
from tests.support.dicom_series import (
    AXIAL,
    CORONAL,
    CT,
    GAP_MM,
    ORIENTATIONS,
    ORIGIN,
    SAGITTAL,
    SPACING,
    enhanced,
    make_series,
    make_slice,
    pixels,
    positions_of,
    to_bytes,
    write_series,
)
from tests.support.exhaustive import exhaustive
from tests.support.places import SHARED_DATA

SHARED_SERIES = SHARED_DATA / "dicom_series"


def shuffled(files):
    order = np.random.default_rng(3).permutation(len(files))
    return [to_bytes(files[index]) for index in order]


def group(files):
    return group_series(find_instances(shuffled(files)))


def codes(series):
    return [found.code for found in series.findings]


def stored_order(volume):
    """Values as DICOM stores them: (D, H, W)."""
    return volume.values[0].transpose(2, 1, 0)


# --- order and geometry ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_slices_are_sorted_by_place_whatever_their_names_and_numbers(tmp_path, name):
    values = pixels()
    write_series(tmp_path, make_series(values, ORIENTATIONS[name]))

    [series] = group_series(find_instances(tmp_path))
    volume = read_series(series)

    assert codes(series) == []
    assert volume.values.shape == (1, 5, 7, 6)
    assert volume.values.dtype == np.float32
    assert np.array_equal(stored_order(volume), values)
    assert volume.has_geometry
    places = positions_of(6, ORIENTATIONS[name]) * [-1, -1, 1]
    for index in range(6):
        assert volume.affine @ (0, 0, index, 1) == pytest.approx([*places[index], 1])


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_synthetic_series_are_what_two_other_readers_read(tmp_path, name):
    write_series(tmp_path, make_series(pixels((6, 16, 12)), ORIENTATIONS[name]))

    [row] = compare_series(tmp_path)

    assert (row.slices, row.voxels_simpleitk, row.voxels_dcm2niix) == (6, 0, 0)
    assert row.affine < 1e-4


@pytest.mark.skipif(not SHARED_SERIES.is_dir(), reason="no shared data")
@pytest.mark.parametrize(
    ("folder", "slices"),
    exhaustive(
        [
            ("PGBM-003/11-T1post-18670", 22),
            ("PGBM-002/13_HCropVolume", 32),
            ("PGBM-003/11_HCropVolume", 40),
            ("PGBM-003/36468-FLAIRreg-58706", 22),
        ]
    ),
)
def test_real_series_are_what_two_other_readers_read(folder, slices):
    [row] = compare_series(SHARED_SERIES / folder)

    assert (row.slices, row.voxels_simpleitk, row.voxels_dcm2niix) == (slices, 0, 0)
    assert row.affine < 1e-4


def test_slices_without_instance_number_are_kept():
    values = pixels()
    files = make_series(values)
    for dataset in files[::2]:
        del dataset.InstanceNumber

    [series] = group(files)

    assert codes(series) == []
    assert np.array_equal(stored_order(read_series(series)), values)


def test_two_series_in_one_folder_are_not_mixed():
    first, second = pixels(seed=1), pixels(seed=2)
    other = generate_uid()

    series = group([*make_series(first), *make_series(second, SeriesInstanceUID=other)])

    by_uid = {each.uid: stored_order(read_series(each)) for each in series}
    assert len(by_uid) == 2
    assert np.array_equal(by_uid.pop(other), second)
    assert np.array_equal(*by_uid.values(), first)


def test_files_without_preamble_are_read():
    values = pixels()
    files = [to_bytes(dataset, has_preamble=False) for dataset in make_series(values)]

    [series] = group_series(find_instances(files))

    assert np.array_equal(stored_order(read_series(series)), values)


def test_identity_names_files_and_headers_in_the_order_of_slices():
    files = make_series(pixels())

    [series] = group(files)
    identity = read_series(series).identity

    assert identity.series_instance_uid == files[0].SeriesInstanceUID
    assert identity.sop_instance_uids == tuple(dataset.SOPInstanceUID for dataset in files)
    assert [header.SOPInstanceUID for header in identity.headers] == list(identity.sop_instance_uids)
    assert all("PixelData" not in header for header in identity.headers)


def test_headers_that_were_not_kept_come_with_the_pixels():
    files = make_series(pixels())
    media = find_media(shuffled(files), keep_headers=False)
    assert all(instance.header is None for instance in media.instances)

    identity = read_series(group_series(media.instances)[0]).identity

    assert [header.SOPInstanceUID for header in identity.headers] == [dataset.SOPInstanceUID for dataset in files]
    assert all("PixelData" not in header for header in identity.headers)


def test_threads_change_nothing():
    [series] = group(make_series(pixels((20, 30, 40)), **CT))

    one, many = read_series(series, threads=1), read_series(series, threads=4)

    assert one.values.tobytes() == many.values.tobytes()
    assert one.identity == many.identity


def test_each_slice_has_its_own_rescale():
    values = pixels()
    files = make_series(values)
    for index, dataset in enumerate(files):
        dataset.RescaleSlope, dataset.RescaleIntercept = index + 1, -10 * index

    [series] = group(files)

    assert codes(series) == ["mixed_rescale"]
    expected = [stored * (index + 1.0) - 10 * index for index, stored in enumerate(values)]
    assert np.array_equal(stored_order(read_series(series)), np.array(expected, np.float32))


def test_the_first_slices_window_is_the_volumes():
    files = make_series(pixels())
    for index, dataset in enumerate(files):
        dataset.WindowCenter, dataset.WindowWidth = 40 + index, 400

    [series] = group(files)

    assert read_series(series).display.voi.center == 40


# --- what is odd -----------------------------------------------------------------------------------------------------


def refuse(series, **policy):
    with pytest.raises(UnsuitableImage) as caught:
        read_series(series, policy=Policy(**policy))
    return str(caught.value)


def test_the_same_slice_twice_is_used_once():
    values = pixels()
    files = make_series(values)
    copy = Dataset(files[2])
    copy.file_meta = files[2].file_meta
    copy.SOPInstanceUID = generate_uid()

    [series] = group([*files, copy])

    assert [(found.code, found.severity, found.count) for found in series.findings] == [
        ("duplicate_slices", "warning", 1)
    ]
    assert np.array_equal(stored_order(read_series(series)), values)
    assert "twice" in refuse(series, duplicate_slices="refuse")


def test_a_whole_series_sent_twice_is_one():
    values = pixels()
    files = make_series(values)

    [series] = group([*files, *files])

    assert codes(series) == ["duplicate_slices"]
    assert np.array_equal(stored_order(read_series(series)), values)


def test_two_slices_in_one_place_that_differ_are_refused():
    values = pixels()
    files = make_series(values)
    place = [float(number) for number in positions_of(6)[3]]
    intruder = make_slice(values[0], ImagePositionPatient=place, InstanceNumber=99)

    [series] = group([*files, intruder])

    assert codes(series) == ["conflicting_slices"]
    assert "other pixels" in refuse(series)
    taken = read_series(series, policy=Policy(conflicting_slices="warn"))
    assert np.array_equal(stored_order(taken), values)


def test_a_missing_slice_is_refused_or_filled_in():
    values = pixels()
    files = make_series(values)
    del files[3]

    [series] = group(files)

    assert [(found.code, found.severity, found.count) for found in series.findings] == [("missing_slices", "error", 1)]
    assert "missing" in refuse(series)
    filled = read_series(series, policy=Policy(missing_slices="resample"))
    expected = values.astype(np.float32)
    expected[3] = (expected[2] + expected[4]) / 2
    assert np.array_equal(stored_order(filled), expected)
    assert filled.affine[2, 2] == pytest.approx(GAP_MM)
    closed = read_series(series, policy=Policy(missing_slices="warn"))
    assert closed.values.shape[-1] == 5


def test_uneven_slices_are_interpolated_onto_an_even_grid():
    ramp = np.zeros((5, 3, 4), np.int16)
    along = np.array([0, 2, 4, 7, 10])  # mm
    ramp += (100 * along)[:, None, None].astype(np.int16)
    places = np.asarray(ORIGIN) + np.outer(along, [0, 0, 1])

    [series] = group(make_series(ramp, places=places))

    assert codes(series) == ["uneven_spacing"]
    refuse(series)
    even = read_series(series, policy=Policy(uneven_spacing="resample"))
    assert even.affine[2, 2] == pytest.approx(2)
    assert even.values[0, 0, 0] == pytest.approx([0, 200, 400, 600, 800, 1000])  # linear in the place, as it was


def test_a_huge_gap_is_not_filled():
    places = np.asarray(ORIGIN) + np.outer([0, 1, 2, 1e5], [0, 0, 1])

    [series] = group(make_series(pixels((4, 3, 3)), places=places))

    assert "slices would be made" in refuse(series, missing_slices="resample", uneven_spacing="resample")


def test_a_tilted_gantry_shears_the_affine():
    places = np.asarray(ORIGIN) + np.outer(np.arange(6), [0, 1, 3])

    [series] = group(make_series(pixels(), places=places))
    volume = read_series(series)

    assert codes(series) == ["gantry_tilt"]
    assert volume.affine[:3, 2] == pytest.approx([0, -1, 3])


@pytest.mark.parametrize(
    ("code", "keyword", "value"),
    [
        ("shifted_slices", "ImagePositionPatient", [float(number) for number in positions_of(6)[2] + [5, 0, 0]]),
        ("mixed_spacing", "PixelSpacing", [1, 1]),
        ("mixed_photometric", "PhotometricInterpretation", "MONOCHROME1"),
    ],
)
def test_a_slice_that_does_not_fit_the_others_is_refused(code, keyword, value):
    files = make_series(pixels())
    setattr(files[2], keyword, value)

    [series] = group(files)

    assert codes(series) == [code]
    refuse(series)


def test_slices_of_another_size_are_a_stack_of_their_own():
    values = pixels()
    files = make_series(values)
    odd = make_slice(np.zeros((9, 9), np.int16), InstanceNumber=1)

    series = group([*files, odd])

    assert [(len(each.slices), codes(each)) for each in series] == [
        (6, ["mixed_size"]),
        (1, ["mixed_size", "single_slice"]),
    ]
    assert len({each.uid for each in series}) == 1
    assert [each.stack for each in series] == [0, 1]
    assert np.array_equal(stored_order(read_series(series[0])), values)
    refuse(series[0], mixed_size="refuse")


def test_three_orientations_are_three_stacks():
    files = [
        dataset for orientation in (AXIAL, SAGITTAL, CORONAL) for dataset in make_series(pixels((3, 4, 4)), orientation)
    ]

    series = group(files)

    assert [len(each.slices) for each in series] == [3, 3, 3]
    assert all(codes(each) == ["mixed_orientation"] for each in series)


def test_orientations_that_differ_by_rounding_are_one_stack():
    files = make_series(pixels())
    for dataset in files[::2]:
        dataset.ImageOrientationPatient = [1, 0.000001, 0, 0, 1, 0]

    [series] = group(files)

    assert codes(series) == []


def test_a_localizer_is_not_part_of_the_volume():
    files = make_series(pixels())
    scout = make_slice(pixels()[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])

    series = group([*files, scout])

    assert [len(each.slices) for each in series] == [6, 1]
    assert "localizer" in codes(series[1])


def test_without_geometry_instance_number_is_the_order_and_the_volume_says_so():
    values = pixels()
    files = make_series(values, ImagePositionPatient=None)
    for number, dataset in enumerate(files, start=1):
        dataset.InstanceNumber = number

    [series] = group(files)
    volume = read_series(series)

    assert codes(series) == ["missing_geometry"]
    assert np.array_equal(stored_order(volume), values)
    assert not volume.has_geometry
    assert np.array_equal(volume.affine, np.diag([SPACING[1], SPACING[0], GAP_MM, 1]))


def test_series_that_make_no_volume_are_refused():
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "BitsAllocated": 8,
              "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0, "PixelData": bytes(106)}  # fmt: skip
    report = {"Rows": None, "Columns": None, "PixelData": None, "Modality": "SR"}
    truncated = make_series(pixels())
    truncated[2].PixelData = truncated[2].PixelData[:20]
    without_order = make_series(pixels(), ImagePositionPatient=None, InstanceNumber=None)
    cases = [
        (without_order, ["missing_geometry", "missing_order"], UnsuitableImage, "order is unknown"),
        ([make_slice(pixels()[0], **colour)], ["colour", "single_slice"], UnsuitableImage, "colour"),
        ([make_slice(pixels()[0], **report)], ["no_pixels"], UnsuitableImage, "no pictures"),
        (truncated, [], UndecodableImage, None),
        (make_series(pixels(), Rows=65535, Columns=65535), [], PayloadTooLarge, None),  # before it is allocated
    ]
    for files, found, error, message in cases:
        [series] = group(files)

        assert codes(series) == found
        with pytest.raises(error, match=message):
            read_series(series)


def test_an_impossible_orientation_is_refused():
    [series] = group(make_series(pixels(), ImageOrientationPatient=[1, 0, 0, 1, 0, 0]))

    assert codes(series) == ["invalid_geometry"]
    refuse(series)
    assert not read_series(series, policy=Policy(invalid_geometry="warn")).has_geometry


def test_a_single_slice_is_a_volume_of_one():
    [series] = group([make_slice(pixels()[0])])
    volume = read_series(series)

    assert [(found.code, found.severity) for found in series.findings] == [("single_slice", "note")]
    assert volume.values.shape == (1, 5, 7, 1)
    assert volume.affine[2, 2] == GAP_MM  # its thickness


# --- several volumes of one place ------------------------------------------------------------------------------------


def test_volumes_that_nothing_tells_apart_are_taken_in_the_order_of_their_numbers():
    contents = [pixels(seed=1), pixels(seed=2)]
    contents[0][0] = contents[1][0] = 0  # air at both times: no duplicate
    files = [dataset for content in contents for dataset in make_series(content)]
    for number, dataset in enumerate(files, start=1):
        dataset.InstanceNumber = number

    series = group(files)

    assert [codes(each) for each in series] == [["guessed_volumes"], ["guessed_volumes"]]
    for each, content in zip(series, contents, strict=True):
        assert np.array_equal(stored_order(read_series(each)), content)


def test_a_slice_that_was_acquired_again_takes_the_place_of_the_first():
    values, again = pixels(), pixels(seed=5)
    files = make_series(values, AcquisitionNumber=1)
    place = [float(number) for number in positions_of(6)[3]]

    [series] = group([*files, make_slice(again[3], ImagePositionPatient=place, AcquisitionNumber=2)])

    assert [(found.code, found.severity, found.count) for found in series.findings] == [
        ("overlapping_acquisitions", "warning", 1)
    ]
    expected = values.copy()
    expected[3] = again[3]
    assert np.array_equal(stored_order(read_series(series)), expected)


@pytest.mark.parametrize(
    "elements",
    [
        {"AcquisitionNumber": 2, "KVP": "140"},  # measured otherwise
        {"AcquisitionNumber": 2, "AcquisitionTime": "080000"},  # the higher number is not the later time
        {"AcquisitionNumber": 1},
    ],
)
def test_a_second_slice_in_one_place_that_may_be_another_image_is_refused(elements):
    values = pixels()
    files = make_series(values, AcquisitionNumber=1, KVP="80", AcquisitionTime="090000")
    place = [float(number) for number in positions_of(6)[3]]
    header = {"KVP": "80", "AcquisitionTime": "090000", **elements}

    [series] = group([*files, make_slice(values[0], ImagePositionPatient=place, **header)])

    assert codes(series) == ["conflicting_slices"]
    assert "remove those that do not" in refuse(series)


# --- multi-frame -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_an_enhanced_file_is_the_volume_of_its_single_files(name):
    values = pixels()
    orientation = ORIENTATIONS[name]
    [single] = group(make_series(values, orientation))

    [series] = group([enhanced(values, orientation, order=[3, 0, 5, 1, 4, 2])])
    volume, expected = read_series(series), read_series(single)

    assert codes(series) == []
    assert np.array_equal(volume.values, expected.values)
    assert np.allclose(volume.affine, expected.affine)
    assert volume.identity.sop_instance_uids == (series.instances[0].sop_instance_uid,)


def test_two_stacks_of_an_enhanced_file_are_two_volumes():
    values = pixels((3, 7, 5))
    file = enhanced(values)
    other = pixels((3, 7, 5), seed=4)
    file.PixelData += other.astype("<i2").tobytes()
    file.NumberOfFrames = 6
    for frame in list(file.PerFrameFunctionalGroupsSequence):
        group_, content = Dataset(), Dataset()
        content.StackID = "2"
        group_.PlanePositionSequence, group_.FrameContentSequence = frame.PlanePositionSequence, [content]
        file.PerFrameFunctionalGroupsSequence.append(group_)

    series = group([file])

    assert [dict(each.told_by) for each in series] == [{"StackID": "1"}, {"StackID": "2"}]
    assert np.array_equal(stored_order(read_series(series[0])), values)
    assert np.array_equal(stored_order(read_series(series[1])), other)


def test_frames_of_an_enhanced_file_have_their_own_rescale():
    values = pixels()
    order = [3, 0, 5, 1, 4, 2]
    file = enhanced(values, order=order)
    for index, frame in zip(order, file.PerFrameFunctionalGroupsSequence, strict=True):
        item = Dataset()
        item.RescaleSlope, item.RescaleIntercept, item.RescaleType = index + 1, -5 * index, "US"
        frame.PixelValueTransformationSequence = [item]

    [series] = group([file])

    expected = [stored * (index + 1.0) - 5 * index for index, stored in enumerate(values)]
    assert np.array_equal(stored_order(read_series(series)), np.array(expected, np.float32))


def test_a_dose_lies_at_its_grid_offsets():
    values = np.abs(pixels())
    dose = make_slice(
        values,
        Modality="RTDOSE",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.481.2",
        GridFrameOffsetVector=[0, -2, -4, -6, -8, -10],
        DoseGridScaling=0.5,
        DoseUnits="GY",
        SliceThickness=None,
        PixelRepresentation=0,
    )

    [series] = group([dose])
    volume = read_series(series)

    assert codes(series) == []
    assert volume.affine @ (0, 0, 0, 1) == pytest.approx([31.5, -12.25, 100.75 - 10, 1])
    assert volume.affine[2, 2] == pytest.approx(2)
    assert np.array_equal(stored_order(volume), values[::-1] * np.float32(0.5))


def test_a_reconstructed_tomograph_of_nuclear_medicine_is_a_volume():
    values = pixels()
    detector = Dataset()
    detector.ImagePositionPatient, detector.ImageOrientationPatient = list(ORIGIN), list(AXIAL)
    nuclear = make_slice(
        values,
        Modality="NM",
        ImageType=["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"],
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        DetectorInformationSequence=[detector],
        SpacingBetweenSlices=-3,
        SliceThickness=3,
    )

    [series] = group([nuclear])
    volume = read_series(series)

    assert volume.has_geometry
    assert volume.affine @ (0, 0, 5, 1) == pytest.approx([31.5, -12.25, 100.75, 1])  # the first frame is the last
    assert np.array_equal(stored_order(volume), values[::-1])


def test_a_cine_is_a_volume_without_geometry():
    values = pixels()
    cine = make_slice(
        values,
        Modality="XA",
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        FrameTime=40,
        SliceThickness=None,
    )

    [series] = group([cine])
    volume = read_series(series)

    assert codes(series) == ["missing_geometry"]
    assert not volume.has_geometry
    assert np.array_equal(stored_order(volume), values)
    assert np.array_equal(volume.affine, np.diag([SPACING[1], SPACING[0], 1, 1]))


def test_a_billion_frames_are_refused():
    dataset = make_slice(pixels())
    dataset.NumberOfFrames = 10**9

    media = find_media([to_bytes(dataset)])

    assert (media.instances, [other.code for other in media.others]) == ([], ["PayloadTooLarge"])


# --- choice and policy -----------------------------------------------------------------------------------------------


def test_resampling_is_allowed_only_where_it_helps():
    with pytest.raises(ConfigError, match="mixed_size must be one of refuse, warn"):
        Policy(mixed_size="resample")
    with pytest.raises(ConfigError, match="missing_slices must be one of refuse, warn, resample"):
        Policy(missing_slices="perhaps")


@pytest.mark.parametrize("code", MESSAGES)
def test_every_finding_has_a_text_with_its_count(code):
    found = finding(code, 7)

    assert "7" in found.message
    assert found.severity in ("error", "warning", "note")


def test_the_volume_is_the_same_in_niftis_closest_axes_for_reversed_normals():
    values = pixels()
    flipped = (1, 0, 0, 0, -1, 0)
    [series] = group(make_series(values, flipped))

    volume = read_series(series)
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume.values[0], volume.affine))

    assert np.linalg.det(volume.affine[:3, :3]) > 0
    # Rows run to the left and columns to the front; the normal points down.
    assert np.array_equal(image.get_fdata(), values.transpose(2, 1, 0)[::-1, :, ::-1])


# --- hostile ---------------------------------------------------------------------------------------------------------


def mutated(content, rng):
    changed = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(132, len(changed)))
        kind = rng.integers(3)
        if kind == 0:
            changed[place] = rng.integers(256)
        elif kind == 1:
            changed[place] = int(rng.choice(list(b"0123456789.-+eE\\nN ")))
        else:
            del changed[place : place + int(rng.integers(1, 5))]
    return bytes(changed)


@pytest.mark.parametrize("seed", exhaustive(range(4)))
def test_mutated_files_are_read_or_refused_and_nothing_else(seed):
    rng = np.random.default_rng(seed)
    single = [to_bytes(dataset) for dataset in make_series(pixels((3, 4, 5)), EchoTime=3)]
    several = [to_bytes(enhanced(pixels((3, 4, 5))))]
    for _ in range(60):
        files = [
            mutated(content, rng) if rng.random() < 0.6 else content for content in (single, several)[rng.integers(2)]
        ]
        for series in group_series(find_instances(files)):
            with contextlib.suppress(CallerError):
                read_series(series)


@pytest.mark.long
def test_thousands_of_orientations_are_sorted_in_no_time():
    angles = np.linspace(0, 1, 2000)
    file = enhanced(np.zeros((2000, 1, 1), np.int16))
    for angle, group_ in zip(angles, file.PerFrameFunctionalGroupsSequence, strict=True):
        turn = Dataset()
        turn.ImageOrientationPatient = [float(np.cos(angle)), float(np.sin(angle)), 0, 0, 0, -1]
        group_.PlaneOrientationSequence = [turn]

    started = time.perf_counter()
    series = group([file])

    assert time.perf_counter() - started < 20
    assert len(series) > 500
