"""What differs by task: target, loss, metrics, postprocessing, encoding.

Re-exported are the steps of postprocessing, which artifacts know by these names.
"""

from sagemaker_monai.tasks.postprocessing import ConditionalOrdinal, Rescale, Sigmoid, Softmax, Thresholds

__all__ = ["ConditionalOrdinal", "Rescale", "Sigmoid", "Softmax", "Thresholds"]
