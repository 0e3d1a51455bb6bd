"""The command `sagemaker-monai`: train, host and ask in an AWS account, from a person's machine.

Nothing of it belongs in the image.
"""
