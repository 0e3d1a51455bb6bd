"""Upload a data set to S3 (`make prepare-s3 DATA=folder`), checked beforehand and verified by S3 on arrival.

It uploads what `train` reads of the folder: dataset.json or the CSV file, images, series folders, volumes and masks;
nothing else. Files are de-identified on the way (upload_privacy.py), and names that may identify a patient are refused,
because a key is not secret. The list of images goes last: a prefix that has it is complete. Objects that exist already
are not sent again, even if the run that sent them was interrupted.
"""

import argparse
import os
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sagemaker_monai.data.dataset_json import DATASET_JSON
from sagemaker_monai.data.entries import image_files
from sagemaker_monai.data.layouts import PRETRAINED, read_channels
from sagemaker_monai.data.mask_folders import LABELS_JSON
from sagemaker_monai.data.shards import MANIFEST, SHARD_BYTES, manifest_text, plan_shards, write_shards
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.messages.progress import track
from sagemaker_monai.storage.file_names import is_litter
from sagemaker_monai.storage.tables import is_table
from sagemaker_monai_aws.client.content_types import DICOM, type_of_file
from sagemaker_monai_aws.core import command
from sagemaker_monai_aws.core.calls import Call
from sagemaker_monai_aws.core.command import Context, say
from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.core.names import split_s3
from sagemaker_monai_aws.core.places import place
from sagemaker_monai_aws.data import upload, upload_privacy
from sagemaker_monai_aws.data.keys import both_file_and_folder, masked, private_columns, private_in, unusable
from sagemaker_monai_aws.data.upload import Item, Uploader
from sagemaker_monai_aws.data.upload_privacy import Cleaning, plan_cleaning

NAME = "prepare-s3"
SHOWN = 3  # names in a message, and requests in a dry run besides the last
SHARDS_AHEAD = 4  # on disk at a time
HEADERS_ALONE = (".hdr", ".hdr.gz", ".mhd", ".nhdr")
MIB = 1 << 20
SEGMENT, SEGMENT_WITHIN = b"\nSegment0_", 1 << 16  # of a .seg.nrrd's header, and where it comes


@dataclass(frozen=True)
class Found:
    """What is in a folder: names below it of what goes, the lists of pictures at the end, and of what stays.

    Attributes:
        names: of what goes.
        others: how many files stay.
        masks: those of the names that are masks.
    """

    names: list[str]
    others: int
    masks: frozenset[str] = frozenset()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("folder", type=Path, help="data set: dataset.json, class folders or one CSV file")
    add("--name", default="training", help="below PREFIX/data/ (default: %(default)s); weights: pretrained")
    add("--shards", action=argparse.BooleanOptionalAction, default=False,
        help="as a few tar files, for more than about ten thousand pictures; needs dataset.json")  # fmt: skip
    add("--shard-mib", type=int, default=SHARD_BYTES // MIB, help="size of one (default: %(default)s)")
    add("--parallel", type=int, default=16, help="uploads at a time (default: %(default)s)")
    add("--allow-keys", action="store_true",
        help="upload although names seem to tell who a patient is; read the messages about them first")  # fmt: skip
    add("--delete-others", action="store_true", help="delete objects at the same place in S3 that are not in the "
        "folder; needs s3:DeleteObject, which `make iam` grants to no one")  # fmt: skip
    upload_privacy.add_options(parser)


def find(folder: Path, name: str) -> Found:
    """What of a folder goes to S3.

    Args:
        folder: of the data set; of weights everything goes.
        name: of the channel that it becomes.

    Raises:
        CommandError: there is no folder, a link in it, or no data set.
    """
    if not folder.is_dir():
        raise CommandError(f"there is no folder {folder}")
    every = sorted(_walk(folder, folder))
    if name == PRETRAINED:
        return Found(every, 0)
    try:
        layout = read_channels({"training": folder.absolute()})
    except DatasetError as error:
        raise CommandError(f"`train` cannot read this as a data set: {error}") from error
    columns = private_columns({column for entry in layout.entries for column in entry.metadata})
    if columns:
        raise CommandError(f"the list of images has columns that identify people ({', '.join(columns)}): "
                           "remove them, training does not use them")  # fmt: skip
    root = folder.absolute()
    if layout.source == "table" and layout.legend is not None and LABELS_JSON in every:
        raise CommandError(f"{LABELS_JSON} beside a table of masks does not go to S3: list the images and masks in "
                           f"{DATASET_JSON}, whose labels name the values")  # fmt: skip
    drawn = [path for entry in layout.entries for path in entry.annotator_masks.values() if path.is_file()]
    of_images, masks = (
        {file.relative_to(root).as_posix() for image in images if image is not None for file in image_files(image)}
        for images in (
            (entry.image for entry in layout.entries),
            (*(entry.mask for entry in layout.entries), *drawn),
        )
    )
    pictures = of_images | masks
    if halves := [name for name in pictures if name.lower().endswith(HEADERS_ALONE)]:
        raise CommandError(f"{len(halves)} volumes are headers without their data, which is in other files "
                           f"({masked(min(halves))}): save them as .nii.gz, .nrrd or .mha")  # fmt: skip
    lists = [each for each in every if "/" not in each and each.lower().endswith(".csv")]
    lists = [DATASET_JSON] if DATASET_JSON in every else lists
    _check_list(layout.source, every, lists)
    # A hidden file that the list of pictures names is meant; the walk, which refuses links, has not seen it.
    if linked := [name for name in sorted(pictures - set(every)) if (folder / name).is_symlink()]:
        raise CommandError(f"the folder has a link ({masked(linked[0])}, letters masked): put the file itself there")
    names = sorted(pictures) + lists
    return Found(names, len({*every} - {*names}), frozenset(masks))


def check_masks(folder: Path, masks: Collection[str]) -> None:
    """Refuse masks that name their structures themselves: the names are text, which de-identification takes away.

    Raises:
        CommandError: there are some.
    """
    naming = [name for name in sorted(masks) if type_of_file(folder / name) == DICOM or _names_segments(folder / name)]
    if naming:
        raise CommandError(
            f"{len(naming)} masks name their structures in DICOM or in a header, which de-identification would take "
            f"away ({masked(naming[0])}, letters masked): save them as NIfTI with the values of dataset.json, or "
            "--no-deidentify if they identify nobody"
        )


def _names_segments(path: Path) -> bool:
    with path.open("rb") as file:
        return SEGMENT in file.read(SEGMENT_WITHIN)


def _check_list(source: str, every: list[str], lists: list[str]) -> None:
    """Refuse a data set whose list would not go to S3, or would go with more than the list.

    Raises:
        CommandError: the list is a workbook, or lies in a folder below.
    """
    others = [each for each in every if "/" not in each and is_table(Path(each)) and not each.lower().endswith(".csv")]
    if source == "table" and (others or not lists):
        raise CommandError(
            "the list of images must be a CSV file beside the images: save it as one, for a workbook can hold more "
            "than the list, or make a data set of them with `prepare pictures`"
        )
    if source == "dataset.json" and not lists:
        raise CommandError("the data set lies in a folder below the one that was named: name that one")


def _walk(root: Path, folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_litter(entry.name):
                continue
            path = Path(entry.path)
            if entry.is_symlink():
                shown = masked(path.relative_to(root).as_posix())
                raise CommandError(f"the folder has a link ({shown}, letters masked): put the file itself there")
            if entry.is_dir():
                yield from _walk(root, path)
            else:
                yield path.relative_to(root).as_posix()


def check_names(names: list[str], prefix: str, *, allow_private: bool) -> None:
    """Refuse names that may identify a person, and invalid keys.

    Raises:
        CommandError: with positions and masked names only.
    """
    if faults := [(index, why) for index, name in enumerate(names, 1) if (why := unusable(prefix + name))]:
        index, why = faults[0]
        raise CommandError(f"{len(faults)} names cannot be keys: number {index}, {masked(names[index - 1])}, {why}: "
                           "rename the file")  # fmt: skip
    found = [(index, why) for index, name in enumerate(names, 1) if (why := private_in(name))]
    if not found or allow_private:
        return
    shown = "; ".join(f"number {index}, {masked(names[index - 1])}: {why}" for index, why in found[:SHOWN])
    raise CommandError(
        f"{len(found)} of {len(names)} names may identify a patient (letters and digits masked, in "
        f"alphabetical order): {shown}: rename the files to pseudonyms, or add --allow-keys if they identify nobody"
    )


def work(context: Context) -> int:
    """Check the folder, then upload what is not there."""
    account, options = context.account, context.options
    if options.parallel < 1:
        raise CommandError(f"--parallel must be at least 1, got {options.parallel}")
    found = find(options.folder, options.name)
    bucket, key = split_s3(place(account, options, "data", options.name))
    prefix = f"{key}/"
    cleaning = _cleaning(found, options)
    check_names([f"{options.name}/{key}" for key in cleaning.keys.values()], prefix.removesuffix(f"{options.name}/"),
                allow_private=options.allow_keys)  # fmt: skip
    sizes = {name: (options.folder / name).stat().st_size for name in found.names}
    _report(found, sizes)
    targets = _targets(options, {cleaning.keys[name]: size for name, size in sizes.items()})
    if options.dry_run:
        return _dry_run(context, bucket, prefix, targets)
    stored = upload.stored_below(account, bucket, prefix)
    wanted = {prefix + name for name in targets}
    others = sorted(set(stored) - wanted)
    if clash := both_file_and_folder(wanted | set(stored)):
        raise CommandError(f"{len(clash)} keys are files here and folders in S3, or the other way round: upload under "
                           "another --name, or remove what is there")  # fmt: skip
    context.after_interrupt = f"what is uploaded stays below s3://{bucket}/{prefix}: the same command goes on there"
    uploader = Uploader(account, bucket, stored, options.kms_key, options.parallel)
    sent = _send(context, uploader, prefix, cleaning)
    # Files that were cleaned have another size, so that there may be another shard than was planned.
    _others(context, bucket, prefix, sorted(set(others) - {each.item.key for each in sent}))
    new = [each for each in sent if each.is_new]
    say(NAME, f"{len(new)} objects uploaded, {len(sent) - len(new)} were there; S3 has verified their checksums")
    command.result({"S3Uri": f"s3://{bucket}/{prefix}", "objects": len(sent),
                    "size_bytes": sum(each.size_bytes for each in sent), "uploaded": len(new)})  # fmt: skip
    return 0


def _report(found: Found, sizes: dict[str, int]) -> None:
    empty = [name for name, size in sizes.items() if not size]
    if found.others:
        say(NAME, f"{found.others} files of the folder are not uploaded: training does not read them")
    if empty:
        shown = ", ".join(masked(name) if private_in(name) else name for name in empty[:SHOWN])
        say(NAME, f"{len(empty)} files are empty ({shown}): training will refuse them")
    total = sum(sizes.values())
    say(NAME, f"{len(sizes)} files, {total / MIB:.1f} MiB; prices of S3 are not in the table of `make prices`: storage "
              "is paid by month and size, requests by their number")  # fmt: skip


def _targets(options: argparse.Namespace, sizes: dict[str, int]) -> dict[str, int]:
    """Names below the prefix, in the order of uploading, with their sizes; 0 for the manifest yet to be written."""
    if not options.shards:
        return sizes
    if DATASET_JSON not in sizes:
        raise CommandError(f"shards need {DATASET_JSON}: `make process` or the package's prepare writes it")
    try:
        shards = plan_shards(options.folder, shard_bytes=options.shard_mib * MIB)
    except (ConfigError, DatasetError) as error:
        raise CommandError(str(error)) from error
    return {shard.name: shard.size_bytes for shard in shards} | {DATASET_JSON: sizes[DATASET_JSON], MANIFEST: 0}


def _dry_run(context: Context, bucket: str, prefix: str, targets: dict[str, int]) -> int:
    calls = list(
        upload.plan(bucket, ((prefix + name, size) for name, size in targets.items()), context.options.kms_key)
    )
    shown = calls if len(calls) <= SHOWN + 1 else [*calls[:SHOWN], calls[-1]]
    left = len(calls) - len(shown)
    lines = [f"{left} more requests like these are left out"] if left else []
    return command.show_plan(context, NAME, shown, [*lines, "existing objects with the same content are kept"])


def _cleaning(found: Found, options: argparse.Namespace) -> Cleaning:
    if options.name == PRETRAINED:
        return Cleaning(options.folder, {name: name for name in found.names})
    try:
        if options.deidentify:
            check_masks(options.folder, found.masks)
        cleaning = plan_cleaning(options.folder, found.names, options)
    except OSError as error:
        raise CommandError(f"a file cannot be read ({error.strerror}): leave the folder unchanged") from error
    for line in cleaning.lines:
        say(NAME, line)
    return cleaning


def _send(context: Context, uploader: Uploader, prefix: str, cleaning: Cleaning) -> list[upload.Sent]:
    """Upload images or shards, and when all are there what lists them."""
    try:
        with tempfile.TemporaryDirectory(prefix="clean-") as temporary:
            if context.options.shards:
                folder = cleaning.staged(Path(temporary)) if cleaning.cleans else cleaning.folder
                return _send_shards(context, uploader, prefix, folder)
            names = list(cleaning.keys)
            last = [name for name in names if name == DATASET_JSON or ("/" not in name and name.endswith(".csv"))]
            first = names[: len(names) - len(last)]
            sent: list[upload.Sent] = []
            for part in (first, last):
                made = cleaning.files(part, Path(temporary))
                items = (Item(path, prefix + key, is_temporary=is_made) for key, path, is_made in made)
                sent += track(uploader.send(items), total=len(part), what="uploading files")
            return sent
    except OSError as error:
        raise CommandError(f"a file cannot be read ({error.strerror or 'timed out'}): leave the folder unchanged"
                           ) from error  # fmt: skip


def _send_shards(context: Context, uploader: Uploader, prefix: str, folder: Path) -> list[upload.Sent]:
    options = context.options
    shards = []
    with tempfile.TemporaryDirectory(prefix="shards-") as temporary:
        out = Path(temporary)

        def items() -> Iterator[Item]:
            for shard in write_shards(folder, out, shard_bytes=options.shard_mib * MIB):
                shards.append(shard)
                assert shard.path is not None
                yield Item(shard.path, prefix + shard.name, is_temporary=True)

        try:
            sent = list(uploader.send(items(), ahead=SHARDS_AHEAD))
            manifest = out / MANIFEST
            manifest.write_text(manifest_text(folder, shards), encoding="utf-8")
        except DatasetError as error:
            raise CommandError(str(error)) from error
        for item in (Item(folder / DATASET_JSON, prefix + DATASET_JSON), Item(manifest, prefix + MANIFEST)):
            sent += uploader.send([item])
    return sent


def _others(context: Context, bucket: str, prefix: str, others: list[str]) -> None:
    if not others:
        return
    if not context.options.delete_others:
        say(NAME, f"{len(others)} objects below s3://{bucket}/{prefix} are not in the folder and stay: a job fetches "
                  "them too, and class folders train on them; --delete-others deletes them")  # fmt: skip
        return
    remaining = iter(others)
    while batch := list(islice(remaining, 1000)):
        assert all(key.startswith(prefix) for key in batch)
        delete = {"Objects": [{"Key": key} for key in batch], "Quiet": True}
        answer = context.account.send(Call("s3", "DeleteObjects", {"Bucket": bucket, "Delete": delete}))
        if errors := answer.get("Errors"):
            raise CommandError(f"{len(errors)} objects could not be deleted ({errors[0].get('Code')}): they stay")
    say(NAME, f"deleted {len(others)} objects that are not in the folder")
