"""The frames of one DICOM file in the modality's unit, with display and identity.

The order is the standard's: stored values (`decoding`), Modality LUT or rescale (`modality`), and, only for viewing or
for networks that take displayed values, VOI and inversion (`display`).
"""

from collections.abc import Iterator, Sequence

import numpy as np
from pydicom import Dataset

from sagemaker_monai.images.dicom.decoding import stored_frames
from sagemaker_monai.images.dicom.display import apply_display, display_for, display_of
from sagemaker_monai.images.dicom.elements import frame_header, meta_of, numbers_of, whole_number, word
from sagemaker_monai.images.dicom.headers import PIXEL_GROUP, File, read_instance, refusing
from sagemaker_monai.images.dicom.modality import modality_transform, modality_values
from sagemaker_monai.images.dicom.mosaics import check_unpacked
from sagemaker_monai.images.dicom.oddities import oddities_of
from sagemaker_monai.images.dicom.pixel_layout import layout_of
from sagemaker_monai.images.volumes import Display, Frame, Identity

__all__ = ["apply_display", "display_for", "display_of", "header_of", "modality_values", "read_frames", "spacing_of"]

_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")  # the first valid one is used


def read_frames(source: File | Dataset) -> list[Frame]:
    """Read every frame of a file, in its order.

    Args:
        source: a file, its bytes, or its dataset from `headers.read_instance`.

    Returns:
        Grey frames: float32 modality values. Colour frames: uint8 RGB, the high byte of deeper samples.

    Raises:
        UndecodableImage: the file is broken, or header and data contradict each other.
        UnsuitableImage: no image, stored in an unsupported way, or a mosaic of slices.
        PayloadTooLarge: more than the limits.
    """
    return list(each_frame(source))


def each_frame(source: File | Dataset, wanted: Sequence[int] | None = None) -> Iterator[Frame]:
    """Like `read_frames`, but one frame at a time; all of them, or those with the wanted numbers from 0."""
    dataset = source if isinstance(source, Dataset) else read_instance(source)
    check_unpacked(dataset)
    with refusing("the DICOM header is broken; export the file again"):
        layout = layout_of(dataset)
        header = header_of(dataset)
        modality = word(dataset, "Modality")
        odd = oddities_of(header)
    numbers = range(layout.frames) if wanted is None else wanted
    for frame, stored in zip(numbers, stored_frames(dataset, numbers, layout), strict=True):
        with refusing("the DICOM header is broken; export the file again"):
            values = _values(dataset, stored, frame)
            display, codes = display_for(dataset, frame, values) if stored.ndim == 2 else (Display(), ())
            spacing_mm = spacing_of(dataset, frame)
            identity = _identity(header, frame if layout.frames > 1 else None)
        yield Frame(values, spacing_mm, display, modality, identity, tuple(dict.fromkeys([*odd, *codes])))


def spacing_of(dataset: Dataset, frame: int) -> tuple[float, float] | None:
    """Distance of pixel centres along W and H in mm, or None; `frame` counts from 0.

    DICOM stores the distance between rows, along H, first. Without PixelSpacing, it is the spacing at the detector of a
    projection, where the anatomy appears magnified.

    Source: DICOM PS3.3 10.7.1.1, 10.7.1.3, C.7.6.16.2.1.
    """
    header = frame_header(dataset, frame)
    for keyword in _SPACINGS:
        values = numbers_of(header, keyword, 2)
        if values and min(values) > 0:
            return values[1], values[0]
    return None


def header_of(dataset: Dataset) -> Dataset:
    """The data set without pixel data, sharing all other elements."""
    header = Dataset({tag: dataset.get_item(tag) for tag in sorted(dataset.keys()) if tag.group != PIXEL_GROUP})
    implicit, little = dataset.original_encoding
    header.set_original_encoding(implicit, little, dataset.original_character_set)
    header.file_meta = meta_of(dataset)
    return header


def _values(dataset: Dataset, stored: np.ndarray, frame: int) -> np.ndarray:
    if stored.ndim == 2:
        return modality_transform(dataset, frame).apply(stored).T[None]  # (1, W, H)
    depth = 8 * stored.dtype.itemsize
    if word(dataset, "PhotometricInterpretation") != "PALETTE COLOR":
        depth = whole_number(dataset, "BitsStored", low=1, high=depth, default=depth)
    unsigned = stored.view(f"u{stored.dtype.itemsize}")
    return (unsigned >> max(depth - 8, 0)).astype(np.uint8).transpose(2, 1, 0)  # (3, W, H)


def _identity(header: Dataset, frame: int | None) -> Identity:
    instance = word(header, "SOPInstanceUID") or word(header.file_meta, "MediaStorageSOPInstanceUID")
    return Identity(
        series_instance_uid=word(header, "SeriesInstanceUID"),
        sop_instance_uids=(instance,),
        frame=None if frame is None else frame + 1,
        headers=(header,),
    )
