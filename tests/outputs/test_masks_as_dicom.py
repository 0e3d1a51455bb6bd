"""Label maps as DICOM segmentations and structure sets: what they say, and read back to the same voxels."""

import dataclasses
import io
import shutil
import subprocess
import tracemalloc
from datetime import datetime

import numpy as np
import pydicom
import pytest
from highdicom.seg import Segmentation
from PIL import Image, ImageCms
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, RLELossless

from sagemaker_monai.artifact.mask_predictor import describe
from sagemaker_monai.artifact.predictor import Answered
from sagemaker_monai.budget import Budget, spending
from sagemaker_monai.errors import NotAcceptable, PayloadTooLarge, UnsuitableImage
from sagemaker_monai.images.dicom.pixels import read_frames
from sagemaker_monai.images.read import read_volumes_of
from sagemaker_monai.images.sample import Instances, Sample
from sagemaker_monai.images.volumes import Traits, Volume
from sagemaker_monai.masks.mask import Grid
from sagemaker_monai.masks.read_mask import read_mask
from sagemaker_monai.outputs.dicom_files import Provenance
from sagemaker_monai.outputs.segmentation_costs import costs_of
from sagemaker_monai.outputs.segmentation_objects import encode_seg
from sagemaker_monai.outputs.structure_sets import encode_rtstruct
from sagemaker_monai.serving.inference import Answer, negotiate, output_fn, types_of
from sagemaker_monai.tasks.label_codes import Code, LabelCodes
from sagemaker_monai.tasks.regions import Regions
from tests.support.dicom_series import GAP_MM, ORIENTATIONS, enhanced, pixels, positions_of, to_bytes
from tests.support.places import SHARED_DATA
from tests.support.segmentations import series

MODEL = Provenance("sagemaker-monai unet", "ab" * 32, ("finding gantry_tilt",))
NOW = datetime(2025, 3, 4, 5, 6, 7)
LABELS = ("liver", "größer 日本")
HIPPOCAMPI = sorted((SHARED_DATA / "dicom_series").glob("*/*_HCropVolume"))
RANDOM = np.random.default_rng(3).integers(0, 3, (5, 7, 6)).astype(np.uint8)  # (W, H, D), touching at corners
RANDOM[:, :, 2] = 0


def encode_labelmap(*args, **options):
    return encode_seg(*args, **options, kind="LABELMAP")


ENCODERS = {"binary": encode_seg, "labelmap": encode_labelmap, "rtstruct": encode_rtstruct}
FORMS = pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)


def volume_of(files):
    [volume] = read_volumes_of(
        Sample(Instances(tuple(file if isinstance(file, bytes) else to_bytes(file) for file in files)))
    )
    return volume


def answer_on(image, mask=RANDOM, labels=LABELS):
    """A prediction for an image, and its traits."""
    affine = image.affine if isinstance(image, Volume) and image.has_geometry else None
    traits = Traits(image.identity, size=mask.shape, spacing_mm=(1.0,) * mask.ndim, affine=affine)
    return describe(mask, labels, traits), traits


def encoded(encode, image, mask=RANDOM, labels=LABELS, model=MODEL):
    return encode(*answer_on(image, mask, labels), model=model, now=NOW)


def read_back(tmp_path, content, image):
    path = tmp_path / "mask.dcm"
    path.write_bytes(content)
    return read_mask(path, Grid.of(image))


def parse(content):
    return pydicom.dcmread(io.BytesIO(content))


def items_of(dataset, keyword):
    return [element.value for element in dataset.iterall() if element.keyword == keyword]


def validated(path):
    """The validator's errors."""
    result = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True)
    lines = (result.stdout + result.stderr).decode(errors="replace").splitlines()
    assert {"Segmentation", "RTStructureSet"} & set(lines)
    return [line for line in lines if line.startswith("Error")]


@pytest.fixture(scope="module")
def axial():
    return volume_of(series(shape=RANDOM.shape[::-1]))


# --- the same voxels come back


@FORMS
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_mask_of_any_orientation_is_read_back_as_it_was(tmp_path, encode, orientation):
    image = volume_of(series(ORIENTATIONS[orientation], RANDOM.shape[::-1])[::-1])

    mask = read_back(tmp_path, encoded(encode, image), image)

    assert np.array_equal(mask.values, RANDOM)
    assert mask.names == dict(enumerate(LABELS, start=1))


@FORMS
def test_a_tilted_series_is_read_back_as_it_was(tmp_path, encode):
    places = positions_of(6) + np.outer(np.arange(6) * GAP_MM, (0, 0.2, 0))
    files = series(shape=RANDOM.shape[::-1])
    for file, place in zip(files, places, strict=True):
        file.ImagePositionPatient = [float(number) for number in place]
    image = volume_of(files)

    assert np.array_equal(read_back(tmp_path, encoded(encode, image), image).values, RANDOM)


@FORMS
def test_frames_of_one_file_are_named_by_their_numbers(tmp_path, encode):
    order = [3, 0, 5, 1, 4, 2]
    image = volume_of([enhanced(pixels(RANDOM.shape[::-1]), order=order)])

    content = encoded(encode, image)

    assert np.array_equal(read_back(tmp_path, content, image).values, RANDOM)
    assert set(items_of(parse(content), "ReferencedFrameNumber")) == {
        order.index(place) + 1 for place in (0, 1, 3, 4, 5)
    }
    assert set(items_of(parse(content), "ReferencedSOPInstanceUID")) >= {image.identity.sop_instance_uids[0]}


@FORMS
def test_one_slice_is_read_back_as_it_was(tmp_path, encode):
    [image] = read_frames(to_bytes(series(shape=(1, 7, 5))[0]))

    assert np.array_equal(read_back(tmp_path, encoded(encode, image, RANDOM[:, :, 0]), image).values, RANDOM[:, :, 0])


@pytest.mark.parametrize("encode", [encode_seg, encode_labelmap])
def test_a_radiograph_without_a_position_is_segmented_by_its_name(tmp_path, encode):
    nothing = dict.fromkeys(("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient"))
    [file] = series(shape=(1, 7, 5), SOPClassUID=DigitalXRayImageStorageForPresentation, Modality="DX", **nothing)
    [image] = read_frames(to_bytes(file))

    content = encoded(encode, image, RANDOM[:, :, 0])

    assert np.array_equal(read_back(tmp_path, content, image).values, RANDOM[:, :, 0])
    with pytest.raises(NotAcceptable, match="FrameOfReferenceUID"):
        encoded(encode_rtstruct, image, RANDOM[:, :, 0])


@FORMS
def test_a_mask_of_nothing_is_an_answer(tmp_path, encode, axial):
    content = encoded(encode, axial, np.zeros_like(RANDOM))

    assert not read_back(tmp_path, content, axial).values.any()
    assert parse(content).get("NumberOfFrames", 1) <= len(LABELS)


def test_holes_islands_and_corners_come_back_from_contours(tmp_path, axial):
    mask = np.zeros_like(RANDOM)
    mask[:, :, 0] = 1
    mask[1:4, 1:6, 0] = 0
    mask[2, 2:5, 0] = 1
    mask[0, 0, 3] = mask[1, 1, 3] = mask[4, 6, 3] = 1
    mask[2:4, 3, 3] = mask[4, 2, 3] = 1

    content = encoded(encode_rtstruct, axial, mask)

    contours = parse(content).ROIContourSequence[0].ContourSequence
    assert [int(each.NumberOfContourPoints) for each in contours[:3]] == [4, 4, 4]
    assert len(contours) == 3 + 5
    read = read_back(tmp_path, content, axial)
    assert np.array_equal(read.values, mask)
    assert "contours_cross" not in read.findings


def test_contours_lie_on_the_planes_and_name_the_files(axial):
    document = parse(encoded(encode_rtstruct, axial))
    places = positions_of(6)

    for roi in document.ROIContourSequence:
        for contour in roi.ContourSequence:
            [image] = contour.ContourImageSequence
            index = axial.identity.sop_instance_uids.index(image.ReferencedSOPInstanceUID)
            assert np.allclose(np.reshape(contour.ContourData, (-1, 3))[:, 2], places[index, 2])


# --- what they say


@pytest.mark.parametrize("encode", [encode_seg, encode_labelmap])
def test_highdicom_reads_the_same_segments(encode, axial):
    segmentation = Segmentation.from_dataset(parse(encoded(encode, axial)))
    uids = list(axial.identity.sop_instance_uids)

    values = segmentation.get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )

    assert np.array_equal(values.transpose(2, 1, 0), RANDOM)
    for number, label in enumerate(LABELS, start=1):
        described = segmentation.get_segment_description(number)
        assert described.segment_label == label
        assert described.segmented_property_type.scheme_designator == "99SMMONAI"
        assert described.algorithm_type.value == "AUTOMATIC"
        [algorithm] = described.algorithm_identification
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (MODEL.name, MODEL.version)
        assert algorithm.AlgorithmParameters == "finding gantry_tilt"


@FORMS
def test_labels_alike_in_their_beginning_have_names_of_their_own_and_are_told_whole(encode, axial):
    labels = ("lobe " * 20 + "left", "lobe " * 20 + "right", "a\\b", "a b", "liver")
    keywords = ("ROIName", "ROIDescription") if encode is encode_rtstruct else ("SegmentLabel", "SegmentDescription")

    document = parse(encoded(encode, axial, labels=labels))
    alone = parse(encoded(encode, axial, labels=(*labels[1:2], "liver")))

    names, told = (items_of(document, keyword) for keyword in keywords)
    names = [name for name in names if name != "Background"]  # of a label map
    assert len(set(names)) == 5
    assert all(len(name) <= 64 for name in names)
    assert names[4] == "liver"
    assert told == [labels[0], labels[1], "a b", "a b"]
    assert items_of(alone, keywords[0])[-2:] == [names[1], "liver"]  # the same in every model


@pytest.mark.parametrize("encode", [encode_seg, encode_labelmap])
def test_segments_are_drawn_in_the_colours_of_every_other_answer(encode, axial):
    colours = items_of(parse(encoded(encode, axial)), "RecommendedDisplayCIELabValue")[-len(LABELS) :]
    rois = items_of(parse(encoded(encode_rtstruct, axial)), "ROIDisplayColor")

    # PIL's ICC profiles know CIELab with another white (D50), hence the tolerance.
    for (light, red, yellow), colour in zip(colours, rois, strict=True):
        picture = Image.new("RGB", (1, 1), tuple(int(part) for part in colour))
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        expected = ImageCms.profileToProfile(picture, *profiles, outputMode="LAB").getpixel((0, 0))
        own = [light / 655.35, red / 257 - 128, yellow / 257 - 128]
        assert np.allclose(own, [expected[0] / 2.55, *(part - 128 for part in expected[1:])], atol=12)


CODES = {
    "liver": LabelCodes(Code("SCT", "91723000", "Anatomical Structure"), Code("SCT", "10200004", "Liver")),
    "kidney_left": LabelCodes(
        Code("SCT", "91723000", "Anatomical Structure"),
        Code("SCT", "64033007", "Kidney"),
        (Code("SCT", "7771000", "Left"),),
    ),
}
CODED = dataclasses.replace(MODEL, codes=CODES)


@FORMS
def test_structures_have_the_codes_of_the_artifact_or_a_private_one(encode, axial):
    document = parse(encoded(encode, axial, labels=("kidney_left", "flap"), model=CODED))

    if encode is encode_rtstruct:
        coded = [each.RTROIIdentificationCodeSequence[0] for each in document.RTROIObservationsSequence]
        categories = [each.SegmentedPropertyCategoryCodeSequence[0] for each in document.RTROIObservationsSequence]
    else:
        coded = [each.SegmentedPropertyTypeCodeSequence[0] for each in document.SegmentSequence[-2:]]
        categories = [each.SegmentedPropertyCategoryCodeSequence[0] for each in document.SegmentSequence[-2:]]
    assert [(each.CodingSchemeDesignator, each.CodeMeaning) for each in coded] == [
        ("SCT", "Kidney"), ("99SMMONAI", "flap"),
    ]  # fmt: skip
    assert coded[0].CodeValue == "64033007"
    assert coded[0].SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert "SegmentedPropertyTypeModifierCodeSequence" not in coded[1]
    assert [each.CodeMeaning for each in categories] == ["Anatomical Structure", "Tissue"]


def test_the_codes_of_the_artifact_reach_the_answer(axial):
    answer = dataclasses.replace(answer_of(axial), codes=CODES)

    for accept in ("application/dicom", "application/dicom; type=rtstruct", "application/dicom; type=sr"):
        assert "10200004" in items_of(parse(output_fn(answer, accept)[0]), "CodeValue")


def test_up_to_four_structures_are_binary_and_more_a_label_map(axial):
    kinds = [parse(encoded(encode_seg, axial, labels=tuple("abcdef"[:count]))).SegmentationType for count in (2, 4, 5)]

    assert kinds == ["BINARY", "BINARY", "LABELMAP"]


def test_a_label_map_is_packed(axial):
    files = [pydicom.dcmread(io.BytesIO(encoded(encode, axial))) for encode in (encode_seg, encode_labelmap)]

    assert [file.file_meta.TransferSyntaxUID for file in files] == [ExplicitVRLittleEndian, RLELossless]


def test_frames_without_a_structure_are_left_out(axial):
    assert parse(encoded(encode_labelmap, axial)).NumberOfFrames == 5
    assert parse(encoded(encode_seg, axial)).NumberOfFrames == 10


@FORMS
def test_patient_study_and_sources_are_those_of_the_images(encode, axial):
    document = parse(encoded(encode, axial))
    source = axial.identity.headers[0]

    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate"):
        assert document[keyword].value == source[keyword].value
    assert document.SeriesInstanceUID != source.SeriesInstanceUID
    assert document.SeriesDescription == "AI findings, not verified"
    uids = items_of(document, "ReferencedSOPInstanceUID")
    assert set(axial.identity.sop_instance_uids) - {axial.identity.sop_instance_uids[2]} <= set(uids)
    assert set(uids) <= {*axial.identity.sop_instance_uids, source.StudyInstanceUID}
    assert set(items_of(document, "ReferencedSOPClassUID")) <= {source.SOPClassUID, "1.2.840.10008.3.1.2.3.1"}


@FORMS
def test_a_repeat_is_the_same_file_and_anything_else_another(encode, axial):
    first = encoded(encode, axial)
    other = RANDOM.copy()
    other[0, 0, 0] = 2 - other[0, 0, 0]

    assert encoded(encode, axial) == first
    others = [
        encoded(encode, axial, other),
        encoded(encode, axial, labels=("a", "b")),
        encoded(encode, axial, model=Provenance(MODEL.name, "cd" * 32)),
        encoded(encode, volume_of(series(shape=RANDOM.shape[::-1]))),
    ]
    uids = {str(parse(content).SOPInstanceUID) for content in (first, *others)}
    assert len(uids) == 5
    assert all(uid.startswith("2.25.") for uid in uids)


# --- what has no such answer


@FORMS
@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # of the broken identifiers
def test_without_sound_identifiers_there_is_no_answer(encode, keyword, axial):
    for value in ("", "1..x"):
        image = volume_of(series(shape=RANDOM.shape[::-1]))
        for header in image.identity.headers:
            setattr(header, keyword, value)
        with pytest.raises(UnsuitableImage, match=keyword):
            encoded(encode, image)


@FORMS
def test_several_patients_or_series_have_no_answer(encode):
    for keyword, value in (("PatientID", "P2"), ("SeriesInstanceUID", "1.2.3")):
        image = volume_of(series(shape=RANDOM.shape[::-1]))
        setattr(image.identity.headers[3], keyword, value)
        with pytest.raises(UnsuitableImage, match=r"one patient|one series"):
            encoded(encode, image)


@FORMS
def test_a_grid_that_is_not_the_slices_has_no_answer(encode, axial):
    resampled = RANDOM.repeat(2, axis=2)
    image = dataclasses.replace(axial, affine=axial.affine @ np.diag([1, 1, 0.5, 1]))

    with pytest.raises(NotAcceptable, match="own slices"):
        encoded(encode, image, resampled)


@FORMS
def test_what_is_not_dicom_or_has_no_geometry_has_no_answer(encode, axial):
    prediction, _ = answer_on(axial)

    with pytest.raises(NotAcceptable, match="needs DICOM images"):
        encode(prediction, Traits(size=RANDOM.shape), model=MODEL, now=NOW)
    no_place = describe(RANDOM, LABELS, Traits(size=RANDOM.shape))
    with pytest.raises(UnsuitableImage, match="position"):
        encode(no_place, Traits(axial.identity, size=RANDOM.shape), model=MODEL, now=NOW)


# --- memory and time


@FORMS
def test_what_does_not_fit_is_refused_before_it_is_begun(encode, axial):
    for limits in ((3_000, 1 << 40), (1 << 40, 3_000)):
        with spending(Budget(*limits)), pytest.raises(PayloadTooLarge, match="MAX_REQUEST_") as refused:
            encoded(encode, axial)
        assert "contours" in str(refused.value) or "of 210 voxels" in str(refused.value)


def test_memory_and_work_follow_from_voxels_frames_and_runs():
    """By hand: 8 x 5 x 4 voxels; stripes are in three slices, with 7 changes in each of 5 rows."""
    calm = np.zeros((8, 5, 4), np.uint8)
    stripes = calm.copy()
    stripes[::2, :, 1:] = 1
    headers, frames = 12_000, 1_100_000

    def costs(mask, kind):
        return costs_of(describe(mask, LABELS, Traits(size=mask.shape)), kind)

    assert costs(calm, "BINARY") == (int(1.2 * 160 + 4 * headers), 15 * 160 + 4 * frames)
    assert costs(stripes, "BINARY") == (int(1.2 * 160 + 4.2 * 5 * 3 + 7 * headers), 15 * 160 + 7 * frames)
    assert costs(calm, "LABELMAP") == (int(4.1 * 160 + 5 * 2 * 20 + 8 * headers), 15 * 160 + 8 * frames)
    packed = 5 * min(1.02 * 160, 2 * (105 + 20))
    assert costs(stripes, "LABELMAP") == (int(4.1 * 160 + packed + 8 * headers), 15 * 160 + 30 * 105 + 8 * frames)


@pytest.mark.long
@FORMS
def test_the_memory_that_is_counted_suffices(encode, axial):
    places = np.indices((200, 200, 6)) - np.array([100, 100, 3])[:, None, None, None]
    ball = (np.linalg.norm(places, axis=0) < 80).astype(np.uint8)
    noise = np.random.default_rng(1).integers(0, 3, (64, 64, 6)).astype(np.uint8)
    encoded(encode, axial)
    for mask in (ball, noise):  # on slices of other sizes than the source's, whose positions count
        prediction, traits = answer_on(axial, mask)
        budget = Budget(1 << 40, 1 << 50)
        tracemalloc.start()
        with spending(budget):
            encode(prediction, traits, model=MODEL, now=NOW)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= budget.most_bytes + 1_000_000


# --- served


def answer_of(*images):
    return Answer(
        tuple(Answered((prediction,), (traits,)) for prediction, traits in (answer_on(image) for image in images)),
        "ab" * 32,
        "unet",
    )


@pytest.mark.parametrize(
    ("accept", "modality", "kind"),
    [
        ("application/dicom", "SEG", "BINARY"),
        ("application/dicom; type=binary", "SEG", "BINARY"),
        ('application/dicom;type="LABELMAP"', "SEG", "LABELMAP"),
        ("text/html, application/dicom; type=rtstruct; q=0.5", "RTSTRUCT", None),
        ("application/dicom; type=surface, application/dicom; type=sr", "SR", None),
    ],
)
def test_the_type_of_dicom_is_a_parameter(axial, accept, modality, kind):
    body, content_type = output_fn(answer_of(axial), accept)

    assert content_type == "application/dicom"
    document = parse(body)
    assert (document.Modality, document.get("SegmentationType")) == (modality, kind)


def test_several_images_are_several_parts(axial):
    for accept in ("application/dicom; type=rtstruct", 'multipart/related; type="application/dicom"'):
        images = (axial, axial) if accept.startswith("application") else (axial,)
        body, content_type = output_fn(answer_of(*images), accept)

        assert content_type.startswith("multipart/related")
        assert body.count(b"Content-Type: application/dicom\r\n") == len(images)


def test_an_unknown_type_is_told_which_there_are():
    with pytest.raises(NotAcceptable, match=r"type=binary.*type=labelmap.*type=fractional.*type=rtstruct.*type=sr"):
        negotiate("application/dicom; type=surface", types_of(has_masks=True))
    assert negotiate("application/dicom; type=surface", types_of(has_masks=False)) == "application/dicom"


# --- the validator, and real series


@pytest.mark.parametrize("encode", [encode_seg, encode_rtstruct])
@pytest.mark.parametrize("mask", [RANDOM, np.zeros_like(RANDOM), (RANDOM > 0).astype(np.uint8)])
def test_structures_that_overlap_have_a_segment_and_contours_each(tmp_path, encode, mask, axial):
    answer, traits = answer_on(axial, mask)
    answer = describe(mask, LABELS, traits, Regions(((1, 2), (2,)), (1, 2), (1, 2)))
    path = tmp_path / "mask.dcm"
    path.write_bytes(encode(answer, traits, model=MODEL, now=NOW))

    for place, label in enumerate(LABELS):
        alone = read_mask(path, Grid.of(axial), wanted=lambda name, label=label: name == label)
        assert np.array_equal(alone.values > 0, mask > place)
    assert shutil.which("dciodvfy") is None or validated(path) == []


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy of dicom3tools")
@pytest.mark.parametrize("encode", [encode_seg, encode_rtstruct])  # it does not know LABELMAP yet
@pytest.mark.parametrize("labels", [LABELS, ("x" * 200, "\\^=&\n"), tuple(CODES)])
def test_the_validator_finds_no_errors(tmp_path, encode, axial, labels):
    for mask in (RANDOM, np.zeros_like(RANDOM)):
        path = tmp_path / "mask.dcm"
        path.write_bytes(encoded(encode, axial, mask, labels, CODED))
        assert validated(path) == []


@pytest.mark.skipif(not HIPPOCAMPI, reason="needs the shared data")
@pytest.mark.parametrize("folder", HIPPOCAMPI, ids=lambda folder: folder.parent.name)
def test_masks_of_real_series_are_read_back_as_they_were(tmp_path, folder):
    image = volume_of([path.read_bytes() for path in folder.iterdir()])
    shape = image.values.shape[1:]
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) / shape
    mask = (np.linalg.norm(places - 0.4, axis=-1) < 0.25).astype(np.uint8)
    mask[np.linalg.norm(places - 0.6, axis=-1) < 0.2] = 2

    for encode in ENCODERS.values():
        content = encoded(encode, image, mask)
        assert np.array_equal(read_back(tmp_path, content, image).values, mask)
        if encode is not encode_labelmap and shutil.which("dciodvfy"):
            assert validated(tmp_path / "mask.dcm") == []
