"""Structures of several values: nnU-Net's regions, values that are put together, and names in place of values."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagemaker_monai.data.legends import Legend, read_legend
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.masks.mask import Mask
from sagemaker_monai.tasks.label_maps import IGNORED
from sagemaker_monai.tasks.regions import Regions, paint

torch = pytest.importorskip("torch")
BRAIN = {"background": 0, "whole": [1, 2, 4], "core": [2, 4], "enhancing": 4}


def regions(labels, order=None):
    return read_legend(labels, order).regions


def shown(legend, name, values):
    """Where a structure of the legend is in a mask."""
    return np.isin(legend.label_map(np.asarray(values, np.uint16)), legend.members[legend.names.index(name)]).tolist()


@pytest.mark.parametrize("order", [None, [1, 2, 4]])
def test_regions_of_brain_tumours_are_parts_that_are_painted_one_over_the_other(order):
    legend = read_legend(BRAIN, order)

    assert legend.names == ("whole", "core", "enhancing")
    assert legend.regions == Regions(((1, 2, 3), (2, 3), (3,)), (1, 2, 3), (1, 2, 4))
    assert legend.label_map(np.array([0, 1, 2, 4], np.uint16)).tolist() == [0, 1, 2, 3]
    with pytest.raises(DatasetError, match=r"without a name \(3\).*1/2/4 whole, 2/4 core, 4 enhancing"):
        legend.label_map(np.array([3], np.uint16))


@pytest.mark.parametrize(("labels", "order", "names", "values"), [
    # KiTS: the masses without a tumour are cysts, 3.
    ({"kidney": [1, 2, 3], "masses": [2, 3], "tumour": 2}, [1, 3, 2], ("kidney", "masses", "tumour"), (1, 3, 2)),
    ({"tumour": 2, "kidney": [1, 2, 3], "masses": [3, 2]}, None, ("kidney", "masses", "tumour"), (1, 3, 2)),
    # 2 and 3 are nowhere apart; the answer has the one that is told.
    ({"a": [1, 2, 3], "b": 1}, [3, 1], ("a", "b"), (3, 1)), ({"a": [1, 2, 3], "b": 1}, None, ("a", "b"), (2, 1)),
    # Neither lies in the other.
    ({"a": [1, 2], "b": [2, 3]}, [1, 3], ("a", "b"), (1, 3)), ({"b": [2, 3], "a": [1, 2]}, [3, 1], ("b", "a"), (3, 1)),
    # One beside the others.
    ({"a": 9, "b": [1, 2], "c": [2]}, None, ("b", "c", "a"), (1, 2, 9)),
    ({"background": [0], "a": [1_035, 17], "b": 17}, None, ("a", "b"), (1_035, 17)),
])  # fmt: skip
def test_regions_are_written_with_the_values_that_are_told_or_their_own(labels, order, names, values):
    legend = read_legend(labels, order)

    assert legend.names == names
    assert tuple(legend.regions.values[part - 1] for part in legend.regions.painted) == values
    for name in names:
        told = labels[name] if isinstance(labels[name], list) else [labels[name]]
        every = sorted(legend.values)
        assert shown(legend, name, every) == [value in told for value in every]


@pytest.mark.parametrize(("labels", "order", "message"), [
    ({"a": [1, 2], "b": [2, 3]}, None, "has regions a and b that overlap, and neither lies in the other: say in regi"),
    ({"a": [1, 2], "b": 1, "c": 2}, None, "has no value in a that is not of a smaller region.*leave it out"),
    ({"a": [1, 2], "b": 1, "c": 2}, [1, 1, 2], "writes a so that it is lost in b"),
    ({"a": [1, 2], "b": 2}, [2, 2], "writes a so that it is lost in b or counts as it"),
    ({"b": 2, "a": [1, 2]}, [2, 1], "writes b so that it is lost in a"),
    ({"a": [1, 2], "b": [2, 3]}, [2, 3], "writes a so that it is lost in b or counts"),
    ({"a": [1, 2], "b": 2}, [3, 2], "gives a the value 3, which it does not have"),
    ({"a": [1, 2], "b": 2}, [1], "one value for each of the 2 regions"), ({"a": [1, 2], "b": 2}, "12", "one value"),
    ({"a": [1, 2], "b": 2}, [1, True], "one value"), ({"a": [1, 2], "b": [2, 1]}, None, "twice.*a and b"),
    ({"a": [0, 1], "b": 2}, None, "whole numbers from 1"), ({"a": [], "b": 2}, None, "whole numbers from 1"),
    ({"a": [1, "b"]}, None, "whole numbers from 1"), ({"a": [1.0]}, None, "whole numbers"),
    ({"a": [[1]]}, None, "whole"), ({"a": [True]}, None, "whole"), ({"a": [70_000]}, None, "whole"),
    ({" ": [1]}, None, "whole"), ({"a": [" "]}, None, "whole"), ({"background": [0]}, None, "0 structures"),
    ({"background": [0, 3], "a": [1]}, None, "background another value"),
    ({"background": 1, "a": [2]}, None, "background another value"),
    ({"background": 0, "a": [1, 2], "ignore": 2}, None, "its value in a structure"),
    ({"a": [1, 2], "ignore": [3, 4]}, None, "ignore of labels must have one value"),
    ({"a": [1, 2], "ignore": 3, "Ignore": 4}, None, "ignore twice"),
    ({"a": ["x", "y"], "b": "y"}, [1, 2], "names of structures; leave it out"),
    ({str(i): [i, i + 1] for i in range(1, 300)}, None, "names 299 structures"),
])  # fmt: skip
def test_regions_that_leave_doubt_are_refused(labels, order, message):
    with pytest.raises(DatasetError, match=message) as refused:
        read_legend(labels, order)
    assert "\n" not in str(refused.value)


def test_values_that_are_only_put_together_are_plain_structures():
    legend = read_legend({"background": 0, "hippocampus": [17, 53], "amygdala": [18, 54], "ignore": [255]})

    assert (legend.names, legend.regions) == (("hippocampus", "amygdala"), None)
    assert legend.label_map(np.array([0, 17, 18, 53, 54, 255], np.uint16)).tolist() == [0, 1, 2, 1, 2, IGNORED]
    assert legend.labels_of(Mask(np.array([[3, 4]], np.uint16), {3: "Amygdala", 4: "hippocampus"}))[0].tolist() == [
        [2, 1]
    ]


def test_names_are_for_masks_that_name_their_structures():
    legend = read_legend({"background": 0, "lungs": ["lung left", "Lung_Right"], "heart": "heart", "ignore": 9})
    mask = Mask(
        np.array([1, 2, 3, 5, 6], np.uint16), {1: "heart", 2: "lung_left", 3: "lung right", 5: "Ignore", 6: "rib"}
    )

    labels, findings = legend.labels_of(mask)

    assert labels.tolist() == [2, 1, 1, IGNORED, 0]
    assert findings == ("structures_left_out",)
    assert legend.is_named("LUNG LEFT")
    assert not legend.is_named("lungs")
    with pytest.raises(DatasetError, match=r"labels has names of structures .* the mask has values only"):
        legend.labels_of(Mask(mask.values))
    tumour = read_legend({"whole": ["oedema", "core"], "core": ["core"]})
    assert tumour.regions == Regions(((1, 2), (2,)), (1, 2), (1, 2))
    assert tumour.labels_of(Mask(np.array([0, 7, 8], np.uint16), {7: "Core", 8: "oedema"}))[0].tolist() == [0, 2, 1]


def test_other_values_of_the_same_regions_are_scored_as_the_model_s():
    model = read_legend(BRAIN)
    other = read_legend({"enhancing": 3, "core": [1, 3], "whole": [1, 2, 3], "ignore": 4})

    known = other.among(model.names, model.regions)

    assert known.names == model.names
    assert known.label_map(np.array([0, 1, 2, 3, 4], np.uint16)).tolist() == [0, 2, 1, 3, IGNORED]
    for labels in (
        {"whole": 1, "core": 2, "enhancing": 3},
        {"whole": [1, 2, 3, 4], "core": [2, 3], "enhancing": [3, 4]},
    ):
        order = None if labels["whole"] == 1 else [1, 2, 4]
        with pytest.raises(DatasetError, match=r"labels has the value \d in .* the model has no such part"):
            read_legend(labels, order).among(model.names, model.regions)
    with pytest.raises(DatasetError, match="labels has the value 2 in core, whole and no other"):
        model.among(model.names)


def test_a_legend_is_the_same_after_json():
    import json
    from dataclasses import asdict

    for labels in (BRAIN, {"a": [1, 2]}, {"a": 1, "ignore": 2}, {"a": ["x", "y"], "b": "y"}):
        legend = read_legend(labels)
        assert Legend.of(json.loads(json.dumps(asdict(legend)))) == legend


@settings(max_examples=50)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.sets(st.integers(1, 6), min_size=1), min_size=1),
    st.booleans(),
    st.data(),
)
def test_whatever_is_accepted_shows_each_region_where_its_values_are(sets, is_told, data):
    labels = {name: sorted(values) for name, values in sets.items()}
    order = [data.draw(st.sampled_from(values)) for values in labels.values()] if is_told else None
    try:
        legend = read_legend(labels, order)
    except DatasetError:
        assert len(labels) > 1
        return
    every = sorted(legend.values)
    for name, values in labels.items():
        assert shown(legend, name, every) == [value in values for value in every]
    if legend.regions is None:
        assert all(not set(a) & set(b) for a, b in itertools.combinations(labels.values(), 2))
        return
    # What the network finds of one region alone, with all that lies around it, is that region and not another's.
    for place, name in enumerate(legend.names):
        logits = torch.tensor([1.0 if sets[name] <= sets[other] else -1.0 for other in legend.names])
        part = int(paint(logits[:, None], legend.regions))
        found = {other for other, numbers in zip(legend.names, legend.regions.members, strict=True) if part in numbers}
        assert found == {other for other in legend.names if sets[name] <= sets[other]}, (place, part)
