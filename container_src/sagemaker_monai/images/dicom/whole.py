"""The DICOM objects of a request or a folder, all of them or none.

`media` lists what it cannot read and goes on, as an import or an examination wants it. Making one image of many
files must not: without a broken file there would be fewer answers than images, or a series that ends too early.
"""

from collections.abc import Sequence
from pathlib import Path

from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage
from sagemaker_monai.images.dicom.media import Instance, find_media
from sagemaker_monai.images.dicom.objects import is_image_class
from sagemaker_monai.images.sample import Held

# Not DICOM at all, or only listed in a DICOMDIR: readmes and leftovers, which are no part of a series.
PASSED_OVER = frozenset({"NotDicom", "MissingFile"})


def whole_instances(source: Path | Sequence[bytes | Held]) -> list[Instance]:
    """The objects of a folder, a file, an archive or a request, also those without pixels, as reports are.

    Raises:
        UndecodableImage, PayloadTooLarge: a file cannot be read, or is of an image and ends before its pixels.
    """
    media = find_media(source)
    count = len(media.instances) + len(media.others)

    def place(name: str) -> str:
        if count == 1:
            return ""
        return "a DICOM file of the series: " if isinstance(source, Path) else f"DICOM file {name} of {len(source)}: "

    for other in media.others:
        if other.code not in PASSED_OVER:
            error = PayloadTooLarge if other.code == PayloadTooLarge.__name__ else UndecodableImage
            raise error(f"{place(other.name)}{other.reason}")
    for each in media.instances:
        # Where a file ends between two elements of its header, nothing else tells that it was longer.
        if is_image_class(each.sop_class_uid) and not each.has_pixels and count > 1:
            raise UndecodableImage(f"{place(each.name)}an image without pixels; send the whole file")
    return media.instances
