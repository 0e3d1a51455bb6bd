"""Folders of volumes and pictures with masks, in the layouts that training reads, imported as images and label maps."""

import json

import nibabel
import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.data.layouts import read_channels
from sagemaker_monai.data.mask_reading import grid_of, labels_on_grid
from sagemaker_monai.entrypoints import prepare
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.prepare.masked_folder import import_picture_masks, import_volume_masks
from sagemaker_monai.prepare.nifti_folder import Cases
from sagemaker_monai.prepare.picture_folder import Pictures
from sagemaker_monai.prepare.publish import Choices
from sagemaker_monai.prepare.structures import StructureOptions
from tests.support.imported import content_of, records_of

CHOICES = Choices(title="t", fractions=(0.5, 0.25, 0.25))
AFFINE = np.array([[-2.0, 0, 0, 9], [0, 1.5, 0, -4], [0, 0, 3, 7], [0, 0, 0, 1]])
SHAPE = (4, 5, 3)
NAMES = {"0": "background", "1": "liver", "2": "tumour"}


def volume(path, values, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine)
    image.header["descrip"] = b"Quixotic"
    nibabel.save(image, path)


def case(number):
    """A volume and its mask: 1 in a corner, 2 in the voxel of its number."""
    values = np.random.default_rng(number).normal(size=SHAPE).astype(np.float32)
    labels = np.zeros(SHAPE, np.uint8)
    labels[:2, :2, 0] = 1
    labels[3, number, 2] = 2
    return values, labels


def write_decathlon(root, count=4):
    for n in range(count):
        for folder, values in zip(("imagesTr", "labelsTr"), case(n), strict=True):
            volume(root / folder / f"anna_{n}.nii.gz", values)
    items = [{"image": f"./imagesTr/anna_{n}.nii.gz", "label": f"./labelsTr/anna_{n}.nii.gz"} for n in range(count)]
    content = {"modality": {"0": "MRI"}, "labels": NAMES, "training": items, "test": ["./imagesTs/a.nii.gz"]}
    (root / "dataset.json").write_text(json.dumps(content))


def write_nnunet(root, labels):
    """Two channels, and images for testing."""
    for n in range(4):
        values, mask = case(n)
        ending = "Ts" if n == 3 else "Tr"
        volume(root / f"images{ending}" / f"c{n}_0000.nii.gz", values)
        volume(root / f"images{ending}" / f"c{n}_0001.nii.gz", values + 1)
        volume(root / f"labels{ending}" / f"c{n}.nii.gz", np.where(mask == 2, 7, mask).astype(np.uint8))
    content = {"channel_names": {"0": "CT", "1": "CT"}, "labels": labels, "file_ending": ".nii.gz", "numTraining": 3}
    (root / "dataset.json").write_text(json.dumps(content))


def write_totalsegmentator(root):
    for n in range(4):
        values, mask = case(n)
        volume(root / f"s{n}" / "ct.nii.gz", values)
        for value, name in enumerate(("liver", "tumour"), start=1):
            volume(root / f"s{n}" / "segmentations" / f"{name}.nii.gz", (mask == value).astype(np.uint8))


def read(out):
    """The names of the labels, and the label maps by the images' order of names, as training reads them."""
    layout = read_channels({"training": out})
    found = {}
    for entry in layout.entries:
        found[entry.name], findings = labels_on_grid(
            entry.mask, grid_of(entry.image, layout.spatial_dims), layout.legend
        )
        assert findings == ()
    return layout.labels, [found[name] for name in sorted(found)]


@pytest.mark.parametrize(
    ("write", "channels", "modality"),
    [
        (write_decathlon, 1, "MR"),
        (lambda root: write_nnunet(root, {"background": 0, "liver": 1, "tumour": 7}), 2, "CT"),
        (write_totalsegmentator, 1, "OT"),
    ],
)
def test_every_layout_becomes_the_same_data_set_without_names_and_texts(tmp_path, write, channels, modality):
    write(tmp_path / "source")

    report = import_volume_masks(tmp_path / "source", tmp_path / "out", choices=CHOICES)

    assert (report.images, report.spatial_dims, report.groups) == (4, 3, 4)
    assert report.modalities == {modality: 4}
    names, maps = read(tmp_path / "out")
    assert names == ("liver", "tumour")
    for n, labels in enumerate(maps):
        assert np.array_equal(labels, case(n)[1])
    first = records_of(tmp_path / "out")[0]["image"]
    assert (len(first) if isinstance(first, list) else 1) == channels
    image = nibabel.load(tmp_path / "out" / "images" / f"00001{'_0000' * (channels > 1)}.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj), case(0)[0])
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != "import_report.json"]
    assert not any("anna" in path.name or b"anna" in path.read_bytes() for path in files)
    assert not any(nibabel.load(path).header["descrip"].item() for path in files if path.suffix == ".gz")
    assert import_volume_masks(tmp_path / "source", tmp_path / "out", choices=CHOICES).is_repeated


def test_a_split_of_the_source_is_kept_and_one_of_training_alone_is_drawn(tmp_path):
    write_nnunet(tmp_path / "source", {"background": 0, "liver": 1, "tumour": 7})
    write_decathlon(tmp_path / "other")

    kept = import_volume_masks(tmp_path / "source", tmp_path / "out", choices=CHOICES)
    drawn = import_volume_masks(tmp_path / "other", tmp_path / "drawn", choices=CHOICES)

    named = import_volume_masks(tmp_path / "source", tmp_path / "n", cases=Cases(is_private=False), choices=CHOICES)

    assert named.images == 4
    assert sorted(path.name for path in (tmp_path / "n" / "images").glob("c0*")) == ["c0_0000.nii.gz", "c0_0001.nii.gz"]
    assert kept.counts["liver"] == {"training": 3, "validation": 0, "test": 1}
    assert drawn.counts["liver"] == {"training": 2, "validation": 1, "test": 1}


def test_voxels_that_nobody_annotated_stay_so_and_chosen_structures_have_their_order(tmp_path):
    write_nnunet(tmp_path / "source", {"background": 0, "liver": 1, "ignore": 7})
    import_volume_masks(tmp_path / "source", tmp_path / "out", choices=CHOICES)
    assert content_of(tmp_path / "out")["labels"] == {"0": "background", "1": "liver", "2": "ignore"}
    assert [int((labels == 255).sum()) for labels in read(tmp_path / "out")[1]] == [1] * 4

    for number, write in enumerate((write_decathlon, write_totalsegmentator)):
        source, out = tmp_path / f"s{number}", tmp_path / f"o{number}"
        write(source)
        masks = StructureOptions(("Tumour",))
        report = import_volume_masks(source, out, masks=masks, choices=CHOICES)
        assert content_of(out)["labels"] == {"0": "background", "1": "Tumour"}
        assert all(np.array_equal(labels, case(n)[1] == 2) for n, labels in enumerate(read(out)[1]))
        assert "structures that are no labels: liver" in report.notes
        with pytest.raises(ConfigError, match="no mask has: spleen; the masks have liver, tumour"):
            import_volume_masks(source, out, masks=StructureOptions(("spleen",)), choices=CHOICES)


def test_patients_stay_on_one_side_by_the_names_of_images(tmp_path):
    write_decathlon(tmp_path / "source")
    cases = Cases(group_by=r"anna_([01]|2)", is_private=False)

    with pytest.raises(DatasetError, match=r"--group-by does not match some cases: 1 \(imagesTr/anna_3\)"):
        import_volume_masks(tmp_path / "source", tmp_path / "out", cases=cases, choices=CHOICES)
    cases = Cases(group_by=r"(ann)a_[01]|anna_([23])", is_private=False)
    with pytest.raises(ConfigError, match="one group"):
        import_volume_masks(tmp_path / "source", tmp_path / "out", cases=cases, choices=CHOICES)
    cases = Cases(group_by=r"anna_[01]?([23]?)", is_private=False)
    with pytest.raises(DatasetError, match="does not match some cases: 2"):
        import_volume_masks(tmp_path / "source", tmp_path / "out", cases=cases, choices=CHOICES)
    report = import_volume_masks(
        tmp_path / "source", tmp_path / "out", cases=Cases(group_by=r"(\w)\w+_\d", is_private=False),
        choices=Choices(title="t", fractions=(1, 0, 0)),
    )  # fmt: skip
    assert report.groups == 1
    assert (tmp_path / "out" / "masks" / "anna_0.nii.gz").is_file()


def test_a_mask_on_another_grid_is_refused_or_left_out(tmp_path):
    write_decathlon(tmp_path / "source")
    volume(tmp_path / "source" / "labelsTr" / "anna_1.nii.gz", case(1)[1], AFFINE + np.diag([0, 0, 1, 0]))

    with pytest.raises(DatasetError, match=r"anna_1.* another grid|anna_1.* elsewhere than its image"):
        import_volume_masks(tmp_path / "source", tmp_path / "out", choices=CHOICES)
    left = Choices(title="t", fractions=(1, 0, 0), unusable="leave-out")
    report = import_volume_masks(tmp_path / "source", tmp_path / "out", choices=left)
    assert (report.images, report.left_out) == (3, {"cannot be used": 1})
    assert len(list((tmp_path / "out" / "images").iterdir())) == 3


def test_pictures_have_masks_with_the_values_of_the_labels(tmp_path):
    source = tmp_path / "source"
    (source / "images").mkdir(parents=True)
    (source / "masks").mkdir()
    expected = []
    for n in range(4):
        pixels = np.random.default_rng(n).integers(0, 255, (6, 5, 3), np.uint8)
        exif = Image.Exif()
        exif[0x0112], exif[0x013B] = 6, "Quixotic"  # Orientation: stored on its side; Artist
        Image.fromarray(pixels).save(source / "images" / f"{n}.jpg", exif=exif)
        values = np.zeros((5, 6), np.uint8)  # upright
        values[1:3, 2:5], values[4, n] = 10, 200
        Image.fromarray(values).save(source / "masks" / f"{n}.png")
        expected.append((values == 10) + 2 * (values == 200))
    (source / "labels.json").write_text(json.dumps({"0": "background", "10": "skin", "200": "mole"}))

    report = import_picture_masks(source, tmp_path / "out", choices=CHOICES)

    names, maps = read(tmp_path / "out")
    assert (report.images, report.spatial_dims, names) == (4, 2, ("skin", "mole"))
    for labels, mask in zip(maps, expected, strict=True):
        assert np.array_equal(labels.T, mask)
    assert b"Quixotic" not in (tmp_path / "out" / "images" / "00001.jpg").read_bytes()
    stored = np.asarray(Image.open(tmp_path / "out" / "masks" / "00001.png"))
    assert np.array_equal(stored, expected[0])
    names = Pictures(is_private=False)
    import_picture_masks(source, tmp_path / "named", pictures=names, choices=CHOICES)
    assert (tmp_path / "named" / "masks" / "0.png").is_file()


def test_each_source_names_the_other_for_files_that_it_does_not_read(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path / "none"))
    write_decathlon(tmp_path / "source")
    arguments = [str(tmp_path / "source"), str(tmp_path / "out"), "--task", "segmentation"]

    for source, more, message in (
        ("pictures", [], "is a volume; import it with prepare nifti_folder"),
        ("nifti_folder", ["--sequences", "t1,t2"], "leave out --sequences"),
        ("nifti_folder", ["--label-column", "x"], "masks are the labels; leave out --label-column"),
        ("nifti_folder", ["--modality", "XX"], "invalid choice"),
    ):
        assert prepare.main([source, *arguments, *more]) == 1
        assert message in capsys.readouterr().err

    assert prepare.main(["nifti_folder", *arguments, "--structures", "liver"]) == 0
    assert "4 images, 3-D, segmentation" in capsys.readouterr().out


def test_labels_that_are_not_masks_are_refused(tmp_path):
    for name in ("a", "b"):
        volume(tmp_path / "source" / name / "1.nii.gz", case(1)[0])
    (tmp_path / "source" / "dataset.json").write_text(
        json.dumps({"labels": {"0": "a", "1": "b"}, "training": [{"image": "a/1.nii.gz", "label": "a"}]})
    )

    with pytest.raises(DatasetError, match="are not masks; import it with --labels"):
        import_volume_masks(tmp_path / "source", tmp_path / "out", choices=CHOICES)
