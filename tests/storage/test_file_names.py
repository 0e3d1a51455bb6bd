"""Litter at any depth and in any case, and names in any script."""

import io
import tarfile
import unicodedata
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sagemaker_monai.data.entries import image_files, name_parts, visible
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.prepare import output
from sagemaker_monai.storage.file_names import is_fit, is_litter, is_litter_path, leads_out, parts_of
from sagemaker_monai.storage.files import children, files_in, plain_files
from sagemaker_monai.storage.tars import read_tar
from sagemaker_monai.storage.zips import ArchiveLimits, UnsafeArchiveError, member_names
from tests.support.refusals import not_refused

LIMITS = ArchiveLimits(members=100, member_bytes=1000, total_bytes=10_000, ratio=50)
LEFT_BEHIND = [
    ".DS_Store", "._scan.dcm", ".ipynb_checkpoints", ".Trashes", ".AppleDouble", ".git", ".nfs0001", "Thumbs.db",
    "ehthumbs.db", "desktop.ini", "__MACOSX", "lost+found", "@eaDir", "#recycle", "$RECYCLE.BIN", "Icon\r",
    "System Volume Information", "~$labels.xlsx", "scan.png:Zone.Identifier", "__pycache__",
]  # fmt: skip
OF_PEOPLE = [
    "scan.dcm", "lost and found", "Icon", "icons", "thumbs", "temp", "recycle", "~", "#1", "$5", "@home", "MACOSX",
    "normal..abnormal", "desktop.ini.png", "a.DS_Store", "Zone.Identifier", "...",
]  # fmt: skip
SPOKEN = [
    "Screenshot 2024-05-01 at 9.41.07\u202fAM.png", "Sn\u00edmek obrazovky v\u00a013.05.05.png",
    "\u60a3\u8005\u3000A.png", "\u0646\u0645\u06cc\u200c\u062f\u0627\u0646\u0645.png",
    "\u05e9\u05dc\u05d5\u05dd\u200e.png",
    unicodedata.normalize("NFD", "Gr\u00f6\u00dfe.png"), unicodedata.normalize("NFC", "Gr\u00f6\u00dfe.png"),
    "\U0001f9e0.png", "12:30.png", "a,b;c'd.png", "Kopie (2) von R\u00f6.png",
]  # fmt: skip
UNFIT = ["a\nb", "a\rb", "a\tb", "a\x1b[31mb", "a\x7fb", "a\x85b", "a\u2028b", "a\u202egnp.b", "a\u2066b"]


def test_what_systems_leave_is_litter_in_any_case_and_what_people_call_their_files_is_not():
    for change in (str, str.upper, str.lower):
        assert [name for name in LEFT_BEHIND if not is_litter(change(name))] == []
    assert [name for name in [*OF_PEOPLE[:-1], *SPOKEN, ".", ".."] if is_litter(name)] == []


@settings(max_examples=50)
@given(st.lists(st.sampled_from(OF_PEOPLE[:-1]), max_size=4), st.sampled_from(LEFT_BEHIND), st.integers(0, 4))
def test_litter_makes_litter_of_a_name_wherever_it_stands(folders, litter, position):
    assert not is_litter_path("/".join([*folders, "a.png"]))
    assert is_litter_path("/".join([*folders[:position], litter, *folders[position:], "a.png"]))
    assert is_litter_path("/".join([*folders, litter]))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "a/c"]), st.sampled_from(LEFT_BEHIND), st.booleans()), max_size=5))
def test_a_folder_holds_the_same_files_with_litter_and_without(tmp_path_factory, litter):
    root = tmp_path_factory.mktemp("set") / ".hidden"  # named by the caller, so it counts
    wanted = [root / "a/1.dcm", root / "a/c/2.dcm", root / "b/3.dcm"]
    for path in wanted:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    for folder, name, is_folder in litter:
        place = root / folder / name
        if is_folder and not place.exists():
            place.mkdir()
            (place / "9.dcm").write_bytes(b"x")
        elif not place.is_dir():
            place.write_bytes(b"x")

    assert list(plain_files(root)) == wanted
    assert image_files(root / "a") == [*wanted[:2]]
    assert [path.name for path in visible(root)] == ["a", "b"] == [path.name for path in children(root)]
    assert files_in(root / "b") == wanted[2:]


def test_links_are_followed_to_files_of_the_same_folder_only_and_once(tmp_path):
    outside, root = tmp_path / "outside.dcm", tmp_path / "set"
    root.mkdir()
    outside.write_bytes(b"x")
    (root / "b.dcm").write_bytes(b"x")
    (root / "c.dcm").symlink_to(root / "b.dcm")
    (root / "out.dcm").symlink_to(outside)
    (root / "up").symlink_to(tmp_path)
    (root / "gone.dcm").symlink_to(root / "nothing")

    assert list(plain_files(root)) == [root / "b.dcm"]
    assert list(plain_files(root, takes_links_out=True)) == [root / "b.dcm", root / "out.dcm"]


def zipped(*names):
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return body.getvalue()


def names_in_zip(content):
    return member_names(io.BytesIO(content), limits=LIMITS)


def names_in_tar(*names):
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    body.seek(0)
    return [name for name, _ in read_tar(body, max_files=99, max_bytes=99)]


def test_names_of_any_script_are_read_in_archives_and_tables():
    for name in SPOKEN:
        assert names_in_zip(zipped(f"a/{name}")) == [f"a/{name}"] == names_in_tar(f"a/{name}")
        assert name_parts(f"a/{name}") == ("a", name)
        assert is_fit(name)


def test_what_ends_or_turns_a_line_is_no_name():
    assert [name for name in UNFIT if is_fit(name) or name_parts(name)] == []
    for read in (lambda it: names_in_zip(zipped(it)), names_in_tar):
        assert not_refused(UNFIT, read, UnsafeArchiveError, "member 1 of the archive has no usable name") == []


@given(st.text(max_size=12))
@settings(max_examples=100)
def test_parts_stay_below_their_folder_or_there_are_none(text):
    for separators in ("/", "/\\"):
        parts = parts_of(text, separators=separators)
        assert not {"", ".", ".."} & set(parts)
        assert not any(set(part) & set(separators) or any(map(unicodedata.category(c).__eq__, ["Cc"])) for part in parts
                       for c in part)  # fmt: skip
        assert not (parts and leads_out("/".join(parts)))


def test_names_that_could_lead_out_are_refused_with_slashes_of_either_kind():
    names = ["../a", "a/../b", "/a", "C:/a", "..", "a/.."]
    names += [name.replace("/", "\\") for name in names]
    assert [name for name in names if name_parts(name)] == []
    for read in (lambda it: names_in_zip(zipped(it)), names_in_tar):
        assert not_refused(names, read, UnsafeArchiveError, "would be written outside the folder") == []


def test_windows_slashes_are_slashes_in_zips_and_tables_and_a_letter_in_tars():
    sent = zipped("series/IM1.dcm", "series/._IM1.dcm").replace(b"series/", b"series\\")

    assert names_in_zip(sent) == ["series/IM1.dcm"]
    assert name_parts("series\\IM1.dcm") == ("series", "IM1.dcm")
    assert names_in_tar("series\\IM1.dcm") == ["series\\IM1.dcm"]


def test_one_name_by_either_slash_comes_twice():
    sent = zipped("a/IM1.dcm", "aXIM1.dcm").replace(b"aXIM1", b"a\\IM1")

    with pytest.raises(UnsafeArchiveError, match="twice"):
        names_in_zip(sent)


def unflagged(name: bytes):
    """A zip whose name is these bytes, without a word on their encoding."""
    return zipped("x" * len(name)).replace(b"x" * len(name), name)


def test_names_without_a_word_on_their_encoding_are_utf_8_where_they_are_and_never_lost():
    assert names_in_zip(unflagged("患者.png".encode())) == ["患者.png"]
    assert names_in_zip(unflagged("Größe.png".encode("cp437"))) == ["Größe.png"]
    western = {names_in_zip(unflagged(text.encode("cp1252")))[0] for text in ("é.png", "è.png")}
    assert len(western) == 2  # wrong letters, and two names still


def test_a_name_in_utf_8_beside_an_old_one_is_taken_if_it_is_about_that_one():
    def sent(old: bytes, of: bytes, new: bytes):
        import struct
        import zlib

        info = zipfile.ZipInfo("x" * len(old))
        data = b"\x01" + struct.pack("<I", zlib.crc32(of)) + new
        info.extra = struct.pack("<HH", 0x7075, len(data)) + data
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w") as archive:
            archive.writestr(info, b"x")
        return body.getvalue().replace(b"x" * len(old), old)

    assert names_in_zip(sent(b"\x8a\xb3.png", b"\x8a\xb3.png", "患.png".encode())) == ["患.png"]
    assert names_in_zip(sent(b"abcd.png", b"another.png", "患.png".encode())) == ["abcd.png"]
    with pytest.raises(UnsafeArchiveError, match="outside"):
        names_in_zip(sent(b"abcd.png", b"abcd.png", b"../a.png"))


def test_litter_with_an_impossible_name_is_passed_over():
    assert names_in_zip(zipped("Icon\r", "a.png", "b/Icon\r")) == ["a.png"]


def test_litter_beside_what_an_import_wrote_is_neither_foreign_nor_a_change(tmp_path):
    output.begin(tmp_path, ["a.png"])
    (tmp_path / "images" / "a.png").write_bytes(b"x")
    (tmp_path / output.DATASET_JSON).write_text("{}")
    output.finish(tmp_path, {}, key="k", files={"a.png": 1})
    for name in ("Thumbs.db", ".DS_Store", "images/.DS_Store", "images/Thumbs.db", "images/._a.png"):
        (tmp_path / name).write_bytes(b"y")
    (tmp_path / "lost+found").mkdir()

    output.check_output(tmp_path)
    assert output.is_up_to_date(tmp_path, "k")
    (tmp_path / "images" / "b.png").write_bytes(b"y")
    assert not output.is_up_to_date(tmp_path, "k")
    with pytest.raises(DatasetError, match=r"what no import wrote: 1 \(images/b\.png\)"):
        output.check_output(tmp_path)
