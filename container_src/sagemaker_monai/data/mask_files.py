"""Tell the masks beside images from images.

A name alone says too little: a class may be called "label 1" and a picture "mask_of_zorro.png". A file is taken for a
mask if its name or one of its folders says so *and* there is an image with the rest of its name. Words that also name
pictures of a lesion or a label, names that only begin like an image's, and folders, which may be classes, need a third
sign: pixels of only a few values. A file with some of these signs stays an image, with a remark.

Files are opened only if their names give reason to.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from sagemaker_monai.data.entries import DICOM_NAMES, IMAGE_NAMES, VOLUME_NAMES, Aside, Entry, Layout
from sagemaker_monai.errors import CallerError
from sagemaker_monai.images.pictures import has_few_values
from sagemaker_monai.images.sample import Sequences
from sagemaker_monai.images.suffixes import IMAGE_SUFFIXES
from sagemaker_monai.images.volume_files import read_volume_file
from sagemaker_monai.messages.remarks import Remark, remark
from sagemaker_monai.storage.files import plain_files

Words = tuple[str, ...]

# In lower case; two words in a row have a space here.
_MASK_WORDS = frozenset({
    "mask", "masks", "msk", "seg", "segs", "segm", "segmentation", "segmentations", "segmentationclass", "labelmap",
    "labelmaps", "gt", "gts", "groundtruth", "ground truth", "annotation", "annotations", "maske", "masken", "masque",
    "masques", "mascara", "mascaras", "маска", "маски",
})  # fmt: skip
# These name pictures too: volumes are label maps, for pictures the values decide.
_WEAK_WORDS = frozenset({
    "label", "labels", "lbl", "lesion", "lesions", "roi", "rois", "contour", "contours", "tumor", "tumour", "ann",
    "annot", "truth", "manual", "delineation", "gtv", "ctv", "ptv",
})  # fmt: skip
_GLUED = ("mask", "masks", "segmentation")  # at the end of a word: lungmask; as weak as those above
_FOLDER_WORDS = _MASK_WORDS | {"labels", "rois", "contours", "manual"}  # a lesion or a label may well be a class
_SETS = frozenset({"labelstr", "labelsts", "labelsval"})  # folders of label maps, of the Decathlon and of nnU-Net
# Common words in names of images beside masks; ignored when names are matched.
_IMAGE_WORDS = frozenset({
    "image", "images", "img", "imgs", "imaging", "volume", "volumes", "vol", "scan", "scans", "orig", "original",
    "picture", "pictures", "photo", "photos", "data", "imagestr", "imagests", "imagesval", "jpegimages", "png", "jpg",
    "jpeg", "bmp", "tif", "tiff", "nii", "nifti",
})  # fmt: skip
_LONGEST_WORDS = 2
_FEW = 32  # values of a label map of a volume
_SAMPLE = 8  # files of a folder whose pixels decide about it
_SUFFIXES = tuple(sorted(IMAGE_NAMES, key=lambda suffix: (-len(suffix), suffix)))
# Names are split between a small letter and a capital, between letters and digits, and at all other characters.
_WORD = re.compile(r"[^\W\d_]+|\d+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def images_with_masks(aside: Aside) -> dict[Path, tuple[Path, ...]]:
    """The masks of each image that has some, both in the order of the files."""
    found: dict[Path, list[Path]] = defaultdict(list)
    for mask, images in aside.masks.items():
        for image in images:
            found[image].append(mask)
    return {image: tuple(found[image]) for image in aside.images if image in found}


def join_asides(asides: Sequence[Aside]) -> Aside:
    """Join the files of several channels."""
    return Aside(
        tuple(path for aside in asides for path in aside.images),
        {mask: images for aside in asides for mask, images in aside.masks.items()},
        tuple(path for aside in asides for path in aside.doubtful),
    )


def mask_remarks(aside: Aside) -> tuple[Remark, ...]:
    """Remarks on masks, and on images with names of masks."""
    counts = {"masks_passed_over": len(aside.masks), "masks_among_images": len(aside.doubtful)}
    return tuple(remark(code, count) for code, count in counts.items() if count)


def pass_over_masks(layout: Layout, root: Path) -> Layout:
    """Put the masks among a channel's other files into `aside`, if its layout lists the images.

    Listed files are images, whatever their names; for class folders see `class_folders`.
    """
    return replace(layout, aside=masks_below(root, [path for entry in layout.entries for path in _paths(entry)]))


def _paths(entry: Entry) -> tuple[Path, ...]:
    return entry.image.channels if isinstance(entry.image, Sequences) else (entry.image,)


def masks_below(root: Path, named: Sequence[Path] = ()) -> Aside:
    """Masks among all files below `root`, except in series folders that are named.

    Args:
        root: the folder.
        named: files and folders that a table lists as images.
    """
    known = set(named)
    others = [
        path
        for path in plain_files(root)
        if path not in known and path.name.lower().endswith(_SUFFIXES) and known.isdisjoint(path.parents)
    ]
    return set_masks_aside([*named, *others], root, named=named)


@dataclass(frozen=True)
class _Name:
    """The parts of a file's name: folders and words that tell whose it is, and signs that it is a mask."""

    path: Path
    folders: Words
    words: Words
    before: Words | None  # the words before the mask's word; None if there is no such word
    is_weak: bool
    in_folder: bool  # a folder's name says mask
    in_set: bool

    @property
    def is_suspect(self) -> bool:
        return self.before is not None or self.in_folder


def set_masks_aside(paths: Sequence[Path], root: Path, *, named: Collection[Path] = ()) -> Aside:
    """Tell masks from images.

    Args:
        paths: files that could be images, below `root`; folders among them are DICOM series.
        root: names of folders above it are ignored.
        named: paths that a table lists as images, which they stay; one that looks like a mask is doubtful.
    """
    names = [_taken_apart(path, root) for path in paths]
    suspects = [name for name in names if name.is_suspect]
    if not suspects:
        return Aside(tuple(paths))
    owners = _Owners([name for name in names if not name.is_suspect])
    listed, pixels = set(named), _Pixels()
    masks: dict[Path, tuple[Path, ...]] = {}
    doubtful: list[Path] = []
    for name in suspects:
        images, is_exact = owners.of(name)
        is_mask = name.in_set or bool(images and (_is_plain(name, is_exact=is_exact) or pixels.of_file(name)))
        if name.path in listed:
            doubtful += [name.path] if is_mask else []
        elif is_mask:
            masks[name.path] = images
        elif images or pixels.of_folder(name):
            doubtful.append(name.path)
    # A mask whose image is missing is still a mask, as its neighbours show.
    places = {mask.parent for mask in masks}
    masks |= {path: () for path in doubtful if path not in listed and path.parent in places and _has_few_values(path)}
    doubtful = [path for path in doubtful if path not in masks]
    return Aside(tuple(path for path in paths if path not in masks), masks, tuple(doubtful))


def _is_plain(name: _Name, *, is_exact: bool) -> bool:
    """Whether the name and the image beside it are enough, without looking at the pixels."""
    if name.before is None:
        return False
    is_volume = name.path.name.lower().endswith(tuple(VOLUME_NAMES))
    return is_volume or (is_exact and not name.is_weak)


class _Owners:
    """Finds the images that a mask may be of."""

    def __init__(self, images: Sequence[_Name]) -> None:
        self._exact: dict[tuple[Words, Words], list[Path]] = defaultdict(list)
        self._anywhere: dict[Words, list[Path]] = defaultdict(list)
        self._begun: dict[tuple[Words, Words], list[Path]] = defaultdict(list)
        self._folder: dict[Words, list[Path]] = defaultdict(list)
        for image in images:
            self._exact[image.folders, image.words].append(image.path)
            self._anywhere[image.words].append(image.path)
            self._folder[image.folders].append(image.path)
            for length in range(1, len(image.words)):
                self._begun[image.folders, image.words[:length]].append(image.path)

    def of(self, mask: _Name) -> tuple[tuple[Path, ...], bool]:
        """The images of a mask, and whether their names are all of its name, or the part before the mask's word.

        They are in its folder or one beside it, or, for masks in a separate folder, anywhere. Several are sequences of
        one case, or ambiguous.
        """
        before = mask.before if mask.before is not None else mask.words
        called = [words for words in dict.fromkeys((mask.words, before)) if words]
        for words in called:
            if found := self._exact.get((mask.folders, words)):
                return tuple(found), True
        for words in called if mask.in_folder else ():
            if found := self._anywhere.get(words):
                return tuple(found), True
        if (mask.in_set or any(word.isdigit() for word in before)) and (
            found := self._begun.get((mask.folders, before))
        ):
            return tuple(found), False  # CASE_1_seg beside CASE_1_t1 and CASE_1_flair
        if not mask.words:
            return tuple(self._folder.get(mask.folders, ())), False  # segmentation.nii.gz beside imaging.nii.gz
        return (), False


class _Pixels:
    """Decides by pixels if names leave doubt."""

    def __init__(self) -> None:
        self._of_folder: dict[Path, list[bool]] = defaultdict(list)

    def of_file(self, name: _Name) -> bool:
        """Whether a file has only a few values; if only its folder says mask, whether most files there do."""
        return self.of_folder(name) if name.before is None else _has_few_values(name.path)

    def of_folder(self, name: _Name) -> bool:
        """The same for most files of its folder, judged by the first few that are asked about."""
        looked = self._of_folder[name.path.parent]
        if len(looked) < _SAMPLE:
            looked.append(_has_few_values(name.path))
        return sum(looked) * 2 > len(looked)


def _has_few_values(path: Path) -> bool:
    lower = path.name.lower()
    if lower.endswith(tuple(IMAGE_SUFFIXES)):
        return has_few_values(path)
    if path.is_dir() or lower.endswith(tuple(DICOM_NAMES)) or not lower.endswith(tuple(VOLUME_NAMES)):
        return False
    try:
        values = read_volume_file(path, non_finite="zero").values
    except CallerError:
        return False
    return len(np.unique(values[..., values.shape[-1] // 2])) <= _FEW and len(np.unique(values)) <= _FEW


def owner_of(path: Path, root: Path) -> Words:
    """What the folders of a file say besides image and mask: a patient, a structure, a split."""
    return _taken_apart(path, root).folders


# --- names -----------------------------------------------------------------------------------------------------------


def _taken_apart(path: Path, root: Path) -> _Name:
    *above, last = path.relative_to(root).parts
    folders: list[str] = []
    in_folder = in_set = False
    for folder in above:
        words, says_mask, says_set = _of_folder(folder)
        folders += words
        in_folder, in_set = in_folder or says_mask, in_set or says_set
    words = _words(_stem(last))
    found = next(_mask_words(words), None)
    rest = words if found is None else words[: found[0]] + words[found[1] :]
    before = None if found is None else _without_image_words(words[: found[0]])
    is_weak = found is not None and " ".join(words[found[0] : found[1]]) not in _MASK_WORDS
    return _Name(path, tuple(folders), _without_image_words(rest), before, is_weak, in_folder, in_set)


@cache
def _of_folder(name: str) -> tuple[Words, bool, bool]:
    """The words of a folder that tell whose its files are, whether it says mask, and whether it is a set of masks."""
    words = _words(name)
    if "".join(words) in _SETS:
        return (), True, True
    if "".join(words) in _IMAGE_WORDS:
        return (), False, False
    found = next(_places(words, _FOLDER_WORDS), None)
    if found is None:
        return words, False, False
    return _without_image_words(words[: found[0]] + words[found[1] :]), True, False


def _mask_words(words: Words) -> Iterator[tuple[int, int]]:
    """Start and end of the words that say mask, the last place first, strong words before weak ones."""
    yield from _places(words, _MASK_WORDS)
    yield from _places(words, _WEAK_WORDS)
    for place in reversed(range(len(words))):
        if words[place].endswith(_GLUED):
            yield place, place + 1


def _places(words: Words, known: Collection[str]) -> Iterator[tuple[int, int]]:
    for start in reversed(range(len(words))):
        for length in range(_LONGEST_WORDS, 0, -1):
            if start + length <= len(words) and " ".join(words[start : start + length]) in known:
                yield start, start + length


def _without_image_words(words: Words) -> Words:
    return tuple(word for word in words if word not in _IMAGE_WORDS)


def _words(text: str) -> Words:
    """Letters and digits of a name in their groups, in lower case, numbers without leading zeros."""
    spaced = _CAMEL.sub(" ", unicodedata.normalize("NFKC", text))
    return tuple((word.lstrip("0") or "0") if word.isdigit() else word.casefold() for word in _WORD.findall(spaced))


def _stem(name: str) -> str:
    lower = name.lower()
    suffix = next((suffix for suffix in _SUFFIXES if lower.endswith(suffix)), "")
    return name[: len(name) - len(suffix)] if suffix else name
