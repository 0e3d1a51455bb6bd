"""The local files that a manifest means: their kind of image, and their names in the data set.

A manifest names objects of S3, or addresses of a DICOM server (`.../instances/ID/file`, or the ID alone). Nothing is
fetched: the files lie in one folder that mirrors the keys, from any level on. A name means the file that shares most of
its last parts; if two files or two names share equally many, nothing is guessed. Unlike names in a table
(`data.name_matching`), keys are compared as written, since a.png and A.png are two objects, and a file belongs to the
name that fits it best.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sagemaker_monai.data.name_matching import stem_of
from sagemaker_monai.errors import CallerError, ConfigError, DatasetError
from sagemaker_monai.images.suffixes import IMAGE_SUFFIXES
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare.public_names import name_files
from sagemaker_monai.storage.files import plain_files

MAX_IMAGES = 1_000_000
DICOM_SUFFIX = ".dcm"
SUFFIXES = (*IMAGE_SUFFIXES, DICOM_SUFFIX, ".dicom", ".dic")
_HEAD_BYTES = 132
_INSTANCE = re.compile(r"instances/([^/]+)/file")


@dataclass(frozen=True)
class Image:
    """A local file of the data set to be.

    Attributes:
        path: where it is now.
        name: the file name in the data set, unique without regard to case.
        patient: PatientID of a DICOM file, else its StudyInstanceUID, else None. Personal data.
        modality: Modality of a DICOM file, or ""; "RGB" for photographs.
    """

    path: Path
    name: str
    patient: str | None
    modality: str


def list_files(folder: Path) -> dict[str, Path]:
    """The regular files below a folder by their relative names with slashes; links that lead out are skipped.

    Raises:
        ConfigError: there is no such folder.
        DatasetError: it has too many files.
    """
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder.name}; name with --images the folder that mirrors the keys")
    files = {}
    for path in plain_files(folder):
        files[path.relative_to(folder).as_posix()] = path
        if len(files) > MAX_IMAGES:
            raise DatasetError(f"the folder of images has more than {MAX_IMAGES} files; name a smaller one")
    return files


def _reference_parts(reference: str) -> tuple[str, ...]:
    """The parts of the key or path in a reference, without bucket, server and the DICOM server's own words; none if a
    part cannot be the name of a mirrored file."""
    if "://" in reference:
        try:
            address = urlsplit(reference)
        except ValueError:  # a malformed IPv6 host
            return ()
        is_key = address.scheme.lower() == "s3"  # of a key, ? and # and % are ordinary characters
        path = reference.split("://", 1)[1].partition("/")[2] if is_key else unquote(address.path)
    else:
        path = reference
    if instance := _INSTANCE.search(path):
        path = instance[1]
    parts = tuple(part for part in path.split("/") if part)
    return () if any(part in (".", "..") or "\0" in part or "\\" in part for part in parts) else parts


def match_files(references: Sequence[str], files: Mapping[str, Path]) -> tuple[dict[str, Path], list[str]]:
    """Find the file of each reference.

    Args:
        references: each once.
        files: of `list_files`.

    Returns:
        The files that were found, and the references without one, in their order.

    Raises:
        DatasetError: a reference could be several files, or a file several references.
    """
    # The ends of names, from the last part to all of it -> names; a DICOM server's ID has no suffix, its file may.
    exact: dict[str, list[str]] = defaultdict(list)
    stems: dict[str, list[str]] = defaultdict(list)
    for name in files:
        for ends, form in ((exact, name), (stems, stem_of(name, SUFFIXES))):
            parts = form.split("/")
            for start in range(len(parts)):
                ends["/".join(parts[start:])].append(name)
    claims: dict[str, list[tuple[int, str]]] = defaultdict(list)  # name -> parts in common, reference
    ambiguous = []
    for reference in references:
        key = _reference_parts(reference)
        for depth in range(len(key), 0, -1):
            end = "/".join(key[-depth:])
            if hits := exact.get(end) or stems.get(end):
                if len(hits) > 1:
                    ambiguous.append(reference)
                else:
                    claims[hits[0]].append((depth, reference))
                break
    found = {}
    for name, claimants in claims.items():
        longest = max(claimants)[0]
        winners = [reference for depth, reference in claimants if depth == longest]
        if len(winners) > 1:
            ambiguous += winners
        else:
            found[winners[0]] = files[name]
    if ambiguous:
        raise DatasetError(
            f"references that could be several files, or share one: {len(ambiguous)} "
            f"({some_of(sorted(map(short_name, ambiguous)))}); let the folder of images mirror more of the keys"
        )
    return found, [reference for reference in references if reference not in found]


def short_name(reference: str) -> str:
    """The last part of a reference, for messages."""
    parts = _reference_parts(reference)
    return parts[-1] if parts else reference[-40:]


def open_images(keys: Mapping[str, Path]) -> dict[str, Image]:
    """Look into the files, given by reference, for their kind and patient.

    Raises:
        DatasetError: files are neither pictures of a known type nor sound DICOM.
    """
    from sagemaker_monai.images.dicom.headers import is_dicom

    suffixes, odd = {}, []
    for reference, path in keys.items():
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        suffix = path.suffix.lower()
        suffixes[reference] = suffix if suffix in IMAGE_SUFFIXES else DICOM_SUFFIX if is_dicom(head) else ""
        if not suffixes[reference]:
            odd.append(path.name)
    if odd:
        raise DatasetError(
            f"files that are neither DICOM nor pictures of a known type: {len(odd)} ({some_of(odd)}); accepted are "
            f"DICOM and {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    parts = [_reference_parts(reference) for reference in keys]
    names = name_files(parts, [suffixes[reference] for reference in keys])
    images, broken = {}, []
    for (reference, path), name in zip(keys.items(), names, strict=True):
        if suffixes[reference] != DICOM_SUFFIX:
            images[reference] = Image(path, name, patient=None, modality="RGB")
            continue
        try:
            patient, modality = _read_patient(path)
        except CallerError:
            broken.append(path.name)
            continue
        images[reference] = Image(path, name, patient, modality)
    if broken:
        raise DatasetError(f"DICOM files that cannot be read: {len(broken)} ({some_of(broken)}); download them again")
    return images


def _read_patient(path: Path) -> tuple[str | None, str]:
    from sagemaker_monai.images.dicom.elements import text_of
    from sagemaker_monai.images.dicom.headers import read_header

    header = read_header(path)
    patient, study = (text_of(header, key) for key in ("PatientID", "StudyInstanceUID"))
    return patient or (f"study {study}" if study else None), text_of(header, "Modality")
