"""A channel with a table that lists images and their masks: `image,mask[,patient_id][,split]`.

What the values of the masks mean stands in `labels.json`, as for folders of masks; without it they have one structure.
A cell with several names, separated by `;`, is a mask in parts. Rows without a mask are left out and counted.
"""

from dataclasses import replace
from pathlib import Path

from sagemaker_monai.data.entries import Layout
from sagemaker_monai.data.mask_files import owner_of
from sagemaker_monai.data.mask_folders import Pair, legend_of
from sagemaker_monai.data.mask_layouts import locate_masks
from sagemaker_monai.data.table_layout import names_in_cell, read_table_layout
from sagemaker_monai.messages.remarks import remark
from sagemaker_monai.storage.columns import Columns, is_missing, split_of
from sagemaker_monai.tasks.tasks import task_for


def read_mask_table(root: Path, columns: Columns, *, is_asked: bool) -> Layout | None:
    """The images of a channel's tables that have masks; None if its tables name no masks.

    Args:
        root: the channel.
        columns: that are named; that of labels is the one of masks.
        is_asked: masks are asked for; else a table is not read here that has another label as well, or whose images
            lie in several folders, which may be classes.

    Raises:
        DatasetError: as `table_layout.read_table_layout`, or nothing says what the values of the masks mean.
    """
    found = read_table_layout(root, columns, masks="asked" if is_asked else "alone")
    if found is None or not (is_asked or len({_folder_of(root, entry.name) for entry in found.entries}) == 1):
        return None
    whole = [entry for entry in found.entries if not is_missing(str(entry.label))]
    names = [names_in_cell(root, str(entry.label)) for entry in whole]
    masks, of_masks = locate_masks(root, names, [entry.image for entry in whole], what="the table's column of masks")
    entries = [replace(entry, label=label, mask=mask) for entry, (mask, label) in zip(whole, masks, strict=True)]
    legend = legend_of(root, [Pair(entry.image, entry.mask) for entry in entries if entry.mask is not None])
    missing = len(found.entries) - len(entries)
    remarks = (*found.remarks, *of_masks, *([remark("images_without_mask", missing)] if missing else []))
    return replace(found, labels=legend.names, entries=entries, task=task_for("mask"), legend=legend, remarks=remarks)


def _folder_of(root: Path, name: str) -> tuple[str, ...]:
    """The folders of an image, except for those that say image or are a split."""
    return tuple(word for word in owner_of(root / name, root) if split_of(word) is None)
