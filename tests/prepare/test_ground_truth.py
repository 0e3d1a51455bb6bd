"""Ground Truth jobs become data sets: manifests, consolidation requests and worker responses as AWS documents them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.prepare.ground_truth.ground_truth import import_ground_truth
from sagemaker_monai.prepare.ground_truth.ground_truth_options import GroundTruthOptions
from tests.prepare.test_ground_truth_answers import dicom_task
from tests.support.imported import content_of, put, records_of, slice_file

BUCKET = "s3://bucket/data"
WORKERS = ["private.eu-west-1.AAA", "private.eu-west-1.BBB", "private.eu-west-1.CCC"]


def write_png(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(path)


def write_lines(path, lines):
    put(path.parent, {path.name: "".join(json.dumps(line) + "\n" for line in lines).encode()})
    return path


def write_json(path, content):
    put(path.parent, {path.name: json.dumps(content).encode()})
    return path


def metadata(kind, **more):
    return {"type": f"groundtruth/{kind}", "job-name": "j", "human-annotated": "yes", "confidence": 0.8, **more}


def classified(number, index, names=("cat", "dog"), attribute="species"):
    """A line of a built-in image classification job."""
    return {
        "source-ref": f"{BUCKET}/{number}.png",
        attribute: index,
        f"{attribute}-metadata": metadata("image-classification", **{"class-name": names[int(index)]}),
    }


def failed(number, attribute="species"):
    reason = {"failure-reason": "ClientError: The annotations on this item timed out", "human-annotated": "true"}
    return {"source-ref": f"{BUCKET}/{number}.png", f"{attribute}-metadata": reason}


@pytest.fixture
def pictures(tmp_path):
    """Twelve pictures that mirror the keys from the bucket on."""
    for number in range(12):
        write_png(tmp_path / "pictures" / "data" / f"{number}.png", number)
    return tmp_path / "pictures"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def importing(tmp_path, pictures, out):
    """Imports the lines of a manifest, or files of a job."""

    def call(source, images=pictures, **options):
        if isinstance(source, list):
            source = write_lines(tmp_path / "m.manifest", source)
        return import_ground_truth(source, out, images=images, options=GroundTruthOptions(**options))

    return call


def read_records(out):
    return {Path(item["image"]).name: item for item in records_of(out)}


def labels_of(out):
    return [name for _, name in sorted(content_of(out)["labels"].items())]


def write_job(folder, answers, *, values=None, form=None):
    """A job's output folder: `answers[i][j]` is what worker j said of picture i (None: nothing)."""
    form = form or (lambda label: {"crowd-image-classifier": {"label": label}})
    lines = values or [
        {"source-ref": f"{BUCKET}/{i}.png", "x": {}, "x-metadata": metadata("custom")} for i in range(12)
    ]
    write_lines(folder / "manifests" / "output" / "output.manifest", lines[: len(answers)])
    for number, row in enumerate(answers):
        given = [
            {
                "answerContent": form(label),
                "workerId": WORKERS[who],
                "submissionTime": f"2024-05-01T10:00:0{who}Z",
                "workerMetadata": {"identityData": {"sub": "personal"}},
            }
            for who, label in enumerate(row)
            if label is not None
        ]
        if given:
            write_json(
                folder / "annotations" / "worker-response" / "iteration-1" / str(number) / "2024-05-01.json",
                {"answers": given},
            )
    return folder


LINES = [classified(i, i % 2) for i in range(12)]
AGREED = [["cat", "cat", "cat"], ["dog", "dog", "dog"]] * 5


# The built-in task types


@pytest.mark.parametrize("write_index", [int, str])
def test_image_classification_takes_the_class_name_of_each_line(importing, pictures, out, write_index):
    report = importing([classified(number, write_index(number % 2)) for number in range(12)])

    records = read_records(out)
    assert labels_of(out) == ["cat", "dog"]
    assert {name: item["label"] for name, item in records.items()} == {
        f"{number}.png": ("cat", "dog")[number % 2] for number in range(12)
    }
    assert (report.task, report.images, report.annotators, records["0.png"]["confidence"]) == (
        "classification", 12, {}, 0.8,
    )  # fmt: skip
    assert (out / "images" / "3.png").read_bytes() == (pictures / "data" / "3.png").read_bytes()
    assert "annotators: unknown" in report.summary()


def test_the_order_of_classes_is_that_of_their_numbers(importing, out):
    lines = [classified(number, number % 2, names=("zebra", "ant")) for number in range(12)]

    importing(lines)

    assert labels_of(out) == ["zebra", "ant"]


def test_multilabel_lists_are_named_by_their_class_map(importing, out):
    meta = metadata("image-classification-multilabel", **{"class-map": {"0": "edema", "1": "nodule"}})
    values = [[0], [1], [0, 1], []] * 3
    lines = [{"source-ref": f"{BUCKET}/{i}.png", "f": value, "f-metadata": meta} for i, value in enumerate(values)]

    report = importing(lines)

    assert report.task == content_of(out)["task"] == "multilabel"
    labels = [item["label"] for _, item in sorted(read_records(out).items(), key=lambda pair: int(pair[0][:-4]))]
    assert labels == [["edema"], ["nodule"], ["edema", "nodule"], []] * 3


def test_boxes_become_findings_with_regions(importing, out):
    value = {
        "image_size": [{"width": 500, "height": 400, "depth": 3}],
        "annotations": [
            {"class_id": 0, "left": 111, "top": 134, "width": 61, "height": 128},
            {"class_id": 5, "left": 161, "top": 250, "width": 0, "height": 30},
        ],
    }
    meta = metadata("object-detection", objects=[{"confidence": 0.8}], **{"class-map": {"0": "dog", "5": "bone"}})
    lines = [{"source-ref": f"{BUCKET}/{i}.png", "box": value, "box-metadata": meta} for i in range(6)]

    report = importing(lines)

    item = read_records(out)["0.png"]
    assert item["label"] == ["bone", "dog"]
    assert item["rois"] == [{"type": "box", "class": "dog", "points": [[111.0, 134.0], [172.0, 262.0]]}]
    assert report.unsound_regions == 6


@pytest.mark.parametrize(
    ("attribute", "kind"), [("clip-ref", "video-object-tracking"), ("cloud", "point-cloud-object-tracking")]
)
def test_a_type_that_gives_no_class_is_refused_with_what_is_supported(importing, attribute, kind):
    line = {"source-ref": f"{BUCKET}/0.png", attribute: "s3://b/x.png", f"{attribute}-metadata": metadata(kind)}

    with pytest.raises(DatasetError, match=rf"{kind}.*supported are groundtruth/image-classification"):
        importing([line])


# Chained jobs


def test_of_several_labels_one_must_be_chosen(importing, out):
    lines = [classified(i, i % 2) | classified(i, 1 - i % 2, attribute="adjusted") for i in range(12)]

    with pytest.raises(DatasetError, match=r"several label attributes \(adjusted, species\).*--label-attribute"):
        importing(lines)
    importing(lines, label_attribute="adjusted")

    assert read_records(out)["0.png"]["label"] == "dog"


def test_a_verification_of_labels_is_not_taken_for_the_label(importing, out):
    check = {"verified": "1", "verified-metadata": metadata("label-verification", **{"class-name": "bad"})}
    lines = [classified(i, i % 2) | check for i in range(12)]

    importing(lines)

    assert labels_of(out) == ["cat", "dog"]


def test_failed_and_unlabelled_images_are_left_out_and_listed(importing, out):
    unlabelled = {"source-ref": f"{BUCKET}/11.png"}
    lines = [*(classified(i, i % 2) for i in range(10)), failed(10), unlabelled]

    report = importing(lines)

    assert (list(report.failed), report.unlabelled, report.images) == (["10.png"], ["11.png"], 10)
    assert "timed out" in report.failed["10.png"]
    assert "labeling failed: 1 (10.png)" in report.summary()


# All annotators


def test_the_answers_of_all_workers_decide_and_not_the_jobs_own_label(importing, tmp_path, out):
    answers = [["cat", "dog", "dog"], ["cat", "cat", "dog"], *AGREED]
    values = [classified(i, 0) for i in range(12)]

    report = importing(write_job(tmp_path / "job", answers, values=values))

    records = read_records(out)
    assert (records["0.png"]["label"], records["1.png"]["label"]) == ("dog", "cat")
    assert (records["0.png"]["annotators"], records["0.png"]["agreement"]) == (3, 0.6667)
    assert report.annotators["1"] == {"images": 12, "with_majority": 0.9167}
    figures = report.agreement["all"]
    # Agreement: (1/3 + 1/3 + 10) / 12 = 8/9. 18 of 36 answers each: chance 1/2; kappa (8/9 - 1/2) / (1/2) = 7/9.
    assert figures["fleiss_kappa"] == 0.7778
    assert [(pair["first"], pair["second"], pair["images"]) for pair in figures["pairs"]] == [
        (1, 2, 12), (1, 3, 12), (2, 3, 12),
    ]  # fmt: skip


def test_soft_labels_are_shares_and_need_annotators(importing, tmp_path, out):
    job = write_job(tmp_path / "job", [["cat", "dog", "dog"], *AGREED])
    importing(job, labels="soft")

    assert read_records(out)["0.png"]["label"] == {"dog": pytest.approx(2 / 3), "cat": pytest.approx(1 / 3)}
    with pytest.raises(DatasetError, match="soft labels need the annotators' answers"):
        importing(LINES, labels="soft")


def test_a_worker_who_answers_twice_counts_once_with_the_last_answer(importing, tmp_path, out):
    job = write_job(tmp_path / "job", [["cat", "dog", None], *AGREED])
    again = {"answerContent": {"label": "dog"}, "workerId": WORKERS[0], "submissionTime": "2024-05-02T00:00:00Z"}
    write_json(job / "annotations" / "worker-response" / "iteration-2" / "0" / "b.json", {"answers": [again]})

    report = importing(job)

    assert (read_records(out)["0.png"]["label"], read_records(out)["0.png"]["annotators"]) == ("dog", 2)
    assert report.superseded_answers == 1


def test_the_same_answers_in_request_and_response_count_once(importing, tmp_path, out):
    job = write_job(tmp_path / "job", [["cat", "dog", "dog"], *AGREED])
    entries = [
        {
            "datasetObjectId": "0",
            "dataObject": {"s3Uri": f"{BUCKET}/0.png"},
            "annotations": [
                {"workerId": WORKERS[0], "annotationData": {"content": json.dumps({"label": "cat"})}},
                {"workerId": WORKERS[1], "annotationData": {"content": json.dumps({"label": "dog"})}},
            ],
        }
    ]
    folder = job / "annotations" / "consolidated-annotation" / "consolidation-request" / "iteration-1"
    write_json(folder / "2024.json", entries)

    importing(job)

    assert read_records(out)["0.png"]["annotators"] == 3


@pytest.mark.parametrize(("disputed", "kept"), [("keep", True), ("drop", False)])
def test_disputed_images_are_listed_with_every_answer(importing, tmp_path, out, disputed, kept):
    job = write_job(tmp_path / "job", [["cat", "dog", None], *AGREED])

    report = importing(job, disputed=disputed)

    label = {"cat": 0.5, "dog": 0.5} if kept else None
    assert report.disputed == [
        {
            "image": "0.png", "reason": "tie", "agreement": 0.5, "votes": {"cat": 1, "dog": 1},
            "answers": {"1": ["cat"], "2": ["dog"]}, "label": label,
        }
    ]  # fmt: skip
    assert ("0.png" in read_records(out)) is kept
    assert "disputed images: 1" in report.summary()


def test_disputed_images_can_be_refused_before_anything_is_written(importing, tmp_path, out):
    job = write_job(tmp_path / "job", [["cat", "dog", None], *AGREED])

    with pytest.raises(DatasetError, match=r"disputed images: 1 \(0.png: cat 1 dog 1\)"):
        importing(job, disputed="refuse")
    assert not out.exists()


def test_images_with_too_few_annotators_are_left_out(importing, tmp_path, out):
    job = write_job(tmp_path / "job", [["cat", None, None], *AGREED])

    report = importing(job, min_annotators=2)

    assert (report.few_annotators, "0.png" in read_records(out)) == (["0.png"], False)


def test_worker_ids_are_nowhere_in_what_is_written(importing, tmp_path, out):
    job = write_job(tmp_path / "job", [["cat", "dog", None], *AGREED])

    importing(job)

    for path in (out / "dataset.json", out / "import_report.json"):
        assert not [secret for secret in ("private.", "AAA", "personal", "eu-west") if secret in path.read_text()]


def test_two_spellings_of_one_class_are_refused(importing, tmp_path):
    job = write_job(tmp_path / "job", [["cat", "Cat", "cat"], *AGREED])

    with pytest.raises(DatasetError, match="differ only in upper and lower case: Cat, cat"):
        importing(job)


# The custom DICOM task of the seed

INSTANCES = [f"{number:04d}beef-2c" for number in range(8)]
ROI = {
    "start": {"x": 3, "y": 4},
    "end": {"x": 1, "y": 2},
    "boundingBox": {"left": 9, "top": 9, "width": 9, "height": 9},
}


def seed_request(*, reference="address"):
    """A consolidation request: every image by two annotators, who differ on image 2; patients have two images each."""
    entries = []
    for number, instance in enumerate(INSTANCES):
        label = ("Edema", "Pneumonia")[number // 2 % 2]
        contents = [dicom_task(label, roi=ROI), dicom_task("No Finding" if number == 2 else label)]
        data = {
            "address": {"s3Uri": f"https://pacs.example/instances/{instance}/file"},
            "id": {"content": instance},
            "key": {"s3Uri": f"s3://b/dicom/{instance}.dcm"},
        }[reference]
        entries.append(
            {
                "datasetObjectId": str(number),
                "dataObject": data,
                "annotations": [
                    {"workerId": worker, "annotationData": {"content": content}}
                    for worker, content in zip(WORKERS, contents, strict=False)
                ],
            }
        )
    return entries


@pytest.fixture
def instances(tmp_path):
    for number, instance in enumerate(INSTANCES):
        content = slice_file(f"DOE-{number // 2}", number=number, Modality="DX")
        put(tmp_path / "dicom", {f"{instance}.dcm": content})
    return tmp_path / "dicom"


@pytest.mark.parametrize("reference", ["address", "id", "key"])
def test_a_consolidation_request_of_the_dicom_task_is_imported_by_patient(
    importing, tmp_path, instances, out, reference
):
    request = write_json(tmp_path / "request.json", seed_request(reference=reference))

    report = importing(request, images=instances, fractions=(0.5, 0.25, 0.25))

    records = read_records(out)
    assert sorted(records) == [f"{instance}.dcm" for instance in INSTANCES]
    assert {item["group"] for item in records.values()} == {f"patient-{number}" for number in range(1, 5)}
    sides = {}
    for item in records.values():
        sides.setdefault(item["group"], set()).add(item["split"])
    assert all(len(splits) == 1 for splits in sides.values())
    assert records[f"{INSTANCES[0]}.dcm"]["rois"] == [
        {"type": "box", "class": "Edema", "points": [[1.0, 2.0], [3.0, 4.0]], "annotator": 1}
    ]
    assert [case["image"] for case in report.disputed] == [f"{INSTANCES[2]}.dcm"]
    assert (report.groups, report.own_groups, report.modalities, report.regions) == (4, 0, {"DX": 8}, 8)
    assert content_of(out)["modality"] == {"0": "DX"}
    assert "DOE" not in (out / "dataset.json").read_text() + (out / "import_report.json").read_text()


def test_a_lambda_that_passes_all_answers_on_is_read_from_the_manifest_alone(importing, instances):
    lines = [
        {
            "source-ref": entry["dataObject"]["s3Uri"],
            "labels": "Edema, Pneumonia,No Finding",
            "dicom": {"annotationsFromAllWorkers": entry["annotations"]},
            "dicom-metadata": metadata("custom"),
        }
        for entry in seed_request()
    ]

    report = importing(lines, images=instances)

    assert len(report.annotators) == 2
    assert len(report.disputed) == 1
    assert report.unused_classes == []


def test_what_a_lambda_returns_is_read_by_the_address_that_the_page_repeats(importing, tmp_path, instances):
    entries = [
        {
            "datasetObjectId": entry["datasetObjectId"],
            "consolidatedAnnotation": {"content": {"dicom": {"annotationsFromAllWorkers": entry["annotations"]}}},
        }
        for entry in seed_request()
    ]
    text = json.dumps(entries)
    for number in range(len(INSTANCES)):  # the helper has one address for all
        text = text.replace("0a1b-2c", INSTANCES[number], 2)

    (tmp_path / "response.json").write_text(text)
    report = importing(tmp_path / "response.json", images=instances)

    assert (report.images, len(report.annotators)) == (8, 2)


def test_findings_of_several_annotators_are_multilabel_with_agreement_by_class(importing, tmp_path, instances, out):
    entries = seed_request()
    entries[0]["annotations"][0]["annotationData"]["content"] = dicom_task("Edema", "Pneumonia")
    request = write_json(tmp_path / "r.json", entries)

    report = importing(request, images=instances, labels="soft")

    assert report.task == "multilabel"
    assert read_records(out)[f"{INSTANCES[0]}.dcm"]["label"] == {"Edema": 1.0, "Pneumonia": 0.5}
    assert set(report.agreement) == {"Edema", "No Finding", "Pneumonia"}


# Which file is meant, and whose it is


def run(tmp_path, keys, files, **options):
    for number, name in enumerate(files):
        write_png(tmp_path / "files" / name, number)
    lines = [classified(i, i % 2) | {"source-ref": key} for i, key in enumerate(keys)]
    manifest = write_lines(tmp_path / "m.manifest", lines)
    return import_ground_truth(
        manifest, tmp_path / "out", images=tmp_path / "files", options=GroundTruthOptions(**options)
    )


def test_equal_names_are_told_apart_by_their_folders_and_get_names_of_their_own(tmp_path):
    keys = [f"s3://b/set/{patient}/1.png" for patient in "pqrs"]

    run(tmp_path, keys, [f"{patient}/1.png" for patient in "pqrs"])

    for number, patient in enumerate("pqrs"):
        copy = tmp_path / "out" / "images" / f"set_{patient}_1.png"
        assert copy.read_bytes() == (tmp_path / "files" / patient / "1.png").read_bytes(), number


@pytest.mark.parametrize(
    ("keys", "files"),
    [
        (["s3://b/p/1.png", "s3://b/q/1.png"], ["1.png"]),  # two names for one file
        (["s3://b/1.png", "s3://b/2.png"], ["p/1.png", "q/1.png", "2.png"]),  # two files for one name
    ],
)
def test_nothing_is_guessed_where_names_are_ambiguous(tmp_path, keys, files):
    with pytest.raises(DatasetError, match="could be several files, or share one"):
        run(tmp_path, keys, files, missing="leave-out")


def test_a_file_goes_to_the_name_that_fits_it_best(tmp_path):
    report = run(
        tmp_path, ["s3://b/p/1.png", "s3://b/q/1.png", "s3://b/2.png"], ["q/1.png", "2.png"], missing="leave-out"
    )

    assert report.missing == ["1.png"]
    assert report.images == 2


@pytest.mark.parametrize(
    "key",
    [
        "s3://b/../../secret.png",
        "../secret.png",
        "/etc/../secret.png",
        "s3://b/a\0.png",
        "s3://[",
        "file:///",
        "s3://b",
    ],
)
def test_a_name_never_leads_out_of_the_folder(tmp_path, key):
    write_png(tmp_path / "secret.png", 7)

    with pytest.raises(DatasetError, match="not in the folder: 1 of 3"):
        run(tmp_path, [key, "s3://b/1.png", "s3://b/2.png"], ["1.png", "2.png"])


def test_a_link_that_leads_out_of_the_folder_is_no_image(tmp_path):
    write_png(tmp_path / "secret.png", 7)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "3.png").symlink_to(tmp_path / "secret.png")

    with pytest.raises(DatasetError, match=r"not in the folder: 1 of 3 \(3.png\)"):
        run(tmp_path, ["s3://b/3.png", "s3://b/1.png", "s3://b/2.png"], ["1.png", "2.png"])


def test_an_image_that_is_named_twice_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"named more than once: 1 \(1.png\)"):
        run(tmp_path, ["s3://b/1.png", "s3://b/1.png"], ["1.png"])


def test_names_from_outside_become_safe_file_names(tmp_path):
    keys = ["s3://b/-rf $(x).PNG", "s3://b/naïve.png", f"s3://b/{'long' * 50}.png", "s3://b/A.png", "s3://b/x/a.png"]
    names = [key.removeprefix("s3://b/") for key in keys]

    run(tmp_path, keys, names)

    written = {path.name for path in (tmp_path / "out" / "images").iterdir()}
    assert {"rf_x.png", "na_ve.png", "A.png", "x_a.png"} < written
    assert max(map(len, written)) == 100


def test_without_a_patient_each_image_is_a_group_and_a_warning_says_so(importing):

    report = importing(LINES)

    assert report.own_groups == 12
    assert "WARNING: the patient of 12 images is unknown" in report.summary()


@pytest.mark.parametrize("group_by", ["subject", None])
def test_patients_are_told_by_a_key_of_the_lines_that_is_not_written_out(importing, out, group_by):
    lines = [classified(i, i % 2) | {"subject": f"S-{i // 4}", "view": "AP"} for i in range(12)]

    report = importing(lines, group_by=group_by, fractions=(0.6, 0.2, 0.2))

    records = read_records(out)
    assert (report.groups, report.own_groups) == (3, 0)
    assert len({records[f"{i}.png"]["group"] for i in range(4)}) == 1
    assert {item["view"] for item in records.values()} == {"AP"}
    assert "S-1" not in (out / "dataset.json").read_text()


def test_patients_are_told_by_a_pattern_on_the_key(importing):

    with pytest.raises(DatasetError, match=r"--group-by gives no group for some images: 10 \(0.png"):
        importing(LINES, group_by=r"data/(1\d)\.png")
    report = importing(LINES, group_by=r"(\d)\.png$")

    assert report.groups == 10  # by the last digit: 10 is with 0, 11 with 1


@pytest.mark.parametrize("group_by", ["(", r"(a)(b)", r"(?:a)"])
def test_a_pattern_without_exactly_one_group_is_refused(importing, group_by):

    with pytest.raises(ConfigError, match="--group-by"):
        importing(LINES, group_by=group_by)


def test_identical_files_are_on_one_side(importing, pictures, out):
    for number in range(6, 12):
        (pictures / "data" / f"{number}.png").write_bytes((pictures / "data" / f"{number - 6}.png").read_bytes())

    report = importing(LINES)

    records = read_records(out)
    assert all(records[f"{i}.png"]["split"] == records[f"{i + 6}.png"]["split"] for i in range(6))
    assert ["0.png", "6.png"] in report.identical


def test_dicom_without_patient_id_is_grouped_by_study(importing, tmp_path, out):
    files = {str(n): slice_file("", number=n, study=f"1.2.{max(n, 1)}", Modality="DX") for n in range(4)}
    put(tmp_path / "d", files)
    lines = [classified(i, i % 2) | {"source-ref": f"s3://b/{i}"} for i in range(4)]

    report = importing(lines, images=tmp_path / "d")

    assert report.groups == 3
    assert sorted(read_records(out)) == ["0.dcm", "1.dcm", "2.dcm", "3.dcm"]


def test_a_file_that_is_no_image_is_named(importing, pictures):
    (pictures / "data" / "0.txt").write_text("hello" * 100)
    lines = [classified(i, i % 2) for i in range(1, 12)]
    lines.append({**lines[0], "source-ref": f"{BUCKET}/0.txt"})

    with pytest.raises(DatasetError, match=r"neither DICOM nor pictures of a known type: 1 \(0.txt\)"):
        importing(lines)


# The output folder


def test_the_same_import_again_writes_nothing(importing, tmp_path, out):
    job = write_job(tmp_path / "job", [["cat", "dog", None], *AGREED])
    first = importing(job)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}

    again = importing(job)

    assert again.is_repeated
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert again.summary().removesuffix("\nnothing to do: the folder holds this import already") == first.summary()


def test_another_option_replaces_the_earlier_import(importing, tmp_path, out):
    job = write_job(tmp_path / "job", [["cat", "dog", None], *AGREED])
    importing(job)

    report = importing(job, disputed="drop")

    assert not report.is_repeated
    assert not (out / "images" / "0.png").exists()


def test_the_originals_are_copied_and_not_linked(importing, pictures, out):
    importing(LINES)

    original = (pictures / "data" / "0.png").read_bytes()
    (out / "images" / "0.png").write_bytes(b"changed")

    assert (pictures / "data" / "0.png").read_bytes() == original


@pytest.mark.parametrize("place", ["out", "."])
def test_output_and_images_must_not_be_in_one_another(tmp_path, pictures, place):
    manifest = write_lines(tmp_path / "m.manifest", LINES)

    with pytest.raises(ConfigError, match="must not be in one another"):
        import_ground_truth(manifest, pictures / place, images=pictures)


def test_the_written_data_set_can_be_trained_on(importing, tmp_path, out):
    from sagemaker_monai.data.datasets import read_dataset

    job = write_job(tmp_path / "job", [["cat", "dog", "dog"], *AGREED])
    importing(job, labels="soft")

    dataset = read_dataset({"training": out}, validation_fraction=0.1, test_fraction=0.2, seed=0)

    assert dataset.labels == ("cat", "dog")
    assert len(dataset.training) + len(dataset.validation) + len(dataset.test) == 11


# Nothing in a manifest is trusted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line.update({"species": [1]}), "line 1 of the manifest: a class number must be a whole number"),
        (lambda line: line.update({"species": True}), "class number must be"),
        (lambda line: line.update({"species": -1}), "class number must be"),
        (lambda line: line["species-metadata"].update({"class-name": "dog"}), "one name to two class numbers"),
        (lambda line: line["species-metadata"].update({"class-name": ""}), "a class name must have 1 to 100"),
        (lambda line: line.update({"source-ref": 5}), "names no image by source-ref"),
        (lambda line: line.update({"source-ref": "x" * 5000}), "names no image by source-ref"),
        (lambda line: line["species-metadata"].update({"type": "groundtruth/custom"}), "several task types"),
    ],
)
def test_a_line_that_cannot_be_is_refused_with_its_cause(importing, out, change, message):
    lines = [classified(number, number % 2) for number in range(12)]
    change(lines[0])

    with pytest.raises(DatasetError, match=message):
        importing(lines)
    assert not out.exists()


def test_one_class_number_with_two_names_is_refused(importing):
    lines = [classified(0, 0), classified(1, 1), classified(2, 1, names=("cat", "horse"))]

    with pytest.raises(DatasetError, match=r"class 1 has two names \(dog, horse\)"):
        importing(lines)


@pytest.mark.parametrize(
    "text",
    ["not json\n", "[" * 100_000 + "\n", '{"a": NaN}\n', "5\n", "\xff", '{"a":' * 50_000 + "\n", "", '{"source-ref": "s3://b/1"}\n'],
    ids=["text", "brackets", "nan", "number", "latin", "braces", "empty", "no label"],
)  # fmt: skip
def test_a_file_that_is_no_manifest_is_refused(importing, tmp_path, text):
    path = tmp_path / "m.manifest"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(DatasetError):
        importing(path)


@pytest.mark.parametrize(
    "entries",
    [
        [5],
        [{}],
        [{"dataObject": {"s3Uri": "s3://b/1.png"}, "annotations": {}}],
        [{"dataObject": {"s3Uri": "s3://b/1.png"}, "annotations": [{"annotationData": {"content": "{}"}}]}],
        [{"dataObject": {"s3Uri": "s3://b/1.png"}, "annotations": [{"workerId": "w", "annotationData": {"s3Uri": "s3://b"}}]}],
        [{"dataObject": {"s3Uri": "s3://b/1.png"}, "annotations": [{"workerId": "w", "annotationData": 5}]}],
        [{"dataObject": {"s3Uri": "s3://b/1"}, "annotations": [{"workerId": "w", "annotationData": {"content": ""}}]}],
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_is_refused(importing, tmp_path, entries):
    with pytest.raises(DatasetError):
        importing(write_json(tmp_path / "r.json", entries))


def test_worker_responses_of_another_job_are_refused(importing, tmp_path):
    job = write_job(tmp_path / "job", AGREED)
    write_json(job / "annotations" / "worker-response" / "iteration-1" / "99" / "a.json", {"answers": []})

    with pytest.raises(DatasetError, match="worker response 99 is of an image that is not in the manifest"):
        importing(job)


@pytest.mark.parametrize(
    "options",
    [
        {"task": "x"}, {"labels": "x"}, {"disputed": "x"}, {"missing": "x"}, {"min_agreement": 1.5},
        {"min_agreement": float("nan")}, {"min_annotators": 0}, {"fractions": (0.5, 0.5, 0.5)},
    ],
)  # fmt: skip
def test_an_option_out_of_range_is_refused(importing, tmp_path, options):
    with pytest.raises(ConfigError):
        importing(tmp_path / "none", **options)


def test_the_command_line_has_every_option_of_the_import(tmp_path, pictures, out):
    import argparse
    from dataclasses import fields

    from sagemaker_monai.prepare.sources import SOURCES

    parser = argparse.ArgumentParser()
    SOURCES["ground_truth"].add_options(parser)
    job = write_job(tmp_path / "job", AGREED)
    options = parser.parse_args([str(job), str(out), "--images", str(pictures)])

    asked = set(vars(options)) - {"train", "validation", "test"} | {"fractions"}
    assert asked == {"source", "out", "images"} | {field.name for field in fields(GroundTruthOptions)}
    assert "annotators: 3" in SOURCES["ground_truth"].run(options)
