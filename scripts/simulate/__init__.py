"""An offline SageMaker: AWS's APIs on loopback, around the real container or the `train` and `serve` of `.venv`.

What speaks boto3 runs against it unchanged, with AWS_ENDPOINT_URL. SageMaker's control plane and its run time are
these modules; S3, ECR, IAM, CloudWatch and the rest are moto's, in the same process.

`server` is the front; `control` keeps the resources; `training`, `tuning`, `processing`, `batch` and `hosting` are what
happens to them; `containers` and `processes` are the back ends; `limits` has every rule that is a number.

Not here: prices, quotas, permissions (any role may do anything), instance types (this machine is all of them), VPCs,
data capture, inference components, pipelines' execution.
"""
