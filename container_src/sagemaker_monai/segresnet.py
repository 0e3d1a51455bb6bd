"""The name under which artifacts know `networks.segresnet_classifier`."""

from sagemaker_monai.networks.segresnet_classifier import SegResNetClassifier

__all__ = ["SegResNetClassifier"]
