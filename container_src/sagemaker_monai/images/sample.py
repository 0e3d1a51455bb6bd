"""What is read: one image of a request or a data set before it is opened, whatever its kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sagemaker_monai.budget import give_back


class Held:
    """A file of a request in memory, which is given back as soon as it was read for the last time."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __eq__(self, other: object) -> bool:
        """Equal to the same bytes."""
        return self.data == (other.data if isinstance(other, Held) else other)

    def release(self) -> None:
        """Nobody reads it again."""
        give_back(len(self.data))
        self.data = b""


@dataclass(frozen=True)
class Instances:
    """DICOM files of a request, of one series or of several, in any order."""

    files: tuple[bytes | Held, ...]


@dataclass(frozen=True)
class Sequences:
    """One source a channel, such as T1, T2 and FLAIR of one study; all on one grid of voxels."""

    channels: tuple[Path, ...]


Source = Path | bytes | np.ndarray | Instances | Sequences


@dataclass(frozen=True)
class Sample:
    """One image, or some DICOM files that hold one or several, not yet decoded.

    Attributes:
        source: a file; a folder with the DICOM files of one series; an encoded file; raw values, channel first; DICOM
            files; or several of these as channels.
        formats: names of the formats that may decode it, of `pictures` and `volume_files`; empty allows all. Without
            meaning for raw values, folders and DICOM files.
    """

    source: Source
    formats: tuple[str, ...] = ()

    @classmethod
    def of(cls, image: "Sample | str | Path | Sequence[str | Path]") -> "Sample":
        """The sample of a file or folder by its path, or of several as channels; a sample as it is."""
        if isinstance(image, Sample):
            return image
        return cls(Path(image) if isinstance(image, str | Path) else Sequences(tuple(map(Path, image))))
