"""Samples: images of any kind, from a request or a data set, before they are opened."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sagemaker_monai.budget import release


class Held:
    """A request's file in memory, which is freed once it has been read for the last time."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __eq__(self, other: object) -> bool:
        """Equal to the same bytes."""
        return self.data == (other.data if isinstance(other, Held) else other)

    def release(self) -> None:
        """Free the bytes: nobody reads them again."""
        release(len(self.data))
        self.data = b""


@dataclass(frozen=True)
class Instances:
    """DICOM files of a request, of one or more series, in any order."""

    files: tuple[bytes | Held, ...]


@dataclass(frozen=True)
class Sequences:
    """One source per channel, such as T1, T2 and FLAIR of one study; all on the same voxel grid."""

    channels: tuple[Path, ...]


# What an answer may need beyond what the model predicts.
PROBABILITIES, PICTURE = "probabilities", "picture"

Source = Path | bytes | np.ndarray | Instances | Sequences


@dataclass(frozen=True)
class Sample:
    """One image, or DICOM files that hold one or more, not yet decoded.

    Attributes:
        source: a file; a folder with the DICOM files of one series; an encoded file; raw values, channel first; DICOM
            files; or several of these as channels.
        formats: names of the allowed formats, of `pictures` and `volume_files`; empty allows all. Ignored for raw
            values, folders and DICOM files.
        extras: PROBABILITIES of segmentation, or the PICTURE as it is displayed; only what the answer shows.
    """

    source: Source
    formats: tuple[str, ...] = ()
    extras: frozenset[str] = frozenset()

    @classmethod
    def of(cls, image: "Sample | str | Path | Sequence[str | Path]") -> "Sample":
        """Make a sample of one path, or of several as channels; samples are returned as they are."""
        if isinstance(image, Sample):
            return image
        return cls(Path(image) if isinstance(image, str | Path) else Sequences(tuple(map(Path, image))))
