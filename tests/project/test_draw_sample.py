import csv
import io
import zipfile
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from develop.draw_sample import LOOKS, draw_sample, main
from sagemaker_monai.data.splitting import split_by_group
from sagemaker_monai.prepare.ham10000 import import_ham10000


def pictures(folder):
    """Image id -> JPEG."""
    found = {}
    for part in (1, 2):
        with zipfile.ZipFile(folder / f"HAM10000_images_part_{part}.zip") as archive:
            found |= {name.removesuffix(".jpg"): archive.read(name) for name in archive.namelist()}
    return found


def rows(folder):
    return list(csv.DictReader(io.StringIO((folder / "HAM10000_metadata").read_text())))


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    draw_sample(folder, lesions=240, seed=0, size=(64, 48))
    return folder


def test_the_layout_is_the_downloads_and_everything_says_synthetic(sample):
    names = {path.name for path in sample.iterdir()}
    assert names == {"HAM10000_images_part_1.zip", "HAM10000_images_part_2.zip", "HAM10000_metadata", "README.txt"}
    assert "SYNTHETIC" in (sample / "README.txt").read_text()
    for row in rows(sample):
        assert row["image_id"].startswith("SYNTHETIC_")
        assert row["lesion_id"].startswith("SYNTHETIC_LESION_")
        assert row["dx_type"] == "synthetic"
    assert all(b"synthetic" in data[:200] for data in pictures(sample).values())


def test_images_and_metadata_agree_and_a_lesion_has_one_class(sample):
    assert sorted(pictures(sample)) == [row["image_id"] for row in rows(sample)]
    classes = defaultdict(set)
    for row in rows(sample):
        classes[row["lesion_id"]].add(row["dx"])
    assert len(classes) == 240
    assert all(len(found) == 1 for found in classes.values())


def test_classes_are_unequal_and_lesions_have_several_pictures(sample):
    lesions = {row["lesion_id"]: row["dx"] for row in rows(sample)}
    counts = Counter(lesions.values())
    assert set(counts) == set(LOOKS)
    assert counts["nv"] > 0.45 * len(lesions)
    assert min(counts.values()) == 8
    assert set(Counter(row["lesion_id"] for row in rows(sample)).values()) == {1, 2, 3, 4}


@pytest.mark.long
def test_the_same_seed_draws_the_same_bytes_and_another_does_not(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        draw_sample(tmp_path / name, lesions=112, seed=seed, size=(40, 30))

    a, b, c = ({path.name: path.read_bytes() for path in sorted((tmp_path / name).iterdir())} for name in "abc")
    assert a == b
    assert a["HAM10000_images_part_1.zip"] != c["HAM10000_images_part_1.zip"]


def test_a_lesions_class_can_be_learnt_but_not_read_off(sample):
    # A linear model on 8x8 thumbnails, tested on unseen lesions.
    jpegs = pictures(sample)
    table = rows(sample)
    labels = [sorted(LOOKS).index(row["dx"]) for row in table]
    pixels = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(jpegs[row["image_id"]])).resize((8, 8), Image.Resampling.BOX))
            for row in table
        ]
    ).reshape(len(table), -1)
    splits = split_by_group(labels, [row["lesion_id"] for row in table], fractions=(0.6, 0.0, 0.4), seed=0)
    is_test = np.array(splits) == "test"
    features = StandardScaler().fit(pixels[~is_test]).transform(pixels)
    model = LogisticRegression(max_iter=500, C=0.05, class_weight="balanced").fit(
        features[~is_test], np.array(labels)[~is_test]
    )

    predicted, true = model.predict(features[is_test]), np.array(labels)[is_test]
    balanced_accuracy = np.mean([(predicted[true == label] == label).mean() for label in range(7)])
    assert 0.35 < balanced_accuracy < 0.9  # chance is 0.14


def test_the_importer_takes_it_and_finds_no_near_identical_images(sample, tmp_path):
    report = import_ham10000(sample, tmp_path / "out")

    assert report.pairs == []
    assert sum(sum(row.values()) for row in report.counts.values()) == len(rows(sample))
    assert all(count > 0 for row in report.counts.values() for count in row.values())


def test_too_few_lesions_are_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match="lesions must be at least 112, got 111"):
        draw_sample(tmp_path, lesions=111, seed=0)
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), "--lesions", "3"])
    assert "lesions must be at least 112, got 3" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
