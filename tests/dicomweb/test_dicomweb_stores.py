"""What is stored: no patient in S3, nothing twice, nothing outside of the output."""

import json

import pydicom
import pytest

from sagemaker_monai.errors import ConfigError, DatasetError
from tests.support.fake_dicomweb import make_series, run, serving

SERIES = "1.2.3.1"
SALT = {"DEIDENTIFY_SALT": "0123456789abcdef0123456789abcdef"}


def test_to_s3_goes_nothing_of_the_patient_and_a_second_run_fetches_nothing(tmp_path, cloud, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bucket = cloud.make_bucket()
    series = make_series(SERIES, 3, patient="SECRET-77")
    with serving({SERIES: series}) as server:
        run(server.root, f"s3://{bucket}/study/one", "--kms-key=alias/mine", environment=SALT)
        asked = len(server.asked)
        assert "0 fetched, 3 there before" in run(
            server.root, f"s3://{bucket}/study/one", "--kms-key=alias/mine", environment=SALT
        )
        assert not any("/instances/" in route for route in server.asked[asked:])
        cloud.client("s3").delete_object(Bucket=bucket, Key=cloud.keys()[0])
        cloud.put(cloud.keys()[0], b"another size")
        assert "2 fetched (" in run(server.root, f"s3://{bucket}/study/one", environment=SALT)

    keys = cloud.keys()
    assert len(keys) == 3
    for key in keys:
        found = cloud.client("s3").get_object(Bucket=bucket, Key=key)
        content = found["Body"].read()
        assert not any(word in content for word in (b"SECRET-77", b"Doe", SERIES.encode()))
        dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
        assert key == f"study/one/series/{dataset.SeriesInstanceUID}/{dataset.SOPInstanceUID}.dcm"
        assert dataset.PatientIdentityRemoved == "YES"
        assert len(dataset.PixelData) == 128
    encryption = [cloud.client("s3").head_object(Bucket=bucket, Key=key) for key in keys]
    assert [each.get("SSEKMSKeyId", "").endswith("alias/mine") for each in encryption].count(True) == 1
    state = tmp_path / f"{bucket}-study-one.retrieval.jsonl"
    assert state.stat().st_mode & 0o777 == 0o600
    assert len(state.read_text().splitlines()) == 6


def test_another_salt_or_none_is_not_mixed_into_what_is_there(tmp_path):
    with serving({SERIES: make_series(SERIES, 1)}) as server:
        run(server.root, tmp_path / "out", "--deidentify", environment=SALT)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["series"]  # the state names original UIDs
        for options, environment in (
            (["--deidentify"], {"DEIDENTIFY_SALT": "another secret of 32 characters."}),
            (["--deidentify", "--keep-patient-characteristics"], SALT),
            ([f"--state={tmp_path / 'out.retrieval.jsonl'}"], {}),
        ):
            with pytest.raises(ConfigError, match="another de-identification or salt; name another output"):
                run(server.root, tmp_path / "out", *options, environment=environment)


def test_a_run_that_stored_nothing_binds_nobody(tmp_path):
    with serving({}) as empty, serving({SERIES: make_series(SERIES, 1)}) as server:
        with pytest.raises(DatasetError, match="no series for this search"):
            run(empty.root, tmp_path / "out")
        run(server.root, tmp_path / "out")
        with pytest.raises(ConfigError, match="from another server"):
            run(empty.root, tmp_path / "out")


def test_no_salt_no_bucket_and_no_rights_are_told(tmp_path, cloud, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="set DEIDENTIFY_SALT to a secret"):
        run("https://host/d", "s3://bucket/prefix")
    with pytest.raises(ConfigError, match="S3 refuses: there is no such bucket"):
        run("https://host/d", "s3://no-such-bucket/prefix", environment=SALT)
    with pytest.raises(ConfigError, match="OUT must be a folder or s3://bucket/prefix"):
        run("https://host/d", "s3://B_/x", environment=SALT)


def test_a_second_run_at_the_same_time_and_a_foreign_state_file_are_refused(tmp_path):
    seen = []

    def first(handler):
        if not seen:
            seen.append(1)
            with pytest.raises(ConfigError, match="another retrieval into this output is running"):
                run(handler.server.root, tmp_path / "out")
            seen.append(2)
        return False

    with serving({SERIES: make_series(SERIES, 1)}, first) as server:
        run(server.root, tmp_path / "out")
        assert seen == [1, 2]
        for content in (b"{}\n", b"notes\n", b"notes", bytes(100_000), b'{"a": 1}'):
            (tmp_path / "notes").write_bytes(content)
            with pytest.raises(ConfigError, match="does not belong to a retrieval"):
                run(server.root, tmp_path / "new", f"--state={tmp_path / 'notes'}")
            assert (tmp_path / "notes").read_bytes() == content


@pytest.mark.parametrize("name", ["../../etc/passwd", "series/1/../../x.dcm", "/etc/x", "series/../1.dcm", "x"])
def test_a_state_file_cannot_point_out_of_the_output(tmp_path, name):
    with serving({SERIES: make_series(SERIES, 1)}) as server:
        run(server.root, tmp_path / "out")
        state = tmp_path / "out" / "retrieval.jsonl"
        lines = state.read_text().splitlines()
        state.write_text(f"{lines[0]}\n{json.dumps(json.loads(lines[1]) | {'name': name})}\n")
        with pytest.raises(ConfigError, match="state file is damaged"):
            run(server.root, tmp_path / "out")
