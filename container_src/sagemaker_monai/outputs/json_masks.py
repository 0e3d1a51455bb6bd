"""Masks of structures in JSON, as run lengths: `"mask": {"size": [W, H, D], "order": "F", "counts": [...]}`.

`counts` are those of COCO, uncompressed: how many voxels are outside, inside, outside and so on, beginning outside,
perhaps with 0. The voxels are in the image's own index order, that of NIfTI and of the label map as a file: `order` F
means that the first index is the fastest. In numpy:
`np.repeat(np.arange(len(counts)) % 2, counts).reshape(size, order="F")`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sagemaker_monai.budget import lent, spend_bytes, spend_work

if TYPE_CHECKING:
    from sagemaker_monai.tasks.segmentation import MaskPrediction

# Of a run: its end, its count as Python's number and in the list, and its text, several times; of a voxel three maps.
_BYTES_A_RUN, _NS_A_RUN = 100, 500
_BYTES_A_VOXEL, _NS_A_VOXEL = 3, 10


@dataclass(frozen=True)
class WithRuns:
    """A prediction whose JSON also says where each structure is."""

    prediction: "MaskPrediction"

    def fields(self) -> dict[str, Any]:
        """What JSON says of it.

        Raises:
            PayloadTooLarge: the runs would exceed the request's budget; before they are written.
        """
        told = self.prediction.fields()
        size = self.prediction.mask.size
        for place, structure in enumerate(told["structures"].values()):
            spend_work(_NS_A_VOXEL * size, f"the runs of {size} voxels")
            with lent(_BYTES_A_VOXEL * size, f"the runs of {size} voxels"):
                structure["mask"] = _runs(self.prediction.inside(place))
        return told

    def cells(self) -> dict[str, str | float]:
        """The same as one row of a table, without runs."""
        return self.prediction.cells()

    def findings(self) -> list[tuple[str, str, float, bool]]:
        """As of the prediction."""
        return self.prediction.findings()


def _runs(inside: NDArray[np.bool_]) -> dict[str, Any]:
    flat = inside.ravel(order="F")
    is_change = flat[1:] != flat[:-1]
    count = int(np.count_nonzero(is_change)) + 2
    spend_bytes(_BYTES_A_RUN * count, f"{count} runs")
    spend_work(_NS_A_RUN * count, f"{count} runs")
    ends = np.concatenate([[0] * bool(flat[0]), np.flatnonzero(is_change) + 1, [flat.size]])
    return {"size": list(inside.shape), "order": "F", "counts": np.diff(ends, prepend=0).astype(int).tolist()}
