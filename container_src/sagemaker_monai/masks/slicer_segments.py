"""What 3D Slicer writes into the header of a .seg.nrrd: the name, value and layer of each segment.

Segments that overlap lie in layers, which are the channels of the file. Values may come again in another layer. Files
from before layers have one channel a segment, of the value 1. `Extent`, colours and tags do not concern voxels and are
ignored.

Source: vtkMRMLSegmentationStorageNode of 3D Slicer, whose documentation has the keys under "Segmentations, file
format".
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sagemaker_monai.errors import UndecodableImage, UnsuitableImage
from sagemaker_monai.masks.mask import MOST_VALUE

_KEY = re.compile(r"Segment(\d{1,6})_(ID|Name|LabelValue|Layer)", re.ASCII)
_REPRESENTATIONS = ("Segmentation_SourceRepresentation", "Segmentation_MasterRepresentation")
_ESCAPES = {"\\n": "\n", "\\\\": "\\"}


@dataclass(frozen=True)
class Segment:
    """One structure: its name ("" without), and the value that it has in a layer of the file."""

    name: str
    value: int
    layer: int


def segments_of(keys: Sequence[tuple[str, str]]) -> tuple[Segment, ...]:
    """The segments of a header, in the order of their numbers.

    Args:
        keys: of the NRRD header with their values.

    Raises:
        UndecodableImage: an invalid value, two segments with the same one, or a key twice.
        UnsuitableImage: no labels but fractions or surfaces.
    """
    found: dict[int, dict[str, str]] = {}
    for key, value in keys:
        if key in _REPRESENTATIONS and value.strip().lower() != "binary labelmap":
            raise UnsuitableImage("the segmentation is no labelmap but of another kind; export it as a binary labelmap")
        if match := _KEY.fullmatch(key):
            words = found.setdefault(int(match[1]), {})
            if words.setdefault(match[2], value) != value:
                raise UndecodableImage(
                    f"the NRRD header says {match[2]} of a segment twice; save the segmentation again"
                )
    segments = tuple(
        Segment(
            name=re.sub(r"\\[n\\]", lambda match: _ESCAPES[match[0]], words.get("Name", "")).strip(),
            value=_number(words.get("LabelValue", "1"), "LabelValue", 1),
            layer=_number(words.get("Layer", "0" if "LabelValue" in words else str(place)), "Layer", 0),
        )
        for place, (_, words) in enumerate(sorted(found.items()))
    )
    twice = [place for place, count in Counter((each.layer, each.value) for each in segments).items() if count > 1]
    if twice:
        raise UndecodableImage(
            f"two segments have the value {twice[0][1]} in one layer, so that nobody can tell them apart; save the "
            "segmentation again"
        )
    return segments


def _number(text: str, key: str, low: int) -> int:
    if not re.fullmatch(r"\d{1,6}", text.strip(), re.ASCII) or not low <= int(text) <= MOST_VALUE:
        raise UndecodableImage(f"the {key} of a segment must be a whole number from {low} to {MOST_VALUE}")
    return int(text)
