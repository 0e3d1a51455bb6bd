"""The facts that the examination needs of a file: small, without pixels and header, to travel between processes.

Of errors only the code is kept, because their texts could quote the file.
"""

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset

from sagemaker_monai.deidentification.burned_in import burned_in_risk
from sagemaker_monai.deidentification.identity import Identity, identity_of
from sagemaker_monai.deidentification.nifti_fields import has_free_texts
from sagemaker_monai.deidentification.phi import PhiFinding, find_phi
from sagemaker_monai.doctor.found_files import DICOM, DICOMDIR, PICTURE, Found
from sagemaker_monai.errors import CallerError
from sagemaker_monai.images.dicom.decoding import decode_stored
from sagemaker_monai.images.dicom.display import display_for
from sagemaker_monai.images.dicom.elements import integer_of, item_of, numbers_of, text_of
from sagemaker_monai.images.dicom.headers import read_instance, refusing
from sagemaker_monai.images.dicom.media import MEDIA_DIRECTORY, Instance, instance_of
from sagemaker_monai.images.dicom.modality import modality_transform
from sagemaker_monai.images.fingerprints import THUMBNAIL_SIDE
from sagemaker_monai.images.pictures import PICTURE_FORMATS, count_bits, decode
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.signatures import GZIP_MAGIC, gunzipped_head
from sagemaker_monai.images.volume_files import VOLUME_FORMATS, read_volume_file
from sagemaker_monai.messages.remarks import Remark
from sagemaker_monai.preprocessing.deep_pictures import read_deep_frame, shown_deep, used_range
from sagemaker_monai.preprocessing.visibility import shows_nothing

FRAMES_AT_ONCE = 64
_HEAD_BYTES = 1 << 16
# Header attributes that may go with a label: the scanner, the encoding, how the picture was made.
ATTRIBUTES = (
    "Modality", "Manufacturer", "ManufacturerModelName", "TransferSyntaxUID", "PhotometricInterpretation", "Rows",
    "Columns", "BitsStored", "PixelRepresentation", "SliceThickness", "PixelSpacing", "ConvolutionKernel", "KVP",
    "MagneticFieldStrength", "PatientPosition", "ViewPosition", "BodyPartExamined",
)  # fmt: skip
_GROUP_LENGTH = ",0000)"
_NUMBERS = frozenset({"Rows", "Columns", "BitsStored", "PixelRepresentation"})
_EXIF_TAGS = (0x8825, 0x013B, 0xA431, 0xA430)  # GPSInfo, Artist, BodySerialNumber, CameraOwnerName


@dataclass(frozen=True)
class Privacy:
    """What may identify the patient: attributes by keyword with their kind, and the risk of text in the pixels."""

    found: tuple[tuple[str, str], ...]
    private: int
    burned_in: str
    has_regions: bool


@dataclass(frozen=True)
class Pixels:
    """What decoding gave: digest of size and values, or the code of the error."""

    fault: str = ""
    digest: bytes = b""
    is_blank: bool = False
    thumbnail: bytes = b""  # (32, 32) uint8 of a photograph


@dataclass(frozen=True)
class FileFacts:
    """One file.

    Attributes:
        found: its place and kind.
        size_bytes: on disk.
        instance: of DICOM, without header; None for other files and broken headers.
        attributes: values of ATTRIBUTES that the header has, as text.
        shape: columns, rows and slices (or frames); zeros if unknown.
        spacing_mm: distance of pixels, None if unknown.
        bits: BitsStored, or bits of a picture's value; 0 if unknown.
        used: lowest and highest value of a decoded picture of more than 8 bits, without the outermost 0.5 %.
        identity: what identifies people in its header, without UIDs; never shown.
        privacy: None if it was not looked at.
        pixels: None if they were not looked at.
        remarks: on the geometry of a volume that was read.
        fault: code of the error of the header's reader, or "".
    """

    found: Found
    size_bytes: int
    instance: Instance | None = field(default=None, repr=False)
    attributes: tuple[tuple[str, str], ...] = ()
    shape: tuple[int, int, int] = (0, 0, 0)
    spacing_mm: tuple[float, float] | None = None
    bits: int = 0
    used: tuple[float, float] | None = None
    identity: Identity = field(default=Identity(), repr=False)
    privacy: Privacy | None = None
    pixels: Pixels | None = None
    remarks: tuple[Remark, ...] = ()
    fault: str = ""

    @property
    def is_image(self) -> bool:
        """Whether its kind holds pictures, and its header does not say that there are none."""
        if self.found.kind == DICOM:
            return self.instance is None or self.instance.has_pixels
        return self.found.kind == PICTURE or self.found.kind in VOLUME_FORMATS

    @property
    def is_usable(self) -> bool:
        """Whether it is an image without a fault."""
        return self.is_image and not self.fault and not (self.pixels is not None and self.pixels.fault)


@dataclass(frozen=True)
class Task:
    """A file to look at, and how closely."""

    found: Found
    wants_privacy: bool = True
    wants_pixels: bool = True


def look_at(task: Task) -> FileFacts:
    """Examine one file; never raises, whatever is in it."""
    found = task.found
    try:
        size = found.path.stat().st_size
    except OSError:
        return FileFacts(found, 0, fault="Unreadable")
    facts = FileFacts(found, size, fault=found.fault)
    looks = {DICOM: _look_at_dicom, PICTURE: _look_at_picture, **dict.fromkeys(VOLUME_FORMATS, _look_at_volume)}
    if found.fault or found.kind not in looks:
        return facts
    try:
        return looks[found.kind](facts, task)
    except CallerError as error:
        return replace(facts, fault=error.code)
    except MemoryError:
        return replace(facts, fault="PayloadTooLarge")
    except Exception:  # a fault of a reader must not end the examination of all other files
        return replace(facts, fault="InternalError")


# --- DICOM -----------------------------------------------------------------------------------------------------------


def _look_at_dicom(facts: FileFacts, task: Task) -> FileFacts:
    instance = instance_of(facts.found.path, facts.found.name)
    header = instance.header
    assert header is not None
    if instance.sop_class_uid == MEDIA_DIRECTORY:
        return replace(facts, found=replace(facts.found, kind=DICOMDIR))
    spacing = next((plane.spacing for plane in instance.planes if plane.spacing), None)
    facts = replace(
        facts,
        instance=replace(instance, header=None),
        attributes=tuple(attributes_of(header)),
        shape=(instance.columns, instance.rows, instance.number_of_frames),
        spacing_mm=spacing and (spacing[1], spacing[0]),
        bits=integer_of(header, "BitsStored") or 0,
        identity=replace(identity_of(header), uids=frozenset()),
    )
    if task.wants_privacy:
        facts = replace(facts, privacy=_privacy_of(header))
    if task.wants_pixels and instance.has_pixels:
        odd = dict.fromkeys(instance.oddities)
        facts = replace(facts, pixels=_pixels_of(_dicom_values(facts, odd)))
        facts = replace(facts, instance=replace(instance, header=None, oddities=tuple(odd)))
    return facts


def attributes_of(header: Dataset) -> Iterator[tuple[str, str]]:
    """Keyword and value of ATTRIBUTES that a header has; lengths to 0.1 mm, so that rounding makes no difference."""
    for keyword in ATTRIBUTES:
        if keyword == "TransferSyntaxUID":
            text = text_of(header.file_meta, keyword)
        elif keyword in _NUMBERS:
            text = str(integer_of(header, keyword) or 0) if keyword in header else ""
        elif keyword in ("SliceThickness", "PixelSpacing"):
            numbers = numbers_of(header, keyword, 2 if keyword == "PixelSpacing" else 1)
            text = "" if numbers is None else f"{numbers[0]:.1f}"
        else:
            text = text_of(header, keyword).upper()
        if text:
            yield keyword, text


def _privacy_of(header: Dataset) -> Privacy:
    with refusing("the DICOM header is broken; export the file again"):
        found = find_phi(header)
        return Privacy(
            found=tuple((each.keyword, each.kind) for each in found if _is_telling(each)),
            private=sum(each.kind == "private" and not each.keyword.endswith(_GROUP_LENGTH) for each in found),
            burned_in=burned_in_risk(header),
            has_regions=item_of(header, "SequenceOfUltrasoundRegions") is not None,
        )


def _is_telling(found: PhiFinding) -> bool:
    """Whether it is counted by attribute; group lengths (retired) identify nobody."""
    return not found.kind.startswith(("private", "burned")) and not found.keyword.endswith(_GROUP_LENGTH)


def _dicom_values(facts: FileFacts, odd: dict[str, None]) -> Iterator[np.ndarray]:
    """Modality values of grey frames (H, W), or bytes of colour (H, W, 3); adds what only values show to `odd`."""
    dataset = read_instance(facts.found.path)
    frames = facts.shape[2]
    for start in range(0, frames, FRAMES_AT_ONCE):
        chosen = list(range(start, min(start + FRAMES_AT_ONCE, frames)))
        stored = decode_stored(dataset, chosen if frames > 1 else None)
        for frame, values in zip(chosen, stored, strict=True):
            with refusing("the modality transform of the DICOM header is broken; correct it"):
                if values.ndim == 3:
                    yield values
                    continue
                shown = modality_transform(dataset, frame).apply(values)
                odd |= dict.fromkeys(display_for(dataset, frame, shown)[1])
                yield shown


# --- pictures and volumes --------------------------------------------------------------------------------------------


def _look_at_picture(facts: FileFacts, task: Task) -> FileFacts:
    size, has_exif = _opened_picture(facts.found.path)
    found = (("EXIF", "place, artist or serial number"),) if has_exif else ()
    bits = count_bits(facts.found.path)
    facts = replace(facts, shape=(*size, 1), bits=bits, privacy=Privacy(found, 0, "unknown", has_regions=False))
    if not task.wants_pixels:
        return facts
    try:
        if bits > 8:
            return _look_at_deep_picture(facts)
        picture = decode(Sample(facts.found.path), channels=3, min_size=None)
    except CallerError as error:
        return replace(facts, pixels=Pixels(fault=error.code))
    values = np.asarray(picture)  # (H, W, 3)
    is_grey = bool((values[..., 0] == values[..., 1]).all() and (values[..., 0] == values[..., 2]).all())
    pixels = _pixels_of(iter([values[..., 0].astype(np.float32) if is_grey else values]))
    is_blank = pixels.is_blank or shows_nothing(values.transpose(2, 1, 0), (0, 255))
    return replace(
        facts, shape=(*picture.size, 1), pixels=replace(pixels, is_blank=is_blank, thumbnail=_thumbnail_of(picture))
    )


def _thumbnail_of(picture: Image.Image) -> bytes:
    return picture.convert("L").resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX).tobytes()


def _look_at_deep_picture(facts: FileFacts) -> FileFacts:
    frame = read_deep_frame(Sample(facts.found.path))
    pixels = _pixels_of(np.ascontiguousarray(channel.T) for channel in frame.values)
    columns, rows = (int(size) for size in frame.values.shape[1:])
    return replace(
        facts,
        shape=(columns, rows, 1),
        used=used_range(frame),
        pixels=replace(pixels, thumbnail=_thumbnail_of(Image.fromarray(shown_deep(frame)))),
    )


def _opened_picture(path: Path) -> tuple[tuple[int, int], bool]:
    """Width and height of a picture by its header, and whether EXIF has a place, an artist or a serial number."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with Image.open(path, formats=PICTURE_FORMATS) as image:
                exif = image.getexif()
                return image.size, any(tag in exif for tag in _EXIF_TAGS)
    except Exception:  # Pillow does not document its errors; decoding reports a broken file
        return (0, 0), False


def _look_at_volume(facts: FileFacts, task: Task) -> FileFacts:
    path = facts.found.path
    if facts.found.kind in ("NIFTI", "ANALYZE"):
        found = (("header", "texts or extensions"),) if has_texts(path) else ()
        facts = replace(facts, privacy=Privacy(found, 0, "unknown", has_regions=False))
    if not task.wants_pixels:
        return facts
    try:
        volume = read_volume_file(path)
    except CallerError as error:
        return replace(facts, pixels=Pixels(fault=error.code))
    columns, rows, slices = (int(size) for size in volume.values.shape[1:])
    spacing = np.linalg.norm(np.asarray(volume.affine, np.float64)[:3, :3], axis=0)
    return replace(
        facts,
        shape=(columns, rows, slices),
        spacing_mm=(float(spacing[0]), float(spacing[1])) if volume.has_geometry else None,
        remarks=volume.remarks,
        pixels=_pixels_of(np.ascontiguousarray(channel.T) for channel in volume.values),
    )


def has_texts(path: Path) -> bool:
    """Whether a NIfTI or Analyze header has free texts."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        head = gunzipped_head(head, 540) if head.startswith(GZIP_MAGIC) else head[:540]
        return has_free_texts(head)
    except (CallerError, OSError, ValueError):
        return False


def _pixels_of(parts: Iterator[np.ndarray]) -> Pixels:
    """Digest values part by part: equal values have equal digests, whatever their format."""
    digest, low, high = hashlib.sha256(), np.inf, -np.inf
    try:
        for part in parts:
            digest.update(f"{part.shape}{part.dtype.str}".encode())
            digest.update(np.ascontiguousarray(part).data)
            if part.size:
                low, high = min(low, float(part.min())), max(high, float(part.max()))
    except CallerError as error:
        return Pixels(fault=error.code)
    return Pixels(digest=digest.digest(), is_blank=not low < high)
