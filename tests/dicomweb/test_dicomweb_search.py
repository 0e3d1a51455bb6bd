"""What a DICOMweb server has is found page by page, and what was fetched before is known."""

import json
import threading

import pytest

from sagemaker_monai.dicomweb import search as dicomweb_search
from sagemaker_monai.dicomweb import transport as dicomweb_http
from sagemaker_monai.dicomweb.transport import Access
from sagemaker_monai.errors import ConfigError, DatasetError
from tests.support.fake_dicomweb import STUDY, always, digests, make_series, record, run, serving


def test_pages_are_asked_for_until_nothing_new_comes(tmp_path, monkeypatch):
    monkeypatch.setattr(dicomweb_search, "PAGE", 3)
    series = {f"1.2.3.{number}": make_series(f"1.2.3.{number}", 1) for number in range(1, 9)}
    with serving(series) as server:
        assert run(server.root, tmp_path / "out").startswith("8 series with 8 instances: 8 fetched")

    assert server.asked.count("/series") == 4  # 3, 3, 2 and an empty page: a server may give less than asked for


def test_a_server_with_short_pages_is_read_to_its_end(tmp_path):
    series = {f"1.2.3.{number}": make_series(f"1.2.3.{number}", 3) for number in range(1, 6)}

    def first(handler):
        handler.words["limit"] = "2"
        return False

    with serving(series, first) as server:
        assert run(server.root, tmp_path / "out").startswith("5 series with 15 instances: 15 fetched")


def ignoring_offset(handler):
    handler.words["offset"] = "0"
    return False


def test_a_server_that_ignores_offset_is_asked_once_more_and_not_for_ever(tmp_path, monkeypatch):
    series = {f"1.2.3.{number}": make_series(f"1.2.3.{number}", 1) for number in range(1, 5)}
    with serving(series, ignoring_offset) as server:
        assert run(server.root, tmp_path / "out").startswith("4 series with 4 instances")
        assert server.asked.count("/series") == 2

        monkeypatch.setattr(dicomweb_search, "PAGE", 4)
        with pytest.raises(DatasetError, match=r"only the first 4 series \(it ignores the parameter offset\); narrow"):
            run(server.root, tmp_path / "other")


def test_results_that_contradict_the_search_are_left_out(tmp_path):
    series = {uid: make_series(uid, 1) for uid in ("1.2.3.1", "1.2.3.2")}

    def ignoring_keys(handler):
        if handler.route == "/series":
            modalities = {"1.2.3.1": "CT", "1.2.3.2": "MR"}
            handler.page([record(study=STUDY, series=uid, modality=modalities[uid], count=1) for uid in series])
            return True
        return False

    with serving(series, ignoring_keys) as server:
        run(server.root, tmp_path / "out", "--modality=MR")

    assert [path.name for path in (tmp_path / "out" / "series").iterdir()] == ["1.2.3.2"]


def test_the_search_is_sent_as_the_standard_has_it(tmp_path):
    sent = []

    def first(handler):
        sent.append((handler.route, handler.words, handler.path))
        return False

    with serving({"1.2.3.1": make_series("1.2.3.1", 1)}, first) as server:
        run(
            server.root, tmp_path / "out", "--study=1.2.3", "--series=1.2.3.1", "--modality=MR", "--patient-id=P1",
            "--study-date=20200101-", "--query=SeriesDescription=T1 & T2",
        )  # fmt: skip

    route, words, path = sent[0]
    assert route == "/studies/1.2.3/series"
    assert words | {"includefield": ""} == {
        "SeriesInstanceUID": "1.2.3.1", "Modality": "MR", "PatientID": "P1", "StudyDate": "20200101-",
        "SeriesDescription": "T1 & T2", "limit": "500", "offset": "0", "fuzzymatching": "false", "includefield": "",
    }  # fmt: skip
    assert "SeriesDescription=T1%20%26%20T2" in path


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--study=../../etc", "--study must be a DICOM UID"),
        ("--series=1.2.x", "--series must be a DICOM UID"),
        ("--modality=ct", "--modality must be a DICOM code in capitals"),
        ("--study-date=2020", "--study-date must be YYYYMMDD"),
        ("--query=limit=5", "--query limit: must be KEY=VALUE"),
        ("--query=SeriesDescription", "--query SeriesDescription: must be KEY=VALUE"),
        ("--query=SeriesDescriptoin=x", "--query SeriesDescriptoin: neither a DICOM keyword"),
        ("--limit=0", "--limit must be at least 1, got 0"),
        ("--parallel=99", "--parallel must be from 1 to 32, got 99"),
        ("--kms-key=x", "--kms-key is for s3:// only"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_asked(tmp_path, option, message):
    with pytest.raises(ConfigError, match=message):
        run("http://127.0.0.1:9/dicom-web", tmp_path / "out", option)
    assert not (tmp_path / "out").exists()


def test_a_second_search_into_the_same_folder_adds_to_it(tmp_path):
    series = {uid: make_series(uid, 2) for uid in ("1.2.3.1", "1.2.3.2")}
    with serving(series) as server:
        run(server.root, tmp_path / "out", "--series=1.2.3.1")
        summary = run(server.root, tmp_path / "out")

    assert summary.startswith("2 series with 4 instances: 2 fetched (")
    assert len(digests(tmp_path / "out")) == 4


def test_a_file_that_was_removed_or_shortened_is_fetched_again(tmp_path):
    with serving({"1.2.3.1": make_series("1.2.3.1", 3)}) as server:
        run(server.root, tmp_path / "out")
        expected = digests(tmp_path / "out")
        files = sorted((tmp_path / "out").rglob("*.dcm"))
        files[0].unlink()
        files[1].write_bytes(files[1].read_bytes()[:-1])
        assert "2 fetched (" in run(server.root, tmp_path / "out")

    assert digests(tmp_path / "out") == expected


def test_half_a_line_in_the_state_file_is_what_a_killed_run_leaves(tmp_path):
    with serving({"1.2.3.1": make_series("1.2.3.1", 3)}) as server:
        run(server.root, tmp_path / "out")
        state = tmp_path / "out" / "retrieval.jsonl"
        state.write_bytes(state.read_bytes()[:-20])
        assert "1 fetched (" in run(server.root, tmp_path / "out")

    lines = [json.loads(line) for line in state.read_text().splitlines()]
    assert lines[0]["journal"] == 1
    assert len(lines) == 4


def test_the_access_that_is_given_signs_every_request(tmp_path):
    def sign(request):
        request.headers["X-Key"] = "k"
        return request

    with serving({"1.2.3.1": make_series("1.2.3.1", 1)}) as server:
        found = dicomweb_search.find_series(
            dicomweb_http.Server(server.root, Access(sign), threading.Event()), dicomweb_search.Query()
        )

    assert found == [dicomweb_search.FoundSeries("1.2.3", "1.2.3.1", 1)]
    assert all(headers["X-Key"] == "k" for headers in server.headers)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", "is not JSON"),
        (b'{"a": 1}', "not a list of DICOM JSON"),
        (b"[1]", "not a list of DICOM JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[{}]", "without a valid UID"),
        (b'[{"0020000E": {"Value": ["../../etc"]}}]', "without a valid UID"),
        (b'[{"0020000E": {"Value": [null]}}]', "without a valid UID"),
        (b'[{"0020000E": {"Value": ["1.2"]}}]', "without its StudyInstanceUID"),
        (b'[{"0020000E": {"Value": ["1.2"]}, "0020000D": {"Value": ["/x"]}}]', "without its StudyInstanceUID"),
        (b"\xff\xfe", "is not JSON"),
        (b"", "no series for this search"),
        (b"[]", "no series for this search"),
    ],
)
def test_junk_for_a_search_is_refused(tmp_path, body, message):
    answer = always("/series", lambda handler: handler.answer(200, body))
    with serving({}, answer) as server, pytest.raises(DatasetError, match=message):
        run(server.root, tmp_path / "out")


def test_a_page_or_a_list_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(dicomweb_http, "MAX_JSON_BYTES", 1000)
    monkeypatch.setattr(dicomweb_search, "MAX_RESULTS", 50)
    with serving({}, always("/series", lambda handler: handler.answer(200, b" " * 1001))) as server:
        with pytest.raises(DatasetError, match="a page of the search is larger than 1000 bytes"):
            run(server.root, tmp_path / "out")

        def endless(handler):
            start = int(handler.words["offset"])
            handler.json([record(study="1", series=f"1.{number}") for number in range(start, start + 5)])

        server.first = always("/series", endless)
        with pytest.raises(DatasetError, match="more than 50 series"):
            run(server.root, tmp_path / "out")


@pytest.mark.parametrize("status", [404, 501])
def test_an_url_that_is_no_dicomweb_root_is_told_with_an_example(tmp_path, status):
    with (
        serving({}, always(".*", lambda handler: handler.answer(status, b""))) as server,
        pytest.raises(
            ConfigError, match=rf"does not offer a search for series at this URL \({status}\): .*https://host/dicom-web"
        ),
    ):
        run(server.root, tmp_path / "out")


def test_a_refused_search_key_and_missing_rights_are_told(tmp_path):
    with serving({}, always(".*", lambda handler: handler.answer(400, b""))) as server:
        with pytest.raises(ConfigError, match=r"400\): it may not support one of the search keys"):
            run(server.root, tmp_path / "out")
        server.first = always(".*", lambda handler: handler.answer(403, b""))
        with pytest.raises(ConfigError, match=r"do not allow this \(403\)"):
            run(server.root, tmp_path / "out")
