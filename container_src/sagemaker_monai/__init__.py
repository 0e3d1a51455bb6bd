"""Train and serve MONAI models on medical images under the SageMaker contract."""

__version__ = "0.2.0"
