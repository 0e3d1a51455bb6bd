import json

import pytest

from sagemaker_monai.data.layouts import read_channels
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.images.suffixes import IMAGE_SUFFIXES
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.columns import SPLIT_NAMES, Columns
from sagemaker_monai.storage.tables import read_table


def put(root, *names):
    """Files that nobody opens."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"picture")


def put_json(root, **content):
    listed = [item["image"] for split in ("training", "validation", "test") for item in content.get(split, [])]
    put(root, *(name for name in listed if isinstance(name, str) and not name.startswith(("/", ".."))))
    (root / "dataset.json").write_text(json.dumps({"labels": {"0": "mel", "1": "nv"}, **content}))


def found(root):
    return {(entry.name, entry.label, entry.split) for entry in read_channels({"training": root}).entries}


# --- class folders


def test_class_folders_alone_have_no_split(tmp_path):
    put(tmp_path, "nv/1.jpg", "nv/2.JPEG", "mel/1.png")
    layout = read_channels({"training": tmp_path})

    assert layout.labels == ("mel", "nv")
    assert found(tmp_path) == {("mel/1.png", "mel", None), ("nv/1.jpg", "nv", None), ("nv/2.JPEG", "nv", None)}
    assert all(entry.group == entry.name and entry.image == tmp_path / entry.name for entry in layout.entries)


def test_every_name_of_a_split_is_a_split_folder(tmp_path):
    for name, split in SPLIT_NAMES.items():
        put(tmp_path / name, f"{name.capitalize()}/nv/1.jpg")

        assert found(tmp_path / name) == {(f"{name.capitalize()}/nv/1.jpg", "nv", split)}


def test_every_picture_that_serving_reads_is_taken(tmp_path):
    put(tmp_path, *(f"train/nv/{number}{suffix}" for number, suffix in enumerate(IMAGE_SUFFIXES)))

    assert len(read_channels({"training": tmp_path}).entries) == len(IMAGE_SUFFIXES)


def test_litter_hidden_files_and_manifests_are_passed_over(tmp_path):
    put(tmp_path, "nv/1.jpg", "nv/.DS_Store", "nv/Thumbs.db", ".cache/x.jpg", "training-manifest", "__MACOSX/nv/1.jpg")

    assert found(tmp_path) == {("nv/1.jpg", "nv", None)}


def test_an_empty_class_folder_is_still_a_class(tmp_path):
    put(tmp_path, "nv/1.jpg")
    (tmp_path / "mel").mkdir()

    assert read_channels({"training": tmp_path}).labels == ("mel", "nv")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["nv/1.jpg", "nv/notes.pdf"],
            r"class folder nv holds files that are not images of a known type: 1 \(nv/notes.pdf\)",
        ),
        (["nv/1.jpg", "2.jpg"], r"images outside the class folders: 1 \(2.jpg\); put each into the folder of"),
        (["train/nv/1.jpg", "2.jpg", "test/3.JPG"], r"images outside the class folders: 2 \(2.jpg, test/3.JPG\)"),
        (["train/nv/1.jpg", "mel/1.jpg"], r"mixes split folders with others \(mel\)"),
        (["val/nv/1.jpg", "valid/nv/1.jpg"], "two folders are for one split"),
        (["part_1.zip"], "no dataset.json, no class folders and no table .*part_1.zip.*prepare"),
        (["a.csv", "b.csv"], r"several tables \(a.csv, b.csv\), and none has rows and columns of images and labels"),
    ],
)
def test_an_unclear_layout_is_refused_with_its_cause(tmp_path, names, message):
    put(tmp_path, *names)

    with pytest.raises(DatasetError, match=message):
        read_channels({"training": tmp_path})


# --- CSV


def test_a_csv_gives_label_group_split_and_metadata(tmp_path):
    put(tmp_path, "a/1.jpg", "2.png")
    (tmp_path / "list.csv").write_text("image,label,group,split,age\na/1.jpg,nv,p1,train,40\n./2.png,mel,,val,\n")
    first, second = read_channels({"training": tmp_path}).entries

    assert (first.name, first.label, first.group, first.split) == ("a/1.jpg", "nv", "p1", "training")
    assert first.metadata == {"age": "40"}
    assert (second.name, second.label, second.group, second.split) == ("2.png", "mel", "2.png", "validation")
    assert second.metadata == {"age": None}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_spreadsheets_dialects_are_one_table(tmp_path, delimiter, end, mark):
    put(tmp_path, "1.jpg")
    lines = [delimiter.join(cells) for cells in (("Image", '"label"'), ("1.jpg", '"nv"'), ("", ""))]
    (tmp_path / "list.csv").write_bytes((mark + end.join(lines) + end).encode())

    assert found(tmp_path) == {("1.jpg", "nv", None)}


def test_a_class_folder_named_like_a_table_is_no_table(tmp_path):
    put(tmp_path, "nv.csv/1.jpg")

    assert found(tmp_path) == {("nv.csv/1.jpg", "nv.csv", None)}


def test_empty_columns_at_the_end_are_passed_over(tmp_path):
    put(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "list.csv").write_text("image,label,,\n1.jpg,nv,,\n2.jpg,mel, ,\n,,,\n")

    assert found(tmp_path) == {("1.jpg", "nv", None), ("2.jpg", "mel", None)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column image, label"),
        ("image,age\n1.jpg,nv\n", "no column label.*it has image, age: name another with image_column or label_column"),
        ("image,label,Label\n1.jpg,nv,nv\n", "names a column twice"),
        ("image,label\n1.jpg,nv,extra\n", "row 2 has 3 cells, the header has 2"),
        ("image,label\n,nv\n", "row 2 has no image; fill it in"),
        ("image,label,split\n1.jpg,nv,eval\n", "row 2 has split 'eval'; use training, validation or test"),
        ("image,label\n1.jpg,nv\n./1.jpg,mel\n", "more than once"),
        ("image,label\n1.jpg,nv\nno.jpg,mel\n", r"not in the channel: 1 of 2 \(no.jpg\)"),
        ("image,label\n../1.jpg,nv\n", "outside its channel"),
        ('image,label\n"1.jpg,nv\n', "not a CSV file: .*; save it again as CSV"),
        ("image,label,,\n1.jpg,nv,,x\n", "row 2 has 4 cells, the header has 2"),
    ],
)
def test_a_wrong_csv_is_refused_with_its_row(tmp_path, text, message):
    put(tmp_path, "1.jpg")
    (tmp_path / "list.csv").write_text(text)

    with pytest.raises(DatasetError, match=message):
        read_channels({"training": tmp_path})


def test_a_table_in_another_encoding_is_refused():
    with pytest.raises(DatasetError, match=r"x.csv is not UTF-8 text \(byte 12\)"):
        read_table(b"image,label\n\xe4.jpg,nv\n", what="x.csv", required=("image",))


def test_few_of_many_names_are_shown():
    assert some_of(["a", "b"]) == "a, b"
    assert some_of([str(n) for n in range(8)]) == "0, 1, 2, 3, 4 and 3 more"
    assert some_of(["x" * 99 + "\n.jpg"]) == "…" + "x" * 54 + " .jpg"


# --- dataset.json


def test_dataset_json_keeps_the_order_of_labels_and_the_metadata(tmp_path):
    item = {"image": "./images/1.jpg", "label": "nv", "group": "p", "age": 40, "sex": "male", "site": None}
    put_json(tmp_path, labels={"0": "nv", "1": "mel"}, training=[item])
    layout = read_channels({"training": tmp_path})

    assert layout.labels == ("nv", "mel")
    [entry] = layout.entries
    assert (entry.name, entry.group, entry.split) == ("images/1.jpg", "p", "training")
    assert entry.metadata == {"age": 40.0, "sex": "male", "site": None}


GOOD = {"image": "1.jpg", "label": "nv"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"[]", "must be a JSON object"),
        ({"labels": None}, "labels must map"),
        ({"labels": ["nv"]}, "labels must map"),
        ({"labels": {"0": "nv", "2": "mel"}}, "labels must map"),
        ({"labels": {"1": "nv", "2": "mel"}}, "labels must map"),
        ({"labels": {"0": "nv", "1": 5}}, "labels must map"),
        ({"labels": {"0": "nv", "1": " "}}, "labels must map"),
        ({"labels": {"0": "nv", "1": "nv"}}, "names a class twice"),
        ({"training": {}}, "training must be a list of images, got dict"),
        ({"test": ["./1.jpg"]}, r"test\[0\] must be an object"),
        ({"training": [{"label": "nv"}]}, r"training\[0\] must have image as a text"),
        ({"training": [GOOD, {"image": "1.jpg", "label": 3}]}, r"training\[1\] must have label as a text"),
        ({"training": [{**GOOD, "group": 7}]}, "group must be a text"),
        ({"training": [{**GOOD, "age": [1]}]}, "age must be a text, a number or null"),
        ({"training": [GOOD, GOOD]}, r"more than once: 1 \(1.jpg\)"),
        ({"training": [GOOD, {"image": ".//1.jpg", "label": "nv"}]}, "more than once"),
        (
            {"training": [{"image": "no.jpg", "label": "nv"}]},
            r"not in the channel: 1 of 1 \(no.jpg; the nearest name is 1.jpg\)",
        ),
        ({"training": [{"image": "n" * 5000, "label": "nv"}]}, "not in the channel"),
        ({"training": [{"image": ".", "label": "nv"}]}, "outside"),
        ({"training": [{"image": "/etc/hostname", "label": "nv"}]}, "not in the channel"),
        ({"training": [{"image": "C:/x.jpg", "label": "nv"}]}, "not in the channel"),
    ],
)
def test_a_wrong_dataset_json_is_refused_in_one_short_line(tmp_path, content, message):
    put(tmp_path, "1.jpg")
    labels = {"labels": {"0": "mel", "1": "nv"}}
    data = content if isinstance(content, bytes) else json.dumps({**labels, **content}).encode()
    (tmp_path / "dataset.json").write_bytes(data)

    with pytest.raises(DatasetError, match=message) as caught:
        read_channels({"training": tmp_path})
    assert len(str(caught.value)) <= 900
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.jpg", "/../secret.jpg", "a/../../secret.jpg", "C:/../secret.jpg", "a\\..\\b", "x\0.jpg",
        "\ud800.jpg", "link/secret.jpg",
    ],
)  # fmt: skip
def test_a_name_that_leads_out_of_the_channel_is_refused(tmp_path, name):
    root = tmp_path / "channel"
    put(tmp_path, "secret.jpg", "channel/1.jpg")
    (root / "link").symlink_to(tmp_path)
    (root / "dataset.json").write_text(
        json.dumps({"labels": {"0": "mel", "1": "nv"}, "training": [{"image": name, "label": "nv"}]})
    )

    with pytest.raises(DatasetError, match=r"outside its channel: 1|with control characters.*: 1"):
        read_channels({"training": root})


def test_a_linked_picture_outside_is_refused_in_class_folders_too(tmp_path):
    put(tmp_path, "secret.jpg", "channel/nv/1.jpg")
    (tmp_path / "channel/nv/2.jpg").symlink_to(tmp_path / "secret.jpg")

    with pytest.raises(DatasetError, match=r"outside its channel: 1 \(nv/2.jpg\)"):
        read_channels({"training": tmp_path / "channel"})


def test_unusual_names_that_stay_inside_are_taken(tmp_path):
    put(tmp_path, "nv/9.41\u202fAM.jpg", "nv/a\xa0b.jpg", "a:b/1.jpg", "nv/caf\udce9.jpg")

    assert len(read_channels({"training": tmp_path}).entries) == 4


def test_a_channel_may_itself_be_a_link(tmp_path):
    put(tmp_path, "real/nv/1.jpg")
    (tmp_path / "channel").symlink_to(tmp_path / "real")

    assert found(tmp_path / "channel") == {("nv/1.jpg", "nv", None)}


# --- channels


def test_one_channel_a_split_is_one_data_set(tmp_path):
    put(tmp_path, "a/nv/1.jpg", "a/mel/1.jpg", "b/nv/1.jpg", "c/nv/1.jpg", "weights/model.pt")
    folders = {"train": "a", "validation": "b", "test": "c", "pretrained": "weights"}
    layout = read_channels({channel: tmp_path / folder for channel, folder in folders.items()})

    assert layout.labels == ("mel", "nv")
    assert {(entry.name, entry.split, entry.group) for entry in layout.entries} == {
        ("train/nv/1.jpg", "training", "train/nv/1.jpg"),
        ("train/mel/1.jpg", "training", "train/mel/1.jpg"),
        ("validation/nv/1.jpg", "validation", "validation/nv/1.jpg"),
        ("test/nv/1.jpg", "test", "test/nv/1.jpg"),
    }


def test_the_only_channel_may_have_any_name(tmp_path):
    put(tmp_path, "nv/1.jpg")

    assert len(read_channels({"data": tmp_path}).entries) == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no training channel"),
        (["pretrained"], "no training channel"),
        (["validation", "test"], r"no training channel \(channels: test, validation\)"),
        (["data", "more"], "no training channel"),
        (["train", "training"], "two channels are for one split"),
        (["train", "eval"], "channels that would have no effect: eval; name images training, validation, test"),
        (["train", "model"], "channels that would have no effect: model; .* weights pretrained"),
        (["train", "test"], "two channels are one folder"),
    ],
)
def test_channels_that_are_missing_or_double_are_named(tmp_path, names, message):
    put(tmp_path, "nv/1.jpg")

    with pytest.raises(DatasetError, match=message):
        read_channels(dict.fromkeys(names, tmp_path))


def test_an_empty_and_a_missing_channel_are_told_apart(tmp_path):
    put(tmp_path, "nv/1.jpg", "empty/.keep")

    with pytest.raises(DatasetError, match="channel validation is empty"):
        read_channels({"training": tmp_path, "validation": tmp_path / "empty"})
    with pytest.raises(DatasetError, match="channel training is missing"):
        read_channels({"training": tmp_path / "none"})


def test_a_channel_whose_table_names_another_split_is_refused(tmp_path):
    put(tmp_path, "a/train/nv/1.jpg", "a/test/nv/2.jpg", "b/nv/1.jpg")

    with pytest.raises(DatasetError, match="channel training has images for test"):
        read_channels({"training": tmp_path / "a", "validation": tmp_path / "b"})


def test_dataset_json_may_name_a_class_by_its_index(tmp_path):
    put_json(tmp_path, training=[{"image": "1.jpg", "label": 1}, {"image": "2.jpg", "label": "mel"}])

    assert found(tmp_path) == {("1.jpg", "nv", "training"), ("2.jpg", "mel", "training")}


def test_an_index_without_a_class_is_refused(tmp_path):
    for index in (2, -1, True, 0.0):
        put_json(tmp_path, training=[{"image": "1.jpg", "label": index}])

        with pytest.raises(DatasetError, match="must have label"):
            read_channels({"training": tmp_path})


# --- tables beside other things


def rows_of(root):
    layout = read_channels({"training": root})
    return {entry.name: entry.label for entry in layout.entries}, [each.code for each in layout.remarks]


def test_a_table_that_names_the_images_counts_more_than_folders(tmp_path):
    put(tmp_path, "nv/1.jpg", "mel/2.jpg", "nv/3.jpg")
    (tmp_path / "labels.csv").write_text("image,label\nnv/1.jpg,nv\nmel/2.jpg,mel\n")
    (tmp_path / "README.csv").write_text("column,meaning\nimage,the file\n")

    assert rows_of(tmp_path) == (
        {"nv/1.jpg": "nv", "mel/2.jpg": "mel"}, ["tables_passed_over", "table_beside_folders"],
    )  # fmt: skip


def test_a_table_of_other_things_beside_folders_is_passed_over(tmp_path):
    put(tmp_path, "nv/1.jpg", "mel/2.jpg")
    (tmp_path / "scanners.csv").write_text("site,scanner\nA,B\n")

    assert rows_of(tmp_path) == ({"nv/1.jpg": "nv", "mel/2.jpg": "mel"}, ["tables_passed_over"])


def test_a_table_that_contradicts_the_folders_is_refused(tmp_path):
    put(tmp_path, "nv/1.jpg", "mel/2.jpg")
    (tmp_path / "labels.csv").write_text("image,label\n1.jpg,mel\n2.jpg,nv\n")
    with pytest.raises(DatasetError, match="gives 2 of 2 images another label than their folder"):
        read_channels({"training": tmp_path})

    (tmp_path / "labels.csv").write_text("image,label\n7.jpg,mel\n8.jpg,nv\n")
    with pytest.raises(DatasetError, match="not in the channel: 2 of 2"):
        read_channels({"training": tmp_path})


def test_tables_called_after_splits_are_one_data_set(tmp_path):
    put(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    rows = {"train_labels": "1.jpg,nv\n", "Val": "2.jpg,mel\n", "labels-test": "3.jpg,nv\n"}
    for name, row in rows.items():
        (tmp_path / f"{name}.csv").write_text(f"image,label\n{row}")

    assert found(tmp_path) == {("1.jpg", "nv", "training"), ("2.jpg", "mel", "validation"), ("3.jpg", "nv", "test")}
    (tmp_path / "more.csv").write_text("image,label\n1.jpg,nv\n")
    with pytest.raises(DatasetError, match=r"several tables of images and labels .*train.csv, val.csv"):
        read_channels({"training": tmp_path})


def test_a_list_a_level_too_deep_is_found(tmp_path):
    put(tmp_path, "data/images/1.jpg", "data/images/2.jpg")
    (tmp_path / "data" / "labels.csv").write_text("image,label\n1,nv\n2,mel\n")

    assert rows_of(tmp_path) == (
        {"images/1.jpg": "nv", "images/2.jpg": "mel"}, ["names_found_otherwise", "data_set_below"],
    )  # fmt: skip


# --- columns


@pytest.mark.parametrize(
    ("header", "columns"),
    [("image_id,dx", {}), ("Filename,Diagnosis", {}), ("IMG,target", {}), ("id,class", {}), ("image,file,label", {}),
     ("scan,verdict", {"image": "Scan", "label": ("verdict",)}), ("file,path,label,dx", {"image": "file"})],
)  # fmt: skip
def test_columns_are_found_by_their_usual_names_or_named(tmp_path, header, columns):
    put(tmp_path, "1.jpg")
    cells = {"label": "nv", "dx": "nv", "diagnosis": "nv", "target": "nv", "class": "nv", "verdict": "nv"}
    row = ",".join(cells.get(name.lower(), "1.jpg") for name in header.split(","))
    (tmp_path / "list.csv").write_text(f"{header}\n{row}\n")

    [entry] = read_channels({"training": tmp_path}, Columns(**columns)).entries

    assert (entry.name, entry.label) == ("1.jpg", "nv")


@pytest.mark.parametrize(
    ("header", "message"),
    [("image,diagnosis,target", r"several columns that could be the label \(diagnosis, target\); name one with label"),
     ("file,path,label", r"several columns that could be the image \(file, path\); .*--image-column")],
)  # fmt: skip
def test_of_several_columns_none_is_guessed(tmp_path, header, message):
    (tmp_path / "list.csv").write_text(f"{header}\n1,2,3\n")

    with pytest.raises(DatasetError, match=message):
        read_channels({"training": tmp_path})


def test_an_import_that_did_not_end_is_no_data_set(tmp_path):
    for number in range(4):
        place = tmp_path / ("images", "series")[number % 2]
        place.mkdir(exist_ok=True)
        (place / f"{number}.png").write_bytes(b"x")
    (tmp_path / "import_report.json").write_text('{"is_complete": false, "files": {}}')

    with pytest.raises(DatasetError, match=r"not imported completely .* run prepare again"):
        read_channels({"training": tmp_path})
