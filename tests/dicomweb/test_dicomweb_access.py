"""Credentials reach one server only and are never shown; TLS is verified; AWS requests are signed."""

import datetime
import ipaddress
import re
import ssl

import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sagemaker_monai.dicomweb.transport import check_url
from sagemaker_monai.entrypoints import prepare
from sagemaker_monai.errors import ConfigError, Unavailable
from sagemaker_monai.sagemaker import dicomweb_access
from tests.support.fake_dicomweb import always, digests, make_series, run, serving

SERIES = "1.2.3.1"


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(folder, title, issuer=None):
    """A key and a certificate for 127.0.0.1, of an authority or its own; the path of both in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    authority, signer = issuer or (name(title), key)
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name(title)).issuer_name(authority).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(signer, hashes.SHA256())
    )  # fmt: skip
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / f"{title}.pem"
    path.write_bytes(built.public_bytes(serialization.Encoding.PEM) + secret)
    return path, (name(title), key)


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """An authority, a server and a client signed by it, and another authority."""
    folder = tmp_path_factory.mktemp("pki")
    authority, issuer = certificate(folder, "authority")
    paths = {"authority": authority, "other": certificate(folder, "other")[0]}
    return paths | {title: certificate(folder, title, issuer)[0] for title in ("server", "client")}


def tls(pki, *, wants_client=False):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki["server"])
    if wants_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(pki["authority"])
    return context


def test_tls_of_an_unknown_authority_is_refused_and_with_its_certificate_accepted(tmp_path, pki, monkeypatch):
    with serving({SERIES: make_series(SERIES, 2)}, tls=tls(pki)) as server:
        for environment in ({}, {"DICOMWEB_CA_BUNDLE": str(pki["other"])}):
            with pytest.raises(ConfigError, match="certificate cannot be verified: set DICOMWEB_CA_BUNDLE"):
                run(server.root, tmp_path / "out", environment=environment | {"DICOMWEB_TOKEN": "t"})
        assert server.asked == []
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pki["other"]))  # what requests would take instead of ours
        run(server.root, tmp_path / "out", environment={"DICOMWEB_CA_BUNDLE": str(pki["authority"])})

    assert len(digests(tmp_path / "out")) == 2


def test_a_certificate_for_another_host_is_refused(tmp_path, pki):
    with serving({SERIES: make_series(SERIES, 1)}, tls=tls(pki)) as server:
        root = server.root.replace("127.0.0.1", "localhost")
        with pytest.raises(ConfigError, match="certificate cannot be verified"):
            run(root, tmp_path / "out", environment={"DICOMWEB_CA_BUNDLE": str(pki["authority"])})


def test_a_server_that_wants_a_certificate_of_the_client_gets_it(tmp_path, pki):
    trusted = {"DICOMWEB_CA_BUNDLE": str(pki["authority"])}
    with serving({SERIES: make_series(SERIES, 1)}, tls=tls(pki, wants_client=True)) as server:
        # Unavailable where the alert that tells why was lost with the connection.
        with pytest.raises((ConfigError, Unavailable), match=r"may require a client certificate \(DICOMWEB_CLIENT"):
            run(server.root, tmp_path / "out", environment=trusted)
        run(server.root, tmp_path / "out", environment=trusted | {"DICOMWEB_CLIENT_CERT": str(pki["client"])})

    assert len(digests(tmp_path / "out")) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("route", ["/series", "/studies/1.2.3/series/1.2.3.1/instances/.*"])
def test_credentials_never_follow_a_redirect_to_another_host(tmp_path, status, route):
    with serving({SERIES: make_series(SERIES, 1)}) as other:
        target = lambda handler: handler.answer(status, b"", Location=other.root + handler.route)  # noqa: E731
        with serving({SERIES: make_series(SERIES, 1)}, always(route, target)) as server:
            with pytest.raises(ConfigError, match="redirects to another host, port or scheme, which is not followed"):
                run(server.root, tmp_path / "out", environment={"DICOMWEB_TOKEN": "t0ken"})
            assert all(headers["Authorization"] == "Bearer t0ken" for headers in server.headers)

    assert other.asked == []


def test_credentials_of_other_programs_are_not_sent(tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serving({SERIES: make_series(SERIES, 1)}) as server:
        run(server.root, tmp_path / "out")

    assert server.headers
    assert not any("Authorization" in headers for headers in server.headers)


def test_a_redirect_within_the_server_is_followed_but_not_for_ever(tmp_path):
    def move(handler):
        if not handler.path.startswith("/dicom-web/moved/"):
            handler.answer(302, b"", Location=handler.path.replace("/dicom-web/", "/dicom-web/moved/"))
            return True
        handler.route = handler.route.removeprefix("/moved")
        return False

    with serving({SERIES: make_series(SERIES, 1)}, move) as server:
        assert "1 fetched (" in run(server.root, tmp_path / "out")
        server.first = always(".*", lambda handler: handler.answer(302, b"", Location=handler.path))
        with pytest.raises(Exception, match="redirects more than 5 times"):
            run(server.root, tmp_path / "other")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://pacs.example.org/dicom-web", "plain HTTP, .* use https://, or add --insecure-http"),
        ("https://me:secret@host/dicom-web", "contains credentials"),
        ("ftp://host/", "must be the root"),
        ("https://host/dicom-web?x=1", "must be the root"),
        ("dicom-web", "must be the root"),
        ("https://host:port/", "is invalid"),
        ("https://[::1/", "is invalid"),
        ("https://host/\r\nX: y", "must be the root|is invalid"),
    ],
)
def test_an_url_that_is_unsafe_or_wrong_is_refused_without_being_quoted(url, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check_url(url, is_http_allowed=False)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8042/d", "http://localhost/d", "http://[::1]:80/d", "https://host/d/"]
)
def test_tls_and_loopback_need_no_permission(url):
    assert check_url(url, is_http_allowed=False) == url.rstrip("/")
    assert check_url("http://host/d", is_http_allowed=True) == "http://host/d"


@pytest.mark.parametrize(
    ("environment", "header"),
    [
        ({}, None),
        ({"DICOMWEB_TOKEN": "abc.def\n"}, "Bearer abc.def"),
        (
            {"DICOMWEB_USER": "Aladdin", "DICOMWEB_PASSWORD": "open sesame"},
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        ),  # RFC 7617
        ({"DICOMWEB_USER": "test", "DICOMWEB_PASSWORD": "123£"}, "Basic dGVzdDoxMjPCow=="),  # RFC 7617, 2.1
    ],
)
def test_the_environment_says_how_requests_are_authenticated(environment, header):
    access = dicomweb_access.access("https://host/dicom-web", environment)
    request = requests.Request("GET", "https://host/dicom-web/series").prepare()

    assert (access.sign(request) if access.sign else request).headers.get("Authorization") == header
    assert not any(value in repr(access) for value in environment.values())


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"DICOMWEB_USER": "s3cret"}, "set both"),
        ({"DICOMWEB_TOKEN": "s3cret", "DICOMWEB_USER": "a", "DICOMWEB_PASSWORD": "b"}, "set only one of"),
        ({"DICOMWEB_TOKEN": "s3cret\r\nX-Evil: 1"}, "DICOMWEB_TOKEN has characters .* such as white space"),
        ({"DICOMWEB_USER": "s3cret:x", "DICOMWEB_PASSWORD": "b"}, "must have no colon"),
        ({"DICOMWEB_AUTH": "s3cret"}, "must be `aws` or not set"),
        ({"DICOMWEB_CA_BUNDLE": "/nowhere/s3cret"}, "DICOMWEB_CA_BUNDLE must be a readable"),
        ({"DICOMWEB_CLIENT_CERT": "/nowhere/s3cret"}, "must be PEM files"),
        ({"DICOMWEB_CLIENT_KEY": "/nowhere/s3cret"}, "needs DICOMWEB_CLIENT_CERT"),
    ],
)
def test_a_wrong_environment_is_told_by_the_name_of_its_variable(environment, message):
    with pytest.raises(ConfigError, match=message) as caught:
        dicomweb_access.access("https://host/dicom-web", environment)
    assert "s3cret" not in str(caught.value)


HEALTH_IMAGING = "https://dicom-medical-imaging.eu-central-1.amazonaws.com/datastore/0123"


def test_requests_to_healthimaging_are_signed_for_its_region_and_service(cloud):
    access = dicomweb_access.access(HEALTH_IMAGING, {})
    request = requests.Request("GET", f"{HEALTH_IMAGING}/series?PatientID=A*&StudyDate=20200101-&limit=5").prepare()

    headers = access.sign(request).headers

    scope = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=key/(\d{8})/eu-central-1/medical-imaging/aws4_request, "
        r"SignedHeaders=host;x-amz-date, Signature=([0-9a-f]{64})",
        headers["Authorization"],
    )
    # The same by botocore from decoded parameters, which it puts into the canonical form by itself.
    signer = SigV4Auth(Credentials("key", "secret"), "medical-imaging", "eu-central-1")
    params = {"PatientID": "A*", "StudyDate": "20200101-", "limit": "5"}
    expected = AWSRequest("GET", f"{HEALTH_IMAGING}/series", {"X-Amz-Date": headers["X-Amz-Date"]}, params=params)
    expected.context["timestamp"] = headers["X-Amz-Date"]
    text = signer.string_to_sign(expected, signer.canonical_request(expected))
    assert scope.group(2) == signer.signature(text, expected)


def test_a_token_for_healthimaging_is_not_signed_over():
    request = requests.Request("GET", f"{HEALTH_IMAGING}/series").prepare()

    signed = dicomweb_access.access(HEALTH_IMAGING, {"DICOMWEB_TOKEN": "oidc"}).sign(request)

    assert signed.headers["Authorization"] == "Bearer oidc"


def test_a_server_like_healthimaging_is_asked_for_single_instances(tmp_path):
    """No retrieval of series (403, as AWS answers what it does not know), instances as they are only."""
    series = make_series(SERIES, 3)

    def first(handler):
        if re.fullmatch("/studies/1.2.3/series/1.2.3.1", handler.route):
            handler.answer(403, b"")
        elif "/instances/" in handler.route and "multipart" in handler.headers["Accept"]:
            handler.answer(406, b"")
        elif "/instances/" in handler.route:
            content = series[handler.route.rpartition("/")[2]]
            handler.answer(200, content, Content_Type="application/dicom; transfer-syntax=1.2.840.10008.1.2.1")
        else:
            return False
        return True

    with serving({SERIES: series}, first) as server:
        run(server.root, tmp_path / "out")

    assert {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm")} == {
        f"{uid}.dcm": content for uid, content in series.items()
    }
    assert sum("/instances/" in route for route in server.asked) == 4  # the form that it takes is found once


def test_the_command_gives_importers_what_only_it_knows(monkeypatch):
    given = []
    monkeypatch.setattr(prepare, "run", lambda options: given.append(options.outside))

    assert prepare.main(["dicomweb", "https://pacs.example.org", "out"]) == 0
    assert given[0].access.func is dicomweb_access.access
