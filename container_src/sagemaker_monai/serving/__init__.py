"""Behind `serve`; knows HTTP, not SageMaker."""
