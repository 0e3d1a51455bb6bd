"""What follows from the name of an instance type."""

import re

# AWS's P and G families are the ones with NVIDIA GPUs.
GPU = re.compile(r"ml\.[gp]\d")
# Their disks are in the host, as large as they are and encrypted by its hardware: SageMaker refuses a volume's key, and
# for endpoints its size too (API reference, ResourceConfig.VolumeKmsKeyId; Developer Guide, "Host instance storage
# volumes"). A "d" behind the number says so; newer G and P families all have them.
OWN_DISKS = re.compile(r"ml\.(?:[cmr]\d[a-z]*d[a-z]*|g4dn|g[5-9]e?|p[4-9][a-z0-9-]*|p3dn|trn\w+|dl1)\.")


def has_gpu(instance_type: str) -> bool:
    """Whether it has an NVIDIA GPU."""
    return GPU.match(instance_type) is not None


def has_own_disks(instance_type: str) -> bool:
    """Whether its storage is in the host, so that nobody gives it a size or a key."""
    return OWN_DISKS.match(instance_type) is not None
