"""Bodies that are archives: zip, tar and gzip. Members are read in memory and never get a path on the disk."""

import gzip
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sagemaker_monai.budget import spend_bytes, spend_work
from sagemaker_monai.errors import MalformedRequest, PayloadTooLarge
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.signatures import GZIP_MAGIC, gunzipped_head, is_nifti
from sagemaker_monai.requests.bodies import MAX_INSTANCES, gather
from sagemaker_monai.storage.file_names import is_litter_path
from sagemaker_monai.storage.tars import CHUNK_BYTES, DAMAGE, Stream, read_tar
from sagemaker_monai.storage.zips import (
    NS_A_BYTE,
    ArchiveLimits,
    ArchiveTooLargeError,
    UnsafeArchiveError,
    read_members,
)

MAX_INFLATED_BYTES = 512 * 1024**2  # of one archive, all members together
MAX_INFLATE_RATIO = 100  # of one archive above 16 MiB; pictures are compressed already
_SMALL_ARCHIVE_BYTES = 16 * 1024**2
_DEFLATE_RATIO = 1_032  # the most that deflate can reach: only the limit of the whole archive matters


def read_zip_body(body: bytes, _parameters: Mapping[str, str]) -> list[Sample]:
    """Read every file of a zip archive, in the archive's order; skip folders and litter of operating systems.

    Raises:
        MalformedRequest: the archive is unsafe (see `zips`), or `gather` refuses its files.
        PayloadTooLarge: too many members, or too many inflated bytes, whatever the headers claim.
    """
    total_bytes = _inflated_limit(body)
    limits = ArchiveLimits(
        members=MAX_INSTANCES, member_bytes=total_bytes, total_bytes=total_bytes, ratio=_DEFLATE_RATIO
    )
    with _faults_named():
        pieces = list(read_members(io.BytesIO(body), limits=limits))
    return gather(pieces)


def read_tar_body(body: bytes, _parameters: Mapping[str, str]) -> list[Sample]:
    """Read every file of a tar archive, plain or compressed by gzip, as `read_zip_body` does a zip.

    Raises:
        MalformedRequest, PayloadTooLarge: as `read_zip_body`, with the rules of `tars`.
    """
    stream: Stream = _Gunzipped(body, _inflated_limit(body)) if body.startswith(GZIP_MAGIC) else io.BytesIO(body)
    with _faults_named():
        # Folders count as members: with one for each file there are twice as many.
        members = read_tar(stream, max_files=2 * MAX_INSTANCES, max_bytes=_inflated_limit(body))
        pieces = [(name, _joined(chunks)) for name, chunks in members if not is_litter_path(name)]
        while stream.read(CHUNK_BYTES):  # gzip's checksum comes after the end of the archive
            pass
    return gather(pieces)


def read_gzip_body(body: bytes, parameters: Mapping[str, str]) -> list[Sample]:
    """Read a gzip file: a NIfTI volume or a tar archive, depending on its first bytes.

    Raises:
        MalformedRequest: neither of them, or as `read_tar_body`.
        PayloadTooLarge: as `read_tar_body`; the reader of a volume inflates it, with its own limits.
    """
    if not body.startswith(GZIP_MAGIC):
        raise MalformedRequest("the body is not compressed by gzip")
    if is_nifti(gunzipped_head(body)):
        return [Sample(body)]
    return read_tar_body(body, parameters)


def _joined(chunks: Iterator[bytes]) -> bytes:
    buffer = io.BytesIO()  # getvalue() makes no copy
    for chunk in chunks:
        spend_bytes(len(chunk), "an archive to unpack")
        buffer.write(chunk)
    return buffer.getvalue()


class _Gunzipped:
    """The content of a gzip file as a stream that raises when it is longer than its limit."""

    def __init__(self, body: bytes, limit_bytes: int) -> None:
        self._file = gzip.GzipFile(fileobj=io.BytesIO(body))
        self._left_bytes = self._limit_bytes = limit_bytes

    def read(self, size: int, /) -> bytes:
        """Read the next bytes."""
        content = self._file.read(size)
        spend_work(NS_A_BYTE * len(content), "an archive to unpack")
        self._left_bytes -= len(content)
        if self._left_bytes < 0:
            raise ArchiveTooLargeError(f"the archive inflates to more than {self._limit_bytes} bytes")
        return content


def _inflated_limit(body: bytes) -> int:
    return min(MAX_INFLATED_BYTES, max(_SMALL_ARCHIVE_BYTES, MAX_INFLATE_RATIO * len(body)))


@contextmanager
def _faults_named() -> Iterator[None]:
    try:
        yield
    except ArchiveTooLargeError as error:
        raise PayloadTooLarge(f"{error.reason}; send several requests") from error
    except UnsafeArchiveError as error:
        raise MalformedRequest(error.reason) from error
    except DAMAGE as error:
        raise MalformedRequest("the archive is damaged; pack it again") from error
