"""De-identification of NIfTI and Analyze files: what an image is read by stays, of the header and of the file.

Converters write the patient's name, dates or a file's path into `descrip` and `aux_file`; Analyze 7.5 has a field for
the patient's ID; extensions hold whole DICOM headers or comments; gzip keeps the name of the file that was packed. All
of it goes, and so does whatever lies before and behind the voxels, which stay bit for bit (`nifti_fields` says what of
a header stays). Faces that can be rendered from a head are not removed.
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
    """Copy a file with a header, or the image (.img) of a pair, with nothing but what is read; whole or not at all.

    The content says which of these it is. Voxels stay bit for bit, and follow on the header at once. What was packed
    is packed again, without a name and time in it.

    Raises:
        UndecodableImage: no such file, broken, an image without the header beside it, or fewer voxels than it says.
        UnsuitableImage: a datatype without whole bytes, or numbers beyond reason.
        PayloadTooLarge: larger than the limits.
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
        raise UndecodableImage("the file has fewer voxels than its header says; it may be cut off")


@contextmanager
def voxels_of(source: Path) -> Iterator[tuple[bytes, Stream, int, bool]]:
    """The header to write, the file at its first voxel, the voxels' bytes, and whether the file is packed.

    Of a pair, the header's file has no voxels, and the image's file no header.
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
    """The header beside the image of a pair, and how readers unpack the image.

    Raises:
        UndecodableImage: it is no .img, there is no header beside it, or one whose voxels are elsewhere.
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
    """The header that a file begins with; None for a file that begins with none."""
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
