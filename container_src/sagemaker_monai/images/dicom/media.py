"""Finds DICOM files in folders, media with a DICOMDIR, archives and bytes.

A file is recognised by its first bytes, never by its name. Headers are read here, once; pixels are not. Other files are
listed and skipped, since image folders also hold readmes, tables and previews. `grouping` forms the series.

If a DICOMDIR itself is named, exactly the files that it lists are read. In a folder, its files are found like all
others, including those missing from it after a careless copy. Files that it lists but that do not exist are reported.
"""

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset

from sagemaker_monai.budget import expect_work, spend_work
from sagemaker_monai.errors import CallerError, PayloadTooLarge, UndecodableImage
from sagemaker_monai.images.dicom.elements import integer_of, items, text_of
from sagemaker_monai.images.dicom.headers import (
    File,
    is_dicom,
    read_header,
    read_instance,
    read_up_to_pixels,
    with_pixels,
)
from sagemaker_monai.images.dicom.mosaics import packing_of
from sagemaker_monai.images.dicom.oddities import oddities_of
from sagemaker_monai.images.dicom.packed import HEAD_BYTES, MediaLimits, Unpacker, unpacker_of
from sagemaker_monai.images.dicom.planes import Plane, planes_of
from sagemaker_monai.images.sample import Held
from sagemaker_monai.storage.file_names import is_litter_path
from sagemaker_monai.storage.files import plain_files
from sagemaker_monai.storage.zips import ArchiveTooLargeError, UnsafeArchiveError

MOST_TOO_LARGE = 2  # files of an archive whose header exceeds the limits of one; each has cost seconds by then
NS_A_FILE = 700_000  # to identify it; its elements are counted as they are read
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class Instance:
    """One DICOM file, its header read.

    Attributes:
        source: the file, or its bytes.
        name: its path relative to the folder or archive, or its number. Untrusted text.
        instance_number, series_number: InstanceNumber and SeriesNumber, or None.
        series_time: date and time of the series, else of acquisition or content, as comparable digits; or "".
        packing: the kind of file if it packs slices into one picture (`mosaics.packing_of`), else "".
        planes: the plane of each frame, in the file's order.
        oddities: codes of `oddities.oddities_of`.
        header: the dataset without pixel data; None if headers are not kept.
        pixels_at: offset of the pixel data in the file.

        The others are the header's values under their DICOM keywords; "" or 0 if absent, `image_type` split.
    """

    source: File = field(repr=False)
    name: str
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    frame_of_reference_uid: str
    study_date: str
    patient_id: str = field(repr=False)
    modality: str
    manufacturer: str
    transfer_syntax_uid: str
    photometric_interpretation: str
    rows: int
    columns: int
    number_of_frames: int
    series_number: int | None
    series_time: str
    instance_number: int | None
    acquisition_number: int | None
    series_description: str
    burned_in_annotation: str
    image_type: tuple[str, ...]
    packing: str
    samples_per_pixel: int
    planes: tuple[Plane, ...] = field(repr=False, compare=False)
    oddities: tuple[str, ...] = field(compare=False)
    header: Dataset | None = field(repr=False, compare=False)
    pixels_at: int = field(default=0, repr=False, compare=False)

    @property
    def has_pixels(self) -> bool:
        """Whether the header promises a picture."""
        return self.rows > 0 and self.columns > 0

    @property
    def size_bytes(self) -> int:
        """Length of the file, 0 if it no longer exists."""
        if isinstance(self.source, Path):
            with suppress(OSError):
                return self.source.stat().st_size
            return 0
        return len(self.source.data if isinstance(self.source, Held) else self.source)

    def read(self) -> Dataset:
        """All of the file, like `headers.read_instance`, without parsing the header again."""
        if self.header is None:
            return read_instance(self.source)
        return with_pixels(self.header, self.source, self.pixels_at)


@dataclass(frozen=True)
class Other:
    """A file that is not a usable DICOM file: its name, and the code and the text of the reason."""

    name: str
    code: str
    reason: str


@dataclass(frozen=True)
class Media:
    """What was found."""

    instances: list[Instance]
    others: list[Other]


def find_instances(source: Path | Sequence[bytes | Held]) -> list[Instance]:
    """The DICOM files of `find_media`."""
    return find_media(source).instances


def find_media(
    source: Path | Sequence[bytes | Held], *, limits: MediaLimits | None = None, keep_headers: bool = True
) -> Media:
    """Find DICOM files and read their headers.

    Args:
        source: a folder, a DICOM file, a DICOMDIR, a zip or tar file (or one in gzip), or the bytes of such files.
        limits: how much to read.
        keep_headers: keep every header, about 100 kB each; not for scanning a large archive.

    Returns:
        Instances and other files, each by name; members of archives in the archive's order. Links that lead out of the
        folder, hidden files and files of operating systems are skipped silently.

    Raises:
        UndecodableImage: `source` is a damaged or unsafe archive. One within a folder becomes an `Other`.
        PayloadTooLarge: more files or bytes than the limits.
    """
    search = _Search(limits or MediaLimits(), keep_headers=keep_headers)
    if isinstance(source, Path):
        if source.is_dir():
            search.add_folder(source)
        else:
            search.add_file(source, source.name, is_named=True)
    else:
        if len(source) > search.limits.files:
            raise PayloadTooLarge(f"{len(source)} files are more than {search.limits.files}")
        expect_work(len(source) * NS_A_FILE, f"{len(source)} DICOM files")
        for position, content in enumerate(source, start=1):
            search.add_bytes(content, str(position))
    return Media(search.instances, search.others)


def instance_of(source: File, name: str = "") -> Instance:
    """Read the header of one DICOM file; raises like `headers.read_header` and `planes.planes_of`."""
    spend_work(NS_A_FILE, "DICOM files to look at")
    header, pixels_at = read_up_to_pixels(source)
    planes = planes_of(header)
    return Instance(
        source=source,
        name=name,
        sop_instance_uid=text_of(header, "SOPInstanceUID"),
        sop_class_uid=text_of(header, "SOPClassUID"),
        series_instance_uid=text_of(header, "SeriesInstanceUID"),
        study_instance_uid=text_of(header, "StudyInstanceUID"),
        frame_of_reference_uid=text_of(header, "FrameOfReferenceUID"),
        study_date=text_of(header, "StudyDate"),
        patient_id=text_of(header, "PatientID"),
        modality=text_of(header, "Modality"),
        manufacturer=text_of(header, "Manufacturer"),
        transfer_syntax_uid=text_of(header.file_meta, "TransferSyntaxUID"),
        photometric_interpretation=text_of(header, "PhotometricInterpretation"),
        rows=max(integer_of(header, "Rows") or 0, 0),
        columns=max(integer_of(header, "Columns") or 0, 0),
        number_of_frames=len(planes),
        series_number=integer_of(header, "SeriesNumber"),
        series_time=time_of(header, "Series", "Acquisition", "Content"),
        instance_number=integer_of(header, "InstanceNumber"),
        acquisition_number=integer_of(header, "AcquisitionNumber"),
        series_description=text_of(header, "SeriesDescription"),
        burned_in_annotation=text_of(header, "BurnedInAnnotation"),
        image_type=tuple(text_of(header, "ImageType").split("\\")),
        packing=packing_of(header),
        samples_per_pixel=integer_of(header, "SamplesPerPixel") or 1,
        planes=planes,
        oddities=oddities_of(header),
        header=header,
        pixels_at=pixels_at,
    )


def time_of(header: Dataset, *kinds: str) -> str:
    """Date and time as 14 digits, of the first of some kinds (of "Series", SeriesDate and SeriesTime); "" without."""
    for what in kinds:
        date, time = (re.sub(r"[.:]", "", text_of(header, f"{what}{part}").strip(" \0")) for part in ("Date", "Time"))
        if re.fullmatch("[0-9]{8}", date) and re.fullmatch("[0-9]{4,12}", time):
            return date + time[:6].ljust(6, "0")
    return ""


class _Search:
    """What was found so far."""

    def __init__(self, limits: MediaLimits, *, keep_headers: bool) -> None:
        self.limits = limits
        self.keep_headers = keep_headers
        self.instances: list[Instance] = []
        self.others: list[Other] = []

    def add_folder(self, folder: Path, *, wanted: set[str] | None = None) -> None:
        """Add a folder's files, or only those that a DICOMDIR names (in lower case, with slashes)."""
        listed, seen = set[str](), set[str]()
        for path in _walk(folder, self.limits.files):
            name = path.relative_to(folder).as_posix()
            seen.add(name.lower())
            if path.name.lower() == "dicomdir":
                listed |= {_joined(path.parent.relative_to(folder).as_posix(), entry) for entry in self._entries(path)}
            elif wanted is None or name.lower() in wanted:
                self.add_file(path, name)
        for name in sorted((listed if wanted is None else wanted) - seen):
            self.others.append(Other(name, "MissingFile", "a DICOMDIR lists this file, which does not exist"))

    def _entries(self, path: Path) -> set[str]:
        try:
            return _directory_entries(read_header(path))
        except CallerError as error:
            self.others.append(Other(path.name, error.code, str(error)))
            return set()

    def add_file(self, path: Path, name: str, *, is_named: bool = False) -> None:
        """Add a file of any kind; `is_named`: the caller asked for this file, rather than for its folder."""
        try:
            with path.open("rb") as file:
                head = file.read(HEAD_BYTES)
                unpack = None if is_dicom(head) else unpacker_of(head)
                if unpack is not None:
                    file.seek(0)
                    self._add_members(file, unpack, f"{name}/", is_named=is_named)
                    return
        except OSError as error:
            self.others.append(Other(name, "UndecodableImage", f"the file cannot be read ({type(error).__name__})"))
            return
        self._add(path, head, name)
        if is_named and not self.instances and not self.others:  # it was a DICOMDIR
            self.add_folder(path.parent, wanted=self._entries(path))

    def add_bytes(self, content: bytes | Held, name: str) -> None:
        """Add a file that is in memory."""
        data = content.data if isinstance(content, Held) else content
        head = data[:HEAD_BYTES]
        unpack = None if is_dicom(head) else unpacker_of(head)
        if unpack is None:
            self._add(content, head, name)
        else:
            self._add_members(io.BytesIO(data), unpack, f"{name}/", is_named=True)

    def _add_members(self, file: BinaryIO, unpack: Unpacker, prefix: str, *, is_named: bool) -> None:
        refused: Counter[str] = Counter()
        try:
            for name, content in unpack(file, self.limits):
                if is_litter_path(name):
                    continue
                refused[self._add(content, content[:HEAD_BYTES], f"{prefix}{name}")] += 1
                if refused[PayloadTooLarge.__name__] > MOST_TOO_LARGE:
                    raise ArchiveTooLargeError(f"more than {MOST_TOO_LARGE} DICOM files are too large to be read")
        except UnsafeArchiveError as error:
            too_large = isinstance(error, ArchiveTooLargeError)
            refusal = (PayloadTooLarge if too_large else UndecodableImage)(error.reason)
            if is_named:
                raise refusal from error
            self.others.append(Other(prefix[:-1], refusal.code, error.reason))

    def _add(self, source: File, head: bytes, name: str) -> str:
        """The code of why it is not an instance; "" if it is one, or a directory."""
        if not is_dicom(head):
            self.others.append(Other(name, "NotDicom", "not a DICOM file"))
            return "NotDicom"
        try:
            instance = instance_of(source, name)
        except CallerError as error:
            self.others.append(Other(name, error.code, str(error)))
            return error.code
        if instance.sop_class_uid != MEDIA_DIRECTORY and not _is_directory(instance.header):
            self.instances.append(instance if self.keep_headers else replace(instance, header=None))
        return ""


def _is_directory(header: Dataset | None) -> bool:
    return header is not None and (
        "DirectoryRecordSequence" in header or text_of(header.file_meta, "MediaStorageSOPClassUID") == MEDIA_DIRECTORY
    )


def _joined(folder: str, name: str) -> str:
    return name if folder in ("", ".") else f"{folder.lower()}/{name}"


def _directory_entries(header: Dataset) -> set[str]:
    """The files that a DICOMDIR lists, relative to it, in lower case, because copying may change the case."""
    entries = set()
    for record in items(header, "DirectoryRecordSequence"):
        parts = text_of(record, "ReferencedFileID").split("\\")
        if all(parts) and not any(part in (".", "..") or "/" in part for part in parts):
            entries.add("/".join(parts).lower())
    return entries


def _walk(folder: Path, max_files: int) -> Iterator[Path]:
    for count, path in enumerate(plain_files(folder), start=1):
        if count > max_files:
            raise PayloadTooLarge(f"the folder has more than {max_files} files; name a smaller one")
        yield path
