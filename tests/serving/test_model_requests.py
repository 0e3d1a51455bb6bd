import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagemaker_monai.errors import MalformedRequest
from sagemaker_monai.serving.model_requests import MAX_PAGE, model_folder, page, parse_load

HASH = "a3f1" * 16


def body(name=HASH, url="/opt/ml/models/x/model", **more):
    return json.dumps({"model_name": name, "url": url, **more}).encode()


@pytest.mark.parametrize("name", [HASH, "x", "model-1.tar.gz", "Übung 7", "a" * 256, "100%", "{name}"])
def test_a_name_is_taken_as_it_is(name):
    assert parse_load(body(name, more=1)) == (name, "/opt/ml/models/x/model")


BAD_NAMES = (
    "", ".", "..", "../x", "/etc", "a/b", "a\\b", "..\\b", "a\0b", "a\nb", "http://host/x", "s3://bucket/x", "file:x",
    "C:x", ".hidden", "a" * 257, "\ud800", "\u202e",
)  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_looks_like_a_path_or_an_address_is_refused(name):
    with pytest.raises(MalformedRequest, match="model_name must be"):
        parse_load(body(name))


@pytest.mark.parametrize(
    "content",
    [
        b"{", b"null", b"[]", b'"x"', b"7", b"{}", b'{"model_name": "x"}', b'{"url": "/x"}', b"\xff\xfe", b"[" * 16_000,
        b'{"model_name": 1, "url": "/x"}', b'{"model_name": "x", "url": ["/x"]}', b'{"model_name": null, "url": "/x"}',
        b"NaN", b"9" * 5_000, b'{"model_name": {"model_name": "x"}, "url": "/x"}',
    ],
)  # fmt: skip
def test_a_body_of_another_shape_is_refused(content):
    with pytest.raises(MalformedRequest, match="the body must be"):
        parse_load(content)


@pytest.fixture
def models(tmp_path):
    (tmp_path / "models" / "x" / "model").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "models" / "out").symlink_to(tmp_path / "outside")
    (tmp_path / "models" / "in").symlink_to(tmp_path / "models" / "x")
    (tmp_path / "models" / "round").symlink_to(tmp_path / "models" / "round")
    (tmp_path / "alias").symlink_to(tmp_path / "models")
    return tmp_path / "models"


def test_the_folder_of_a_url_has_its_links_resolved(models):
    for url in (models / "x" / "model", models / "in" / "model", models.parent / "alias" / "x" / "model"):
        assert model_folder(str(url), models) == models / "x" / "model"
    assert model_folder(str(models / "absent"), models) == models / "absent"
    assert model_folder(str(models / "x"), models.parent / "alias") == models / "x"


@pytest.mark.parametrize(
    "url",
    [
        "", "x/model", "../models/x", "{models}/../outside", "{models}/x/../x/model", "{models}", "{models}/", "/",
        "{models}/out", "{models}/out/x", "{models}/round", "/etc/passwd", "{models}-2/x", "http://host/x",
        "s3://bucket/x", "file://{models}/x", "//host/x", "{models}/a\0b", "{models}/a\nb", "{models}/" + "x" * 5_000,
    ],
)  # fmt: skip
def test_a_place_outside_the_models_folder_is_refused(models, url):
    with pytest.raises(MalformedRequest, match="url must be the absolute path"):
        model_folder(url.replace("{models}", str(models)), models)


@given(st.sets(st.text(min_size=1, max_size=3), max_size=30), st.integers(1, 40))
def test_pages_together_are_all_names_once_in_order(names, limit):
    found, token = [], ""
    while True:
        part, following = page(names, limit=str(limit), token=token)
        assert len(part) <= limit
        found += part
        if following is None:
            break
        token = following

    assert found == sorted(names)


def test_a_page_is_not_longer_than_is_allowed_and_the_last_one_has_no_token():
    names = [f"{number:03}" for number in range(MAX_PAGE + 1)]

    for limit in ("", "999999999"):
        part, token = page(names, limit=limit, token="")
        assert (len(part), token) == (MAX_PAGE, part[-1])
        assert page(names, limit=limit, token=token) == ([names[-1]], None)
    assert page(names[:2], limit="2", token="") == (["000", "001"], None)


def test_models_that_come_and_go_between_pages_hide_no_other():
    part, token = page(["a", "b", "c", "d"], limit="2", token="")

    assert part == ["a", "b"]
    assert page(["a2", "c", "d"], limit="2", token=token) == (["c", "d"], None)


@pytest.mark.parametrize("limit", ["0", "-1", "1.5", "x", "1e3", "²", "٣", " 1", "9" * 5_000])
def test_a_limit_that_is_no_number_is_refused(limit):
    with pytest.raises(MalformedRequest, match="limit"):
        page(["a"], limit=limit, token="")
