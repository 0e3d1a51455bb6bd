from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagemaker_monai.data.splitting import SPLITS, split_by_group
from sagemaker_monai.errors import ConfigError

THIRDS = (0.7, 0.1, 0.2)

# (class, size) of each group: pure groups. Mixed ones are lists of classes.
pure_groups = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6)), min_size=1, max_size=60)
mixed_groups = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=6), min_size=1, max_size=40)
fractions = st.tuples(st.integers(1, 20), st.integers(0, 20), st.integers(0, 20)).map(
    lambda parts: tuple(part / sum(parts) for part in parts)
)


def flat(groups):
    """Lists of classes, one a group, as labels and group names of images."""
    pairs = [(label, f"g{index}") for index, labels in enumerate(groups) for label in labels]
    return [label for label, _ in pairs], [group for _, group in pairs]


@given(mixed_groups, fractions, st.integers(0, 1000))
def test_no_group_is_on_two_sides(groups, shares, seed):
    labels, names = flat(groups)
    splits = split_by_group(labels, names, fractions=shares, seed=seed)

    sides = defaultdict(set)
    for name, split in zip(names, splits, strict=True):
        sides[name].add(split)
    assert len(splits) == len(labels)
    assert all(len(found) == 1 for found in sides.values())


@given(mixed_groups, fractions, st.integers(0, 1000))
def test_every_class_is_in_training_and_no_image_in_a_split_without_a_share(groups, shares, seed):
    labels, names = flat(groups)
    splits = split_by_group(labels, names, fractions=shares, seed=seed)

    assert {label for label, split in zip(labels, splits, strict=True) if split == "training"} == set(labels)
    assert set(splits) <= {split for split, share in zip(SPLITS, shares, strict=True) if share > 0}


@given(pure_groups, fractions, st.integers(0, 1000))
def test_a_class_with_as_many_groups_as_splits_is_in_each(groups, shares, seed):
    labels, names = flat([[label] * size for label, size in groups])
    splits = split_by_group(labels, names, fractions=shares, seed=seed)

    wanted = {split for split, share in zip(SPLITS, shares, strict=True) if share > 0}
    for label, count in Counter(label for label, _ in groups).items():
        found = {split for other, split in zip(labels, splits, strict=True) if other == label}
        assert len(found) == min(count, len(wanted))


@given(mixed_groups, st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter(groups, seed, random):
    labels, names = flat(groups)
    splits = dict(zip(names, split_by_group(labels, names, fractions=THIRDS, seed=seed), strict=True))

    images = list(zip(labels, names, strict=True))
    random.shuffle(images)
    labels, names = zip(*images, strict=True)
    assert dict(zip(names, split_by_group(labels, names, fractions=THIRDS, seed=seed), strict=True)) == splits


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=150, max_size=250),
    st.sampled_from([THIRDS, (0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.9, 0.1, 0.0)]),
)
def test_every_class_follows_the_fractions_to_about_one_group(groups, shares):
    labels, names = flat([[label] * size for label, size in groups])
    splits = split_by_group(labels, names, fractions=shares, seed=0)

    for label, total in Counter(labels).items():
        for split, share in zip(SPLITS, shares, strict=True):
            count = sum(pair == (label, split) for pair in zip(labels, splits, strict=True))
            assert abs(count - share * total) <= 5 + 1  # the largest group, and rounding


def test_large_groups_are_in_every_split():
    labels, names = flat([[0] * size for size in (1, 4) for _ in range(50)])
    splits = split_by_group(labels, names, fractions=THIRDS, seed=3)

    sizes = Counter(names)
    mean = {
        split: sum(sizes[name] for name in set(names) if splits[names.index(name)] == split)
        / sum(splits[names.index(name)] == split for name in set(names))
        for split in SPLITS
    }
    assert all(2.0 < value < 3.0 for value in mean.values()), mean


def test_another_seed_gives_another_split():
    labels, names = flat([[0]] * 200)
    first = split_by_group(labels, names, fractions=THIRDS, seed=1)
    second = split_by_group(labels, names, fractions=THIRDS, seed=2)

    # Two independent draws agree for 0.7² + 0.1² + 0.2² = 54 % of the groups.
    assert 60 < sum(a != b for a, b in zip(first, second, strict=True)) < 125


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (0, 0.5, 0.5), (1.5, -0.5, 0), (float("nan"), 0.5, 0.5), (1, 0)])
def test_fractions_that_are_no_shares_are_refused(shares):
    with pytest.raises(ConfigError, match="fractions must be"):
        split_by_group([0, 1], ["a", "b"], fractions=shares, seed=0)
