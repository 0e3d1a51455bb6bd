"""Open an artifact given as its folder or as the model.tar.gz that SageMaker made of it."""

import gzip
import shutil
from pathlib import Path

from sagemaker_monai.artifact.bundle import CHECKSUMS
from sagemaker_monai.errors import BundleError
from sagemaker_monai.storage.tars import read_tar
from sagemaker_monai.storage.zips import UnsafeArchiveError

ARCHIVE = "model.tar.gz"
MAX_FILES = 10_000
MAX_BYTES = 1 << 34  # 16 GiB; our largest network has 0.1 GiB, and users may add files


def artifact_folder(path: Path, scratch: Path) -> Path:
    """The folder of an artifact, unpacked if necessary.

    Args:
        path: the folder, a folder that contains model.tar.gz, or such a file.
        scratch: an empty folder to unpack into.

    Raises:
        BundleError: there is no artifact, or its archive is damaged, unsafe or too large.
    """
    if (path / CHECKSUMS).is_file():
        return path
    archive = path / ARCHIVE if path.is_dir() else path
    if not archive.is_file():
        raise BundleError(f"there is no artifact: name a folder that train wrote, or a {ARCHIVE}")
    room = min(MAX_BYTES, shutil.disk_usage(scratch).free)
    try:
        with gzip.open(archive) as stream:
            for name, content in read_tar(stream, max_files=MAX_FILES, max_bytes=room):
                file = scratch / name
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("xb") as target:
                    for chunk in content:
                        target.write(chunk)
    except UnsafeArchiveError as error:
        raise BundleError(f"{archive.name} cannot be unpacked: {error.reason}") from error
    except (FileExistsError, NotADirectoryError) as error:
        raise BundleError(f"{archive.name} cannot be unpacked: it has a file and a folder of one name") from error
    return scratch
