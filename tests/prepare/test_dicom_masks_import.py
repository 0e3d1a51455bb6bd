"""Exports of DICOM series with SEG and RTSTRUCT: whose mask is whose, versions, structures, and nothing of a header."""

import gzip
import zipfile

import nibabel
import numpy as np
import pytest

from sagemaker_monai.data.layouts import read_channels
from sagemaker_monai.data.mask_reading import grid_of, labels_on_grid
from sagemaker_monai.entrypoints import prepare
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.prepare.dicom_images import Deidentification, Units
from sagemaker_monai.prepare.dicom_masks_import import import_dicom_masks
from sagemaker_monai.prepare.publish import Choices
from sagemaker_monai.prepare.structures import MaskOptions
from tests.support.dicom_series import positions_of
from tests.support.identified import SALT
from tests.support.imported import content_of, records_of
from tests.support.mask_exports import SHAPE, SQUARE, STRIP, patient_series, put_export, rtstruct, seg, squares, uid

EVEN = (0.5, 0.25, 0.25)
P0, P1, P2 = (patient_series(f"P{n}") for n in range(3))
S1, S2 = seg(P1), seg(P2)


@pytest.fixture
def run(tmp_path):
    """Import an export of objects; two whole patients are always there, so that a split can be drawn."""

    def call(private=False, masks=None, units=None, **objects):
        choices = {name: objects.pop(name) for name in ("mismatch", "unusable") if name in objects}
        others = {"p1": P1, "s1": S1, "p2": P2, "s2": S2}
        put_export(tmp_path / "source", **{**others, **objects})
        return import_dicom_masks(
            tmp_path / "source",
            tmp_path / "out",
            masks=MaskOptions(**masks or {}),
            units=Units(**units or {}),
            choices=Choices(title="t", fractions=EVEN, **choices),
            deidentification=Deidentification(salt=SALT) if private else None,
        )

    return call


def labels_in(out):
    """The label map (D, H, W) of each image by the image's name, as training reads them."""
    layout = read_channels({"training": out})
    found = {}
    for entry in layout.entries:
        labels, findings = labels_on_grid(entry.mask, grid_of(entry.image, layout.spatial_dims), layout.legend)
        assert findings == ()
        found[entry.name] = labels.transpose(*reversed(range(labels.ndim)))
    return layout.labels, found


def map_of(out, patient):
    """The one label map of a patient whose group is its PatientID's number, by the order of images."""
    names, found = labels_in(out)
    return names, found[sorted(found)[patient]]


# --- whose mask it is


def test_masks_of_both_kinds_are_paired_by_uids_in_any_folder_and_read_by_training(tmp_path, run):
    """SQUARE and STRIP are voxels 1 to 3, and 4 to 5 by 5 to 7, by hand in `squares`."""
    report = run(
        x0=P0,
        y1=rtstruct(P0, {"Liver": (1, SQUARE), "tumour": (2, STRIP)}),
        z=patient_series("P0", 2),  # of which there is no mask
    )

    names, found = labels_in(tmp_path / "out")
    assert (report.images, report.groups, report.spatial_dims) == (3, 3, 3)
    assert names == ("liver", "tumour")
    assert sorted(map(bytes, found.values())) == sorted(map(bytes, [squares(1, 2), squares(), squares()]))
    assert report.left_out == {"images without a mask": 1}
    content = content_of(tmp_path / "out")
    assert content["labels"] == {"0": "background", "1": "liver", "2": "tumour"}
    assert content["task"] == "segmentation"
    assert {item["label"] for item in records_of(tmp_path / "out")} == {f"./masks/0000{n}.nii.gz" for n in (1, 2, 3)}
    assert report.counts["tumour"] == {"training": 1, "validation": 0, "test": 0} or report.counts["tumour"]["test"]
    assert any("absent_structures: 1 structures" in each and "tumour 1" in each for each in report.warnings)


def test_nothing_of_a_header_is_in_the_output_and_the_same_call_again_writes_nothing(tmp_path, run):
    mask = rtstruct(P0, StructureSetLabel="plan of Quixotic", OperatorsName="Sorbonne^Ada", StationName="QX77")

    report = run(private=True, a=P0, b=mask)

    assert report.images == 3
    for path in (tmp_path / "out").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        content = gzip.decompress(content) if path.name.endswith(".gz") else content
        assert not any(word in content for word in (b"Quixotic", b"Sorbonne", b"QX77", b"source"))
    assert any("9 files were de-identified" in note for note in report.notes)
    assert run(private=True, a=P0, b=mask).is_repeated
    image = nibabel.load(tmp_path / "out" / "masks" / "00001.nii.gz")
    assert image.get_data_dtype() == np.uint8
    assert bytes(image.header["descrip"]).strip(b"\0") == bytes(image.header["db_name"]).strip(b"\0") == b""


def test_a_name_that_identifies_somebody_is_no_label(tmp_path, run):
    objects = {"a": P0, "b": rtstruct(P0, {"GTV Quixotic": (1, SQUARE), "liver": (2, STRIP)})}

    with pytest.raises(DatasetError, match="1 structures have names with what identifies") as refused:
        run(**objects)
    assert "uixotic" not in str(refused.value)

    report = run(**objects, masks={"structures": ("liver",)})
    assert list(report.counts) == ["liver"]
    assert any("(names that identify somebody) 1" in note for note in report.notes)
    assert "uixotic" not in report.summary()


def test_a_mask_without_its_image_is_refused_or_left_out_and_counted(run):
    objects = {"a": seg(P0), "b": patient_series("P0", 2, FrameOfReferenceUID=uid("other frame"))}

    with pytest.raises(DatasetError, match=r"masks of images that are not there: 1 \(a/a0\); export their series"):
        run(**objects)
    report = run(**objects, mismatch="drop")
    assert report.left_out == {"masks of images that are not there": 1, "images without a mask": 1}


def bare(mask):
    """A SEG that names no images."""
    del mask.ReferencedSeriesSequence, mask.SourceImageSequence
    for group in [*mask.PerFrameFunctionalGroupsSequence, *mask.SharedFunctionalGroupsSequence]:
        group.pop("DerivationImageSequence", None)
    return mask


def both_series(mask, other):
    """A SEG that names the slices of another series, too."""
    more = seg(other).ReferencedSeriesSequence
    mask.ReferencedSeriesSequence = [*mask.ReferencedSeriesSequence, *more]
    return mask


def both_phases(mask, other):
    """A SEG that names the slices of another volume of its series, too."""
    mask.ReferencedSeriesSequence[0].ReferencedInstanceSequence.extend(
        seg(other).ReferencedSeriesSequence[0].ReferencedInstanceSequence
    )
    return mask


OTHER = patient_series("P0", 2, SeriesDescription="t2", Modality="CT")


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (lambda: bare(seg(P0)), "may be of 2 images"),  # one frame of reference
        (lambda: both_series(seg(P0), OTHER), "may be of 2 images"),
        (lambda: seg(P0, PatientID="P9"), "another patient"),
        (lambda: [seg(P0), seg(P0, SeriesDescription="changed")], "same structures"),
        (lambda: [seg(P0), seg(P0, ContentLabel="B", SOPInstanceUID=seg(P0).SOPInstanceUID)], "one SOPInstanceUID"),
        (lambda: rtstruct(P0, ROIContourSequence=[]), "no ROIContourSequence"),
        (lambda: seg(P0, labels=("",)), "no structure with a name"),
    ],
)
def test_masks_that_cannot_be_told_apart_are_refused_with_the_reason(run, mask, reason):
    with pytest.raises(DatasetError, match=reason):
        run(a=P0, b=mask(), c=OTHER)

    left = run(a=P0, b=mask(), c=OTHER, unusable="leave-out")
    assert left.images == 2
    assert left.left_out["cannot be used"] >= 1


def test_an_option_chooses_among_the_series_that_a_mask_names(tmp_path, run):
    objects = {"a": P0, "b": both_series(seg(P0), OTHER), "c": OTHER}
    for units in ({"modality": ("MR",)}, {"description": "T1*"}, {"series": f"{P0[0].SeriesInstanceUID}"}):
        masks = {} if "series" not in units else {"structures": ("liver",)}
        if "series" in units:
            units = {"series": ",".join(files[0].SeriesInstanceUID for files in (P0, P1, P2))}
        assert run(**objects, units=units, masks=masks).images == 3
    with pytest.raises(ConfigError, match="masks name their series"):
        run(**objects, units={"series": "thinnest"})


def test_the_frame_of_reference_pairs_a_bare_mask_with_its_only_image_and_says_so(run):
    report = run(a=P0, b=bare(seg(P0)))

    assert report.images == 3
    assert any(note.startswith("mask_reference_unproved: 1 ") for note in report.notes)


def test_copies_of_one_mask_are_one_and_masks_in_other_studies_find_their_image(run):
    report = run(a=P0, b=[seg(P0, StudyInstanceUID=uid("later study"))] * 2)

    assert report.images == 3


def test_an_archive_with_every_slice_twice_is_read_like_a_folder(tmp_path):
    put_export(tmp_path / "source", a=P0, b=P0, c=seg(P0), d=P1, e=S1, f=P2, g=S2)
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for path in (tmp_path / "source").rglob("*"):
            archive.write(path, path.name)

    report = import_dicom_masks(tmp_path / "export.zip", tmp_path / "out", choices=Choices(title="t", fractions=EVEN))

    assert report.images == 3
    assert [bytes(labels) for labels in labels_in(tmp_path / "out")[1].values()] == [bytes(squares())] * 3
    assert len(list((tmp_path / "out" / "series").rglob("*.dcm"))) == 9
    assert "1 series have the finding duplicate_slices" in report.warnings


def test_faults_of_series_in_one_folder_are_counted_one_by_one(run):
    objects = {"a-x": P0, "b-x": rtstruct(P0, ROIContourSequence=[]), "c-x": patient_series("P0", 2)}
    objects |= {"d-x": rtstruct(objects["c-x"], {"liver": (1, SQUARE), "Liver ": (2, STRIP)})}

    report = run(**objects, unusable="leave-out")

    assert report.images == 2
    assert report.left_out == {"cannot be used": 2, "images without a mask": 1}
    assert any("are one by their names" in note for note in report.notes)


def test_localizers_and_slices_of_another_size_do_not_disturb(run):
    scout = patient_series("P0", 3, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])[:2]

    report = run(a=P0, b=seg(P0), c=scout)

    assert (report.images, report.left_out) == (3, {"no images": 1})


def test_of_a_series_with_two_phases_the_mask_has_its_own(tmp_path, run):
    early, late = (
        patient_series("P0", SeriesInstanceUID=uid("dynamic"), TemporalPositionIdentifier=phase) for phase in (1, 2)
    )
    for place, each in enumerate(late):
        each.SOPInstanceUID = each.file_meta.MediaStorageSOPInstanceUID = uid("late", place)
        each.PixelData = bytes(reversed(each.PixelData))

    report = run(a=early, b=late, c=seg(late))

    assert (report.images, report.left_out) == (3, {"images without a mask": 1})
    copied = [path.read_bytes() for path in (tmp_path / "out" / "series").rglob("*.dcm")]
    assert sum(late[0].SOPInstanceUID.encode() in content for content in copied) == 1
    assert not any(early[0].SOPInstanceUID.encode() in content for content in copied)
    with pytest.raises(DatasetError, match=r"may be of 2 images.*\(other series, phases or echoes\)"):
        run(a=early, b=late, c=both_phases(seg(late), early))


def test_a_series_with_uneven_slices_is_refused_with_its_own_reason(run):
    uneven = patient_series("P0")
    for each, place in zip(uneven, positions_of(SHAPE[0])[[0, 1, 1]], strict=True):
        each.ImagePositionPatient = list(map(float, place))
    uneven[2].ImagePositionPatient[2] += 9.0
    mask = rtstruct(P0)

    with pytest.raises(DatasetError, match=r"uneven|missing|slices"):
        run(a=uneven, b=mask)
    assert run(a=uneven, b=mask, unusable="leave-out").images == 2


# --- structures and versions


def test_one_object_a_structure_is_one_mask(tmp_path, run):
    objects = [seg(P0), rtstruct(P0, {"Tumour": (2, STRIP)}), rtstruct(P0, {"NODE": (0, STRIP)})]

    names, found = labels_in_of = run(a=P0, b=objects) and labels_in(tmp_path / "out")

    assert names == ("NODE", "Tumour", "liver")
    expected = squares(3, 2)
    expected[0, 5:8, 4:6] = 1
    assert any(np.array_equal(labels, expected) for labels in found.values())
    assert labels_in_of


def test_structures_that_overlap_in_two_objects_are_refused_by_name(run):
    with pytest.raises(DatasetError, match=r"overlap.*liver and tumour \(9 voxels\)"):
        run(a=P0, b=[seg(P0), rtstruct(P0, {"tumour": (1, SQUARE)})])


def test_the_user_chooses_structures_in_any_spelling_and_their_order(tmp_path, run):
    mask = rtstruct(P0, {"GTV 1": (2, STRIP), "LIVER": (1, SQUARE), "body": (0, SQUARE)})

    report = run(a=P0, b=mask, masks={"structures": ("gtv_1", "Liver")})

    assert content_of(tmp_path / "out")["labels"] == {"0": "background", "1": "gtv_1", "2": "Liver"}
    _, found = labels_in(tmp_path / "out")
    assert any(np.array_equal(labels, squares(2, 1)) for labels in found.values())
    assert any("structures that are no labels: body 1" in note for note in report.notes)
    for structures, reason in ((("spleen",), "no mask has: spleen; the masks have"), (("gtv1", "GTV 1"), "twice")):
        with pytest.raises(ConfigError, match=reason):
            run(a=P0, b=mask, masks={"structures": structures})


def test_images_without_a_chosen_structure_are_left_out_and_counted(run):
    report = run(a=P0, b=rtstruct(P0, {"spleen": (1, SQUARE)}), masks={"structures": ("liver",)})

    assert (report.images, report.left_out) == (2, {"images with masks of other structures": 1})


OLD = {"StructureSetDate": "20200101", "StructureSetTime": "101010"}
NEW = {"StructureSetDate": "20200101", "StructureSetTime": "111010"}


def versions(old=("liver",), new=("liver",), newer=None):
    outlines = {"liver": (1, SQUARE), "tumour": (2, STRIP)}
    first = rtstruct(P0, {name: outlines[name] for name in old}, **OLD, OperatorsName="Ada")
    changed = {"liver": (0, SQUARE), "tumour": (2, STRIP)}
    return [first, rtstruct(P0, {name: changed[name] for name in new}, **(newer or NEW), SeriesDescription="final v2")]


def test_of_versions_the_newest_or_the_described_one_is_taken_when_asked_for(tmp_path, run):
    with pytest.raises(DatasetError, match=r"2 masks of the image have the same structures \(liver\); choose with"):
        run(a=P0, b=versions())

    late = np.roll(squares(), -1, axis=0)
    for order in (1, -1):
        run(a=P0, b=versions()[::order], masks={"versions": "newest"})
        assert sum(np.array_equal(labels, late) for labels in labels_in(tmp_path / "out")[1].values()) == 1
    descriptions = {"*FINAL*": 1, "ada": 0}
    for pattern, count in descriptions.items():
        objects = {"s1": seg(P1, ContentLabel="ADA"), "s2": seg(P2, SeriesDescription="the final one")}
        report = run(a=P0, b=versions(), **objects, masks={"description": pattern})
        found = labels_in(tmp_path / "out")[1].values()
        assert (report.images, sum(np.array_equal(labels, late) for labels in found)) == (2, count)


@pytest.mark.parametrize(
    ("masks", "reason"),
    [
        (lambda: versions(old=("liver", "tumour")), r"newer ones do not have \(tumour\)"),
        (lambda: versions(newer=OLD), "which of 2 masks .* is the newest"),
        (lambda: versions(newer={"StructureSetDate": ""}), "which of 2 masks .* is the newest"),
    ],
)
def test_a_version_is_never_chosen_by_chance(run, masks, reason):
    with pytest.raises(DatasetError, match=reason):
        run(a=P0, b=masks(), masks={"versions": "newest"})


# --- single images, and the command


def test_single_pictures_have_masks_of_their_own(tmp_path, run):
    """No image has several slices, so each file is one; its mask is a label map of two axes."""
    singles = {n: patient_series(f"S{n}")[1:2] for n in range(3)}
    objects = {f"s{n}": seg(files, squares()[1:2]) for n, files in singles.items()}

    report = run(p0=singles[0], p1=singles[1], p2=singles[2], **objects)

    assert (report.images, report.spatial_dims) == (3, 2)
    for labels in labels_in(tmp_path / "out")[1].values():
        assert np.array_equal(labels, squares()[1])


def test_each_slice_of_a_series_can_be_an_image(tmp_path, run):
    report = run(a=P0, b=seg(P0, squares(1, 2), ("liver", "tumour")), units={"unit": "instance"})

    assert (report.images, report.spatial_dims, report.groups) == (9, 2, 3)
    found = labels_in(tmp_path / "out")[1].values()
    assert sorted(int(labels.sum()) for labels in found) == [0, 0, 0, 0, 0, 9, 9, 9, 12]


def test_the_command_takes_masks_instead_of_labels(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path / "none"))
    put_export(tmp_path / "source", a=P0, b=seg(P0), c=P1, d=seg(P1), e=P2, f=rtstruct(P2))
    base = ["dicom_folder", str(tmp_path / "source"), str(tmp_path / "out")]

    for more, message in (
        ([], "give --labels a table or folders, or --task segmentation"),
        (["--labels", "folders", "--structures", "a"], "--structures are about masks; add --task segmentation"),
        (["--task", "segmentation", "--labels", "folders"], "masks are the labels; leave out --labels"),
        (["--task", "segmentation", "--grades", "a,b"], "masks are the labels; leave out --grades"),
        (["--task", "segmentation", "--mask-description", "x*"], "no mask has a text that fits"),
    ):
        assert prepare.main([*base, *more]) == 1
        assert message in capsys.readouterr().err

    assert prepare.main([*base, "--task", "segmentation", "--structures", "LIVER", "--no-deidentify"]) == 0
    assert "3 images, 3-D, segmentation" in capsys.readouterr().out
    assert content_of(tmp_path / "out")["labels"] == {"0": "background", "1": "LIVER"}
