"""What `prepare dicomweb` reads from the environment: credentials, certificates, proxies, AWS, the salt.

None of these values is ever shown, even if it is wrong.
"""

import re
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import requests
from requests.auth import HTTPBasicAuth

from sagemaker_monai.dicomweb.transfer import Outside
from sagemaker_monai.dicomweb.transport import Access
from sagemaker_monai.errors import ConfigError
from sagemaker_monai.sagemaker.s3_store import open_s3
from sagemaker_monai.storage.file_names import is_fit

VARIABLES = {
    "DICOMWEB_TOKEN": "bearer token",
    "DICOMWEB_USER": "user name, for basic authentication",
    "DICOMWEB_PASSWORD": "password of that user",
    "DICOMWEB_AUTH": "`aws` signs requests with AWS credentials (SigV4); the default for AWS HealthImaging's own hosts",
    "DICOMWEB_CLIENT_CERT": "PEM file with the client's certificate",
    "DICOMWEB_CLIENT_KEY": "PEM file with its key, if that is a separate file",
    "DICOMWEB_CA_BUNDLE": "PEM file of the certificate authorities to trust instead of the usual ones",
    "DEIDENTIFY_SALT": "secret of the de-identification; the same salt gives the same UIDs, patients and dates",
}
# docs.aws.amazon.com/healthimaging/latest/devguide/using-dicomweb.html
_HEALTH_IMAGING = re.compile(r"dicom-medical-imaging(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
_SERVICE = "medical-imaging"  # in the scope of a signature
Sign = Callable[[requests.PreparedRequest], requests.PreparedRequest]


def outside(environment: Mapping[str, str]) -> Outside:
    """All of it; each part is read when it is needed."""
    return Outside(
        access=partial(access, environment=environment), open_s3=open_s3, salt=partial(salt, environment=environment)
    )


def salt(environment: Mapping[str, str]) -> bytes:
    """The secret of the de-identification.

    Raises:
        ConfigError: it is not set.
    """
    text = environment.get("DEIDENTIFY_SALT", "")
    if not text:
        raise ConfigError(
            "set DEIDENTIFY_SALT to a secret, for example of `openssl rand -hex 32`, and keep it: "
            "only with the same one can a run be continued"
        )
    return text.encode("utf-8", "surrogateescape")


def access(root: str, environment: Mapping[str, str]) -> Access:
    """How to reach a server.

    Args:
        root: URL of the service.
        environment: with VARIABLES and those of proxies (HTTPS_PROXY, NO_PROXY).

    Raises:
        ConfigError: names the variable that is wrong, never its value.
    """
    names = ("DICOMWEB_CLIENT_CERT", "DICOMWEB_CLIENT_KEY")
    client_cert = tuple(Path(environment[name]) for name in names if environment.get(name))
    if client_cert and not environment.get("DICOMWEB_CLIENT_CERT"):
        raise ConfigError("DICOMWEB_CLIENT_KEY needs DICOMWEB_CLIENT_CERT too")
    bundle = environment.get("DICOMWEB_CA_BUNDLE")
    _check_files(bundle, client_cert)
    return Access(
        sign=_sign(root, environment),
        ca_bundle=Path(bundle) if bundle else None,
        client_cert=client_cert,
        proxies=requests.utils.get_environ_proxies(root, no_proxy=environment.get("NO_PROXY")),
    )


def _check_files(bundle: str | None, client_cert: tuple[Path, ...]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if bundle:
            context.load_verify_locations(bundle)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError("DICOMWEB_CA_BUNDLE must be a readable PEM file of certificates") from error
    try:
        if client_cert:
            # An encrypted key would ask for its password on a terminal, which may not exist.
            context.load_cert_chain(client_cert[0], client_cert[1] if client_cert[1:] else None, _no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ConfigError(
            "DICOMWEB_CLIENT_CERT and DICOMWEB_CLIENT_KEY must be PEM files of a certificate and its unencrypted key"
        ) from error


def _no_password() -> str:
    raise ValueError


def _sign(root: str, environment: Mapping[str, str]) -> Sign | None:
    token, kind = environment.get("DICOMWEB_TOKEN"), environment.get("DICOMWEB_AUTH", "")
    user, password = environment.get("DICOMWEB_USER"), environment.get("DICOMWEB_PASSWORD")
    if kind not in ("", "aws"):
        raise ConfigError("DICOMWEB_AUTH must be `aws` or not set")
    if (user is None) != (password is None):
        raise ConfigError("set both DICOMWEB_USER and DICOMWEB_PASSWORD, or neither")
    if sum(map(bool, (token, user, kind))) > 1:
        raise ConfigError("set only one of DICOMWEB_TOKEN, DICOMWEB_USER with DICOMWEB_PASSWORD, and DICOMWEB_AUTH")
    if token:
        return _bearer(token.strip())
    if user is not None and password is not None:
        return _basic(user, password)
    found = _HEALTH_IMAGING.fullmatch(urlsplit(root).hostname or "")
    if kind or found:
        return _aws(found.group(1) if found else None)
    return None


def _bearer(token: str) -> Sign:
    if not re.fullmatch(r"[!-~]+", token):
        raise ConfigError("DICOMWEB_TOKEN has characters that a token cannot have, such as white space")

    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return sign


def _basic(user: str, password: str) -> Sign:
    if ":" in user or not is_fit(user + password):
        raise ConfigError("DICOMWEB_USER must have no colon, and neither it nor DICOMWEB_PASSWORD control characters")
    return HTTPBasicAuth(user.encode(), password.encode())


def _aws(region: str | None) -> Sign:
    """Sign with the AWS credentials that boto3 finds; they are renewed during a long retrieval."""
    import boto3  # imported late: it takes 0.2 s
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    session: Any = boto3.Session()
    credentials, region = session.get_credentials(), region or session.region_name
    if credentials is None:
        raise ConfigError("no AWS credentials found: set AWS_PROFILE, or give the machine or job a role")
    if region is None:
        raise ConfigError("set AWS_REGION: requests are signed for a region")

    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        # The signature covers the query in its strict form, whatever form is sent.
        parts = urlsplit(str(request.url))
        query = urlencode(parse_qsl(parts.query, keep_blank_values=True), quote_via=quote, safe="")
        signed = AWSRequest(method=request.method, url=parts._replace(query=query).geturl())
        SigV4Auth(credentials.get_frozen_credentials(), _SERVICE, region).add_auth(signed)
        request.headers.update(signed.headers)
        return request

    return sign
