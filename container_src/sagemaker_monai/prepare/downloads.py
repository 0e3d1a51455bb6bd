"""The pieces of a HAM10000 download: in one outer zip, in several files, or in unpacked folders.

A piece is found by its name, up to two folders deep; everything else in the download (hmnist_*.csv, the ISIC 2018 test
set, README) is ignored.
"""

import re
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.file_names import is_litter_path
from sagemaker_monai.storage.files import files_in, plain_files
from sagemaker_monai.storage.zips import ArchiveLimits, UnsafeArchiveError, copy_member, member_names, read_members

METADATA = re.compile(r"HAM10000_metadata(\.(csv|tab|tsv|txt))?", re.IGNORECASE)
PART_ZIP = re.compile(r"HAM10000_images_part_\d+\.zip", re.IGNORECASE)
PART_FOLDER = re.compile(r"HAM10000_images(_part_\d+)?", re.IGNORECASE)
MASKS_ZIP = re.compile(r"HAM10000_segmentations(_lesion)?(_tschandl)?\.zip", re.IGNORECASE)
MASKS_FOLDER = re.compile(r"HAM10000_segmentations(_lesion)?(_tschandl)?", re.IGNORECASE)
MASK_ENDING = re.compile(r"_segmentation$", re.IGNORECASE)  # of a mask's name, after the id of its photograph
JPEG_SUFFIXES = (".jpg", ".jpeg")
MASK_SUFFIXES = (".png",)
MAX_DEPTH = 3  # names in a path below the source
MAX_METADATA_BYTES = 1 << 26
# The real parts have 5,000 photographs and 1.4 GB each; zip does not shrink photographs.
PART_LIMITS = ArchiveLimits(members=50_000, member_bytes=1 << 26, total_bytes=1 << 35, ratio=100)
OUTER_LIMITS = ArchiveLimits(members=200_000, member_bytes=1 << 34, total_bytes=1 << 36, ratio=1000)
LOOSE_LIMITS = ArchiveLimits(200_000, PART_LIMITS.member_bytes, OUTER_LIMITS.total_bytes, PART_LIMITS.ratio)
METADATA_LIMITS = ArchiveLimits(200_000, MAX_METADATA_BYTES, MAX_METADATA_BYTES, 1000)


@dataclass(frozen=True)
class Pieces:
    """Names of what was found, relative to the source, in a fixed order."""

    metadata: tuple[str, ...]
    part_zips: tuple[str, ...]
    images: tuple[str, ...]
    mask_zips: tuple[str, ...]
    masks: tuple[str, ...]


def _sorted_out(names: list[str]) -> Pieces:
    """Find the pieces by their names."""
    paths = [PurePosixPath(name) for name in sorted(names) if not is_litter_path(name)]
    return Pieces(
        metadata=tuple(str(path) for path in paths if METADATA.fullmatch(path.name)),
        part_zips=tuple(str(path) for path in paths if PART_ZIP.fullmatch(path.name)),
        images=_pictures_in(paths, PART_FOLDER, JPEG_SUFFIXES),
        mask_zips=tuple(str(path) for path in paths if MASKS_ZIP.fullmatch(path.name)),
        masks=_pictures_in(paths, MASKS_FOLDER, MASK_SUFFIXES),
    )


def _pictures_in(paths: Sequence[PurePosixPath], folder: re.Pattern[str], suffixes: Collection[str]) -> tuple[str, ...]:
    return tuple(str(path) for path in paths if folder.fullmatch(path.parent.name) and path.suffix.lower() in suffixes)


@contextmanager
def _named(archive: str) -> Iterator[None]:
    """Name the unsafe archive, and the member if it is known."""
    try:
        yield
    except UnsafeArchiveError as error:
        member = f" ({some_of([ascii(error.member)])})" if error.member is not None else ""
        raise DatasetError(f"{archive}: {error.reason}{member}; download it again from its publisher") from error


def _pictures_of_part(part: BinaryIO | Path, archive: str, suffixes: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """The pictures in one zip; anything else in it is refused."""
    kind = "JPEG" if suffixes == JPEG_SUFFIXES else "PNG"
    with _named(archive):
        for name, content in read_members(part, limits=PART_LIMITS):
            if PurePosixPath(name).suffix.lower() not in suffixes:
                raise DatasetError(f"{archive} holds {some_of([name])}, which is not a {kind}; remove it from the zip")
            yield PurePosixPath(name).stem, content


class FolderDownload:
    """A folder with the zips, their unpacked folders, or both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = [path.relative_to(folder) for path in plain_files(folder, takes_links_out=True)]
        self.pieces = _sorted_out([path.as_posix() for path in paths if len(path.parts) <= MAX_DEPTH])

    def files(self) -> list[Path]:
        """The files that the import depends on."""
        return [self.folder / name for names in vars(self.pieces).values() for name in names]

    def metadata(self) -> list[tuple[str, bytes]]:
        """Each metadata file's name and content."""
        paths = [self.folder / name for name in self.pieces.metadata]
        if large := [path.name for path in paths if path.stat().st_size > MAX_METADATA_BYTES]:
            raise DatasetError(f"{some_of(large)} is larger than {MAX_METADATA_BYTES >> 20} MiB; download it again")
        return [(path.name, path.read_bytes()) for path in paths]

    def images(self, _scratch: Path) -> Iterator[tuple[str, bytes]]:
        """Yield the id and the bytes of each photograph."""
        yield from self._pictures(self.pieces.part_zips, self.pieces.images, JPEG_SUFFIXES)

    def masks(self, _scratch: Path) -> Iterator[tuple[str, bytes]]:
        """Yield the id of the photograph and the bytes of each mask."""
        for name, content in self._pictures(self.pieces.mask_zips, self.pieces.masks, MASK_SUFFIXES):
            yield MASK_ENDING.sub("", name), content

    def _pictures(
        self, zips: Sequence[str], loose: Sequence[str], suffixes: Collection[str]
    ) -> Iterator[tuple[str, bytes]]:
        for name in zips:
            yield from _pictures_of_part(self.folder / name, name, suffixes)
        for name in loose:
            path = self.folder / name
            if path.stat().st_size > PART_LIMITS.member_bytes:
                raise DatasetError(f"{name} is larger than {PART_LIMITS.member_bytes >> 20} MiB; remove it")
            yield path.stem, path.read_bytes()


class ZipDownload:
    """The outer zip: Dataverse's with the part zips in it, or Kaggle's with the folders in it."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        with _named(archive.name):
            self.pieces = _sorted_out(member_names(archive, limits=OUTER_LIMITS))

    def files(self) -> list[Path]:
        """The files that the import depends on."""
        return [self.archive]

    def metadata(self) -> list[tuple[str, bytes]]:
        """Each metadata file's name and content."""
        with _named(self.archive.name):
            wanted = frozenset(self.pieces.metadata).__contains__
            return list(read_members(self.archive, limits=METADATA_LIMITS, wanted=wanted))

    def images(self, scratch: Path) -> Iterator[tuple[str, bytes]]:
        """Yield the id and the bytes of each photograph; part zips are unpacked to a temporary file in `scratch`."""
        yield from self._pictures(self.pieces.part_zips, self.pieces.images, JPEG_SUFFIXES, scratch)

    def masks(self, scratch: Path) -> Iterator[tuple[str, bytes]]:
        """Yield the id of the photograph and the bytes of each mask, unpacked as the photographs are."""
        for name, content in self._pictures(self.pieces.mask_zips, self.pieces.masks, MASK_SUFFIXES, scratch):
            yield MASK_ENDING.sub("", name), content

    def _pictures(
        self, zips: Sequence[str], loose: Sequence[str], suffixes: Collection[str], scratch: Path
    ) -> Iterator[tuple[str, bytes]]:
        for name in zips:
            with tempfile.TemporaryFile(dir=scratch) as part:
                with _named(self.archive.name):
                    copy_member(self.archive, name, part, limits=OUTER_LIMITS)
                yield from _pictures_of_part(part, PurePosixPath(name).name, suffixes)
        wanted = frozenset(loose).__contains__
        with _named(self.archive.name):
            for name, content in read_members(self.archive, limits=LOOSE_LIMITS, wanted=wanted):
                yield PurePosixPath(name).stem, content


def open_download(source: Path) -> FolderDownload | ZipDownload:
    """Find the pieces of HAM10000 in a folder or zip.

    Raises:
        DatasetError: source, metadata or photographs are missing, or an archive is unsafe.
    """
    if source.is_dir():
        download: FolderDownload | ZipDownload = FolderDownload(source)
        zips = [path for path in files_in(source) if path.suffix.lower() == ".zip"]
        if not download.pieces.metadata and len(zips) == 1:
            download = ZipDownload(zips[0])  # the outer zip alone in its folder
    elif source.is_file():
        download = ZipDownload(source)
    else:
        raise DatasetError(f"{source.name} is neither a folder nor a file; name the download or its folder")
    if not download.pieces.metadata:
        raise DatasetError(
            f"{source.name} has no HAM10000_metadata; "
            "give the folder or zip with it and HAM10000_images_part_1.zip and _part_2.zip"
        )
    if not download.pieces.part_zips and not download.pieces.images:
        raise DatasetError(
            f"{source.name} has no photographs; give the folder or zip with HAM10000_images_part_1 and _part_2"
        )
    return download
