"""The tables of docs/formats.md that need no data: what is read, by what, and what is refused."""

from dataclasses import fields

from pydicom import uid

from develop.markdown import code, table
from sagemaker_monai import budget
from sagemaker_monai.images import picture_parts
from sagemaker_monai.images.dicom import codestreams, effort, limits
from sagemaker_monai.images.dicom.decoding import DECODERS, FRAGMENTS_OF_A_FRAME
from sagemaker_monai.images.dicom.elements import GROUPS
from sagemaker_monai.images.dicom.findings import MESSAGES, Policy, finding
from sagemaker_monai.images.dicom.modality import LUT_NOT_APPLIED
from sagemaker_monai.images.dicom.planes import MAX_FRAMES
from sagemaker_monai.images.dicom.tells import DISCRIMINATORS
from sagemaker_monai.images.formats import arrays, inflate, metaimage, nifti, nrrd, voxels
from sagemaker_monai.images.picture_parts import MAX_PIXELS
from sagemaker_monai.images.volume_files import VOLUME_FORMATS
from sagemaker_monai.images.volumes import MAX_VOXELS
from sagemaker_monai.messages.remarks import REMARKS
from sagemaker_monai.requests.archives import MAX_INFLATE_RATIO, MAX_INFLATED_BYTES
from sagemaker_monai.requests.bodies import MAX_IMAGES, MAX_INSTANCES
from sagemaker_monai.requests.media_types import MAX_REQUEST_PIXELS
from sagemaker_monai.storage import tars

OF_MASKS = ("mask_", "fractional_", "contours_", "structures_", "segments_")  # how codes of masks begin
NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
# By the function of `dicom.decoding` that calls it.
LIBRARIES = {
    "_jpeg": "libjpeg-turbo, by imagecodecs",
    "_jpeg_lossless": "libjpeg-turbo, by imagecodecs",
    "_jpeg_ls": "CharLS, by imagecodecs",
    "_j2k": "OpenJPEG, by imagecodecs",
    "_rle": "imagecodecs",
}
# Format -> its files, and the source of their geometry.
VOLUMES = {
    "NIFTI": ("NIfTI-1 and NIfTI-2, one file or header and image", "sform, else qform, else none"),
    "ANALYZE": ("Analyze 7.5, header and image, SPM's too", "none: the format cannot tell left from right"),
    "NRRD": ("NRRD, attached or detached", "space directions, where the space is RAS, LAS or LPS"),
    "METAIMAGE": ("MetaImage, one file or header and data", "TransformMatrix and Offset"),
    "NPY": ("NumPy array (W, H, D), (C, W, H, D) or (W, H)", "none"),
    "NPZ": ("NumPy archive: `image`, or the only array", "`affine` (RAS, mm) or `spacing` beside it"),
}


def transfer_syntax_table() -> str:
    """Every supported transfer syntax, with its decoder."""
    rows = [[uid.UID(name).name, f"`{name}`", "NumPy"] for name in NATIVE]
    rows += [[uid.UID(name).name, f"`{name}`", LIBRARIES[row.decode.__name__]] for name, row in DECODERS.items()]
    return table(["transfer syntax", "UID", "decoded by"], rows)


def volume_format_table() -> str:
    """Every other format of volumes."""
    rows = [[VOLUMES[name][0], code(*row.suffixes), VOLUMES[name][1]] for name, row in VOLUME_FORMATS.items()]
    return table(["format", "files", "geometry"], rows)


def discriminator_table() -> str:
    """The attributes that tell volumes at one place apart, in the order of use."""
    rows = [[f"`{name}`", code(*GROUPS.get(name, ())) or "-", row.kind] for name, row in DISCRIMINATORS.items()]
    return table(["attribute", "functional group, else the main dataset", "kind"], rows)


def modality_lut_table() -> str:
    """Where a Modality LUT is not applied."""
    rows = [[uid.UID(name).name, f"`{name}`", code(*sorted(values))] for name, values in LUT_NOT_APPLIED.items()]
    return table(["SOP class", "UID", "not applied where PixelIntensityRelationship is"], rows)


def mask_finding_table() -> str:
    """What is odd about masks and read all the same."""
    rows = [
        [f"`{name}`", severity, text.replace("{n}", "N")]
        for name, (severity, _, text) in REMARKS.items()
        if name.startswith(OF_MASKS)
    ]
    return table(["code", "severity", "meaning"], rows)


def finding_table() -> str:
    """The findings about a series, and what is done about them."""
    options = {field.name for field in fields(Policy)}
    rows = [
        [
            f"`{name}`",
            finding(name, 1).severity,
            Policy().action(name) if name in options else f"always {Policy().action(name)}",
            message.format("N"),
        ]
        for name, message in MESSAGES.items()
    ]
    return table(["code", "severity", "default", "meaning and remedy"], rows)


def limit_table() -> str:
    """The limits of files and requests."""
    rows = [
        ["values of one image, all channels together", _number(MAX_VOXELS)],
        ["bytes of a DICOM file, inflated", _size(limits.MAX_FILE_BYTES)],
        ["bytes of a DICOM header", _size(limits.MAX_HEADER_BYTES)],
        ["parser reads in a DICOM file, about three per element", _number(limits.MAX_READS)],
        ["items of all sequences of a DICOM file", _number(limits.MAX_ITEMS)],
        ["nested sequences", _number(limits.MAX_DEPTH)],
        ["frames of a DICOM file", _number(MAX_FRAMES)],
        ["scans of one JPEG", _number(codestreams.MAX_SCANS)],
        ["tiles of one JPEG 2000 picture", _number(codestreams.MAX_TILES)],
        ["packets of one JPEG 2000 picture", _number(effort.MAX_PACKETS)],
        ["bytes of a volume's file, inflated", _size(inflate.MAX_FILE_BYTES)],
        ["inflated to packed bytes of a volume's file", _number(inflate.MAX_RATIO)],
        ["channels of a volume", _number(voxels.MAX_CHANNELS)],
        ["bytes of values written as text", _size(voxels.MAX_TEXT_BYTES)],
        ["bytes of a NIfTI, NRRD and MetaImage header", ", ".join(
            _size(module.MAX_HEADER_BYTES) for module in (nifti, nrrd, metaimage)
        )],
        ["bytes of an .npy header", _number(arrays.MAX_NPY_HEADER_BYTES)],
        ["pixels of one picture", _number(MAX_PIXELS)],
        ["pixels of all pictures of a request", _number(MAX_REQUEST_PIXELS)],
        ["pictures or volumes of a request", _number(MAX_IMAGES)],
        ["DICOM files of a request", _number(MAX_INSTANCES)],
        ["inflated bytes of an archive", _size(MAX_INFLATED_BYTES)],
        ["inflated to packed bytes of an archive above 16 MiB", _number(MAX_INFLATE_RATIO)],
        ["decoded to compressed bytes of the frames of a DICOM file above 64 MiB", _number(budget.MAX_RATIO)],
        ["fragments of pixel data", f"4,096 plus {FRAGMENTS_OF_A_FRAME} per frame"],
        ["segments of a JPEG before its first scan", _number(picture_parts.MAX_SEGMENTS)],
        ["chunks of a PNG or WebP", f"{picture_parts.MAX_CHUNKS:,} plus one per KiB"],
        ["tags of a TIFF", _number(picture_parts.MAX_TAGS)],
        ["bytes of a BMP of run lengths", _size(picture_parts.MAX_RLE_BYTES)],
        ["headers of one member of a tar file", _number(tars.MAX_CHAINED)],
        ["bytes of long names and pax records of a tar file", _size(tars.MAX_HEADER_BYTES)],
    ]  # fmt: skip
    return table(["limit", "at most"], rows)


def _number(value: int) -> str:
    return f"{value:,}"


def _size(value: int) -> str:
    return f"{value / (1 << 20):,.0f} MiB"
