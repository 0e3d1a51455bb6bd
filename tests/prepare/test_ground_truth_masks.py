"""Semantic segmentation jobs of Ground Truth become data sets with masks, as AWS documents them."""

import base64
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from sagemaker_monai.data.datasets import read_dataset
from sagemaker_monai.data.mask_reading import grid_of, labels_on_grid
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.prepare.ground_truth.answers import MaskAnswer
from sagemaker_monai.prepare.ground_truth.ground_truth import import_ground_truth
from sagemaker_monai.prepare.ground_truth.ground_truth_options import GroundTruthOptions
from sagemaker_monai.prepare.ground_truth.mask_answers import read_map
from tests.support.imported import content_of, records_of

COLOURS = {"BACKGROUND": "#ffffff", "liver": "#2ca02c", "cyst": "#1f77b4"}
WHITE, LIVER, CYST = (255, 255, 255), (0x2C, 0xA0, 0x2C), (0x1F, 0x77, 0xB4)
WIDTH, HEIGHT = 9, 6
JOB = "s3://bucket/out/job/annotations/consolidated-annotation/output"


def colour_map(colours=COLOURS):
    return {
        str(place): {"class-name": name, "hex-color": colour, "confidence": 0.9}
        for place, (name, colour) in enumerate(colours.items())
    }


def drawn(boxes):
    """A picture (H, W, 3) of coloured boxes on white: [(colour, (left, upper, right, lower))]."""
    pixels = np.full((HEIGHT, WIDTH, 3), WHITE, np.uint8)
    for colour, (left, upper, right, lower) in boxes:
        pixels[upper:lower, left:right] = colour
    return pixels


LIVER_BOX = [(LIVER, (0, 0, 4, 4))]
TWO_BOXES = [*LIVER_BOX, (CYST, (6, 2, 9, 5))]


def as_png(pixels, mode="RGB"):
    image = Image.fromarray(pixels)
    if mode == "P":
        image = image.quantize(8, dither=Image.Dither.NONE)
    if mode == "RGBA":
        clear = (pixels == WHITE).all(axis=2)
        image = Image.fromarray(np.dstack([np.where(clear[..., None], 0, pixels), ~clear * 255]).astype(np.uint8))
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def line(number, attribute="organs-ref", colours=COLOURS, **more):
    return {
        "source-ref": f"s3://bucket/in/{number}.png",
        attribute: f"{JOB}/{number}_{attribute}.png",
        f"{attribute}-metadata": {
            "internal-color-map": colour_map(colours), "type": "groundtruth/semantic-segmentation",
            "human-annotated": "yes", "job-name": "labeling-job/organs",
        },
        **more,
    }  # fmt: skip


class Job:
    """The output folder of a job of six pictures."""

    def __init__(self, folder, name="job"):
        self.images, self.source, self.out = folder / "images", folder / name, folder / "out"
        for number in range(6):
            pixels = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
            put(self.images / "in" / f"{number}.png", as_png(pixels))

    def masks(self, boxes=None, attribute="organs-ref", mode="RGB", **special):
        """Write the masks: those of `special` (`_3=boxes`) where given."""
        for number in range(6):
            put(
                self.source / "annotations" / "consolidated-annotation" / "output" / f"{number}_{attribute}.png",
                as_png(drawn(special.get(f"_{number}", boxes or TWO_BOXES)), mode),
            )
        return self

    def manifest(self, lines):
        text = "".join(json.dumps(each) + "\n" for each in lines)
        put(self.source / "manifests" / "output" / "output.manifest", text.encode())
        return self

    def responses(self, number, answers):
        """What each worker drew of an image: boxes, or None."""
        given = [
            {
                "workerId": f"private.eu-west-1.{who}", "submissionTime": "2024-05-01T10:00:00Z",
                "answerContent": {"crowd-semantic-segmentation": {
                    "inputImageProperties": {"height": HEIGHT, "width": WIDTH},
                    "labelMappings": {"liver": {"color": "#2CA02C"}, "cyst": {"color": "#1f77b4"}},
                    "labeledImage": {"pngImageData": base64.b64encode(as_png(drawn(boxes), "RGBA")).decode()},
                }},
            }
            for who, boxes in enumerate(answers)
        ]  # fmt: skip
        path = self.source / "annotations" / "worker-response" / "iteration-1" / str(number) / "1.json"
        put(path, json.dumps({"answers": given}).encode())
        return self

    def read(self, source=None, **options):
        return import_ground_truth(
            source or self.source, self.out, images=self.images, options=GroundTruthOptions(**options)
        )

    def mask(self, number, folder=""):
        return np.asarray(Image.open(self.out / "masks" / folder / f"{number}.png"))


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


def boxes_of(values):
    """Where each value lies: value -> (left, upper, right, lower), which is right for boxes."""
    found = {}
    for value in np.unique(values[values > 0]).tolist():
        rows, columns = np.nonzero(values == value)
        found[value] = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.count_nonzero(values == value) == (found[value][2] - found[value][0]) * (
            found[value][3] - found[value][1]
        )
    return found


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_colours_become_the_structures_of_the_map(job, mode):
    job.masks(mode=mode, _5=[]).manifest([line(number) for number in range(6)])

    report = job.read()

    assert content_of(job.out)["labels"] == {"0": "background", "1": "cyst", "2": "liver"}
    assert (report.task, report.images, report.tied_pixels) == ("segmentation", 6, 0)
    assert boxes_of(job.mask(0)) == {1: (6, 2, 9, 5), 2: (0, 0, 4, 4)}
    assert not job.mask(5).any()
    assert sum(report.counts["liver"].values()) == 5
    assert "annotators: unknown" in report.summary()
    assert not (job.out / "masks" / "annotator-1").exists()
    assert job.read().is_repeated


def test_the_data_set_is_one_to_train_on(job):
    job.masks().manifest([line(number) for number in range(6)])
    job.read(fractions=(0.5, 0.25, 0.25))

    dataset = read_dataset({"training": job.out}, validation_fraction=0.2, test_fraction=0.2, seed=0)

    record = dataset.training[0]
    labels, findings = labels_on_grid(record.mask, grid_of(record.image, 2), dataset.legend)
    assert (dataset.task, dataset.labels, findings) == ("segmentation", ("cyst", "liver"), ())
    assert labels[0, 0] == 2
    assert labels[8, 4] == 1
    assert np.bincount(labels.ravel()).tolist() == [54 - 25, 9, 16]


@pytest.mark.parametrize(
    ("boxes", "colours", "message"),
    [
        ([((0x2C, 0xA0, 0x2D), (0, 0, 2, 3))], COLOURS, r"mask of 0.png: .*not name: 1 \(#2ca02d 6 times\)"),
        ([((0, 0, 0), (0, 0, 1, 1))], COLOURS, "#000000 1 times"),
        (None, {"BACKGROUND": "#ffffff", "liver": "#2ca02c", "cyst": "#2CA02C"},
         r"line 1 .*gives #2ca02c to several classes \(liver, cyst\)"),
        (None, {"liver": "#ffffff", "BACKGROUND": "#ffffff"}, r"#ffffff to several classes \(liver, background\)"),
        (None, {"liver": "green"}, "a colour like #2ca02c"),
        (None, {"BACKGROUND": "#ffffff", "liver": "#2ca02c", "Liver": "#1f77b4"}, "upper and lower case: Liver, liver"),
        (None, {}, "no internal-color-map"),
        ([], {"BACKGROUND": "#ffffff"}, "0 structures"),
    ],
)  # fmt: skip
def test_colours_that_mean_nothing_or_two_things_are_refused_by_name(job, boxes, colours, message):
    job.masks(boxes).manifest([line(number, colours=colours) for number in range(6)])
    if boxes == []:
        job.masks(_0=[]).masks([(WHITE, (0, 0, 1, 1))])

    with pytest.raises(DatasetError, match=message):
        job.read()


def test_masks_of_another_size_damaged_or_half_transparent_are_refused_with_their_image(job):
    job.masks().manifest([line(number) for number in range(6)])
    path = job.source / "annotations" / "consolidated-annotation" / "output" / "0_organs-ref.png"
    whole = path.read_bytes()
    half = np.dstack([drawn(LIVER_BOX), np.full((HEIGHT, WIDTH), 255)]).astype(np.uint8)
    half[0, 0, 3] = 100
    cases = {
        "mask of 0.png: it has 6 x 9 pixels, and its image 9 x 6": as_png(drawn([]).transpose(1, 0, 2)),
        "mask of 0.png: it cannot be read": whole[:-20],
        "mask of 0.png: it cannot be read: a mask with transparent": as_png(half),
        "mask of 0.png: it cannot be read: .*": b"no picture at all",
    }
    for message, data in cases.items():
        path.write_bytes(data)
        with pytest.raises(DatasetError, match=message):
            job.read()


def test_failed_lines_and_lines_without_a_mask_are_left_out_as_of_every_job(job):
    lines = [line(number) for number in range(6)]
    lines[0] = {"source-ref": lines[0]["source-ref"],
                "organs-ref-metadata": {"failure-reason": "timed out", "human-annotated": "true"}}  # fmt: skip
    del lines[1]["organs-ref"]
    job.masks().manifest(lines)

    report = job.read()

    assert (report.images, report.failed, report.unlabelled) == (4, {"0.png": "timed out"}, ["1.png"])


def test_pictures_of_masks_that_are_missing_are_refused_or_left_out_and_images_are_not_taken_for_them(job):
    job.masks().manifest([line(number) for number in range(5)] + [line(5) | {"organs-ref": "s3://other/5.png"}])

    with pytest.raises(DatasetError, match=r"masks that are in no folder: 1 of 6 \(5.png\)"):
        job.read()
    report = job.read(missing="leave-out")
    assert (report.images, report.missing) == (5, ["5.png"])


def test_a_picture_that_is_the_mask_of_two_images_is_refused(job):
    job.masks().manifest([line(number) for number in range(5)] + [line(5) | {"organs-ref": f"{JOB}/4_organs-ref.png"}])

    with pytest.raises(DatasetError, match=r"the mask of several images: 1 \(4_organs-ref.png\)"):
        job.read()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_map_of_labels_that_is_painted_in_any_colours_is_read_again(data):
    """In colours, in a palette whose indices say something else, and with what nobody marked left transparent."""
    keys = data.draw(st.lists(st.integers(0, 0xFFFFFF), min_size=3, max_size=5, unique=True))
    labels = data.draw(arrays(np.uint8, (4, 5), elements=st.integers(0, len(keys) - 1)))
    names = {key: f"s{place}" if place else "" for place, key in enumerate(keys)}
    colours = np.array([[key >> 16, key >> 8 & 255, key & 255] for key in keys], np.uint8)
    order = np.array(data.draw(st.permutations(range(len(keys)))))
    indexed = Image.fromarray(np.argsort(order).astype(np.uint8)[labels], "P")
    indexed.putpalette(colours[order].ravel().tolist())
    below = colours[np.where(labels, labels, 1)]  # what lies below transparent pixels is not drawn
    clear = Image.fromarray(np.dstack([below, np.where(labels, 255, 0)]).astype(np.uint8))

    for picture in (Image.fromarray(colours[labels]), indexed, clear):
        data_of = io.BytesIO()
        picture.save(data_of, "PNG")
        values = {f"s{place}": place for place in range(1, len(keys))}
        read = read_map(MaskAnswer(b"", names), data_of.getvalue(), values, (5, 4))
        assert np.array_equal(read, labels.T)


def test_a_manifest_alone_finds_its_masks_below_the_images(job, tmp_path):
    job.masks()
    (job.source / "annotations").rename(job.images / "annotations")
    text = "".join(json.dumps(line(number)) + "\n" for number in range(6))
    put(tmp_path / "a.manifest", text.encode())

    assert job.read(tmp_path / "a.manifest").images == 6


def test_chained_jobs_are_chosen_by_their_attribute(job):
    lines = [
        line(number)
        | line(number, "adjusted-ref")
        | {"check": 1, "check-metadata": {"type": "groundtruth/label-verification", "class-name": "good"}}
        for number in range(6)
    ]
    job.masks(LIVER_BOX).masks(TWO_BOXES, "adjusted-ref").manifest(lines)

    with pytest.raises(
        DatasetError, match=r"several label attributes \(adjusted-ref, organs-ref\).*or several of masks"
    ):
        job.read()
    job.read(label_attribute="organs-ref")
    assert boxes_of(job.mask(0)) == {1: (0, 0, 4, 4)}
    job.read(label_attribute="adjusted-ref")
    assert sorted(boxes_of(job.mask(0))) == [1, 2]
    assert set(records_of(job.out)[0]) == {"image", "label", "group", "split"}


# --- several annotators

SMALL = [(LIVER, (0, 0, 2, 4))]  # half of LIVER_BOX: their Dice is 2 * 8 / (16 + 8)


def test_workers_are_put_together_by_majority_and_compared_by_dice(job):
    job.masks().manifest([line(number) for number in range(6)])
    for number in range(6):
        job.responses(number, [LIVER_BOX, LIVER_BOX, SMALL] if number else [LIVER_BOX, SMALL])

    report = job.read()

    assert boxes_of(job.mask(1)) == {1: (0, 0, 4, 4)}
    # Of two annotators nobody decides: what only one of them drew is nobody's.
    assert boxes_of(job.mask(0)) == {1: (0, 0, 2, 4), 2: (2, 0, 4, 4)}
    assert content_of(job.out)["labels"] == {"0": "background", "1": "liver", "2": "ignore"}
    assert report.tied_pixels == 8
    told = report.agreement["liver"]["dice"]
    # Of 16 pairs in 6 images 5 are equal, the others 2 / 3.
    assert (told["images"], told["mean"]) == (6, round((5 + 11 * 2 / 3) / 16, 4))
    assert told["pairs"] == [
        {"first": 1, "second": 3, "images": 5, "dice": 0.6667},
        {"first": 2, "second": 3, "images": 5, "dice": 0.6667},
        {"first": 1, "second": 2, "images": 6, "dice": round((5 + 2 / 3) / 6, 4)},
    ]
    assert (
        "agreement on liver: mean Dice 0.771 (6 images with several masks), least of 1 and 3: 0.667" in report.summary()
    )
    assert "kappa" not in report.summary()
    assert "not annotated: 8" in report.summary()
    item = next(item for item in records_of(job.out) if item["image"].endswith("/1.png"))
    assert item["annotator_masks"] == {str(who): f"./masks/annotator-{who}/1.png" for who in (1, 2, 3)}
    assert (item["annotators"], item["agreement"]) == (3, round((1 + 4 / 3) / 3, 4))
    assert boxes_of(job.mask(1, "annotator-3")) == {1: (0, 0, 2, 4)}
    assert "private" not in (job.out / "import_report.json").read_text() + json.dumps(content_of(job.out))


def test_staple_believes_who_agrees_with_the_others(job):
    far = [(LIVER, (5, 3, 9, 6))]
    job.masks().manifest([line(number) for number in range(6)])
    for number in range(6):
        job.responses(number, [LIVER_BOX, LIVER_BOX, SMALL, far])

    tied = job.read(min_agreement=0).tied_pixels
    report = job.read(labels="staple", min_agreement=0)

    assert (tied, report.tied_pixels) == (6 * 8, 0)
    assert boxes_of(job.mask(0)) == {1: (0, 0, 4, 4)}
    assert "staple of the annotators" in content_of(job.out)["description"]


def test_structures_without_a_majority_are_no_class_and_are_not_annotated(job):
    job.masks().manifest([line(number) for number in range(6)])
    for number in range(6):
        job.responses(number, [LIVER_BOX, LIVER_BOX, TWO_BOXES])

    report = job.read()

    assert (report.counts.keys(), report.unused_classes) == ({"liver"}, ["cyst"])
    assert boxes_of(job.mask(0)) == {1: (0, 0, 4, 4)}
    assert boxes_of(job.mask(0, "annotator-3")) == {1: (0, 0, 4, 4), 2: (6, 2, 9, 5)}
    assert content_of(job.out)["labels"]["2"] == "ignore"
    assert report.agreement["cyst"]["dice"]["mean"] == 0


@pytest.mark.parametrize("way", ["attributes", "manifests", "folders"])
def test_jobs_of_the_same_images_are_annotators(job, tmp_path, way):
    pairs = {"a-ref": LIVER_BOX, "b-ref": SMALL}
    if way == "attributes":
        job.masks(LIVER_BOX, "a-ref").masks(SMALL, "b-ref")
        job.manifest([line(number, "a-ref") | line(number, "b-ref") for number in range(6)])
        report = job.read(label_attribute="a-ref,b-ref")
    elif way == "manifests":
        for name, boxes in pairs.items():
            job.masks(boxes, name)
            text = "".join(json.dumps(line(number, name)) + "\n" for number in range(6))
            put(job.source / f"{name}.manifest", text.encode())
        report = job.read()
    else:
        for name, boxes in pairs.items():
            Job(tmp_path, f"jobs/{name}").masks(boxes, name).manifest([line(number, name) for number in range(6)])
        report = job.read(tmp_path / "jobs")

    assert boxes_of(job.mask(3)) == {1: (0, 0, 2, 4), 2: (2, 0, 4, 4)}
    assert boxes_of(job.mask(3, "annotator-1")) == {1: (0, 0, 4, 4)}
    assert boxes_of(job.mask(3, "annotator-2")) == {1: (0, 0, 2, 4)}
    assert report.agreement["liver"]["dice"]["pairs"] == [{"first": 1, "second": 2, "images": 6, "dice": 0.6667}]


def test_images_of_too_little_agreement_are_disputed(job):
    far = [(LIVER, (5, 0, 9, 4))]
    job.masks().manifest([line(number) for number in range(6)])
    for number in range(6):
        job.responses(number, [LIVER_BOX, LIVER_BOX if number else far])

    [case] = job.read().disputed
    assert (case["image"], case["reason"], case["agreement"]) == ("0.png", "low agreement", 0)
    assert job.read(disputed="drop").images == 5
    with pytest.raises(DatasetError, match="disputed images: 1"):
        job.read(disputed="refuse")


def test_options_of_classes_are_refused_for_masks(job):
    job.masks().manifest([line(number) for number in range(6)])

    for options, message in {
        ("labels", "soft"): "labels soft is for classes; choose majority or staple",
        ("task", "multilabel"): "the answers are masks, which task multilabel does not take",
    }.items():
        with pytest.raises(ConfigError, match=message):
            job.read(**dict([options]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labeledImage": {"pngImageData": "%%%"}}, "not base64"),
        ({"labeledImage": {}}, "no pngImageData"),
        ({"labelMappings": {"liver": {"color": None}}}, "a colour like"),
        ({"labelMappings": ["liver"]}, "no labelMappings"),
        (
            {"labeledImage": {"pngImageData": base64.b64encode(b"no picture").decode()}},
            "0.png by annotator 1: it cannot",
        ),
    ],
)
def test_answers_that_are_no_masks_are_refused_with_their_place(job, change, message):
    job.masks().manifest([line(number) for number in range(6)]).responses(0, [LIVER_BOX])
    path = job.source / "annotations" / "worker-response" / "iteration-1" / "0" / "1.json"
    content = json.loads(path.read_text())
    content["answers"][0]["answerContent"]["crowd-semantic-segmentation"] |= change
    path.write_text(json.dumps(content))

    with pytest.raises(DatasetError, match=message):
        job.read()
