"""The memory and the time that a DICOM Segmentation takes, known before it is begun.

Measured on one core of an Intel Xeon with highdicom 0.28 and pydicom 3.0, beside the label map or the probabilities:
four structures in 512 x 512 x 300 take 242 MiB and 2.6 s as BINARY, 304 MiB and 1.8 s as LABELMAP.
A frame or a slice of any size takes 12 kB and about 1 ms for its header. Noise, which RLE cannot pack, takes 7.5 bytes
and 52 ns a voxel as LABELMAP, 4.3 bytes and 37 ns for each probability as FRACTIONAL.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sagemaker_monai.tasks.segmentation import MaskPrediction

# For each stored voxel: of BINARY the label map in the order of DICOM, of LABELMAP its frames beside that.
_BYTES_A_VOXEL = {"BINARY": 1.2, "LABELMAP": 4.1, "FRACTIONAL": 0.1}
_COPIES_OF_BITS, _COPIES_OF_PACKED = 4.2, 5.0  # of the pixel data, at the end of writing
_BYTES_A_HEADER, _NS_A_HEADER = 12_000, 1_100_000  # of a frame, and of the stand-in for a slice
_NS_A_VOXEL, _NS_A_RUN = 15, 30
_PACKED_RATIO, _MOST_IN_RUN = 1.02, 128  # PackBits at its worst, and voxels in one run


def costs_of(prediction: "MaskPrediction", kind: str) -> tuple[int, int]:
    """The memory (bytes) and the work (ns) of encoding a prediction.

    Args:
        prediction: with probabilities if they are to be encoded.
        kind: BINARY, LABELMAP or FRACTIONAL.
    """
    mask, structures = np.atleast_3d(prediction.mask), len(prediction.structures)
    slices, plane = mask.shape[2], mask.shape[0] * mask.shape[1]
    stored, frames, runs = mask.size, slices, 0
    more_bytes = 0.0
    if kind == "BINARY":
        frames = _frames_of(mask, prediction.numbers)
        more_bytes = _COPIES_OF_BITS * plane / 8 * frames
        if prediction.regions is not None:  # one map for each structure, as booleans and as numbers
            stored *= structures
            more_bytes += stored
    else:
        maps = [mask]
        if kind == "FRACTIONAL":
            assert prediction.probabilities is not None
            maps = [np.atleast_3d(each) for each in prediction.probabilities]
            stored, frames = structures * stored, structures * slices
        runs = sum(map(_runs_of, maps))
        fewest = stored // mask.shape[0] * math.ceil(mask.shape[0] / _MOST_IN_RUN)
        more_bytes = _COPIES_OF_PACKED * min(_PACKED_RATIO * stored, 2 * (runs + fewest))
    needed_bytes = _BYTES_A_VOXEL[kind] * stored + more_bytes + _BYTES_A_HEADER * (slices + frames)
    return int(needed_bytes), _NS_A_VOXEL * stored + _NS_A_RUN * runs + _NS_A_HEADER * (slices + frames)


def _frames_of(mask: NDArray[np.uint8], numbers: tuple[tuple[int, ...], ...]) -> int:
    """At most how many frames the structures have that these numbers of a label map (W, H, D) make."""
    from scipy import ndimage

    boxes = ndimage.find_objects(mask, max_label=max(number for each in numbers for number in each))
    extents = [0 if box is None else box[2].stop - box[2].start for box in boxes]
    return sum(min(mask.shape[2], sum(extents[number - 1] for number in each)) for each in numbers)


def _runs_of(values: NDArray[np.uint8]) -> int:
    """How often the value changes along the rows of (W, H, D)."""
    return sum(int(np.count_nonzero(np.diff(values[:, :, index], axis=0))) for index in range(values.shape[2]))
