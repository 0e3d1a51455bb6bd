"""What differs by task: target, loss, metrics, postprocessing, encoding.

Re-exports the postprocessing steps, which artifacts refer to by these names.
"""

from sagemaker_monai.tasks.postprocessing import (
    ConditionalOrdinal,
    LabelMap,
    LargestComponents,
    RegionMap,
    Rescale,
    Sigmoid,
    Softmax,
    Thresholds,
)

__all__ = [
    "ConditionalOrdinal",
    "LabelMap",
    "LargestComponents",
    "RegionMap",
    "Rescale",
    "Sigmoid",
    "Softmax",
    "Thresholds",
]
