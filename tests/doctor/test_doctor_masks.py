"""What doctor says of data sets whose labels are masks: the same that train would find, before it."""

import io
import json

import nibabel
import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.doctor.contact_sheet import contact_sheet
from sagemaker_monai.doctor.examine import Options, examine
from sagemaker_monai.doctor.report import as_text
from tests.support.mask_sets import write_balls, write_discs, write_nested


@pytest.fixture
def examined(tmp_path):
    def run(source, **options):
        scratch = tmp_path / f"scratch{len(list(tmp_path.iterdir()))}"
        scratch.mkdir()
        return examine({"training": source}, scratch, Options(**options))

    return run


def found(examination, code):
    [each] = [each for each in examination.remarks if each.code == code]
    return each


def codes(examination, severity=None):
    return {each.code for each in examination.remarks if severity in (None, each.severity)}


def change(path, edit):
    """Rewrite a NIfTI mask."""
    image = nibabel.load(path)
    values, affine = edit(np.asarray(image.dataobj).copy(), image.affine)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def test_a_sound_data_set_of_masks_has_no_errors_and_a_table_of_structures(examined, tmp_path):
    root = write_balls(tmp_path / "data", 4)
    sizes = [np.asarray(nibabel.load(path).dataobj) for path in sorted((root / "labelsTr").iterdir())]

    examination = examined(root)

    assert codes(examination, "error") == set()
    assert found(examination, "labels_are_masks").count == 4
    assert examination.labels["task"] == "segmentation"
    assert examination.labels["classes"] == {
        "bright": {"training": 4, "all": 4}, "dark": {"training": 4, "all": 4}
    }  # fmt: skip
    bright = examination.labels["structures"]["bright"]
    voxels = sorted(int((mask == 1).sum()) for mask in sizes)
    assert (bright["masks"], bright["unit"]) == (4, "ml")
    assert bright["size"] == pytest.approx([voxels[0] / 1000, np.median(voxels) / 1000, voxels[-1] / 1000], rel=1e-3)
    assert bright["share"] == pytest.approx(np.mean([(mask == 1).mean() for mask in sizes]), rel=1e-4)
    assert "size of bright" in as_text(examination)
    assert "4 (100.0%)" in as_text(examination)  # of the images, which show both


def test_masks_that_train_would_refuse_are_errors_with_its_reason(examined, tmp_path):
    root = write_balls(tmp_path / "data", 5)
    masks = sorted((root / "labelsTr").iterdir())
    change(masks[0], lambda values, affine: (values[:-1], affine))
    change(masks[1], lambda values, affine: (values, affine @ np.diag([1.5, 1, 1, 1])))
    masks[2].write_bytes(b"no mask")
    change(masks[3], lambda values, affine: (np.where(values == 2, 7, values), affine))

    examination = examined(root)

    unusable, unnamed = found(examination, "masks_unusable"), found(examination, "masks_unnamed")
    assert (unusable.count, unusable.severity, unnamed.count) == (3, "error", 1)
    assert "the mask lies on another grid than its image: the mask has 17 x 20 x 16 voxels" in unusable.message
    assert "values without a name (7)" in unnamed.message
    assert examination.labels["structures"]["dark"]["masks"] == 1


def test_empty_masks_and_specks_are_counted(examined, tmp_path):
    root = write_balls(tmp_path / "data", 4)
    masks = sorted((root / "labelsTr").iterdir())
    change(masks[0], lambda values, affine: (values * 0, affine))

    def speck(values, affine):
        values[values == 2] = 0
        values[0, 0, :3] = 2
        return values, affine

    change(masks[1], speck)

    examination = examined(root)

    assert found(examination, "empty_masks").count == 1
    assert found(examination, "tiny_structures").count == 1
    assert "fewer than 10 voxels (dark 1)" in found(examination, "tiny_structures").message


def test_a_structure_in_no_mask_is_told(examined, tmp_path):
    labels = {"0": "background", "1": "bright", "2": "dark", "3": "grey"}

    examination = examined(write_balls(tmp_path / "data", 3, labels=labels))

    assert "in no examined mask: grey; train refuses" in found(examination, "structures_in_no_mask").message
    assert found(examination, "structures_in_few_masks").message.startswith("in fewer than 10 masks: bright, dark;")
    assert "class" not in " ".join(each.message for each in examination.remarks)


def test_pictures_are_counted_in_pixels_and_odd_masks_are_told(examined, tmp_path):
    root = write_discs(tmp_path / "data", 3)
    Image.new("L", (40, 40)).save(root / "masks" / "0.png")

    examination = examined(root)

    assert examination.labels["structures"]["disc"]["unit"] == "pixels"
    assert found(examination, "mask_white_is_one").count == 2
    assert "40 x 40 pixels (width x height) and its image 48 x 40" in found(examination, "masks_unusable").message


def test_without_pixels_no_mask_is_read(examined, tmp_path):
    examination = examined(write_balls(tmp_path / "data", 3), pixels="none")

    assert found(examination, "masks_sampled").count == 3
    assert "structures_in_no_mask" not in codes(examination)


@pytest.mark.parametrize("write", [write_balls, write_discs])
def test_the_contact_sheet_shows_structures_in_colours(examined, tmp_path, write):
    root = write(tmp_path / "data", 3)

    plain, _ = contact_sheet(examined(emptied(write(tmp_path / "plain", 3))))
    drawn, count = contact_sheet(examined(root))

    first, second = (np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB"), int) for sheet in (plain, drawn))
    reddish = [int(np.maximum(sheet[..., 0] - sheet[..., 1], 0).sum()) for sheet in (first, second)]
    assert count == 3
    assert reddish[1] > reddish[0] + 10_000  # the first structure is red


def emptied(root):
    """The same data set with masks that show nothing."""
    content = json.loads((root / "dataset.json").read_text())
    for item in content["training"]:
        path = root / item["label"]
        if path.suffix == ".png":
            Image.new("L", (48, 40)).save(path)
        else:
            change(path, lambda values, affine: (values * 0, affine))
    return root


def test_regions_are_counted_as_a_whole(examined, tmp_path):
    root = write_nested(tmp_path / "data", 3)
    sizes = [np.asarray(nibabel.load(path).dataobj) for path in sorted((root / "labelsTr").iterdir())]

    examination = examined(root)

    assert codes(examination, "error") == set()
    for name, values in (("whole", (1, 2, 4)), ("core", (2, 4)), ("enhancing", (4,))):
        voxels = sorted(int(np.isin(mask, values).sum()) for mask in sizes)
        assert examination.labels["structures"][name]["size"] == pytest.approx(
            [each / 1000 for each in voxels], rel=1e-3
        )


# --- several annotators


def annotated(root, *, shift=4):
    """Discs drawn by two annotators, the second of whom drew a rectangle of the first's in a known share."""
    write_discs(root, 4)
    content = json.loads((root / "dataset.json").read_text())
    for index, item in enumerate(content["training"]):
        item["annotator_masks"] = {}
        for who, rows in ((1, slice(0, 20)), (2, slice(shift if index else 0, 20))):
            mask = np.zeros((40, 48), np.uint8)
            mask[rows, 10:20] = 255
            place = root / "masks" / f"annotator-{who}" / f"{index}.png"
            place.parent.mkdir(exist_ok=True)
            Image.fromarray(mask).save(place)
            item["annotator_masks"][str(who)] = f"./masks/annotator-{who}/{index}.png"
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def test_the_masks_of_several_annotators_are_compared_by_dice(examined, tmp_path):
    root = annotated(tmp_path / "data")

    examination = examined(root)

    disc = examination.labels["structures"]["disc"]
    # 16 of 20 rows: 2 * 16 / (16 + 20), in three of four images
    mean = (1 + 3 * 32 / 36) / 4
    assert (disc["dice"], disc["compared"]) == (round(mean, 4), 4)
    assert disc["pairs"] == [[1, 2, 4, round(mean, 4)]]
    assert found(examination, "annotators_compared").message.endswith("mean Dice of every two of them: disc 0.92")
    assert f"mean Dice {mean:.3f} in 4 images" in as_text(examination)
    assert not codes(examination) & {"images_without_labels", "masks_passed_over", "annotator_masks_unusable"}
    # Both drew the same in one image, and nobody's masks are images.
    assert not codes(examination) & {"duplicate_bytes", "blank_images"}
    assert examination.numbers["image_files"] >= 4


def test_annotators_are_compared_on_structures_that_overlap(examined, tmp_path):
    root = annotated(tmp_path / "data")
    content = json.loads((root / "dataset.json").read_text())
    content |= {"labels": {"background": 0, "whole": [1, 2], "core": [2]}, "regions_class_order": [1, 2]}
    (root / "dataset.json").write_text(json.dumps(content))
    for who, core in ((1, slice(0, 10)), (2, slice(0, 5))):
        for index in range(4):
            mask = np.zeros((40, 48), np.uint8)
            mask[:20, 10:20] = 1
            mask[core, 10:20] = 2
            Image.fromarray(mask).save(root / "masks" / f"annotator-{who}" / f"{index}.png")

    structures = examined(root).labels["structures"]

    assert (structures["whole"]["dice"], structures["core"]["dice"]) == (1, round(2 * 5 / (5 + 10), 4))


def test_masks_of_annotators_that_are_missing_or_of_another_grid_are_counted_and_do_not_stop_anything(
    examined, tmp_path
):
    root = annotated(tmp_path / "data")
    (root / "masks" / "annotator-1" / "0.png").unlink()
    Image.new("L", (40, 48)).save(root / "masks" / "annotator-2" / "1.png")  # turned

    examination = examined(root)

    assert found(examination, "annotator_masks_unusable").count == 2
    assert examination.labels["structures"]["disc"]["compared"] == 2
    assert not codes(examination, "error")


@pytest.mark.parametrize("value", [[], {"one": "a.png"}, {"1": 2}, "a.png"])
def test_a_list_of_annotators_that_is_none_is_refused(examined, tmp_path, value):
    root = write_discs(tmp_path / "data", 4)
    content = json.loads((root / "dataset.json").read_text())
    content["training"][0]["annotator_masks"] = value
    (root / "dataset.json").write_text(json.dumps(content))

    assert "annotator_masks as an object" in found(examined(root), "unsound_layout").message


def test_masks_are_neither_blank_images_nor_copies_of_images(examined, tmp_path):
    """Masks of the values 0 and 1 look black, and empty ones are equal byte for byte; images are still compared."""
    root = write_discs(tmp_path / "data", 4)
    for number, mask in enumerate(sorted((root / "masks").iterdir())):
        values = np.asarray(Image.open(mask)) // 255
        Image.fromarray(values * (number > 1)).save(mask)
    (root / "images" / "3.png").write_bytes((root / "images" / "2.png").read_bytes())

    examination = examined(root)

    assert "blank_images" not in codes(examination)
    assert found(examination, "duplicate_bytes").count == 1
