"""Masks as files: label maps and probabilities as NIfTI on the image's own grid, and PNG with
a palette or over the picture.

Several, of several series in one request, become one zip.
"""

import io
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sagemaker_monai.budget import lent, spend_work
from sagemaker_monai.errors import NotAcceptable
from sagemaker_monai.images.formats.nifti_labels import encode_labels, encode_shares
from sagemaker_monai.tasks.mask_colours import colour_of, drawn_over, palette

if TYPE_CHECKING:
    from sagemaker_monai.tasks.segmentation import MaskPrediction

NIFTI_TYPE, PACKED_NIFTI_TYPE, PNG_TYPE = "application/x-nifti", "application/x-nifti+gzip", "image/png"
OVERLAY_TYPE = f"{PNG_TYPE}; type=overlay"
PROBABILITIES_TYPE, PACKED_PROBABILITIES_TYPE = (
    f"{name}; type=probabilities" for name in (NIFTI_TYPE, PACKED_NIFTI_TYPE)
)
OF_SINGLE_IMAGES = (PNG_TYPE, OVERLAY_TYPE)
NOT_OF_VOLUMES = "PNG is for single images, and this is a volume: accept application/x-nifti or application/dicom"
ZIP_TYPE = "application/zip"
_FILE_COPIES, _PACKING_NS = 2, 40  # 1.02 and 38 ns a byte measured with four structures in 512 x 512 x 300
_QUICK = 1  # of zlib: a photograph of 12 megapixels takes 1.4 s and 18 MB, at 6 it takes 9 s and 15 MB
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same answer is the same bytes


def encode_nifti(prediction: "MaskPrediction", *, is_packed: bool = False) -> bytes:
    """A label map as NIfTI, with the image's affine; identity where the image has no geometry.

    It is uint8, or uint16 where the values of structures that overlap are larger.

    Args:
        prediction: of a volume or a single image.
        is_packed: gzip.
    """
    values = prediction.values()
    if is_packed:
        spend_work(_PACKING_NS * values.nbytes, f"packing {values.size} voxels")
    with lent(_FILE_COPIES * values.nbytes, f"a file of {values.size} voxels"):
        return encode_labels(values, prediction.affine, is_packed=is_packed)


def encode_probabilities(prediction: "MaskPrediction", *, is_packed: bool = False) -> bytes:
    """Probabilities of structures as NIfTI, structures along the fourth axis.

    The background is left out: it is what the structures leave of 1.

    Args:
        prediction: with probabilities.
        is_packed: gzip.

    Raises:
        NotAcceptable: as of `probabilities_of`.
    """
    shares = probabilities_of(prediction)
    if is_packed:
        spend_work(_PACKING_NS * shares.nbytes, f"packing {shares.size} probabilities")
    with lent(_FILE_COPIES * shares.nbytes, f"a file of {shares.size} probabilities"):
        return encode_shares(shares, prediction.affine, is_packed=is_packed)


def probabilities_of(prediction: "MaskPrediction") -> NDArray[np.uint8]:
    """The probabilities of a prediction.

    Raises:
        NotAcceptable: it has none, as of a user's own `predict_fn`.
    """
    if prediction.probabilities is None:
        raise NotAcceptable("this model's own code answers without probabilities: accept another type")
    return prediction.probabilities


def encode_png(prediction: "MaskPrediction") -> bytes:
    """A label map of a single image as PNG: the labels are the indices of a palette.

    Raises:
        NotAcceptable: it is of a volume, or a value is above 255.
    """
    from PIL import Image

    _refuse_volume(prediction)
    values = prediction.values()
    if values.dtype != np.uint8:
        raise NotAcceptable(
            "PNG has values up to 255, and the model's structures larger ones: accept application/x-nifti"
        )
    image = Image.fromarray(np.ascontiguousarray(values.T), "P")
    image.putpalette(palette().tobytes())
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def encode_overlay(prediction: "MaskPrediction") -> bytes:
    """A single image as it is displayed, as PNG, with its structures in colours; later ones lie over earlier ones.

    Raises:
        NotAcceptable: it is of a volume, or has no picture, as of a user's own `predict_fn`.
    """
    from PIL import Image

    _refuse_volume(prediction)
    if prediction.picture is None:
        raise NotAcceptable("this model's own code answers without the picture: accept another type")
    colours = palette()
    for place, numbers in enumerate(prediction.numbers, start=1):
        colours[list(numbers)] = colour_of(place)
    drawn = drawn_over(prediction.picture, prediction.mask, colours, has_outline=True)
    stream = io.BytesIO()
    Image.fromarray(drawn).save(stream, "PNG", compress_level=_QUICK)
    return stream.getvalue()


def _refuse_volume(prediction: "MaskPrediction") -> None:
    if prediction.mask.ndim != 2:
        raise NotAcceptable(NOT_OF_VOLUMES)


# Accept -> suffix in a zip, and the encoder of one answer.
MASK_FILES: dict[str, tuple[str, Callable[["MaskPrediction"], bytes]]] = {
    NIFTI_TYPE: (".nii", encode_nifti),
    PACKED_NIFTI_TYPE: (".nii.gz", partial(encode_nifti, is_packed=True)),
    PNG_TYPE: (".png", encode_png),
    OVERLAY_TYPE: (".png", encode_overlay),
    PROBABILITIES_TYPE: (".nii", encode_probabilities),
    PACKED_PROBABILITIES_TYPE: (".nii.gz", partial(encode_probabilities, is_packed=True)),
}


def encode_mask_files(predictions: Sequence["MaskPrediction"], accepted: str) -> tuple[bytes, str]:
    """Answers in one of the forms of `MASK_FILES`.

    Returns:
        The body and its content type: of one image the file, of several a zip of them, `1`, `2`, ... in order.

    Raises:
        NotAcceptable: the form does not suit an answer.
    """
    suffix, encode = MASK_FILES[accepted]
    if len(predictions) == 1:
        return encode(predictions[0]), accepted.partition(";")[0]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, prediction in enumerate(predictions, start=1):
            archive.writestr(zipfile.ZipInfo(f"{number}{suffix}", _ZIP_TIME), encode(prediction))
    return stream.getvalue(), ZIP_TYPE
