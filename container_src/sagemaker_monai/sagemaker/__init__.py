"""SageMaker and the environment: /opt/ml, SM_*, the cluster, other people's scripts, S3."""
