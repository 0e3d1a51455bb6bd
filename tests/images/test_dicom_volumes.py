"""Volumes of one place: what tells them apart, what is never mixed, and that no file's place or UID decides."""

import itertools

import numpy as np
import pytest
from pydicom.uid import generate_uid

from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.dicom.geometry import place_tolerance_mm, places_of
from sagemaker_monai.images.dicom.series import find_instances, group_series, read_series
from sagemaker_monai.images.dicom.tells import DISCRIMINATORS, number_kinds, seconds_of
from tests.support.dicom_series import AXIAL, GAP_MM, ORIGIN, make_series, pixels, positions_of, to_bytes
from tests.support.exhaustive import exhaustive

SLICES = 4


def volumes(count, shape=(SLICES, 3, 4)):
    """Contents that have no value in common."""
    return [pixels(shape, seed=number) + 200 * number for number in range(count)]


def series_of(contents, headers, **elements):
    """Slices of several volumes of one place; headers: of each volume, or a function of volume and slice."""
    files = []
    for number, content in enumerate(contents):
        made = make_series(content, **elements)
        for index, dataset in enumerate(made):
            dataset.InstanceNumber = index + 1
            header = headers(number, index) if callable(headers) else headers[number]
            for keyword, value in header.items():
                setattr(dataset, keyword, value)
        files += made
    return files


def read_shuffled(files, seed):
    """What the files become in another order and with other SOPInstanceUIDs."""
    rng = np.random.default_rng(seed)
    for dataset in files:
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[str(rng.integers(1 << 60))])
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    order = rng.permutation(len(files))
    stacks = group_series(find_instances([to_bytes(files[index]) for index in order]))
    result = []
    for stack in stacks:
        codes = [found.code for found in stack.findings]
        try:
            result.append((codes, stack.told_by, read_series(stack).values[0].transpose(2, 1, 0).tolist()))
        except UnsuitableImage:
            result.append((codes, (), []))
    return result


def check(files, contents):
    """Each content is a volume, in their order, whatever the order of files and their UIDs."""
    first = read_shuffled(files, 0)
    assert [values for _, _, values in first] == [content.tolist() for content in contents]
    assert read_shuffled(files, 1) == first
    return first


@pytest.mark.parametrize(
    ("keyword", "values"),
    exhaustive(
        [
            ("KVP", ("80", "140")),
            ("TriggerTime", ("0", "412.5")),
            ("AcquisitionTime", ("101112", "101145.25")),
            ("ImageType", (["DERIVED", "PRIMARY", "FAT"], ["DERIVED", "PRIMARY", "WATER"])),
            ("DiffusionGradientOrientation", ([0.0, 1.0, 0.0], [1.0, 0.0, 0.0])),
            ("AcquisitionNumber", (1, 2)),
            ("EchoTime", ("4.6", "9.2")),
            ("EchoNumbers", (1, 2)),
            ("TemporalPositionIdentifier", (1, 2)),
            ("DiffusionBValue", (0.0, 800.0)),
            ("InversionTime", ("100", "2500")),
            ("FlipAngle", ("5", "15")),
            ("RepetitionTime", ("500", "2000")),
            ("SequenceName", ("*ep_b0", "*ep_b1000t")),
            ("ConvolutionKernel", ("B30f", "B70f")),
            ("FilterType", ("BODY FILTER", "HEAD FILTER")),
            ("ReconstructionDiameter", ("350", "500")),
            ("SliceThickness", ("1", "5")),
            ("ContrastBolusAgent", ("", "IOMERON")),
            ("AcquisitionDateTime", ("20240102101112", "20240102101145")),
            ("ContentTime", ("101112.000001", "101112.5")),
            ("FrameReferenceTime", ("500", "1500")),
            ("NominalPercentageOfCardiacPhase", (0.0, 50.0)),
            ("SeriesDescription", ("arterial", "portal")),
            ("DerivationDescription", ("ADC", "TRACE")),
        ],
        short=6,
    ),
)
def test_any_one_attribute_tells_two_volumes_apart(keyword, values):
    contents = volumes(2)

    first = check(series_of(contents, [{keyword: value} for value in values]), contents)

    for codes, told_by, _ in first:
        assert "several_volumes" in codes
        assert [name for name, _ in told_by] == [keyword]


def test_echoes_times_and_energies_at_once_are_all_told():
    contents = volumes(8)
    kinds = list(itertools.product(("80", "140"), ("0", "400"), (1, 2)))
    headers = [{"KVP": kvp, "TriggerTime": time, "AcquisitionNumber": n} for kvp, time, n in kinds]

    found = read_shuffled(series_of(contents, headers), 0)

    assert sorted(values for _, _, values in found) == sorted(content.tolist() for content in contents)


def test_times_that_differ_within_a_volume_tell_the_volumes_where_one_comes_after_the_other():
    contents = volumes(3)

    check(series_of(contents, lambda v, i: {"AcquisitionTime": f"10{11 + v}{10 + 3 * i:02d}.5"}), contents)


def test_times_over_midnight_are_in_order_with_their_dates():
    contents = volumes(2)
    days = ("20240101", "20240102"), ("235958", "000003")

    check(series_of(contents, lambda v, _: {"AcquisitionDate": days[0][v], "AcquisitionTime": days[1][v]}), contents)


CHANCE = (10, 700, 350, 20), (400, 710, 355, 600), (790, 720, 360, 610)


@pytest.mark.parametrize(
    ("count", "header"),
    [
        (2, lambda v, i: {"AcquisitionTime": f"1011{10 * i + v:02d}"}),
        (3, lambda v, i: {"TriggerTime": str(CHANCE[v][i])}),
        (2, lambda v, i: {"ImageType": ["ORIGINAL", "PRIMARY", ("XXYX", "XYXY")[v][i]]}),
    ],
    ids=["times overlap", "trigger times by chance", "a word that changes by chance"],
)
def test_attributes_without_order_tell_nothing_and_are_refused(count, header):
    found = read_shuffled(series_of(volumes(count), header), 0)

    assert [codes for codes, _, _ in found] == [["ambiguous_volumes"]]


def test_two_clocks_that_contradict_each_other_tell_nothing():
    times = ("101100", "101105"), ("101200", "101205")  # of ContentTime; of AcquisitionTime one slice is exchanged

    def header(v, i):
        exchanged = 1 - v if i == 0 else v
        return {"ContentTime": times[v][i % 2], "AcquisitionTime": times[exchanged][i % 2]}

    assert [codes for codes, _, _ in read_shuffled(series_of(volumes(2, (2, 3, 4)), header), 0)] == [
        ["ambiguous_volumes"]
    ]


def test_times_of_places_that_come_in_another_order_each_time_tell_only_after_a_pause():
    order = ((0, 1, 2, 3), (2, 0, 3, 1))
    contents = volumes(2)

    close = series_of(contents, lambda v, i: {"AcquisitionTime": f"10{11 + v}{10 * order[v][i]:02d}"})
    apart = series_of(contents, lambda v, i: {"AcquisitionTime": f"10{11 + 9 * v}{10 * order[v][i]:02d}"})

    check(close, contents)  # 30 s between the volumes, 10 s within each
    check(apart, contents)
    touching = series_of(contents, lambda v, i: {"AcquisitionTime": f"1011{10 * order[v][i] // 4 + 8 * v:02d}"})
    assert [codes for codes, _, _ in read_shuffled(touching, 0)] == [["ambiguous_volumes"]]


def test_a_last_volume_that_was_broken_off_is_told_by_the_pause_before_it():
    contents = volumes(3)
    files = series_of(contents, lambda v, i: {"AcquisitionTime": f"10{11 + v}{10 + 3 * i:02d}"})

    found = read_shuffled(files[:-1], 0)

    assert [values for _, _, values in found] == [*map(np.ndarray.tolist, contents[:2]), contents[2][:-1].tolist()]


def test_phases_of_hearts_that_beat_differently_are_ranked_within_the_beat():
    contents = volumes(8)
    rr = (800, 700, 760, 900)  # ms, of each slice: phases of one slice fall between those of another

    check(series_of(contents, lambda v, i: {"TriggerTime": str(round(rr[i] * v / 8, 1))}), contents)


def test_one_number_for_both_volumes_and_nothing_else_is_refused():
    files = series_of(volumes(2), [{}, {}])

    found = read_shuffled(files, 0)

    assert found == [(["ambiguous_volumes"], (), [])]
    assert read_shuffled(files, 1) == found


def test_numbers_in_blocks_are_taken_and_said_and_alternating_ones_refused():
    contents = volumes(2)
    blocks = series_of(contents, lambda v, i: {"InstanceNumber": SLICES * v + i + 1})
    alternating = series_of(contents, lambda v, i: {"InstanceNumber": 2 * i + v + 1})

    assert [codes for codes, _, _ in check(blocks, contents)] == [["guessed_volumes"]] * 2
    assert [codes for codes, _, _ in read_shuffled(alternating, 0)] == [["ambiguous_volumes"]]


def test_attributes_that_differ_within_the_volume_split_no_single_one():
    [content] = volumes(1)
    changing = {
        "AcquisitionTime": lambda i: f"1011{10 + i}",
        "ContentTime": lambda i: f"1012{50 - i}",
        "AcquisitionNumber": lambda i: i % 2,
        "TriggerTime": lambda i: str(100 * (i % 2)),
        "ImageType": lambda i: ["ORIGINAL", "PRIMARY", "AB"[i % 2]],
        "InversionTime": lambda i: str(10 * i),
    }

    check(series_of([content], lambda _, i: {key: make(i) for key, make in changing.items()}), [content])


@pytest.mark.parametrize("shared", [1, 2])
@pytest.mark.parametrize("has_times", [False, True])
def test_acquisitions_that_overlap_are_one_volume_and_the_later_is_taken(shared, has_times):
    slices = 16
    content, again = pixels((slices, 3, 4)), pixels((slices, 3, 4), seed=9)
    places = positions_of(slices)
    first = make_series(content[: 8 + shared], places=places[: 8 + shared], AcquisitionNumber=2)
    second = make_series(again[8:], places=places[8:], AcquisitionNumber=3)
    if has_times:
        for index, dataset in enumerate([*first, *second]):
            dataset.AcquisitionTime = f"1011{10 + index}"

    [(codes, _, values)] = read_shuffled([*first, *second], 0)

    assert codes == ["overlapping_acquisitions"]
    assert values == [*content[:8].tolist(), *again[8:].tolist()]


def test_a_copy_with_other_uids_and_times_is_left_out_and_is_no_second_volume():
    [content] = volumes(1)
    files = series_of([content, content], [{"ContentTime": "101112"}, {"ContentTime": "111213"}])

    assert [(codes, values) for codes, _, values in read_shuffled(files, 0)] == [
        (["duplicate_slices"], content.tolist())
    ]


def test_equal_stored_values_of_another_rescale_are_no_copy():
    [content] = volumes(1)
    files = series_of([content, content], lambda v, _: {"RescaleSlope": v + 1, "RescaleIntercept": 0})

    assert [codes for codes, _, _ in read_shuffled(files, 0)] == [["ambiguous_volumes"]]


@pytest.mark.parametrize("keyword", ["KVP", "EchoTime", "ConvolutionKernel"])
def test_volumes_whose_slices_lie_between_each_other_are_not_mixed(keyword):
    contents = volumes(2)
    values = {"KVP": ("80", "140"), "EchoTime": ("5", "10"), "ConvolutionKernel": ("B30f", "B70f")}[keyword]
    files = [
        dataset
        for content, value, shift in zip(contents, values, (0, GAP_MM / 2), strict=True)
        for dataset in make_series(content, places=positions_of(SLICES) + np.array([0, 0, shift]), **{keyword: value})
    ]

    found = read_shuffled(files, 0)

    assert sorted(values for _, _, values in found) == sorted(content.tolist() for content in contents)
    assert all("several_volumes" in codes for codes, _, _ in found)


@pytest.mark.parametrize(("keyword", "values"), [("KVP", ("80", "140")), ("EchoTime", ("5", "10"))])
def test_slices_without_places_that_were_measured_otherwise_are_other_volumes(keyword, values):
    contents = volumes(2)
    files = series_of(contents, [{keyword: value} for value in values], ImagePositionPatient=None)

    for codes, _, _ in check(files, contents):
        assert codes == ["several_volumes", "missing_geometry"]


@pytest.mark.parametrize("noise_mm", [0.0011, 0.019])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_echoes_whose_positions_differ_by_rounding_are_two_volumes(noise_mm, axis):
    contents = volumes(2)
    files = [
        dataset
        for number, content in enumerate(contents)
        for dataset in make_series(
            content, places=positions_of(SLICES) + noise_mm * number * np.eye(3)[axis], EchoTime=str(5 + 5 * number)
        )
    ]

    found = read_shuffled(files, 0)

    assert [(codes, values) for codes, _, values in found] == [
        (["several_volumes"], content.tolist()) for content in contents
    ]


def test_random_noise_of_positions_changes_nothing():
    contents = volumes(2)
    rng = np.random.default_rng(4)
    files = [
        dataset
        for number, content in enumerate(contents)
        for dataset in make_series(
            content, places=positions_of(SLICES) + rng.uniform(-0.009, 0.009, (SLICES, 3)), TriggerTime=str(number)
        )
    ]

    assert [values for _, _, values in read_shuffled(files, 0)] == [content.tolist() for content in contents]


def test_one_tolerance_grows_with_the_distance_and_shrinks_with_micrographs():
    assert place_tolerance_mm(0.5) == pytest.approx(0.02)
    assert place_tolerance_mm(5) == pytest.approx(0.1)
    assert place_tolerance_mm(0.01) == pytest.approx(0.0025)


def test_places_are_numbered_along_the_normal_then_along_rows_and_columns():
    positions = np.asarray(ORIGIN) + np.array([[0, 0, 5], [9, 0, 0], [0, 0, 0.01], [0, 9, 0], [0, 0, 0]])

    assert places_of(positions, AXIAL, 0.02).tolist() == [3, 2, 0, 1, 0]


@pytest.mark.parametrize(
    ("texts", "kinds"),
    [
        (["4.6", "4.60000014", " 4.6 ", "9.2"], [0, 0, 0, 1]),
        (["100000", "100001"], [0, 1]),
        (["100", "20", "3"], [2, 1, 0]),
        (["1\\0\\0", "0.9999\\0\\0.0002", "0\\1\\0"], [1, 1, 0]),
        (["ORIGINAL\\W", "original\\W ", "F"], [1, 1, 0]),
        (["", "5", "nan"], [1, 0, 2]),
    ],
)
def test_values_that_differ_by_rounding_are_one(texts, kinds):
    assert number_kinds(texts) == kinds


def test_moments_grow_over_seconds_days_and_years():
    texts = ["00000000101112", "20231231235959.5", "20240101000000", "20240101000000.25"]

    moments = [seconds_of(text) for text in texts]

    assert moments == sorted(moments)
    assert seconds_of("2024010110:11:12") == seconds_of("20240101101112+0100")
    assert seconds_of("soon") is None


def test_every_attribute_of_the_table_is_one_of_the_standard():
    from pydicom.datadict import tag_for_keyword

    names = [word for name, row in DISCRIMINATORS.items() for word in (name, row.date)]
    assert [name for name in names if name and tag_for_keyword(name) is None] == []
