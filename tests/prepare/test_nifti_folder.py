"""Folders of volumes with tables of labels: cases, sequences, the Decathlon's layout, formats, headers' texts."""

import gzip
import json

import nibabel
import nrrd
import numpy as np
import pytest

from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.images.read import read_volumes_of
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.prepare.labels_table import LabelOptions
from sagemaker_monai.prepare.nifti_folder import Cases, import_nifti_folder
from sagemaker_monai.prepare.publish import Choices
from tests.support.imported import content_of, put, records_of, table
from tests.support.places import SHARED_DATA

SHARED = SHARED_DATA / "hippocampus_nifti"
AFFINE = np.array([[-1.0, 0, 0, 5], [0, 2.0, 0, 6], [0, 0, 3.0, 7], [0, 0, 0, 1]])


def values(number, shape=(5, 4, 3)):
    return np.random.default_rng(number).integers(0, 1000, shape).astype(np.int16)


def nifti(number, shape=(5, 4, 3), affine=AFFINE, kind=nibabel.Nifti1Image, **header):
    """The bytes of a .nii file whose texts name a patient."""
    image = kind(values(number, shape), affine)
    image.header["descrip"] = b"Quixotic^Zebulon"
    for name, value in header.items():
        image.header[name] = value
    return image.to_bytes()


def packed(number, **options):
    return gzip.compress(nifti(number, **options))


@pytest.fixture
def run(tmp_path):
    def call(*rows, out="out", reading=None, cases=None, source="source", **choices):
        labels = table(tmp_path / "labels.csv", *rows) if rows else "folders"
        return import_nifti_folder(
            tmp_path / source,
            tmp_path / out,
            labels=labels,
            reading=LabelOptions(**reading or {}),
            cases=Cases(**cases or {}),
            choices=Choices(**{"title": "t", "fractions": (0.5, 0.25, 0.25)} | choices),
        )

    return call


def labels(count, key="case_{}"):
    return [["case", "label"], *[[key.format(n), "ab"[n % 2]] for n in range(count)]]


def volume(out, image):
    [read] = read_volumes_of(Sample(out / image))
    return read


@pytest.mark.parametrize("key", ["case_{}", "case_{}.nii.gz", "scans/case_{}.nii.gz", "/anywhere/scans/case_{}"])
def test_a_case_is_named_with_or_without_folders_and_suffix(tmp_path, run, key):
    put(tmp_path / "source", {f"scans/case_{n}.nii.gz": packed(n) for n in range(8)})

    report = run(*labels(8, key), cases={"is_private": False})

    assert (report.images, report.spatial_dims) == (8, 3)
    for item in records_of(tmp_path / "out"):
        number = int(item["image"].removeprefix("./images/case_").removesuffix(".nii.gz"))
        assert item["label"] == "ab"[number % 2]
        assert (volume(tmp_path / "out", item["image"]).values[0] == values(number)).all()
    assert any("the patient of 8 images is unknown" in text for text in report.warnings)


def test_texts_of_headers_and_names_of_files_go_and_voxels_and_geometry_stay(tmp_path, run):
    put(tmp_path / "source", {f"Zebulon_{n}.nii{'.gz' * (n % 2)}": (packed if n % 2 else nifti)(n) for n in range(6)})

    run(*labels(6, "Zebulon_{}"))

    found = set()
    for item in records_of(tmp_path / "out"):
        path = tmp_path / "out" / item["image"]
        image = nibabel.load(path)
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert b"Quixotic" not in content
        assert np.array_equal(image.affine, AFFINE)
        assert image.get_data_dtype() == np.int16
        found.add(np.asarray(image.dataobj).tobytes())
    assert found == {values(n).tobytes() for n in range(6)}
    told = (tmp_path / "out" / "dataset.json").read_text() + (tmp_path / "out" / "import_report.json").read_text()
    assert "Zebulon" not in told


def test_every_format_of_volumes_is_taken_and_read_as_before(tmp_path, run):
    source = tmp_path / "source"
    put(source, {"case_0.nii": nifti(0)})
    nibabel.Nifti1Pair(values(1), AFFINE).to_filename(source / "case_1.hdr")
    nibabel.Spm99AnalyzeImage(values(2), AFFINE).to_filename(source / "case_2.img")
    np.save(source / "case_3.npy", values(3))
    np.savez(source / "case_4.npz", image=values(4), affine=AFFINE, patient=np.array(7.0))
    nrrd.write(str(source / "case_5.nhdr"), values(5), {"patient": "Quixotic"}, detached_header=True)
    before = {
        n: volume(source, f"case_{n}.{suffix}") for n, suffix in enumerate(("nii", "hdr", "hdr", "npy", "npz", "nhdr"))
    }

    report = run(*labels(6))

    assert report.images == 6
    items = {item["image"].split("/")[-1][4]: item["image"] for item in records_of(tmp_path / "out")}
    assert [items[str(n + 1)].partition(".")[2].partition(".")[2] for n in range(6)] == [
        "nii", "hdr", "hdr", "npy", "nii.gz", "nii.gz",
    ]  # fmt: skip
    for number, old in before.items():
        new = volume(tmp_path / "out", items[str(number + 1)])
        assert np.array_equal(new.values, old.values)
        assert np.allclose(new.affine, old.affine, rtol=1e-6)
        assert new.has_geometry == old.has_geometry
    assert not any(b"Quixotic" in path.read_bytes() for path in (tmp_path / "out" / "images").iterdir())


@pytest.mark.parametrize(
    ("pattern", "sequences"),
    [
        ("{case}/{case}-{sequence}.nii.gz", ("t1", "FLAIR")),
        ("{case}_{sequence}.nii.gz", ("t1", "FLAIR")),
        ("{case}/{sequence}.nii.gz", ("t1", "FLAIR")),
        ("imagesTr/{case}_{sequence}.nii.gz", ()),
    ],
)
def test_sequences_become_channels_in_their_order(tmp_path, run, pattern, sequences):
    names = ("0000", "0001") if not sequences else ("T1", "flair")
    files = {
        pattern.format(case=f"BraTS-{n:03}", sequence=name): packed(10 * n + channel)
        for n in range(4)
        for channel, name in enumerate(names)
    }
    masks = {f"labelsTr/BraTS-{n:03}.nii.gz": packed(99) for n in range(4)}
    put(tmp_path / "source", files | masks)

    run(*labels(4, "BraTS-00{}"), cases={"sequences": sequences})

    items = records_of(tmp_path / "out")
    assert len(items) == 4
    found = {tuple(volume(tmp_path / "out", name).values.tobytes() for name in item["image"]) for item in items}
    expected = {
        tuple(values(10 * n + channel).astype(np.float32).tobytes(order="C") for channel in (0, 1)) for n in range(4)
    }
    assert found == expected


def test_a_case_that_lacks_a_sequence_or_lies_on_another_grid_is_refused_or_left_out(tmp_path, run):
    files = {f"case_{n}_{name}.nii.gz": packed(10 * n + len(name)) for n in range(6) for name in ("t1", "flair")}
    del files["case_4_t1.nii.gz"]
    files["case_5_flair.nii.gz"] = packed(7, shape=(6, 4, 3))
    put(tmp_path / "source", files)
    cases = {"sequences": ("t1", "flair")}

    with pytest.raises(DatasetError, match=r"cannot be used: 1 \(case_4\); the first: lacks the sequence t1"):
        run(*labels(6), cases=cases)
    report = run(*labels(6), cases=cases, unusable="leave-out")
    assert (report.images, report.left_out["cannot be used"]) == (4, 2)


def test_the_decathlons_list_says_which_files_are_cases(tmp_path, run):
    listed = [{"image": f"./imagesTr/case_{n}.nii.gz", "label": f"./labelsTr/case_{n}.nii.gz"} for n in range(4)]
    told = {"modality": {"0": "MRI"}, "labels": {"0": "a"}, "training": listed, "test": ["./imagesTs/x.nii.gz"]}
    files = {f"{folder}/case_{n}.nii.gz": packed(n) for folder in ("imagesTr", "labelsTr") for n in range(5)}
    put(tmp_path / "source", {"dataset.json": json.dumps(told).encode(), **files})

    run(*labels(4))

    content = content_of(tmp_path / "out")
    assert len(records_of(tmp_path / "out")) == 4
    assert (content["modality"], content["tensorImageSize"]) == ({"0": "MR"}, "3D")


@pytest.mark.parametrize("mask", ["case_{}_seg.nii.gz", "labelsTr/case_{}.nii.gz", "seg/case_{}_label.nii.gz"])
def test_masks_beside_volumes_are_left_out_with_a_count(tmp_path, run, mask):
    images = {f"case_{n}.nii.gz": packed(n) for n in range(6)}
    put(tmp_path / "source", images | {mask.format(n): packed(9 + n) for n in range(5)})

    report = run(*labels(6))

    assert (report.images, report.left_out) == (6, {"masks of images": 5})


def test_a_volume_that_the_table_names_is_no_mask(tmp_path, run):
    put(tmp_path / "source", {f"case_{n}{end}.nii.gz": packed(n + len(end)) for n in range(6) for end in ("", "_seg")})

    report = run(*labels(6, "case_{}_seg"), mismatch="drop")

    assert report.images == 6
    assert any("named like masks" in warning for warning in report.warnings)


@pytest.mark.parametrize("name", ["../secret.nii.gz", "/etc/passwd", 7])
def test_a_list_that_leads_out_of_the_folder_is_refused(tmp_path, run, name):
    put(tmp_path, {"secret.nii.gz": packed(1)})
    put(tmp_path / "source", {"dataset.json": json.dumps({"training": [{"image": name}]}).encode()})
    with pytest.raises(DatasetError, match="without a name, or outside of it"):
        run(*labels(2))


def test_patients_are_told_by_a_part_of_the_name_or_a_column(tmp_path, run):
    put(tmp_path / "source", {f"sub-{n // 2}_ses-{n % 2}.nii.gz": packed(n) for n in range(12)})
    names = [f"sub-{n // 2}_ses-{n % 2}" for n in range(12)]
    rows = [["case", "label", "site"], *[[name, "ab"[n // 2 % 2], n // 4] for n, name in enumerate(names)]]

    assert run(*rows, cases={"group_by": r"(sub-\d+)_"}).groups == 6
    sides = {}
    for item in records_of(tmp_path / "out"):
        sides.setdefault(item["group"], set()).add(item["split"])
    assert {len(seen) for seen in sides.values()} == {1}
    assert run(*rows, reading={"group_column": "site"}).groups == 3

    by_patient = [["patient_id", "label"], *[[f"sub-{n}", "ab"[n % 2]] for n in range(6)]]
    assert run(*by_patient, cases={"group_by": r"(sub-\d+)_"}).images == 12


@pytest.mark.parametrize("pattern", ["(", "sub", "(a)(b)"])
def test_a_pattern_without_one_group_is_refused(tmp_path, run, pattern):
    put(tmp_path / "source", {"a.nii.gz": packed(1)})
    with pytest.raises(ConfigError, match="group-by"):
        run(*labels(2), cases={"group_by": pattern})


def test_a_pattern_that_says_nothing_of_a_case_is_refused_and_not_passed_over(tmp_path, run):
    put(tmp_path / "source", {f"case_{n}.nii.gz": packed(n) for n in range(2)})
    with pytest.raises(DatasetError, match="--group-by does not match some cases: 2 "):
        run(*labels(2), cases={"group_by": r"^(subject)"})


def test_equal_volumes_of_two_cases_are_one_group(tmp_path, run):
    files = {f"case_{n}.nii.gz": packed(n) for n in range(6)}
    files["case_5.nii.gz"] = packed(1, descrip=b"another text")
    put(tmp_path / "source", files)

    assert run(*labels(6)).groups == 5


def test_folders_are_classes(tmp_path, run):
    put(tmp_path / "source", {f"{'ab'[n % 2]}/x/{n}.nii.gz": packed(n) for n in range(6)})

    assert run().counts["a"] == {"training": 1, "validation": 1, "test": 1}


def test_single_slices_are_2d_and_are_not_mixed_with_volumes(tmp_path, run):
    put(tmp_path / "source", {f"case_{n}.nii.gz": packed(n, shape=(5, 4, 1)) for n in range(6)})
    assert run(*labels(6)).spatial_dims == 2

    put(tmp_path / "source", {"case_5.nii.gz": packed(5)})
    with pytest.raises(DatasetError, match="5 single slices of 1 channel, 1 volumes of 1 channel"):
        run(*labels(6))
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_broken_volumes_are_refused_or_left_out(tmp_path, run):
    files = {f"case_{n}.nii.gz": packed(n) for n in range(6)}
    files["case_5.nii.gz"] = files["case_5.nii.gz"][:-60]
    put(tmp_path / "source", files)

    with pytest.raises(DatasetError, match=r"cannot be used: 1 \(case_5\)"):
        run(*labels(6))
    assert run(*labels(6), unusable="leave-out").images == 5
    assert len(list((tmp_path / "out" / "images").iterdir())) == 5


def test_a_file_whose_suffix_belies_it_is_written_anew(tmp_path, run):
    put(tmp_path / "source", {f"case_{n}.nii.gz": nifti(n) for n in range(4)})

    run(*labels(4))

    for item in records_of(tmp_path / "out"):
        assert (tmp_path / "out" / item["image"]).read_bytes()[:2] == b"\x1f\x8b"
        assert np.allclose(volume(tmp_path / "out", item["image"]).affine, AFFINE)


def test_the_same_call_again_writes_nothing(tmp_path, run):
    put(tmp_path / "source", {f"case_{n}.nii.gz": packed(n) for n in range(6)})
    run(*labels(6))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}

    assert run(*labels(6)).is_repeated
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    assert not run(*labels(6), cases={"modality": "CT"}).is_repeated
    assert content_of(tmp_path / "out")["modality"] == {"0": "CT"}


def test_a_folder_without_volumes_and_links_out_of_it_are_refused(tmp_path, run):
    put(tmp_path, {"elsewhere/case_0.nii.gz": packed(0)})
    put(tmp_path / "source", {"a.txt": b"x"})
    (tmp_path / "source" / "case_0.nii.gz").symlink_to(tmp_path / "elsewhere" / "case_0.nii.gz")

    with pytest.raises(DatasetError, match="has no volumes"):
        run(*labels(2))


@pytest.mark.long
@pytest.mark.skipif(not SHARED.is_dir(), reason="shared data not present")
def test_the_decathlons_hippocampi_are_imported_with_a_table(tmp_path):
    names = sorted(path.name.removesuffix(".nii.gz") for path in (SHARED / "imagesTr").glob("*.nii.gz"))
    rows = [["case", "label"], *[[name, "ab"[n % 2]] for n, name in enumerate(names)]]

    report = import_nifti_folder(SHARED, tmp_path / "out", labels=table(tmp_path / "l.csv", *rows))

    assert (report.images, report.modalities) == (200, {"MR": 200})
    assert report.counts["a"] == {"training": 70, "validation": 10, "test": 20}
