"""Which file a name in a table means."""

import time
import unicodedata

import pytest

from sagemaker_monai.data.layouts import read_channels
from sagemaker_monai.data.name_matching import match_names, nearest_name
from sagemaker_monai.errors import DatasetError

SUFFIXES = (".nii.gz", ".png", ".jpg", ".dcm")


def found(keys, names, **named):
    matches = match_names(keys, names, suffixes=SUFFIXES, **named)
    assert not matches.unclear
    return dict(matches.found)


@pytest.mark.parametrize(
    ("key", "name", "way"),
    [
        ("ISIC_1", "ISIC_1.png", "without suffix"),
        ("case_7", "x/case_7.nii.gz", "without suffix"),
        ("img1.png", "images/img1.png", "in another folder"),
        ("old/img1.png", "new/img1.png", "in another folder"),
        (r"C:\data\img1.png", "img1.png", "in another folder"),
        (r"\\server\share\a\img1.png", "a/img1.png", "in another folder"),
        ("/srv/x/data/img1.png", "data/img1.png", "in another folder"),
        ("s3://bucket/data/img1.png", "img1.png", "in another folder"),
        ("img1.PNG", "IMG1.png", "in other case or spacing"),
        (" img  1.png ", "img 1.png", "in other case or spacing"),
        ("img\u00a01.png", "img 1.png", "in other case or spacing"),
        ("Läsion.png", unicodedata.normalize("NFD", "Läsion.png"), "in another Unicode form"),
        (unicodedata.normalize("NFD", "Läsion.png"), "Läsion.png", "in another Unicode form"),
        ("STRASSE.png", "straße.png", "in other case or spacing"),
        ("ﬁbroma.png", "fibroma.png", "in other case or spacing"),
        ("100", "000100.png", "with other zeros before a number"),
        ("100.0", "000100.png", "with other zeros before a number"),
        ("100.png", "000100.png", "with other zeros before a number"),
        ("100", "000100", "with other zeros before a number"),
    ],
)
def test_a_name_means_the_only_file_that_it_can_mean(key, name, way):
    matches = match_names([key], [name, "another.png"], suffixes=SUFFIXES)

    assert matches.found == {key: name}
    assert way in matches.how


def test_folders_in_front_and_the_current_one_are_no_difference():
    names = ["a/1.dcm", "b/1.dcm", "b/2.dcm", "c/3"]

    assert found(["2", "x/y/a/1.dcm", "b\\1", "3"], names) == {
        "2": "b/2.dcm", "x/y/a/1.dcm": "a/1.dcm", "b\\1": "b/1.dcm", "3": "c/3",
    }  # fmt: skip
    assert found(["./a/1.dcm"], names) == {"./a/1.dcm": "a/1.dcm"}


def test_a_name_as_it_is_written_means_its_file_whatever_else_there_is():
    names = ["1.png", "01.png", "x/1.png", "A.png", "a.png"]

    assert found(["1.png", "01.png", "x/1.png", "a.png"], names) == {
        n: n for n in ("1.png", "01.png", "x/1.png", "a.png")
    }
    assert match_names(["1.png", "001.png"], ["1.png"], suffixes=SUFFIXES).missing == ("001.png",)


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["1.dcm"], ["a/1.dcm", "b/1.dcm"]),
        (["a/1", "a/1.dcm"], ["a/1.dcm", "b/1.dcm"]),
        (["img.png"], ["IMG.png", "Img.png"]),
        (["a/IMG.png"], ["a/img.png", "b/IMG.png"]),  # the folder says one, the letters the other
        (["1"], ["1.png", "1.jpg"]),
        (["1"], ["01.png", "001.png"]),
        (["100", "100.0"], ["000100.png"]),
        (["x/1.png", "y/1.png"], ["1.png"]),
        (["a.png", "A.PNG"], ["a.Png"]),
    ],
)
def test_what_could_be_several_files_is_never_guessed(keys, names):
    matches = match_names(keys, names, suffixes=SUFFIXES)

    assert not matches.found or set(matches.found) == set(keys) - set(matches.unclear)
    with pytest.raises(DatasetError, match="could be several files, or share one"):
        matches.refuse_unclear("the labels")


@pytest.mark.parametrize("key", ["4", "../1.png", "a/../1.png", "1.jpg", "", "..", "10", "1.0.png.png"])
def test_another_suffix_and_a_way_up_mean_nothing(key):
    assert match_names([key], ["1.png", "01/x.png"], suffixes=SUFFIXES).missing == (key,)


def test_patients_are_no_paths():
    names = ["000100", "A/7", "müller"]

    assert found(["100", "a/7", "MÜLLER"], names, is_path=False) == {"100": "000100", "a/7": "A/7", "MÜLLER": "müller"}
    assert match_names(["7"], names, is_path=False).missing == ("7",)


def test_the_nearest_name_is_shown():
    assert nearest_name("ISIC_0024307.png", ["x/ISIC_0024306.png", "other.png"]) == "x/ISIC_0024306.png"
    assert nearest_name("ISIC_0024307.png", ["qqq.jpg"]) is None
    assert nearest_name("x", []) is None


def test_a_hundred_thousand_names_take_seconds():
    names = [f"folder_{number % 50}/image_{number:06d}.png" for number in range(20_000)]
    started = time.process_time()

    matches = match_names([f"IMAGE_{number}" for number in range(20_000)], names, suffixes=SUFFIXES)
    nearest_name("image_x.png", names)

    assert matches.missing
    assert time.process_time() - started < 10  # a second or so


# --- in a channel


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


@pytest.mark.parametrize(
    ("written", "stored"),
    [("ISIC_{}", "ISIC_{}.png"), ("img{}.png", "IMG{}.PNG"), ("img{}.png", "images/img{}.png"),
     ("Läsion{}.png", unicodedata.normalize("NFD", "Läsion{}.png")), ("D:\\x\\{}.png", "{}.png"), ("{}", "00{}.png")],
)  # fmt: skip
def test_train_finds_images_by_names_as_people_write_them_and_says_so(tmp_path, written, stored):
    put(tmp_path, *(stored.format(number) for number in range(4)))
    rows = "".join(f"{written.format(number)},{'ab'[number % 2]}\n" for number in range(4))
    (tmp_path / "labels.csv").write_text(f"image,label\n{rows}")

    layout = read_channels({"training": tmp_path})

    assert [entry.name for entry in layout.entries] == [stored.format(number) for number in range(4)]
    [remark] = layout.remarks
    assert (remark.code, remark.count) == ("names_found_otherwise", 4)


def test_a_name_that_is_not_there_is_shown_with_the_nearest(tmp_path):
    put(tmp_path, "ISIC_1.png", "ISIC_25.png")
    (tmp_path / "labels.csv").write_text("image,label\nISIC_1.png,a\nISIC_26.png,b\n")

    with pytest.raises(DatasetError, match=r"1 of 2 \(ISIC_26.png; the nearest name is ISIC_25.png\)"):
        read_channels({"training": tmp_path})


def test_nothing_is_found_outside_of_the_channel(tmp_path):
    channel = tmp_path / "channel"
    put(tmp_path, "outside/1.png", "channel/2.png")
    (channel / "link.png").symlink_to(tmp_path / "outside" / "1.png")
    (channel / "folder").symlink_to(tmp_path / "outside")
    for name, message in {
        "1.png": "not in the channel", "link": "not in the channel", "link.png": "outside its channel",
        "folder/1.png": "outside its channel", "../outside/1.png": "outside its channel",
        str(tmp_path / "outside" / "1.png"): "not in the channel",
    }.items():  # fmt: skip
        (channel / "labels.csv").write_text(f"image,label\n2.png,a\n{name},b\n")
        with pytest.raises(DatasetError, match=message):
            read_channels({"training": channel})


def test_a_picture_that_is_called_as_a_list_of_sequences_is_one(tmp_path):
    put(tmp_path, "a;b.png", "c.png")
    (tmp_path / "labels.csv").write_text("image,label\na;b.png,a\nc.png,b\n")

    assert [entry.name for entry in read_channels({"training": tmp_path}).entries] == ["a;b.png", "c.png"]


def test_a_folder_means_the_only_file_in_it():
    names = ["sub-01/anat/sub-01_T1w", "SUB-02/anat/sub-02_T1w", "sub-03/anat/a", "sub-03/func/b"]

    matches = match_names(["sub-01", "sub-02", "sub-03", "anat", "sub-04"], names, takes_folders=True)

    assert matches.found == {"sub-01": names[0], "sub-02": names[1]}
    assert set(matches.unclear) == {"sub-03", "anat"}
    assert matches.missing == ("sub-04",)
    assert matches.how == {"as the only one in a folder": 2}
    assert match_names(["sub-01", "anat"], names).missing == ("sub-01", "anat")


def test_a_file_that_another_line_names_is_not_found_by_its_folder_too():
    matches = match_names(["p1", "p1/scan.png"], ["p1/scan.png"], takes_folders=True)

    assert matches.found == {}
    assert set(matches.unclear) == {"p1", "p1/scan.png"}
