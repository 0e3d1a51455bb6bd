"""The DICOM objects of a request or a folder, all or none.

`media` lists unreadable files and continues, as imports and examinations need. Making one image of many files must not:
without the broken file there would be fewer answers than images, or a series that ends too early.
"""

from collections.abc import Sequence
from pathlib import Path

from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage
from sagemaker_monai.images.dicom.media import Instance, find_media
from sagemaker_monai.images.dicom.objects import is_image_class
from sagemaker_monai.images.sample import Held

# Not DICOM at all, or only listed in a DICOMDIR: readmes and leftovers.
PASSED_OVER = frozenset({"NotDicom", "MissingFile"})


def whole_instances(source: Path | Sequence[bytes | Held]) -> list[Instance]:
    """The objects of a folder, a file, an archive or a request, including those without pixels, such as reports.

    Raises:
        UndecodableImage, PayloadTooLarge: a file is unreadable, or an image that ends before its pixels.
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
        # If a file ends between two header elements, nothing else shows that it was truncated.
        if is_image_class(each.sop_class_uid) and not each.has_pixels and count > 1:
            raise UndecodableImage(f"{place(each.name)}an image without pixels; send the whole file")
    return media.instances
