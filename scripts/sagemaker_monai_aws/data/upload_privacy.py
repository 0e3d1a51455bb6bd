"""How files are uploaded without the data that identifies patients.

DICOM files are de-identified on the way (`write_deidentified`), all of them: a file's own claim
(PatientIdentityRemoved) does not count, and those that `prepare dicom_folder` wrote go the same way. Pictures and
volumes go without anything beside the image (`clean_files`), told by their content and not by their names. Names and
lists follow. What cannot be cleaned, and what is nothing that is read, is refused before anything is sent.

The salt must be the same in the next run, or that would upload everything again under other UIDs. So one that nobody
gave is made once and kept for this project, in a file of this user, outside of the data set.
"""

import argparse
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sagemaker_monai.data.dataset_json import DATASET_JSON
from sagemaker_monai.deidentification.burned_in import burned_in_risk
from sagemaker_monai.deidentification.clean_files import (
    ARCHIVE,
    DICOM,
    PICTURE,
    VOLUME,
    can_go,
    clean_file,
    sort_of,
)
from sagemaker_monai.deidentification.deidentify import BURNED_IN, Deidentifier
from sagemaker_monai.deidentification.identity import Identity
from sagemaker_monai.deidentification.picture_metadata import is_picture
from sagemaker_monai.deidentification.proved import write_deidentified
from sagemaker_monai.deidentification.pseudonyms import check_salt
from sagemaker_monai.errors import CallerError, ConfigError
from sagemaker_monai.images.dicom.headers import read_header, read_instance
from sagemaker_monai.images.signatures import HEAD_BYTES
from sagemaker_monai.messages.progress import track
from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.data.identifiers import Identifiers, Replacer, rewritten
from sagemaker_monai_aws.data.keys import masked

SALT = "DEIDENTIFY_SALT"
MOST_SALT_BYTES = 4096
LOSSES = {VOLUME: "volumes lose the text in their headers", PICTURE: "pictures lose their camera metadata"}
SHOWN = 3

Clean = Callable[[Path, Path], None]  # from a file to another


def add_options(parser: argparse.ArgumentParser) -> None:
    """How files are cleaned."""
    add = parser.add_argument
    add("--deidentify", action=argparse.BooleanOptionalAction, default=True,
        help="DICOM by the profile of PS3.15, pictures and volumes without anything beside the image")  # fmt: skip
    add("--salt-file", type=Path, metavar="FILE", help=f"secret for new UIDs, names and dates (default: {SALT}; else "
        "one that is made once and kept for this user and project)")  # fmt: skip
    add("--burned-in", choices=BURNED_IN, default="refuse",
        help="DICOM pictures that may have text about the patient in them (default: %(default)s)")  # fmt: skip


@dataclass
class Cleaning:
    """How the files of a folder go to S3.

    Attributes:
        folder: of the data set.
        keys: name in the folder -> name below the prefix in S3, in the order of uploading.
        cleans: name in the folder -> what makes the file that goes; others go as they are.
        lines: what to say about it.
    """

    folder: Path
    keys: dict[str, str]
    cleans: dict[str, Clean] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def files(self, names: Sequence[str], temporary: Path) -> Iterator[tuple[str, Path, bool]]:
        """Key, file and whether it is a temporary one, of each name; each is made when it is asked for.

        Raises:
            CommandError: a file cannot be de-identified.
        """
        for number, name in enumerate(names):
            if name not in self.cleans:
                yield self.keys[name], self.folder / name, False
                continue
            target = temporary / f"{number:08d}"
            _make(self.cleans[name], self.folder / name, target, name)
            yield self.keys[name], target, True

    def staged(self, temporary: Path) -> Path:
        """A folder with all files as they go, for shards; links where nothing changes."""
        for name, key in track(self.keys.items(), total=len(self.keys), what="cleaning files"):
            target = temporary / key
            target.parent.mkdir(parents=True, exist_ok=True)
            if name in self.cleans:
                _make(self.cleans[name], self.folder / name, target, name)
            else:
                _linked(self.folder / name, target)
        return temporary


def _make(clean: Clean, source: Path, target: Path, name: str) -> None:
    try:
        clean(source, target)
    except CallerError as error:
        raise CommandError(f"{masked(name)} (letters masked) cannot be de-identified: {error}") from error


def _linked(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system
        target.write_bytes(source.read_bytes())


def plan_cleaning(folder: Path, names: Sequence[str], options: argparse.Namespace) -> Cleaning:
    """Look at every file of a data set, and say how it goes.

    Args:
        folder: of the data set.
        names: of its files, in the order of uploading.
        options: of `add_options`, with project, allow_keys and dry_run.

    Raises:
        CommandError: something cannot be cleaned, or nobody gave a salt that can be used.
    """
    plan = Cleaning(folder, {name: name for name in names})
    if not options.deidentify:
        plan.lines.append("NOTHING IS DE-IDENTIFIED (--no-deidentify): all patient data in the files goes to S3")
        return plan
    sorts = _sorts(folder, names)
    if archives := [name for name, sort in sorts.items() if sort == ARCHIVE]:
        raise CommandError(f"{len(archives)} archives cannot be de-identified on the way ({_some(archives)}): unpack "
                           "them, each series into a folder")  # fmt: skip
    _plan_others(plan, {name: sort for name, sort in sorts.items() if sort != DICOM})
    if dicom := dict.fromkeys(name for name, sort in sorts.items() if sort == DICOM):
        _plan_dicom(plan, dicom, [name for name in names if name not in sorts], options)
    return plan


def _is_list(name: str) -> bool:
    return name == DATASET_JSON or ("/" not in name and name.lower().endswith(".csv"))


def _sorts(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """What each file is, by its content; the lists of images are left out."""
    sorts: dict[str, str] = {}
    for name in names:
        try:
            sort = sort_of(folder / name)
        except CallerError as error:
            raise CommandError(f"{masked(name)} (letters masked): {error}") from error
        # A list begins as none of the formats that are read, which here are all told by their first bytes.
        if not (_is_list(name) and sort == PICTURE and not is_picture(_head(folder / name))):
            sorts[name] = sort
    return sorts


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _plan_others(plan: Cleaning, sorts: dict[str, str]) -> None:
    """Volumes and pictures."""
    refused: dict[str, CallerError] = {}
    counts = dict.fromkeys(LOSSES, 0)
    for name, sort in track(sorts.items(), total=len(sorts), what="looking at pictures and volumes"):
        path = plan.folder / name
        try:
            if not path.stat().st_size or can_go(path):
                continue
            plan.cleans[name] = clean_file
            counts[sort] += 1
        except CallerError as error:
            refused[name] = error
    if refused:
        raise CommandError(f"{len(refused)} files cannot be de-identified on the way ({_some([*refused])}; the first: "
                           f"{next(iter(refused.values()))}): leave them out or save them as another format, or "
                           "--no-deidentify if they identify nobody")  # fmt: skip
    plan.lines += [f"{count} {LOSSES[sort]}" for sort, count in counts.items() if count]


def _plan_dicom(plan: Cleaning, names: dict[str, None], lists: list[str], options: argparse.Namespace) -> None:
    found, risky = Identifiers(), []
    people: dict[str, Identity] = {}
    for name in track(names, total=len(names), what="reading DICOM headers"):
        try:
            header = read_header(plan.folder / name)
        except CallerError as error:
            raise CommandError(f"{masked(name)} (letters masked): {error}") from error
        people[name] = found.add(header)
        if burned_in_risk(header) in ("stated", "likely"):
            risky.append(name)
    if risky and options.burned_in == "refuse":
        raise CommandError(f"{len(risky)} of {len(names)} DICOM images may have text about the patient burned in, by "
                           f"their headers ({_some(risky)}): leave them out, or give --burned-in black_out or, after "
                           "after a person has checked them, keep")  # fmt: skip
    salt, line = find_salt(options, plan.folder)
    plan.lines += [line, f"{len(names)} DICOM files are de-identified (PS3.15, basic profile), each is proved clean"]
    deidentifier = Deidentifier(salt, burned_in=options.burned_in)
    plan.cleans |= dict.fromkeys(names, lambda source, target: deidentify(deidentifier, source, target))
    _rename(plan, lists, Replacer(found, salt), people, allow_private=options.allow_keys)


def deidentify(deidentifier: Deidentifier, source: Path, target: Path) -> None:
    """Write a de-identified file that was proved to be clean.

    Raises:
        CallerError: it cannot be read or de-identified, or not be proved to be clean.
    """
    write_deidentified(read_instance(source), target, deidentifier)


def _rename(
    plan: Cleaning, lists: list[str], replace: Replacer, people: Mapping[str, Identity], *, allow_private: bool
) -> None:
    """Let names and lists follow the files."""
    plan.keys = {name: replace.name(key) for name, key in plan.keys.items()}
    if len(set(plan.keys.values())) < len(plan.keys):
        raise CommandError("two files would get the same name once patient identifiers are removed: rename them")
    left = [name for name in plan.keys if replace.is_telling(name, people.get(name))]
    columns: list[str] = []
    for name in lists:
        before = (plan.folder / name).read_bytes()
        try:
            after, telling_keys = rewritten(name, before, replace)
        except UnicodeDecodeError as error:
            raise CommandError("the list of images is not UTF-8: save it as UTF-8") from error
        columns += telling_keys
        if after != before:
            plan.cleans[name] = partial(_put, after)
    if (left or columns) and not allow_private:
        where = [f"{len(left)} names of files ({_some(left)})"] if left else []
        where += [f"the list of images ({', '.join(dict.fromkeys(columns))})"] if columns else []
        raise CommandError(f"names or numbers of patients, by the files' headers, stand in {' and '.join(where)}: "
                           "remove them there, or add --allow-keys if they identify nobody")  # fmt: skip
    changed = sum(name != key for name, key in plan.keys.items())
    if changed:
        plan.lines.append(f"{changed} files have new names, because theirs had UIDs or patient numbers in them")


def _put(content: bytes, _source: Path, target: Path) -> None:
    target.write_bytes(content)


def find_salt(options: argparse.Namespace, folder: Path) -> tuple[bytes, str]:
    """The secret, and what to say about it.

    Raises:
        CommandError: it cannot be read, is too short, or would lie in the data set.
    """
    try:
        if options.salt_file is None and os.environ.get(SALT):
            salt = os.environ[SALT].encode("utf-8", "surrogateescape")
            check_salt(salt)
            return salt, f"the salt is that of {SALT}"
        path = options.salt_file or kept_salt(options.project)
        if path.resolve().is_relative_to(folder.resolve()):
            raise CommandError(f"{path} is inside the data set: keep the salt elsewhere")
        is_new = options.salt_file is None and not path.exists()
        if is_new and options.dry_run:
            return secrets.token_bytes(32), f"a salt would be made and kept in {path}"
        if is_new:
            _write_salt(path)
        salt = path.read_bytes()[:MOST_SALT_BYTES].strip()
        check_salt(salt)
    except ConfigError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"the salt cannot be read or kept ({error.strerror}): give --salt-file, or set {SALT}"
                           ) from error  # fmt: skip
    told = "was made and is kept" if is_new else "is that"
    return salt, f"the salt {told} in {path}: keep it secret, and reuse it for further uploads of the same patients"


def kept_salt(project: str) -> Path:
    """Where the salt of a project is kept.

    Source: XDG Base Directory Specification 0.8.
    """
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "sagemaker-monai" / f"{project}.salt"


def _write_salt(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.touch(mode=0o600)
    try:
        part.write_text(secrets.token_hex(32) + "\n")
        path.hardlink_to(part)  # of two runs the first one's salt stays
    except FileExistsError:
        pass
    finally:
        part.unlink()


def _some(names: Sequence[str]) -> str:
    return ", ".join(masked(name) for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
