"""HAM10000 as people download it becomes images and a dataset.json, split by lesion.

Images and metadata must agree, and masks with both where the lesions are to be segmented. Photographs are copied byte
for byte unless they are to be shrunk. A lesion has one class; metadata that give it two are refused, not repaired.

Source: P. Tschandl, C. Rosendahl, H. Kittler, Scientific Data 5, 180161 (2018), doi 10.7910/DVN/DBW86T.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sagemaker_monai.data.dataset_json import write_dataset_json
from sagemaker_monai.data.splitting import SPLITS, split_by_group
from sagemaker_monai.deidentification.picture_metadata import cleaned
from sagemaker_monai.errors import CallerError, ConfigError, DatasetError
from sagemaker_monai.images.fingerprints import Floats, Pair, find_near_identical, thumbnail
from sagemaker_monai.images.pictures import decode, upright_size
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.messages.option_fields import option
from sagemaker_monai.messages.progress import track
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare import ham10000_masks, output
from sagemaker_monai.prepare.downloads import FolderDownload, ZipDownload, open_download
from sagemaker_monai.prepare.fractions import check_options, fractions_option, seed_option
from sagemaker_monai.prepare.ham10000_tables import LABELS, Row, read_metadata, read_split
from sagemaker_monai.prepare.import_report import NOTHING_TO_DO, count_lines, digest_of_all, earlier_import
from sagemaker_monai.prepare.leaks import Move, count_by_class, gather_groups, join_groups
from sagemaker_monai.storage.files import sha256_of, state_of
from sagemaker_monai.tasks.tasks import DEFAULT_TASK, TASKS, task_for

# Of shrunk images, with full colour resolution: 60 % more bytes than 4:2:0, no colour fringes at borders.
JPEG_QUALITY = 95
TITLE = "HAM10000"
ORIGIN: Any = {
    "description": "Dermatoscopic images of pigmented skin lesions, split by lesion",
    "reference": "Tschandl, Rosendahl, Kittler: Scientific Data 5, 180161 (2018), doi 10.7910/DVN/DBW86T",
    "licence": "CC BY-NC 4.0",
}
ANOTHER_ORIGIN: Any = {"description": "Imported from the layout of HAM10000, split by lesion"}
ON_CONFLICT = ("move", "refuse")
ON_MISMATCH = ("refuse", "drop")
# Task -> the names in dataset.json.
LABELS_OF_TASK = {DEFAULT_TASK: LABELS, task_for("mask"): ham10000_masks.NAMES}


@dataclass(frozen=True)
class Ham10000Options:
    """How to import a download; all but the given split is in import_report.json.

    Attributes:
        fractions, seed: of the split of lesions, which is stratified by class.
        split_csv: a given split (`image_id,split`) instead of a drawn one.
        max_side: images are shrunk if their longer side has more pixels; None copies every byte.
        duplicates: "move" near-identical images, and in a given split all images of a lesion, to the side where most of
            them are; or "refuse" a split that separates them.
        title: with another than HAM10000's, dataset.json does not name the origin.
        mismatch: "refuse" ids that are not in images, metadata, masks and given split alike, or "drop" them.
        task: a key of LABELS_OF_TASK; where labels are masks, the diagnosis is metadata, `dx`.

    Raises:
        ConfigError: a value is out of range.
    """

    fractions: tuple[float, float, float] = fractions_option()
    seed: int = seed_option()
    split_csv: Path | None = option(None, "a given split, image_id,split, instead of a drawn one", type=Path)
    max_side: int | None = option(None, "shrink images whose longer side has more pixels", type=int)
    duplicates: str = option(
        "move",
        "near-identical images, or in a given split images of one lesion, on two sides (default: %(default)s)",
        choices=ON_CONFLICT,
    )
    title: str = option(TITLE, "what the data set is called in dataset.json (default: %(default)s)")
    mismatch: str = option(
        "refuse",
        "ids that are not in images, metadata, masks and given split alike (default: %(default)s)",
        choices=ON_MISMATCH,
    )
    task: str = option(
        DEFAULT_TASK,
        "labels are diagnoses, or the lesions' masks (default: %(default)s)",
        choices=tuple(LABELS_OF_TASK),
    )

    def __post_init__(self) -> None:
        """Refuse values that are out of range."""
        check_options(self)
        if self.max_side is not None and self.max_side < 1:
            raise ConfigError(f"max_side must be at least 1 pixel, got {self.max_side}")


DEFAULTS = Ham10000Options()


@dataclass(frozen=True)
class Stored:
    """An image in the output folder."""

    sha256: str  # of the photograph as downloaded
    thumbnail: Floats
    size_bytes: int
    size: tuple[int, int]  # width and height of the photograph as downloaded


@dataclass(frozen=True)
class Report:
    """What an import did.

    Attributes:
        is_repeated: the folder held this import already, and nothing was written.
        counts: class -> split -> images.
        pairs: near-identical images: both ids, distance, correlation, and whether they are of one lesion, of one class
            and byte-identical.
        moves: images that the given split had on another side than most of their group.
        without_image, without_metadata, without_split, without_mask, unused_masks: ids that were left out.
    """

    is_repeated: bool
    counts: Mapping[str, Mapping[str, int]]
    pairs: Sequence[Mapping[str, Any]]
    moves: Sequence[Mapping[str, str]]
    without_image: Sequence[str]
    without_metadata: Sequence[str]
    without_split: Sequence[str]
    without_mask: Sequence[str] = ()
    unused_masks: Sequence[str] = ()

    def summary(self) -> str:
        """Lines for people: a table of counts, then what was noticed."""
        totals = {split: sum(row[split] for row in self.counts.values()) for split in SPLITS}
        lines = count_lines({**self.counts, "total": totals}, 8)
        across = [pair for pair in self.pairs if not pair["is_one_lesion"]]
        named = some_of([f"{pair['first']} = {pair['second']}" for pair in across])
        lines.append(
            f"near-identical pairs: {len(self.pairs)}, of different lesions: {len(across)}"
            + (f" ({named}), kept on one side" if across else "")
        )
        if self.moves:
            ways = Counter(f"{move['old']} -> {move['new']}" for move in self.moves)
            shown = ", ".join(f"{way}: {count}" for way, count in sorted(ways.items()))
            lines.append(f"images moved to the side of their lesion: {len(self.moves)} ({shown})")
        left_out = {
            "metadata without image": self.without_image,
            "images without metadata": self.without_metadata,
            "images not in the given split": self.without_split,
            "images without mask": self.without_mask,
            "masks without image": self.unused_masks,
        }
        lines += [f"left out, {what}: {len(ids)} ({some_of(ids)})" for what, ids in left_out.items() if ids]
        if self.is_repeated:
            lines.append(NOTHING_TO_DO)
        return "\n".join(lines)


def _metadata_of(download: FolderDownload | ZipDownload) -> list[Row]:
    """The metadata table, which may be there several times (with and without suffix)."""
    found = [(name, read_metadata(content, what=name)) for name, content in download.metadata()]
    if any(rows != found[0][1] for _, rows in found):
        raise DatasetError(f"the metadata files differ ({some_of([name for name, _ in found])}); keep one of them")
    return found[0][1]


def _shrunk(jpeg: bytes, max_side: int) -> bytes:
    """A smaller, upright copy, or the same bytes if the image is small enough."""
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as header:
        scale = max_side / max(header.size)
    if scale >= 1:
        return jpeg
    picture = decode(Sample(jpeg, ("JPEG",)), channels=3, min_size=None)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _store_images(
    download: FolderDownload | ZipDownload, out: Path, wanted: Mapping[str, Row], max_side: int | None
) -> tuple[dict[str, Stored], list[str]]:
    """Write the images that have metadata; returns them by id, and the ids of the others."""
    stored: dict[str, Stored] = {}
    others = set()
    for image, jpeg in track(download.images(out), total=len(wanted), what="importing images"):
        if image not in wanted:
            others.add(image)
            continue
        digest = hashlib.sha256(jpeg).hexdigest()
        if image in stored:  # Kaggle's download has every folder twice
            if stored[image].sha256 != digest:
                raise DatasetError(f"{image} is there twice with different content; keep one of the two files")
            continue
        try:
            small = thumbnail(jpeg)
            content = cleaned(jpeg if max_side is None else _shrunk(jpeg, max_side))
        except CallerError as error:
            raise DatasetError(f"{image} is not a sound JPEG: {error}; download it again") from error
        (out / output.IMAGES / f"{image}.jpg").write_bytes(content)
        stored[image] = Stored(digest, small, len(content), upright_size(jpeg))
    return stored, sorted(others)


def _find_pairs(rows: Sequence[Row], stored: Mapping[str, Stored]) -> list[Pair]:
    """Near-identical pairs, and byte-identical ones even of blank images."""
    pairs = {
        (pair.first, pair.second): pair
        for pair in find_near_identical(np.stack([stored[row.image].thumbnail for row in rows]))
    }
    first_with: dict[str, int] = {}
    for index, row in enumerate(rows):
        first = first_with.setdefault(stored[row.image].sha256, index)
        if first != index:
            pairs[first, index] = Pair(first, index, distance=0, correlation=1.0)
    return [pairs[key] for key in sorted(pairs)]


def _describe(pair: Pair, rows: Sequence[Row], stored: Mapping[str, Stored]) -> dict[str, Any]:
    first, second = rows[pair.first], rows[pair.second]
    return {
        "first": first.image,
        "second": second.image,
        "distance": pair.distance,
        "correlation": pair.correlation,
        "is_one_lesion": first.lesion == second.lesion,
        "is_one_class": first.label == second.label,
        "is_byte_identical": stored[first.image].sha256 == stored[second.image].sha256,
    }


def _split(
    rows: Sequence[Row], pairs: Sequence[Pair], given: Mapping[str, str] | None, options: Ham10000Options
) -> tuple[list[str], list[str], list[Move]]:
    """Choose the split of each row: returns splits, groups and moves."""
    lesions = [row.lesion for row in rows]
    labels = [LABELS.index(row.label) for row in rows]
    indices = [(pair.first, pair.second) for pair in pairs]
    joined = join_groups(lesions, indices)
    draw = partial(split_by_group, labels, fractions=options.fractions, seed=options.seed)
    if options.duplicates == "refuse":
        drawn = draw(lesions) if given is None else None
        splits = drawn or [(given or {})[row.image] for row in rows]
        if apart := [(first, second) for first, second in indices if splits[first] != splits[second]]:
            named = some_of([f"{rows[first].image} = {rows[second].image}" for first, second in apart])
            raise DatasetError(
                f"near-identical images are on two sides of the split: {len(apart)} pairs ({named}); "
                "use --duplicates move to keep them together, or correct the split"
            )
        return splits, joined, []
    if given is None:
        return draw(joined), joined, []
    splits, moves = gather_groups([row.image for row in rows], joined, [given[row.image] for row in rows])
    return splits, joined, moves


def _refuse_torn_lesions(rows: Sequence[Row], given: Mapping[str, str]) -> None:
    kept = [row for row in rows if row.image in given]
    lesions = [row.lesion for row in kept]
    _, moves = gather_groups([row.image for row in kept], lesions, [given[row.image] for row in kept])
    if torn := sorted({move.group for move in moves}):
        raise DatasetError(
            f"lesions with images on two sides of the given split: {len(torn)} ({some_of(torn)}); "
            "use --duplicates move to bring each to one side, or correct the split"
        )


def _reconcile(expected: Sequence[str], found: Collection[str], message: str, *, mismatch: str) -> list[str]:
    """The expected ids that were not found: refused, or returned to be left out."""
    missing = [name for name in expected if name not in found]
    if missing and mismatch == "refuse":
        raise DatasetError(
            f"{message}: {len(missing)} ({some_of(missing)}); "
            "complete the download, or leave them out with --mismatch drop"
        )
    return missing


def _key(download: FolderDownload | ZipDownload, split_csv: Path | None, options: Mapping[str, Any]) -> str:
    """Changes with the source's files, the options and this program."""
    stats = [(path.name, path.stat()) for path in download.files()]
    files = [[name, *state_of(stat)] for name, stat in stats]
    given = sha256_of(split_csv) if split_csv is not None else None
    return digest_of_all(files, given, options)


def _items(
    rows: Sequence[Row], groups: Sequence[str], splits: Sequence[str], *, with_masks: bool
) -> dict[str, list[dict[str, Any]]]:
    items: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for row, group, split in zip(rows, groups, splits, strict=True):
        image = f"./{output.IMAGES}/{row.image}.jpg"
        label = {"label": row.label, "group": group}
        if with_masks:
            label = {"label": f"./{ham10000_masks.name_of(row.image)}", "group": group, "dx": row.label}
        items[split].append({"image": image, **label, **row.metadata})
    return items


def import_ham10000(source: Path, out: Path, options: Ham10000Options = DEFAULTS) -> Report:
    """Import a HAM10000 download.

    Args:
        source: the outer zip, or a folder with the part zips or the unpacked folders, and the metadata.
        out: folder to write `images/` (and `masks/`), `dataset.json` and `import_report.json` to: empty, new, or with
            an earlier import, which is replaced. The same call again writes nothing.
        options: see `Ham10000Options`.

    Raises:
        DatasetError: the download, the metadata, the given split or the output folder cannot be used.
        ConfigError: the file of the given split is missing.
    """
    split_csv, mismatch = options.split_csv, options.mismatch
    if split_csv is not None and not split_csv.is_file():
        raise ConfigError(f"there is no split file {split_csv.name}; name a CSV with image_id and split")

    output.check_output(out)
    download = open_download(source)
    told = {name: value for name, value in asdict(options).items() if name != "split_csv"}
    key = _key(download, split_csv, told)
    if done := earlier_import(Report, out, key):
        return done

    rows = _metadata_of(download)
    given = read_split(split_csv.read_bytes(), what=split_csv.name) if split_csv is not None else None
    without_split: list[str] = []
    if given is not None:
        ids = [row.image for row in rows]
        without_split = _reconcile(ids, given, "images that are not in the given split", mismatch=mismatch)
        _reconcile(sorted(given), set(ids), "images of the given split that are not in the metadata", mismatch=mismatch)
        if options.duplicates == "refuse":
            _refuse_torn_lesions(rows, given)

    with_masks = TASKS[options.task].has_masks
    named = [f"{row.image}.jpg" for row in rows]
    output.begin(out, [*named, *(ham10000_masks.name_of(row.image) for row in rows if with_masks)])
    stored, without_metadata = _store_images(download, out, {row.image: row for row in rows}, options.max_side)
    _reconcile(without_metadata, (), "images without metadata", mismatch=mismatch)
    without_image = _reconcile(
        [row.image for row in rows], stored, "rows of the metadata without image", mismatch=mismatch
    )
    rows = [row for row in rows if row.image in stored and (given is None or row.image in given)]
    masks: dict[str, int] = {}
    without_mask: list[str] = []
    unused_masks: list[str] = []
    if with_masks:
        sizes = {row.image: stored[row.image].size for row in rows}
        masks, unused_masks = ham10000_masks.store_masks(download, out, sizes)
        without_mask = _reconcile(list(sizes), masks, "images without mask", mismatch=mismatch)
        rows = [row for row in rows if row.image in masks]
    if not rows:
        raise DatasetError("no image has metadata and a place in the split; check that all come from one download")

    pairs = _find_pairs(rows, stored)
    splits, groups, moves = _split(rows, pairs, given, options)
    report = Report(
        is_repeated=False,
        counts=count_by_class([row.label for row in rows], splits),
        pairs=[_describe(pair, rows, stored) for pair in pairs],
        moves=[asdict(move) for move in moves],
        without_image=without_image,
        without_metadata=without_metadata,
        without_split=without_split,
        without_mask=without_mask,
        unused_masks=unused_masks,
    )
    files = {f"{row.image}.jpg": stored[row.image].size_bytes for row in rows}
    files |= {ham10000_masks.name_of(row.image): masks[row.image] for row in rows if with_masks}
    output.remove_stale(out, files)
    write_dataset_json(
        out,
        name=options.title,
        **(ORIGIN if options.title == TITLE else ANOTHER_ORIGIN),
        labels=LABELS_OF_TASK[options.task],
        records=_items(rows, groups, splits, with_masks=with_masks),
        task=options.task,
    )
    shown = {name: value for name, value in asdict(report).items() if name != "is_repeated"}
    output.finish(out, {"importer": "ham10000", "options": told, **shown}, key=key, files=files)
    return report
