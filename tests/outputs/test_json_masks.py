"""Masks of structures in JSON as run lengths: what they say, read back without numpy, and their limits."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sagemaker_monai.artifact.mask_predictor import describe
from sagemaker_monai.artifact.predictor import Answered
from sagemaker_monai.budget import Budget, spending
from sagemaker_monai.errors import PayloadTooLarge
from sagemaker_monai.images.volumes import Traits
from sagemaker_monai.serving.inference import Answer, output_fn

LABELS = ("liver", "flap")


def answered(mask, accept, labels=LABELS):
    traits = Traits(size=mask.shape)
    body, content_type = output_fn(Answer((Answered((describe(mask, labels, traits),), (traits,)),), "v"), accept)
    assert content_type == accept.partition(";")[0]
    return body


def structures_of(body):
    told = json.loads(body)
    return (told["predictions"][0] if "predictions" in told else told)["structures"]


def drawn(runs):
    """The mask of runs, voxel by voxel: the first index is the fastest."""
    assert runs["order"] == "F"
    flat = [place % 2 for place, count in enumerate(runs["counts"]) for _ in range(count)]
    mask = np.zeros(runs["size"], bool)
    for place, value in enumerate(flat):
        index = []
        for side in runs["size"]:
            place, step = divmod(place, side)
            index.append(step)
        mask[tuple(index)] = value
    assert len(flat) == mask.size
    return mask


def test_runs_are_those_of_coco_with_the_first_index_fastest():
    mask = np.array([[1, 0, 2], [1, 1, 0]], np.uint8)  # (W, H) = (2, 3); by columns of this text: 1 1, 0 1, 2 0

    told = structures_of(answered(mask, "application/json; mask=rle"))

    assert told["liver"]["mask"] == {"size": [2, 3], "order": "F", "counts": [0, 2, 1, 1, 2]}
    assert told["flap"]["mask"] == {"size": [2, 3], "order": "F", "counts": [4, 1, 1]}


@given(
    arrays(
        np.uint8, st.tuples(*[st.integers(1, 4)] * 3) | st.tuples(*[st.integers(1, 5)] * 2), elements=st.integers(0, 2)
    )
)
def test_any_mask_is_read_back_as_it_was(mask):
    for order in "CF":
        told = structures_of(answered(np.asarray(mask, order=order), 'application/jsonlines;mask="RLE"'))

        for value, label in enumerate(LABELS, start=1):
            assert np.array_equal(drawn(told[label]["mask"]), mask == value)
            assert sum(told[label]["mask"]["counts"][1::2]) == told[label]["voxels"]
            assert all(told[label]["mask"]["counts"][1:])


@pytest.mark.parametrize("accept", ["application/json", "application/json; mask=png", "application/json; unmask=rle"])
def test_nobody_gets_runs_who_did_not_ask(accept):
    assert "mask" not in structures_of(answered(np.ones((2, 2), np.uint8), accept))["liver"]


def test_a_table_has_no_runs():
    assert b"counts" not in answered(np.ones((2, 2), np.uint8), "text/csv; mask=rle")


@pytest.mark.parametrize("limits", [(30_000, 1 << 40), (1 << 40, 1_000_000)], ids=["memory", "work"])
def test_runs_that_do_not_fit_are_refused_before_they_are_written(limits):
    stripes = (np.indices((40, 40, 2)).sum(axis=0) % 2).astype(np.uint8)
    calm = np.zeros_like(stripes)

    def ask(mask):
        with spending(None):
            traits = Traits(size=mask.shape)
            answer = Answer((Answered((describe(mask, LABELS, traits),), (traits,)),), "v")
        with spending(Budget(*limits)):
            return output_fn(answer, "application/json; mask=rle")[0]

    assert structures_of(ask(calm))["liver"]["mask"]["counts"] == [3200]
    with pytest.raises(PayloadTooLarge, match="runs"):
        ask(stripes)
