"""Which of the files that an importer found have a label, and which group each belongs to."""

import re
from collections.abc import Mapping, Sequence

from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare.import_report import Notices
from sagemaker_monai.prepare.labels_table import LabelTable, Line
from sagemaker_monai.prepare.matching import NAMED_KINDS, find_lines, find_unlabelled, refuse_mismatch, shown_lines
from sagemaker_monai.prepare.publish import Choices, Written

OWN = "case:"  # first part of the group of an image whose patient is unknown


def group_of(name: str, pattern: re.Pattern[str] | None) -> str:
    """The group that a name belongs to by the pattern, else one of its own."""
    match = pattern.search(name) if pattern is not None else None
    return f"match:{match[1]}" if match and match[1] else f"{OWN}{name}"


def refuse_untold(names: Sequence[str], pattern: re.Pattern[str] | None) -> None:
    """Refuse a --group-by that does not match some names.

    Raises:
        DatasetError: with some of the names.
    """
    if pattern is not None and (untold := [name for name in names if group_of(name, pattern).startswith(OWN)]):
        raise DatasetError(
            f"--group-by does not match some cases: {len(untold)} ({some_of(untold)}); correct it so that every case "
            "has a group; folders are part of a case's name"
        )


def warn_of_own_groups(images: Sequence[Written], notices: Notices) -> None:
    """Warn of images whose patient is unknown."""
    if own := sum(image.group.startswith(OWN) and image.line.group is None for image in images):
        options = "--group-by" if any(image.mask for image in images) else "--group-column or --group-by"
        notices.warnings.append(
            f"the patient of {own} images is unknown: images of one patient may be on two sides of the split; use "
            f"{options}"
        )


def label_names(
    names: Sequence[str],
    table: LabelTable,
    pattern: re.Pattern[str] | None,
    choices: Choices,
    notices: Notices,
    *,
    what: str,
    suffixes: Sequence[str] = (),
    dropped: Sequence[str] = (),
) -> Mapping[str, Line]:
    """The line of each name that has one.

    Args:
        names: of files or cases; if the lines name patients, `pattern` finds these in the names.
        table: of labels.
        pattern: of --group-by.
        choices, notices: of the import.
        what: what messages call an image.
        suffixes, dropped: as for `matching.find_lines`.

    Raises:
        DatasetError: names and lines do not fit together.
    """
    is_named = table.kind in NAMED_KINDS
    meant = {name: name if is_named else group_of(name, pattern).removeprefix("match:") for name in names}
    lines, remarks = find_lines(table, list(meant.values()), suffixes=suffixes, dropped=dropped, takes_folders=is_named)
    notices.notes.extend(each.message for each in remarks)
    labelled = {name: lines[key] for name, key in meant.items() if key in lines}
    used = {line.key for line in labelled.values()}
    unmatched = [line for line in table.lines if line.key not in used]
    bare = [name for name in names if name not in labelled]
    emptied = set(find_unlabelled(table, [meant[name] for name in bare], suffixes=suffixes, dropped=dropped))
    bare = [name for name in bare if meant[name] not in emptied]
    refuse_mismatch(table, unmatched, bare, mismatch=choices.mismatch)
    notices.leave_out("labels without images", shown_lines(table, unmatched))
    notices.leave_out("images without labels", bare)
    notices.count_unlabelled(table.unlabelled)
    if not labelled:
        raise DatasetError(f"no {what} has a label; check that files and labels belong together")
    return labelled
