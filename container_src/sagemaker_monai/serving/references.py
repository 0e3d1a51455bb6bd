"""Requests that name objects of S3 instead of holding images, and which objects a deployer lets them name.

`{"objects": [{"bucket": "b", "key": "k"}, ...]}`: a key that ends in a slash names every object below, such as a
series. No URL, ARN, version or access point: one bucket, one key, and nothing that has to be resolved first.

What fetches them is `entrypoints.object_references`. It runs in the supervisor, for the processes that decode uploads
have no credentials (`privileges`); the supervisor copies bytes and looks into none.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Protocol

from sagemaker_inference import content_types

from sagemaker_monai.errors import ConfigError, MalformedRequest, PayloadTooLarge, ReferenceNotAllowed
from sagemaker_monai.storage.file_names import is_fit

MAX_REFERENCES_BYTES = 2 * 1024 * 1024  # of a body that names objects: 1,000 of them with the longest keys
MAX_REFERENCES = 1_000  # of one request
MAX_KEY_BYTES = 1_024  # S3's
JSON_TYPE = content_types.JSON
_MARK = b'"objects"'
# Amazon S3 User Guide, "General purpose bucket naming rules": names, and the endings of what is not a plain bucket.
_BUCKET = re.compile(r"(?!xn--|sthree-)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_OTHER_ENDINGS = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


@dataclass(frozen=True)
class Prefix:
    """Every object of a bucket whose key begins so; the empty key prefix is the whole bucket."""

    bucket: str
    key_prefix: str


@dataclass(frozen=True)
class Reference:
    """One object, or, with a key that ends in a slash, all objects below."""

    bucket: str
    key: str

    @property
    def is_folder(self) -> bool:
        """Whether it means all objects below."""
        return self.key.endswith("/")


class Plan(Protocol):
    """Objects that were found and are about to be fetched."""

    @property
    def size_bytes(self) -> int:
        """What they take in memory together."""


class ObjectStore(Protocol):
    """Where objects are; both methods wait for it, and are called in a thread."""

    def locate(self, body: bytes) -> Any:
        """Find what a request names, as a Plan.

        Raises:
            MalformedRequest, ReferenceNotAllowed: as `parse_references`.
            PayloadTooLarge: too many objects, or too large ones.
            ObjectUnavailable, Unavailable, Timeout: as their names say.
        """

    def fetch(self, plan: Any) -> tuple[bytes, str]:
        """Make a body of what was found; that and its content type. Raises as `locate` does."""


def parse_prefixes(text: str) -> tuple[Prefix, ...]:
    """Read ALLOWED_S3_PREFIXES, such as `s3://bucket/prefix/ s3://other/`.

    Raises:
        ConfigError: one is not an address of S3 that ends in a slash.
    """
    prefixes = []
    for word in text.split():
        scheme, _, rest = word.partition("://")
        bucket, slash, key_prefix = rest.partition("/")
        is_sound = scheme == "s3" and slash and _is_bucket(bucket) and "*" not in key_prefix
        if not is_sound or not (key_prefix == "" or (key_prefix.endswith("/") and _is_key(key_prefix))):
            raise ConfigError(
                "ALLOWED_S3_PREFIXES must be addresses that end in a slash, as s3://bucket/prefix/ or s3://bucket/, "
                f"with spaces between them; got {word[:80]!r}"
            )
        prefixes.append(Prefix(bucket, key_prefix))
    return tuple(dict.fromkeys(prefixes))


def names_objects(body: bytes, content_type: str) -> bool:
    """Whether a request names objects; a quick look that decides nothing about whether it is sound."""
    return content_type.partition(";")[0].strip().lower() == JSON_TYPE and _MARK in body[:200]


def parse_references(body: bytes, allowed: tuple[Prefix, ...]) -> list[Reference]:
    """Read which objects a request names, and refuse what is not allowed.

    Args:
        body: JSON in UTF-8.
        allowed: what the deployer lists.

    Returns:
        At least one, in the request's order.

    Raises:
        MalformedRequest: other JSON, an object twice, or a bucket or key that is not plain.
        PayloadTooLarge: more than MAX_REFERENCES.
        ReferenceNotAllowed: one is below none of the prefixes.
    """
    if len(body) > MAX_REFERENCES_BYTES or body.count(b"{") > MAX_REFERENCES + 1:
        raise PayloadTooLarge(f"more than {MAX_REFERENCES} objects in one request; name their folder, or send several")
    try:
        request = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest("the body is not sound JSON in UTF-8") from error
    items = request.get("objects") if isinstance(request, dict) and len(request) == 1 else None
    if not isinstance(items, list) or not items:
        raise MalformedRequest(
            'the body must be {"objects": [{"bucket": "NAME", "key": "KEY"}, ...]} with no other key'
        )
    references = [_parse(item, index, allowed) for index, item in enumerate(items)]
    if len(set(references)) < len(references):
        raise MalformedRequest("the request names an object twice")
    return references


def _parse(item: Any, index: int, allowed: tuple[Prefix, ...]) -> Reference:
    is_pair = isinstance(item, dict) and set(item) == {"bucket", "key"}
    if not is_pair or not all(isinstance(value, str) for value in item.values()):
        raise MalformedRequest(f'object {index}: it must be {{"bucket": "NAME", "key": "KEY"}} with no other key')
    bucket, key = item["bucket"], item["key"]
    if not _is_bucket(bucket):
        raise MalformedRequest(f"object {index}: the bucket must be a plain bucket name; no URL, ARN or access point")
    if not _is_key(key):
        raise MalformedRequest(f"object {index}: the key must be plain text without . and .. between its slashes")
    if not any(bucket == prefix.bucket and key.startswith(prefix.key_prefix) for prefix in allowed):
        raise ReferenceNotAllowed(f"object {index}: it is below none of the prefixes that this endpoint may read")
    return Reference(bucket, key)


def _is_bucket(name: str) -> bool:
    return bool(_BUCKET.fullmatch(name)) and ".." not in name and not name.endswith(_OTHER_ENDINGS)


def _is_key(key: str) -> bool:
    try:
        size = len(key.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    steps = key.removesuffix("/").split("/")
    return 0 < size <= MAX_KEY_BYTES and is_fit(key) and not {"", ".", ".."} & set(steps)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(keys := dict(pairs)) != len(pairs):
        raise ValueError("repeated key")
    return keys
