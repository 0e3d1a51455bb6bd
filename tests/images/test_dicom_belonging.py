"""Which files are one series: patients, studies, frames of reference, and UIDs that are missing or too many."""

import numpy as np
import pytest
from pydicom.uid import generate_uid

from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.dicom.series import find_instances, group_series, read_series
from tests.support.dicom_series import AXIAL, CORONAL, make_series, make_slice, pixels, positions_of, to_bytes

SLICES = 4


def group(files, seed=0):
    order = np.random.default_rng(seed).permutation(len(files))
    return group_series(find_instances([to_bytes(files[index]) for index in order]))


def codes(series):
    return [found.code for found in series.findings]


def values(series):
    return read_series(series).values[0].transpose(2, 1, 0).tolist()


def volume(seed, **elements):
    return make_series(pixels((SLICES, 3, 4), seed=seed), **elements)


def contents(seed):
    return pixels((SLICES, 3, 4), seed=seed).tolist()


def uid(*parts):
    return generate_uid(entropy_srcs=[str(part) for part in parts])


def patients_of(series):
    return {each.patient_id.strip().casefold() for each in series.instances}


# --- patients and studies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift_mm", [0, 1.25, 10])
def test_patients_whose_studies_share_a_series_uid_are_kept_apart(shift_mm):
    files = [
        *volume(1, PatientID="A", StudyInstanceUID=uid("a")),
        *volume(2, PatientID="B", StudyInstanceUID=uid("b"), places=positions_of(SLICES) + np.array([0, 0, shift_mm])),
    ]

    stacks = group(files)

    assert sorted(map(values, stacks)) == sorted(map(contents, (1, 2)))
    assert [(codes(each), each.findings[0].severity) for each in stacks] == [(["shared_series_uid"], "warning")] * 2


def test_two_patients_in_one_study_and_series_are_never_one_volume():
    files = [*volume(1, PatientID="A"), *volume(2, PatientID="B")]

    stacks = group(files)

    assert [patients_of(each) for each in stacks] in ([{"a"}, {"b"}], [{"b"}, {"a"}])
    for each in stacks:
        with pytest.raises(UnsuitableImage, match="2 patients in one study"):
            read_series(each)


@pytest.mark.parametrize("spelling", ["P1", " p1 ", "P1\0"])
def test_blanks_and_case_of_a_patient_id_make_no_other_patient(spelling):
    files = volume(1, PatientID="P1")
    for dataset in files[::2]:
        dataset.PatientID = spelling

    [series] = group(files)

    assert codes(series) == []
    assert values(series) == contents(1)


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
@pytest.mark.parametrize("missing", [None, ""])
def test_files_that_do_not_name_the_patient_or_study_are_counted_to_the_only_one_and_said(keyword, missing):
    files = volume(1)
    for dataset in files[:2]:
        if missing is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, missing)

    [series] = group(files)

    assert [(found.code, found.count) for found in series.findings] == [("incomplete_identity", 2)]
    assert values(series) == contents(1)


def test_a_file_that_names_neither_of_two_patients_spoils_what_it_may_belong_to():
    files = [*volume(1, PatientID="A"), *volume(2, PatientID="B"), *volume(3, PatientID=None)]

    for series in group(files):
        assert "mixed_patients" in codes(series)
        assert len(patients_of(series)) == 1


def test_one_patient_in_two_studies_is_two_series():
    files = [*volume(1, StudyInstanceUID=uid("1")), *volume(2, StudyInstanceUID=uid("2"))]

    assert sorted(map(values, group(files))) == sorted(map(contents, (1, 2)))


def test_a_study_for_each_slice_is_refused_by_its_cause():
    files = volume(1)
    for number, dataset in enumerate(files):
        dataset.StudyInstanceUID = uid(number)

    for series in group(files):
        with pytest.raises(UnsuitableImage, match="one patient name 4 studies"):
            read_series(series)


# --- frames of reference ----------------------------------------------------------------------------------------------


def test_volumes_of_two_frames_of_reference_are_two_stacks():
    files = [*volume(1, FrameOfReferenceUID=uid("1")), *volume(2, FrameOfReferenceUID=uid("2"))]

    stacks = group(files)

    assert sorted(map(values, stacks)) == sorted(map(contents, (1, 2)))
    assert [codes(each) for each in stacks] == [["mixed_frame_of_reference"]] * 2


def test_slices_with_a_frame_of_reference_each_are_refused_by_their_cause():
    files = volume(1)
    for number, dataset in enumerate(files):
        dataset.FrameOfReferenceUID = uid(number)

    [series] = group(files)

    with pytest.raises(UnsuitableImage, match="4 different FrameOfReferenceUIDs"):
        read_series(series)


def test_a_frame_of_reference_that_some_slices_lack_is_the_only_one():
    files = volume(1)
    del files[0].FrameOfReferenceUID

    [series] = group(files)

    assert codes(series) == []


# --- series without a UID, and too many of them -----------------------------------------------------------------------


def scattered(files):
    for dataset in files:
        dataset.SeriesInstanceUID = generate_uid()
    return files


def test_slices_with_a_series_uid_each_are_one_volume_for_each_patient_and_say_so():
    files = scattered([*volume(1), *volume(2, PatientID="B", StudyInstanceUID=uid("b"), SeriesNumber=1)])

    stacks = group(files)

    assert sorted(map(values, stacks)) == sorted(map(contents, (1, 2)))
    assert [[(found.code, found.severity, found.count) for found in each.findings] for each in stacks] == [
        [("series_uid_per_slice", "warning", SLICES)]
    ] * 2
    assert [values(each) for each in group(files, seed=1)] in (
        [values(each) for each in stacks],
        [values(each) for each in stacks[::-1]],
    )


def test_echoes_with_a_uid_for_each_place_are_two_volumes():
    first, second = volume(1, EchoTime="5"), volume(2, EchoTime="10")
    for number, pair in enumerate(zip(first, second, strict=True)):
        for dataset in pair:
            dataset.SeriesInstanceUID = uid(number)

    stacks = group([*first, *second])

    assert list(map(values, stacks)) == [contents(1), contents(2)]
    assert codes(stacks[0]) == ["several_volumes", "series_uid_per_slice"]


@pytest.mark.parametrize(
    "elements", [{"SeriesNumber": None}, {"FrameOfReferenceUID": None}, {"StudyInstanceUID": None}]
)
def test_slices_with_uids_of_their_own_are_believed_where_less_agrees(elements):
    assert [len(each.slices) for each in group(scattered(volume(1, **elements)))] == [1] * SLICES


@pytest.mark.parametrize(
    ("keyword", "values_"),
    [
        ("SeriesNumber", (1, 2)),
        ("SeriesDescription", ("a", "b")),
        ("PixelSpacing", ([1, 1], [2, 2])),
        ("ImageOrientationPatient", (list(AXIAL), list(CORONAL))),
        ("Modality", ("MR", "CT")),
    ],
)
def test_slices_that_differ_in_what_a_series_has_are_not_put_together(keyword, values_):
    files = scattered([make_slice(pixels((3, 4)), **{keyword: value}) for value in values_])
    files[1].ImagePositionPatient = [0, 0, 50]

    assert len(group(files)) == 2


def test_slices_of_one_place_taken_again_and_again_are_series_of_their_own():
    files = scattered([make_slice(pixels((3, 4), seed=number), InstanceNumber=number + 1) for number in range(3)])

    assert [len(each.slices) for each in group(files)] == [1, 1, 1]


def test_slices_without_series_uid_are_one_volume_where_all_else_agrees():
    files = volume(1, SeriesInstanceUID=None)

    [series] = group(files)

    assert [(found.code, found.severity, found.count) for found in series.findings] == [
        ("missing_series_uid", "warning", SLICES)
    ]
    assert values(series) == contents(1)


def test_slices_without_any_uid_of_two_patients_are_two_volumes():
    bare = {"SeriesInstanceUID": None, "StudyInstanceUID": None, "FrameOfReferenceUID": None}
    files = [*volume(1, PatientID="A", **bare), *volume(2, PatientID="B", **bare)]

    assert sorted(map(values, group(files))) == sorted(map(contents, (1, 2)))


def test_slices_that_say_nothing_of_where_they_belong_are_not_put_together():
    bare = {"SeriesInstanceUID": None, "StudyInstanceUID": None, "FrameOfReferenceUID": None, "PatientID": None}

    stacks = group(volume(1, **bare))

    assert [len(each.slices) for each in stacks] == [1] * SLICES
    assert all("missing_series_uid" in codes(each) for each in stacks)


@pytest.mark.parametrize("uid_of", [lambda _: None, lambda number: uid("dx", number)])
def test_projections_are_never_put_together(uid_of):
    files = [
        make_slice(
            pixels((3, 4), seed=number),
            Modality="DX",
            SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1",
            SeriesInstanceUID=uid_of(number),
            ImagePositionPatient=[0, 0, 3 * number],
        )
        for number in range(3)
    ]

    assert [len(each.slices) for each in group(files)] == [1, 1, 1]


# --- objects ----------------------------------------------------------------------------------------------------------


def test_a_dose_in_the_series_of_the_images_is_a_stack_of_its_own():
    files = [*volume(1), *volume(2, Modality="RTDOSE", SOPClassUID="1.2.840.10008.5.1.4.1.1.481.2")]

    stacks = group(files)

    assert [{each.modality for each in one.instances} for one in stacks] in ([{"MR"}, {"RTDOSE"}], [{"RTDOSE"}, {"MR"}])
    assert all("mixed_objects" in codes(each) for each in stacks)
