"""`make prepare-s3`: what goes, what is refused before anything goes, and what a second or a killed start does."""

import base64
import hashlib
import io
import json
import shutil
import tarfile

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from PIL import Image

from sagemaker_monai_aws.__main__ import main
from sagemaker_monai_aws.data import prepare_s3, upload
from sagemaker_monai_aws.data.upload import part_bytes
from tests.support.cloud import BUCKET, recorded, run_command, survives_kills
from tests.support.dicom_samples import series_bytes
from tests.support.mask_sets import write_balls, write_discs
from tests.support.workbooks import workbook

PREFIX = "monai/data/training/"
SERIES = "1.2.826.0.1.3680043.8.498.1.7"  # not pydicom's own UID, which stands in what it writes


def picture(value, size=(1, 1)):
    """A picture that has nothing to be cleaned of, as long as any other of its size."""
    file = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(file, "BMP")
    return file.getvalue()


PICTURES = {"images/a.jpg": picture(1), "images/b.jpg": picture(2)}


def write_dataset(folder, pictures=PICTURES, **more):
    items = [{"image": f"./{name}", "label": "nv", **more} for name in pictures]
    for name, content in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    content = {"labels": {"0": "nv"}, "training": items, "validation": [], "test": []}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_dataset(tmp_path / "data")


@pytest.fixture
def ready(cloud):
    cloud.make_bucket()
    return cloud


def prepare(folder, *arguments):
    return main(["prepare-s3", str(folder), "--parallel", "2", *arguments])


def uploaded(capsys):
    return json.loads(capsys.readouterr().out)["uploaded"]


def test_the_pictures_go_and_their_list_and_nothing_else(ready, folder, capsys):
    (folder / ".hidden").write_text("x")
    (folder / "patients.txt").write_text("names")

    assert prepare(folder) == 0

    assert {key: ready.get(key) for key in ready.keys("monai/")} == {
        **{PREFIX + name: content for name, content in PICTURES.items()},
        f"{PREFIX}dataset.json": (folder / "dataset.json").read_bytes(),
    }
    printed = capsys.readouterr()
    assert json.loads(printed.out)["S3Uri"] == f"s3://{BUCKET}/{PREFIX}"
    assert "1 files of the folder are not uploaded" in printed.err


@pytest.mark.parametrize("layout", ["folders", "csv"])
def test_every_layout_that_train_reads_goes(ready, tmp_path, layout):
    names = {"folders": ["nv/1.jpg", "mel/2.jpg"], "csv": ["1.jpg", "2.jpg", "list.csv"]}[layout]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture(1))
    (tmp_path / "list.csv").write_text("image,label\n1.jpg,nv\n2.jpg,mel\n") if layout == "csv" else None

    assert prepare(tmp_path, "--name", "validation") == 0

    assert ready.keys() == sorted(f"monai/data/validation/{name}" for name in names)


def test_what_is_there_is_not_sent_again_whatever_its_time_is(ready, folder, capsys):
    prepare(folder)
    capsys.readouterr()
    (folder / "images/a.jpg").touch()
    (folder / "images/b.jpg").write_bytes(picture(3))  # as long as before

    assert prepare(folder) == 0

    assert uploaded(capsys) == 1
    assert ready.get(f"{PREFIX}images/b.jpg") == picture(3)


def test_with_a_key_all_objects_are_encrypted_with_it_also_those_that_were_there(ready, folder, capsys):
    prepare(folder)
    capsys.readouterr()

    assert prepare(folder, "--kms-key", "alias/mine") == 0
    assert uploaded(capsys) == 3
    found = ready.client("s3").head_object(Bucket=BUCKET, Key=f"{PREFIX}images/a.jpg")
    assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", "alias/mine")
    assert found["BucketKeyEnabled"]

    assert prepare(folder, "--kms-key", "alias/mine") == 0
    assert uploaded(capsys) == 0  # by its metadata, for there the ETag tells nothing


def test_every_object_goes_with_the_checksum_of_its_content_and_the_list_goes_last(ready, folder):
    with recorded() as asked:
        prepare(folder)

    puts = [words for _, operation, words in asked if operation == "PutObject"]
    checksums = {words["Key"]: words["ChecksumSHA256"] for words in puts}
    digest = hashlib.sha256(PICTURES["images/a.jpg"]).digest()
    assert checksums[f"{PREFIX}images/a.jpg"] == base64.b64encode(digest).decode()
    assert puts[-1]["Key"] == f"{PREFIX}dataset.json"


def test_a_big_file_goes_in_parts_and_is_found_again(ready, folder, capsys, monkeypatch):
    monkeypatch.setattr(upload, "PART_BYTES", 5 << 20)
    content = picture(7, (1024, 2048))
    (folder / "images/a.jpg").write_bytes(content)

    assert prepare(folder) == 0
    assert ready.get(f"{PREFIX}images/a.jpg") == content
    assert ready.client("s3").head_object(Bucket=BUCKET, Key=f"{PREFIX}images/a.jpg")["ETag"].endswith('-2"')
    capsys.readouterr()

    assert prepare(folder) == 0
    assert uploaded(capsys) == 0


def test_an_upload_in_parts_that_fails_leaves_no_parts(ready, folder, monkeypatch):
    monkeypatch.setattr(upload, "PART_BYTES", 5 << 20)
    (folder / "images/a.jpg").write_bytes(picture(0, (2048, 1900)))
    send = BaseClient._make_api_call

    def fail(self, name, words):
        if name == "UploadPart" and words["PartNumber"] == 2:
            raise ClientError({"Error": {"Code": "BadDigest", "Message": "checksum"}}, name)
        return send(self, name, words)

    monkeypatch.setattr(BaseClient, "_make_api_call", fail)

    assert prepare(folder) == 2

    assert ready.client("s3").list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []
    assert f"{PREFIX}dataset.json" not in ready.keys("monai/")  # a prefix with it is complete


def test_ctrl_c_while_files_go_says_that_the_same_command_goes_on(ready, folder, capsys, monkeypatch):
    def interrupt(items, **_):
        next(iter(items))
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_s3, "track", interrupt)

    assert prepare(folder) == 130

    assert "the same command goes on there" in capsys.readouterr().err
    assert f"{PREFIX}dataset.json" not in ready.keys("monai/")


def test_objects_that_the_folder_lacks_are_told_and_deleted_only_when_asked(ready, folder, capsys):
    ready.put(f"{PREFIX}images/old.jpg")
    ready.put("monai/data/training-2/images/old.jpg")

    prepare(folder)
    assert "1 objects below" in capsys.readouterr().err
    prepare(folder, "--delete-others")

    assert [key for key in ready.keys("monai/") if "old" in key] == ["monai/data/training-2/images/old.jpg"]


def test_names_that_tell_who_somebody_is_are_refused_without_being_printed(ready, tmp_path, capsys):
    folder = write_dataset(tmp_path, {"images/Doe^Jane.jpg": picture(1), "images/b.jpg": picture(2)})

    assert prepare(folder) == 2

    error = capsys.readouterr().err
    assert "number 1, xxxxxxxx/xxxxxx/xxx^xxxx.jpg: a patient's name" in error
    assert "Doe" not in error
    assert ready.keys() == []
    assert prepare(folder, "--allow-keys") == 0
    assert len(ready.keys()) == 3


def test_columns_that_tell_who_somebody_is_are_refused(ready, tmp_path, capsys):
    folder = write_dataset(tmp_path, patient_name="x")

    assert prepare(folder, "--allow-keys") == 2

    assert "columns that identify people (patient_name)" in capsys.readouterr().err
    assert ready.keys() == []


def test_links_are_refused(ready, folder, tmp_path, capsys):
    (tmp_path / "secret").write_text("x")
    (folder / "images/c.jpg").symlink_to(tmp_path / "secret")

    assert prepare(folder) == 2

    assert "a link (xxxxxx/x.jpg" in capsys.readouterr().err
    assert ready.keys() == []


def test_a_folder_in_s3_that_is_a_file_here_is_refused(ready, folder, capsys):
    ready.put(f"{PREFIX}images/a.jpg/b")

    assert prepare(folder) == 2

    assert "files here and folders in S3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parallel", "0"], "--parallel must be at least 1"),
        (["--bucket", "no-such-bucket-here"], "`make infra` creates the bucket"),
        (["--shards", "--shard-mib", "0"], "a shard must have at least"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(ready, folder, capsys, arguments, message):
    assert prepare(folder, *arguments) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_without_a_data_set_is_refused(ready, tmp_path, capsys):
    (tmp_path / "data").mkdir()

    assert prepare(tmp_path / "data") == 2
    assert prepare(tmp_path / "nothing") == 2

    assert "`train` cannot read this as a data set" in capsys.readouterr().err


def test_weights_go_as_they_are(ready, tmp_path):
    (tmp_path / "model.tar.gz").write_bytes(b"x")

    assert prepare(tmp_path, "--name", "pretrained") == 0

    assert ready.keys() == ["monai/data/pretrained/model.tar.gz"]


def test_empty_files_are_told(ready, folder, capsys):
    (folder / "images/a.jpg").write_bytes(b"")

    prepare(folder)

    assert "1 files are empty (images/a.jpg)" in capsys.readouterr().err


def test_a_dry_run_sends_nothing_and_prints_the_first_requests(ready, tmp_path, capsys):
    folder = write_dataset(tmp_path, {f"images/{number}.jpg": picture(number) for number in range(6)})

    assert prepare(folder, "--dry-run", "--kms-key", "alias/mine") == 0

    printed = capsys.readouterr()
    calls = json.loads(printed.out)
    keys = [call["request"]["Key"].removeprefix(PREFIX) for call in calls]
    assert keys == ["images/0.jpg", "images/1.jpg", "images/2.jpg", "dataset.json"]
    assert {call["request"]["SSEKMSKeyId"] for call in calls} == {"alias/mine"}
    assert "3 more requests like these" in printed.err
    assert "prices of S3 are not in the table" in printed.err
    assert ready.keys() == []


def test_shards_have_all_pictures_and_are_found_again(ready, folder, capsys, tmp_path):
    assert prepare(folder, "--shards") == 0

    names = ["dataset.json", "shard-00000.tar", "shards.json"]
    assert ready.keys() == [PREFIX + name for name in names]
    (tmp_path / "shard.tar").write_bytes(ready.get(f"{PREFIX}shard-00000.tar"))
    with tarfile.open(tmp_path / "shard.tar") as tar:
        assert {member.name: tar.extractfile(member).read() for member in tar} == PICTURES
    capsys.readouterr()

    assert prepare(folder, "--shards") == 0
    assert uploaded(capsys) == 0


def test_a_part_grows_so_that_there_are_at_most_ten_thousand():
    assert part_bytes(1) == 16 * 1024**2
    assert part_bytes(5 * 1024**4) * 10_000 >= 5 * 1024**4


@pytest.mark.long
def test_an_upload_that_is_killed_anywhere_and_repeated_is_whole(cloud, tmp_path):
    folder = write_dataset(tmp_path / "data", {"a.jpg": picture(1)})
    arguments = [folder, "--parallel", "1"]

    def state():
        return {key: cloud.get(key) for key in cloud.keys("monai/")}

    assert survives_kills(cloud, "prepare-s3", arguments, cloud.make_bucket, state) >= 4


def test_the_command_runs_as_a_person_runs_it(ready, folder):
    done = run_command("prepare-s3", [folder], ready.endpoint)
    shutil.rmtree(folder)
    gone = run_command("prepare-s3", [folder], ready.endpoint)

    assert done.returncode == 0
    assert (gone.returncode, gone.stdout) == (2, "")
    assert "there is no folder" in gone.stderr


@pytest.mark.parametrize("shards", [[], ["--shards"]])
def test_series_are_uploaded_de_identified_once_and_not_again(ready, tmp_path, monkeypatch, capsys, shards):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.delenv("DEIDENTIFY_SALT", raising=False)
    series = {
        f"series/{SERIES}/{n}.dcm": content
        for n, content in enumerate(series_bytes(series=SERIES, PatientID="MRN-4711"))
    }
    folder = write_dataset(tmp_path / "data", series)
    listed = {"image": f"./series/{SERIES}/", "label": "nv", "group": "MRN-4711"}
    content = {"labels": {"0": "nv"}, "training": [listed], "validation": [], "test": []}
    (folder / "dataset.json").write_text(json.dumps(content))

    assert prepare(folder, *shards) == 0
    first = {key: ready.get(key) for key in ready.keys("monai/")}
    assert "was made and is kept in" in capsys.readouterr().err
    assert prepare(folder, *shards) == 0

    assert uploaded(capsys) == 0
    assert {key: ready.get(key) for key in ready.keys("monai/")} == first
    everything = b"\0".join([*map(str.encode, first), *first.values()])
    for secret in (SERIES, "MRN-4711", "Name^Secret", "Secret"):
        assert secret.encode() not in everything
    assert len(first) == (3 if shards else 7)
    [record] = json.loads(first[f"{PREFIX}dataset.json"])["training"]
    assert record["group"].startswith("P-")


def test_without_de_identification_the_files_go_as_they_are_and_that_is_said(ready, tmp_path, capsys):
    content = series_bytes()[0]
    folder = write_dataset(tmp_path / "data", {"images/a.dcm": content})

    assert prepare(folder, "--no-deidentify") == 0

    assert ready.get(f"{PREFIX}images/a.dcm") == content
    assert "NOTHING IS DE-IDENTIFIED" in capsys.readouterr().err


def test_headers_whose_values_lie_in_another_file_are_refused(ready, tmp_path, capsys):
    folder = write_dataset(tmp_path / "data", {"a.hdr": b"x"})

    assert prepare(folder) == 2

    assert "1 volumes are headers without their data" in capsys.readouterr().err


def test_a_list_that_is_a_workbook_or_lies_below_is_refused_before_anything_goes(ready, folder, tmp_path, capsys):
    content = workbook({"S": [["image", "label"], ["images/a.jpg", "nv"], ["images/b.jpg", "mel"]]})
    other = tmp_path / "other"
    shutil.copytree(folder / "images", other / "images")
    (other / "labels.xlsx").write_bytes(content)

    assert prepare(other) == 2
    assert "must be a CSV file" in capsys.readouterr().err
    (tmp_path / "above").mkdir()
    shutil.move(folder, tmp_path / "above" / "data")
    assert prepare(tmp_path / "above") == 2
    assert "lies in a folder below" in capsys.readouterr().err
    assert not ready.keys("monai/")


def test_masks_go_with_their_images_and_those_that_name_structures_are_refused(ready, tmp_path, capsys):
    folder = write_balls(tmp_path / "data", 2)
    listed = json.loads((folder / "dataset.json").read_text())
    listed["training"][0]["annotator_masks"] = {"1": "drawn/1.nii.gz", "2": "drawn/lost.nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(listed))
    (folder / "drawn").mkdir()
    shutil.copy(folder / "labelsTr" / "case_00.nii.gz", folder / "drawn" / "1.nii.gz")

    assert prepare(folder) == 0
    keys = {item["Key"] for item in ready.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]}
    assert keys == {PREFIX + path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}

    (folder / "labelsTr" / "case_00.nii.gz").rename(folder / "labelsTr" / "case_00.seg.nrrd")
    (folder / "labelsTr" / "case_00.seg.nrrd").write_bytes(b"NRRD0005\nSegment0_Name:=liver\n\n")
    content = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(content.replace("labelsTr/case_00.nii.gz", "labelsTr/case_00.seg.nrrd"))
    assert prepare(folder) == 2
    assert "1 masks name their structures" in capsys.readouterr().err


def test_a_table_of_masks_goes_unless_another_file_names_their_values(ready, tmp_path, capsys):
    folder = write_discs(tmp_path / "data", 2)
    (folder / "dataset.json").unlink()
    (folder / "list.csv").write_text("image,mask\n" + "".join(f"images/{i}.png,masks/{i}.png\n" for i in range(2)))

    assert prepare(folder) == 0
    keys = {item["Key"] for item in ready.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]}
    assert keys == {PREFIX + path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}

    (folder / "labels.json").write_text('{"0": "background", "1": "lesion"}')
    assert prepare(folder) == 2
    assert "list the images and masks in dataset.json" in capsys.readouterr().err
