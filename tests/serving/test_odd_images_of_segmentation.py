"""Every form of answer, asked for odd and broken images: each gets an answer, or a refusal with its code."""

import io
import json
import warnings

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import generate_uid

from sagemaker_monai.entrypoints.handler_service import Handler
from sagemaker_monai.outputs.dicom_files import DICOM_TYPE
from sagemaker_monai.outputs.label_map_files import OF_SINGLE_IMAGES
from sagemaker_monai.serving.back_end import Request
from sagemaker_monai.serving.inference import types_of
from tests.support.bundles import write_small_segmenter
from tests.support.dicom_bodies import zip_of
from tests.support.dicom_series import enhanced, pixels, positions_of, to_bytes
from tests.support.segmentations import series

TYPES = (*types_of(has_masks=True), "application/json; mask=rle", f"multipart/related; type={DICOM_TYPE}")
REPORT = f"{DICOM_TYPE}; type=sr"
SHAPE = (4, 9, 8)  # slices, rows, columns
RNG = np.random.default_rng(0)
NAME = "Doe^Jane"


def zipped(files):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of what is broken
        members = [(f"{NAME}/{index}.dcm", to_bytes(each)) for index, each in enumerate(files)]
    return zip_of(*members), "application/zip"


def changed(**elements):
    """A series with other elements, or without those that are None."""
    files = series(shape=SHAPE, PatientName=NAME)
    for each in files:
        for keyword, value in elements.items():
            if value is None:
                delattr(each, keyword)
            else:
                setattr(each, keyword, value)
    return files


def broken(tag, vr, value, slices=(1,)):
    """A series of which some slices have this text in an element."""
    files = changed()
    for index in slices:
        files[index][tag] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
    return files


def uneven():
    files, places = changed(), positions_of(SHAPE[0])
    files[3].ImagePositionPatient = [float(number) for number in places[3] + (0, 0, 1.2)]
    return files


def png(values):
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


NIFTI = nibabel.Nifti1Image(RNG.integers(0, 500, SHAPE).astype(np.int16), np.eye(4)).to_bytes()
# Each body with the status of a volume's and a slice's answer: as text, as a mask in DICOM, as a report.
BODIES = {
    "picture": ((png(RNG.integers(0, 256, (9, 12)).astype(np.uint8)), "image/png"), (422, 422, 422), (200, 406, 406)),
    "NIfTI": ((NIFTI, "application/x-nifti"), (200, 406, 406), (422, 422, 422)),
    "series": (zipped(changed()), (200, 200, 200), (200, 200, 200)),
    "one file": ((to_bytes(changed()[0]), DICOM_TYPE), (200, 200, 200), (200, 200, 200)),
    "frames": ((to_bytes(enhanced(pixels(SHAPE))), DICOM_TYPE), (200, 200, 200), (200, 200, 200)),
    "two series": (
        zipped([*changed(), *changed(SeriesInstanceUID=generate_uid(entropy_srcs=["2"]))]),
        (200, 200, 200), (200, 200, 200),
    ),
    "without UIDs": (zipped(changed(SOPInstanceUID=None)), (200, 422, 422), (200, 422, 422)),
    "broken UIDs": (zipped(broken(0x0020000D, "UI", b"Doe^Jane", range(SHAPE[0]))), (200, 422, 422), (200, 422, 422)),
    "equal UIDs": (zipped(changed(SOPInstanceUID="1.2.3")), (200, 422, 422), (200, 200, 200)),
    "uneven": (zipped(uneven()), (422, 422, 422), (200, 200, 200)),
    "not finite": (zipped(broken(0x00200032, "DS", b"nan\\nan\\nan ")), (422, 422, 422), (200, None, 200)),
    "huge": (zipped(broken(0x00200032, "DS", b"1e300\\0\\0 ")), (422, 422, 422), (200, None, 200)),
    "without position": (zipped(changed(ImagePositionPatient=None)), (200, 422, 200), (200, None, 200)),
    "no DICOM": ((NAME.encode() * 40, DICOM_TYPE), (400, 400, 400), (400, 400, 400)),
}  # fmt: skip


@pytest.fixture(scope="module")
def handlers(tmp_path_factory):
    base = tmp_path_factory.mktemp("segmenters")
    write_small_segmenter(base / "volume", patch=(8, 8, 8))
    write_small_segmenter(base / "slice", preset="ct_slice", patch=(16, 16))
    return [Handler(base / name, allow_bundle_code=False) for name in ("volume", "slice")]


@pytest.mark.parametrize("name", BODIES)
def test_every_form_of_answer_to_an_odd_image_is_an_answer_or_a_refusal(handlers, name):
    (body, content_type), *expected = BODIES[name]
    for handler, (text, mask, report), is_of_volumes in zip(handlers, expected, (True, False), strict=True):
        for accept in TYPES:
            [response] = handler.respond([Request(body, content_type, accept)])

            wanted = report if accept == REPORT else mask if DICOM_TYPE in accept else text
            if is_of_volumes and accept in OF_SINGLE_IMAGES:
                wanted = 406
            if wanted is None:  # a mask of an image without a place: a SEG, but no RTSTRUCT
                wanted = 406 if "rtstruct" in accept else 200
            assert response.status == wanted, (accept, response.body[:300])
            if response.status != 200:
                error = json.loads(response.body)["error"]
                assert error["code"] in ("UndecodableImage", "UnsuitableImage", "NotAcceptable")
                assert not any(word in str(error) for word in (NAME, "Doe", "/tmp", ".dcm", "Traceback"))


def test_a_model_of_photographs_says_of_a_volume_that_it_is_one_whatever_is_asked_for(tmp_path):
    write_small_segmenter(tmp_path / "model", preset="photo", patch=(16, 16), channels=3)
    handler = Handler(tmp_path / "model", allow_bundle_code=False)

    answers = {handler.respond([Request(NIFTI, "application/x-nifti", accept)])[0].body for accept in TYPES}

    assert len(answers) == 1
    assert b"takes pictures, not a file of a volume" in answers.pop()
