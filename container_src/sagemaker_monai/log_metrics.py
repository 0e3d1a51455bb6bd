"""The name under which scripts that start jobs know `tasks.metric_names`."""

from sagemaker_monai.tasks.metric_names import metric_definitions

__all__ = ["metric_definitions"]
