"""Requests that name objects of S3: what is allowed, what is fetched from moto, and what is said of what is not."""

import asyncio
import json
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagemaker_monai.errors import (
    CallerError,
    ConfigError,
    MalformedRequest,
    ObjectUnavailable,
    PayloadTooLarge,
    ReferenceNotAllowed,
    Timeout,
    Unavailable,
)
from sagemaker_monai.images.sample import Instances
from sagemaker_monai.requests.media_types import read_request
from sagemaker_monai.sagemaker import object_references
from sagemaker_monai.sagemaker.object_references import S3Objects
from sagemaker_monai.serving.gateway import Gateway
from sagemaker_monai.serving.references import (
    MAX_REFERENCES,
    Prefix,
    Reference,
    names_objects,
    parse_prefixes,
    parse_references,
)
from sagemaker_monai.serving.settings import ServeConfig
from tests.serving.test_gateway import CONFIG, Client, FakeBackEnd, code_of, post
from tests.support import loopback
from tests.support.dicom_bodies import DICOMDIR, dicom, zip_of
from tests.support.refusals import not_refused

OURS = "scans"
ALLOWED = (Prefix(OURS, "in/"),)
MAKE_CLIENT, CLIENTS = object_references.make_client, {}


@pytest.fixture(autouse=True)
def kept_clients(monkeypatch):
    """One client for each endpoint and account: to make one takes longer than most tests."""

    def make():
        key = os.environ.get("AWS_ENDPOINT_URL"), os.environ.get("AWS_ACCESS_KEY_ID")
        if key not in CLIENTS:
            CLIENTS[key] = MAKE_CLIENT()
        return CLIENTS[key]

    monkeypatch.setattr(object_references, "make_client", make)


def resolve_references(body, allowed, *, max_bytes=100 * 1024**2, timeout_s=60.0):
    """What the gateway does: a request that names objects becomes one that holds them."""
    store = S3Objects(allowed, max_bytes=max_bytes, timeout_s=timeout_s)
    return store.fetch(store.locate(body))


def naming(*pairs):
    return json.dumps({"objects": [{"bucket": bucket, "key": key} for bucket, key in pairs]}).encode()


def ours(*keys):
    return naming(*((OURS, key) for key in keys))


# --- what may be named


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        (" s3://a-b.c/ ", (Prefix("a-b.c", ""),)),
        ("s3://one/x/\ts3://two/y/z/\n", (Prefix("one", "x/"), Prefix("two", "y/z/"))),
        ("s3://one/x/ s3://one/x/", (Prefix("one", "x/"),)),
    ],
)
def test_prefixes_are_read_from_the_environment(text, expected):
    assert ServeConfig.from_env({"ALLOWED_S3_PREFIXES": text}).allowed_prefixes == expected


def test_other_prefixes_stop_the_server_before_it_starts():
    prefixes = [
        "bucket/x/", "s3://", "s3:///x/", "s3://one", "s3://one/x", "s3://one/*", "s3://one/x*/", "s3://One/", "https://one/",
        "s3://one/../", "s3://one/a/../b/", "s3://one//", "s3://one/,s3://two/", "s3://arn:aws:s3:::one/", "s3://one..two/",
        "s3://mine-ab12-s3alias/", "s3://mine--x-s3/", "s3://mine.mrap/",
    ]  # fmt: skip
    assert not_refused(prefixes, parse_prefixes, ConfigError, "ALLOWED_S3_PREFIXES") == []


def test_what_lies_below_a_prefix_may_be_named():
    named = parse_references(ours("in/a.dcm", "in/series/", "in/"), ALLOWED)

    assert named == [Reference(OURS, "in/a.dcm"), Reference(OURS, "in/series/"), Reference(OURS, "in/")]
    assert [reference.is_folder for reference in named] == [False, True, True]


def test_a_whole_bucket_may_be_listed():
    assert parse_references(ours("anything"), (Prefix(OURS, ""),)) == [Reference(OURS, "anything")]


@pytest.mark.parametrize(
    "pair",
    [
        ("scans2", "in/a"), ("scan", "in/a"), ("scans.evil", "in/a"), (OURS, "in"), (OURS, "inn/a"), (OURS, "out/in/a"),
        (OURS, "In/a"), (OURS, "a"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("allowed", [ALLOWED, ()])
def test_everything_else_is_not_allowed(pair, allowed):
    with pytest.raises(ReferenceNotAllowed, match="object 0") as caught:
        parse_references(naming(pair), allowed)
    assert caught.value.status == 403
    assert pair[0] not in str(caught.value)


def test_other_keys_buckets_and_bodies_are_malformed():
    keys = [
        "", "/in/a", "in/../out/a", "in/..", "in/./a", "in//a", "in/a\0", "in/a\n", "in/" + "x" * 1_022, "in/\ud800",
        "s3://scans/in/a", "https://scans.s3.amazonaws.com/in/a", "..", "/",
    ]  # fmt: skip
    buckets = [
        "", "s3://scans", "arn:aws:s3:::scans", "arn:aws:s3:eu-central-1:123456789012:accesspoint/x", "scans/in",
        "Scans", "x-s3alias", "sc ans", "scans\n", "a", "x" * 64, "a..b", "http://169.254.169.254/",
    ]  # fmt: skip
    bodies = [
        b"", b"null", b"[]", b"{}", b'{"objects": []}', b'{"objects": {}}', b'{"objects": [[]]}', b'{"objects": ["s3://a/b"]}',
        b'{"objects": [{"bucket": "scans"}]}', b'{"objects": [{"bucket": "scans", "key": 1}]}',
        b'{"objects": [{"bucket": "scans", "key": "in/a", "versionId": "1"}]}',
        b'{"objects": [{"bucket": "scans", "key": "in/a"}], "x": 1}',
        b'{"objects": [{"bucket": "scans", "key": "in/a", "key": "in/b"}]}',
        b'{"objects": [], "objects": [{"bucket": "scans", "key": "in/a"}]}',
        b'{"objects": ' + b"[" * 100_000, b"\xff", ours("in/a", "in/a"),
    ]  # fmt: skip

    def parse_bucket(bucket):
        parse_references(naming((bucket, "in/a")), (*ALLOWED, Prefix(bucket, "in/")))

    assert not_refused(keys, lambda key: parse_references(ours(key), ALLOWED), MalformedRequest) == []
    assert not_refused(buckets, parse_bucket, MalformedRequest, "bucket") == []
    assert not_refused(bodies, lambda body: parse_references(body, ALLOWED), MalformedRequest) == []


def test_too_many_objects_are_refused_before_they_are_parsed():
    assert len(parse_references(ours(*(f"in/{x}" for x in range(MAX_REFERENCES))), ALLOWED)) == MAX_REFERENCES
    with pytest.raises(PayloadTooLarge):
        parse_references(ours(*(f"in/{x}" for x in range(MAX_REFERENCES + 1))), ALLOWED)
    with pytest.raises(PayloadTooLarge):
        parse_references(b'{"objects": ["' + b"x" * 3_000_000 + b'"]}', ALLOWED)


@given(st.text(max_size=40))
def test_whatever_is_named_lies_below_the_prefix(key):
    try:
        [reference] = parse_references(ours(key), ALLOWED)
    except CallerError:
        return
    assert reference.key.startswith("in/")
    assert ".." not in reference.key.split("/")


def test_requests_that_hold_images_are_not_looked_into():
    assert names_objects(ours("in/a"), "application/json; charset=utf-8")
    assert not names_objects(ours("in/a"), "image/png")
    assert not names_objects(b'{"instances": [{"image": "' + b"A" * 1_000 + b'"}], "objects": []}', "application/json")


# --- what is fetched


@pytest.fixture
def bucket(cloud):
    cloud.make_bucket(OURS)
    return lambda key, body: cloud.put(key, body, OURS)


def samples_of(body, **options):
    return [sample.source for sample in read_request(*resolve_references(body, ALLOWED, **options))]


def test_objects_are_what_a_zip_of_them_would_be(bucket):
    bucket("in/2.png", b"two")
    bucket("in/1.png", b"one")

    expected = read_request(zip_of(("2.png", b"two"), ("1.png", b"one")), "application/zip")
    assert samples_of(ours("in/2.png", "in/1.png")) == [sample.source for sample in expected] == [b"two", b"one"]


def test_a_folder_is_the_series_in_it(bucket):
    files = [dicom(number) for number in range(3)]
    for number, content in enumerate(files):
        bucket(f"in/series/deep/IM{number}", content)
    bucket("in/series/", b"")
    bucket("in/series/deep/DICOMDIR", DICOMDIR)
    bucket("in/series/.DS_Store", b"x")
    bucket("in/series/LICENSE", b"free")
    bucket("in/series2/IM0", dicom(9))

    assert samples_of(ours("in/series/")) == [Instances(tuple(files))]


def test_more_objects_than_a_page_of_s3_has_are_all_listed(bucket, monkeypatch):
    monkeypatch.setattr(object_references, "PAGE_OBJECTS", 3)
    for number in range(10):
        bucket(f"in/big/{number}", b"%d" % number)

    assert samples_of(ours("in/big/")) == [b"%d" % number for number in range(10)]


def test_a_folder_of_nothing_but_litter_ends(bucket, monkeypatch):
    monkeypatch.setattr(object_references, "PAGE_OBJECTS", 1)
    monkeypatch.setattr(object_references, "MAX_PAGES", 3)
    for number in range(5):
        bucket(f"in/big/._{number}", b"x")

    with pytest.raises(PayloadTooLarge):
        resolve_references(ours("in/big/"), ALLOWED)


@pytest.mark.parametrize("key", ["in/series.zip", "in/no suffix"])
def test_an_object_that_is_an_archive_is_taken_as_it_is(bucket, key):
    bucket(key, zip_of(("a", dicom(1)), ("b", dicom(2))))

    body, content_type = resolve_references(ours(key), ALLOWED)

    assert content_type == "application/zip"
    assert [sample.source for sample in read_request(body, content_type)] == [Instances((dicom(1), dicom(2)))]


@pytest.mark.parametrize("key", ["in/%2e%2e/a b+c&d=é?x#y.png", "in/" + "x" * 300, "in/日本.png"])
def test_keys_reach_s3_as_they_are(bucket, key):
    bucket(key, b"one")

    assert samples_of(ours(key)) == [b"one"]


@pytest.mark.parametrize(
    "make", [lambda put: put("in/big", bytes(5_000)), lambda put: [put(f"in/s/{x}", b"") for x in range(5)]]
)
def test_objects_larger_than_a_request_may_be_are_not_transferred(bucket, monkeypatch, make):
    make(bucket)
    monkeypatch.setattr(S3Objects, "_read", lambda *_: pytest.fail("something was read"))

    with pytest.raises(PayloadTooLarge, match="4096 bytes together"):
        resolve_references(ours("in/"), ALLOWED, max_bytes=4_096)


def test_a_folder_of_too_many_objects_is_refused(bucket, monkeypatch):
    monkeypatch.setattr(object_references, "MAX_INSTANCES", 3)
    for number in range(4):
        bucket(f"in/{number}", b"x")

    with pytest.raises(PayloadTooLarge, match="object 0: the folder"):
        resolve_references(ours("in/"), ALLOWED)
    with pytest.raises(PayloadTooLarge, match="4 objects"):
        resolve_references(ours("in/0", "in/1", "in/2", "in/3"), ALLOWED)


# --- what cannot be fetched


def test_what_does_not_exist_is_unavailable(bucket):
    bucket("in/a", b"x")

    for key in ("in/nothing", "in/nothing/"):
        with pytest.raises(ObjectUnavailable, match="object 1 does not exist, or") as caught:
            resolve_references(ours("in/a", key), ALLOWED)
        assert caught.value.status == 424
    with pytest.raises(ObjectUnavailable, match="object 0 does not exist, or"):
        resolve_references(naming(("another-bucket", "in/a")), (Prefix("another-bucket", "in/"),))


def test_an_object_that_changes_meanwhile_is_not_read(bucket):
    store = S3Objects(ALLOWED, max_bytes=10_000, timeout_s=60)
    bucket("in/a", b"first")
    plan = store.locate(ours("in/a"))
    bucket("in/a", b"other")

    with pytest.raises(Unavailable, match="object 0 changed"):
        store.fetch(plan)


def test_without_credentials_the_remedy_is_named(cloud, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    with pytest.raises(ObjectUnavailable, match="s3:GetObject"):
        resolve_references(ours("in/a"), ALLOWED)


def test_time_is_limited_for_all_objects_together(bucket):
    bucket("in/a", b"x")

    with pytest.raises(Timeout):
        resolve_references(ours("in/a"), ALLOWED, timeout_s=0)


class Answers(loopback.Handler):
    """S3 with one answer to everything; `asked` counts."""

    def get(self):
        self.server.asked.append(self.path)
        status, body, headers = self.server.reply
        self.answer(status, body, **headers)

    head = get


@pytest.fixture(scope="module")
def answering():
    with loopback.listening(Answers) as server:
        yield server


@pytest.fixture
def answers(answering, cloud, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{answering.server_port}")
    answering.asked = []
    return answering


ERROR = "<Error><Code>{}</Code><Message>arn:aws:iam::999999999999:role/secret</Message></Error>"


@pytest.mark.parametrize(
    ("reply", "error", "requests"),
    [
        ((403, ERROR.format("AccessDenied").encode(), {}), ObjectUnavailable, 1),
        ((301, ERROR.format("PermanentRedirect").encode(), {"x_amz_bucket_region": "us-west-2"}), ObjectUnavailable, 1),
        (
            (400, ERROR.format("AuthorizationHeaderMalformed").encode(), {"x_amz_bucket_region": "us-west-2"}),
            ObjectUnavailable, 1,
        ),
        ((403, ERROR.format("InvalidAccessKeyId").encode(), {}), ObjectUnavailable, 1),
        ((503, ERROR.format("SlowDown").encode(), {}), Unavailable, 3),
        ((200, b"not XML", {}), Unavailable, 3),
    ],
)  # fmt: skip
def test_what_s3_says_of_others_stays_here_and_nobody_follows_to_another_region(
    answers, monkeypatch, reply, error, requests
):
    monkeypatch.setattr("time.sleep", lambda _: None)
    answers.reply = reply

    with pytest.raises(error) as caught:
        resolve_references(ours("in/folder/"), ALLOWED)

    assert len(answers.asked) == requests
    assert not any(word in str(caught.value) for word in ("arn", "999999999999", "us-west-2", OURS, "folder/"))


def test_an_object_longer_than_it_was_found_is_not_read_to_its_end(answers):
    answers.reply = (200, bytes(3_000_000), {"ETag": '"1"'})
    store = S3Objects(ALLOWED, max_bytes=10_000_000, timeout_s=60)
    found = (object_references.Found(OURS, "in/a", 0, 5, '"1"'),)

    with pytest.raises(Unavailable, match="changed"):
        store.fetch(object_references.FoundObjects(found, 5, 1e12, is_alone=True))


# --- in the gateway


def ask(store, body, content_type="application/json", config=CONFIG):
    """Status, body, and what reached the back end."""

    async def main():
        back_end = FakeBackEnd()
        gateway = Gateway(config, back_end, objects=store)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            await gateway.open(listener)
            try:
                client = await Client(listener.getsockname()[1]).connect()
                await client.send(post(body, content_type))
                status, _, answer = await client.response()
                client.close()
            finally:
                await gateway.close()
        return status, answer, back_end.requests, gateway

    return asyncio.run(main())


def test_the_back_end_gets_the_objects_and_never_their_names(bucket):
    bucket("in/1.png", b"one")

    status, _, [request], gateway = ask(S3Objects(ALLOWED, max_bytes=20_000, timeout_s=60), ours("in/1.png"))

    assert status == 200
    assert request.content_type == "application/x-tar"
    assert [sample.source for sample in read_request(request.body, request.content_type)] == [b"one"]
    assert gateway._held_bytes == 0


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (naming(("other", "in/a")), 403, "ReferenceNotAllowed"),
        (ours("in/nothing"), 424, "ObjectUnavailable"),
        (b'{"objects": 5}', 400, "MalformedRequest"),
    ],
)
def test_refusals_do_not_reach_the_back_end(bucket, body, status, code):
    answered, answer, requests, _ = ask(S3Objects(ALLOWED, max_bytes=20_000, timeout_s=60), body)

    assert (answered, code_of(answer), requests) == (status, code, [])


def test_without_allowed_prefixes_the_body_goes_on_as_it_is():
    status, _, [request], _ = ask(None, ours("in/a"))

    assert (status, request.body) == (200, ours("in/a"))


class Held:
    """A store that says how much the gateway holds while it fetches."""

    def __init__(self):
        self.plan = object_references.FoundObjects((), 5_000, 1e12, is_alone=False)
        self.held = None

    def locate(self, body):
        return self.plan

    def fetch(self, plan):
        self.held = self.gateway._held_bytes
        return b"fetched", "application/x-tar"


def test_objects_count_towards_what_the_gateway_holds(monkeypatch):
    store = Held()
    made = Gateway.__init__

    def keep(gateway, *arguments, **options):
        store.gateway = gateway
        made(gateway, *arguments, **options)

    monkeypatch.setattr(Gateway, "__init__", keep)
    assert ask(store, ours("in/a"))[0] == 200
    assert store.held == 5_000 + len(ours("in/a"))

    monkeypatch.setattr(store, "plan", object_references.FoundObjects((), 1 << 40, 1e12, is_alone=False))
    status, answer, requests, gateway = ask(store, ours("in/a"))
    assert (status, code_of(answer), requests, gateway._held_bytes) == (503, "Overloaded", [], 0)
