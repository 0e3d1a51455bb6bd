"""De-identification of NIfTI and Analyze files: only what is needed to read the image is kept.

Converters write the patient's name, dates or a file's path into `descrip` and `aux_file`; Analyze 7.5 has a field for
the patient's ID; extensions hold whole DICOM headers or comments; gzip stores the packed file's name. All of that is
removed, as is everything before and after the voxels, which stay bit for bit. `nifti_fields` says what is kept of a
header. Faces that can be rendered from a head are not removed.
"""

import gzip
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from sagemaker_monai.deidentification.nifti_fields import CleanHeader, clean_header
from sagemaker_monai.errors import UndecodableImage
from sagemaker_monai.images.formats.inflate import Stream, opened
from sagemaker_monai.images.formats.pairs import header_of, image_of
from sagemaker_monai.images.signatures import GZIP_MAGIC
from sagemaker_monai.storage.files import replacing

HEAD_BYTES = 544  # of a NIfTI-2 file up to its voxels; no header is longer
_IMAGES = (".img", ".img.gz")


def deidentify_nifti(source: Path, target: Path) -> None:
    """Copy a file with a header, or the image (.img) of a pair, with only what is read; whole or not at all.

    The content says which of these it is. The voxels follow the header directly, bit for bit. A packed file is packed
    again, without name and time.

    Raises:
        UndecodableImage: not such a file, broken, an image without its header, or fewer voxels than announced.
        UnsuitableImage: a datatype without whole bytes, or implausible numbers.
        PayloadTooLarge: more than the limits.
    """
    with replacing(target) as part, voxels_of(source) as (header, stream, size, is_packed), part.open("wb") as raw:
        if is_packed:
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
                _write(cast(BinaryIO, packed), header, stream, size)
        else:
            _write(raw, header, stream, size)


def _write(target: BinaryIO, header: bytes, stream: Stream, size: int) -> None:
    target.write(header)
    count = 0
    for piece in stream.pieces(size):
        count += target.write(piece)
    if count != size:
        raise UndecodableImage("the file has fewer voxels than its header says; it may be truncated")


@contextmanager
def voxels_of(source: Path) -> Iterator[tuple[bytes, Stream, int, bool]]:
    """The header to write, the file at its first voxel, the size of the voxels, and whether the file is packed.

    In a pair, the header's file has no voxels, and the image's file no header.
    """
    header = _header_in(source)
    if header is not None:
        content, skipped, size = header.content, header.start, 0 if header.is_pair else header.voxel_bytes
        with opened(source) as (file, file_bytes):
            is_packed = _is_packed(file)
            stream = Stream(file, file_bytes, "gzip" if is_packed else "raw")
            if size:
                stream.skip(skipped)
                stream.expect(size)
            yield content, stream, size, is_packed
        return
    header, packing = _header_of_image(source)
    with opened(source) as (file, file_bytes):
        stream = Stream(file, file_bytes, packing)
        stream.skip(header.start)
        stream.expect(header.voxel_bytes)
        yield b"", stream, header.voxel_bytes, packing == "gzip"


def _header_of_image(source: Path) -> tuple[CleanHeader, str]:
    """The header of a pair's image, and how readers unpack the image.

    Raises:
        UndecodableImage: not an .img, no header beside it, or a header whose voxels are elsewhere.
    """
    if not source.name.lower().endswith(_IMAGES):
        raise UndecodableImage("not a NIfTI or Analyze file; its first number must be 348 or 540")
    header_file = header_of(source)
    header = _header_in(header_file)
    image, packing = image_of(header_file)
    if header is None or not header.is_pair or image != source:
        raise UndecodableImage("the header (.hdr) beside this image (.img) is not its own; write both again")
    return header, packing


def _header_in(path: Path) -> CleanHeader | None:
    """The header at the beginning of a file, or None."""
    with opened(path) as (file, size):
        packing = "gzip" if _is_packed(file) else "raw"
        try:
            head = Stream(file, size, packing).take(HEAD_BYTES)
        except UndecodableImage:
            if packing == "raw" or not path.name.lower().endswith(_IMAGES):
                raise
            return None  # an image whose first two voxels look like gzip
    is_one = any(head[:4] == struct.pack(f"{order}i", size) for order in "<>" for size in (348, 540))
    if not is_one and path.name.lower().endswith(_IMAGES):
        return None
    return clean_header(head)


def _is_packed(file: BinaryIO) -> bool:
    is_packed = file.read(2) == GZIP_MAGIC
    file.seek(0)
    return is_packed
