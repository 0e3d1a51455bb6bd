"""The layouts of images and labels: dataset.json, a table, class folders, and, if asked for, folders of masks.

Each becomes a list of entries; `datasets` decides whether they can be trained on. Nothing outside the channels is read,
and nothing in them is written.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sagemaker_monai.data.class_folders import levels, read_class_folders
from sagemaker_monai.data.dataset_json import DATASET_JSON, IMPORT_REPORT, json_object, read_dataset_json
from sagemaker_monai.data.entries import Layout, visible
from sagemaker_monai.data.mask_files import join_asides, mask_remarks, pass_over_masks
from sagemaker_monai.data.mask_folders import read_mask_folders
from sagemaker_monai.data.mask_layouts import is_of_masks, read_mask_layout
from sagemaker_monai.data.mask_tables import read_mask_table
from sagemaker_monai.data.splitting import SPLITS
from sagemaker_monai.data.table_layout import read_table_layout, tables_in
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.remarks import remark
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.columns import Columns, split_of
from sagemaker_monai.tasks.label_codes import LabelCodes

NO_COLUMNS = Columns()
PRETRAINED = "pretrained"  # the channel with weights, not images


def _read_channel(name: str, root: Path, columns: Columns, *, has_masks: bool) -> Layout:
    """Read a channel in the first layout that is found in it, or in its only folder, and so on."""
    if not root.is_dir() or not visible(root):
        raise DatasetError(f"channel {name} is {'empty' if root.is_dir() else 'missing'}; give it a data set")
    passed_over = 0
    for place in levels(root):
        if (place / DATASET_JSON).is_file():
            content = json_object(place / DATASET_JSON)
            if is_of_masks(content):
                return _below(read_mask_layout(place, content), root, place)
            layout = read_dataset_json(place, content)
        elif (place / IMPORT_REPORT).is_file():
            raise DatasetError(
                f"channel {name} was not imported completely ({IMPORT_REPORT} is there, {DATASET_JSON} is not); run "
                "prepare again, which replaces what the first run wrote"
            )
        elif tables_in(place) and (of_masks := read_mask_table(place, columns, is_asked=has_masks)) is not None:
            return _below(of_masks, root, place)
        elif has_masks:
            passed_over += len(tables_in(place))
            continue
        elif not (tables := tables_in(place)):
            continue
        elif (of_tables := read_table_layout(place, columns)) is not None:
            layout = of_tables
        else:
            passed_over += len(tables)
            continue
        return pass_over_masks(_below(layout, root, place), place)
    said = (remark("tables_passed_over", passed_over),) * bool(passed_over)
    if has_masks:
        layout = read_mask_folders(root)
        return replace(layout, remarks=(*layout.remarks, *said))
    if any(path.is_dir() for path in visible(root)):
        layout = read_class_folders(root)
        return replace(layout, remarks=(*layout.remarks, *said))
    raise DatasetError(
        f"channel {name} has no dataset.json, no class folders and no table of images "
        f"(it holds {some_of([path.name for path in visible(root)])}); "
        "import a downloaded archive first (see prepare --help)"
    )


def _below(layout: Layout, root: Path, place: Path) -> Layout:
    """A layout that was found in a subfolder of the channel, with a remark about it."""
    if place == root:
        return layout
    depth = len(place.relative_to(root).parts)
    return replace(layout, remarks=(*layout.remarks, remark("data_set_below", depth)))


def _split_channels(channels: Mapping[str, Path]) -> dict[str, str]:
    """Map each channel to the split that its name stands for."""
    named = [name for name in channels if name != PRETRAINED]
    if len(named) == 1 and not split_of(named[0]):
        return {named[0]: "training"}
    splits = {name: split for name in named if (split := split_of(name))}
    if "training" not in splits.values():
        raise DatasetError(
            f"there is no training channel (channels: {some_of(sorted(named)) or 'none'}); name one training"
        )
    if idle := sorted(set(named) - set(splits)):
        raise DatasetError(
            f"channels that would have no effect: {some_of(idle)}; name images {', '.join(SPLITS)} and weights "
            f"{PRETRAINED}, or leave the channels out"
        )
    if len(set(splits.values())) < len(splits):
        raise DatasetError(f"two channels are for one split ({some_of(sorted(splits))}); give one of them")
    return splits


def read_channels(channels: Mapping[str, Path], columns: Columns = NO_COLUMNS, *, has_masks: bool = False) -> Layout:
    """Read the channel `training` (`train`, or the only one), and `validation` and `test` if given.

    Args:
        channels: name and folder of each; that of weights (`pretrained`) is skipped.
        columns: of tables, if named.
        has_masks: masks are asked for, so folders without dataset.json are searched for them.

    Returns:
        Classes and pictures; with several channels, names begin with the channel's. `labelled.read_labelled` interprets
        labels and groups.

    Raises:
        DatasetError: a channel is missing, empty, in no known layout, of no known use, the folder of another channel,
            or names a split that another channel is for.
    """
    splits = _split_channels(channels)
    if len(splits) == 1:
        [name] = splits
        layout = _read_channel(name, channels[name], columns, has_masks=has_masks)
        return replace(layout, remarks=layout.remarks + mask_remarks(layout.aside))
    if len({os.path.realpath(channels[name]) for name in splits}) < len(splits):
        raise DatasetError(
            f"two channels are one folder ({some_of(sorted(splits))}), so the model would be scored on images that it "
            "learned from: give each its own images, or only the training channel, from which the others are drawn"
        )
    layouts = {name: _read_channel(name, channels[name], columns, has_masks=has_masks) for name in splits}
    entries = []
    for name, layout in layouts.items():
        for entry in layout.entries:
            if entry.split not in (None, splits[name]):
                raise DatasetError(
                    f"channel {name} has images for {entry.split} ({some_of([entry.name])}) beside other channels for "
                    "splits; give either one channel with all splits or one channel for each"
                )
            prefixed = f"{name}/{entry.name}"
            group = prefixed if entry.group == entry.name else entry.group
            entries.append(replace(entry, name=prefixed, group=group, split=splits[name]))
    declared = {layout.labels for layout in layouts.values()}
    labels = declared.pop() if len(declared) == 1 else tuple(sorted({label for names in declared for label in names}))
    said = [(layout.task, layout.modality, layout.spatial_dims) for layout in layouts.values()]
    if len(set(said)) > 1:
        raise DatasetError("the channels are of different tasks or images; correct task, modality or tensorImageSize")
    task, modality, spatial_dims = said[0]
    remarks = tuple(dict.fromkeys(remark for layout in layouts.values() for remark in layout.remarks))
    aside = join_asides([layout.aside for layout in layouts.values()])
    sources = {layout.source for layout in layouts.values()}
    legends = {layout.legend for layout in layouts.values()}
    if len(legends) > 1:
        raise DatasetError("the channels' masks have other values or names; write one labels into each dataset.json")
    codes: dict[str, LabelCodes] = {}
    for layout in layouts.values():
        if unequal := [label for label, each in layout.codes.items() if codes.setdefault(label, each) != each]:
            raise DatasetError(
                f"the channels have different codes of {some_of(unequal)}; write the same codes into each dataset.json"
            )
    return Layout(
        labels,
        entries,
        task=task,
        modality=modality,
        spatial_dims=spatial_dims,
        source=sources.pop() if len(sources) == 1 else "",
        legend=legends.pop() if legends else None,
        codes=codes,
        remarks=remarks + mask_remarks(aside),
        aside=aside,
    )
