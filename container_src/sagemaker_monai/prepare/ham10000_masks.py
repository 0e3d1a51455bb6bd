"""The lesion masks of HAM10000, one PNG a photograph, as masks of 0 and 255 on the grid of the photograph as stored."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from sagemaker_monai.errors import CallerError, DatasetError
from sagemaker_monai.images.pictures import upright_size
from sagemaker_monai.masks.mask import Grid
from sagemaker_monai.masks.read_mask import read_mask
from sagemaker_monai.messages.progress import track
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare import output
from sagemaker_monai.prepare.downloads import FolderDownload, ZipDownload

NAMES = ("background", "lesion")  # in the order of the masks' values


def name_of(image: str) -> str:
    """The mask's file in the output folder."""
    return f"{output.MASKS}/{image}.png"


def store_masks(
    download: FolderDownload | ZipDownload, out: Path, sizes: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, int], list[str]]:
    """Write the masks of photographs that are stored already.

    Args:
        download: with the masks.
        out: the output folder.
        sizes: photograph -> width and height as downloaded; a mask is shrunk as its photograph was.

    Returns:
        The size of each mask's file in bytes by the photograph, and the ids of masks without one.

    Raises:
        DatasetError: there are no masks, one is not a mask of its photograph, or is there twice with different content.
    """
    stored: dict[str, int] = {}
    digests: dict[str, str] = {}
    others = set()
    for image, png in track(download.masks(out), total=len(sizes), what="importing masks"):
        if image not in sizes:
            others.add(image)
            continue
        digest = hashlib.sha256(png).hexdigest()
        if digests.setdefault(image, digest) != digest:
            raise DatasetError(f"the mask of {image} is there twice with different content; keep one of the two files")
        if image not in stored:
            stored[image] = _store(out, image, png, sizes[image])
    if not stored:
        raise DatasetError(
            "the download has no masks of its photographs; add HAM10000_segmentations_lesion_tschandl.zip, which is "
            "beside the photographs"
        )
    return stored, sorted(others)


def _store(out: Path, image: str, png: bytes, size: tuple[int, int]) -> int:
    """Write one mask; returns the size of the file in bytes."""
    path = out / name_of(image)
    path.write_bytes(png)
    try:
        values = read_mask(path, Grid(size)).values.T  # (H, W)
    except CallerError as error:
        raise DatasetError(f"the mask of {image} cannot be used: {error}; download it again") from error
    if unknown := np.unique(values[values > 1])[:6].tolist():
        told = some_of([str(value) for value in unknown])
        raise DatasetError(f"the mask of {image} has other values than 0 and 255 or 1 ({told}); download it again")
    picture = Image.fromarray((values * 255).astype(np.uint8))
    shown = upright_size(out / output.IMAGES / f"{image}.jpg")
    buffer = io.BytesIO()
    (picture if shown == size else picture.resize(shown, Image.Resampling.NEAREST)).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())
    return len(buffer.getvalue())
