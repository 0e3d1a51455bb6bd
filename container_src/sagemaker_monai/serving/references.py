"""Requests that name objects in S3 instead of holding images, and the objects that a deployer allows.

`{"objects": [{"bucket": "b", "key": "k"}, ...]}`: a key that ends in a slash names every object below it, such as a
series. A reference is a plain bucket and key: no URL, ARN, version or access point that would have to be resolved.

`sagemaker.object_references` fetches them. It runs in the supervisor, because the processes that decode uploads have no
credentials (`privileges`); the supervisor copies the bytes without looking into them.
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
# Amazon S3 User Guide, "General purpose bucket naming rules": names, and endings that are not of plain buckets.
_BUCKET = re.compile(r"(?!xn--|sthree-)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_OTHER_ENDINGS = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


@dataclass(frozen=True)
class Prefix:
    """The objects of a bucket whose key begins with `key_prefix`; if that is empty, the whole bucket."""

    bucket: str
    key_prefix: str


@dataclass(frozen=True)
class Reference:
    """One object, or all objects below a key that ends in a slash."""

    bucket: str
    key: str

    @property
    def is_folder(self) -> bool:
        """Whether it names all objects below."""
        return self.key.endswith("/")


class ObjectStore(Protocol):
    """A store of objects; both methods block, and are called in a thread."""

    def locate(self, body: bytes) -> Any:
        """Find the objects that a request names: a plan for `fetch`, whose `size_bytes` is the memory they take.

        Raises:
            MalformedRequest, ReferenceNotAllowed: as `parse_references`.
            PayloadTooLarge: too many objects, or too large ones.
            ObjectUnavailable, Unavailable, Timeout: as their names say.
        """

    def fetch(self, plan: Any) -> tuple[bytes, str]:
        """A body with the objects of a plan, and its content type; raises as `locate` does."""


def parse_prefixes(text: str) -> tuple[Prefix, ...]:
    """Read ALLOWED_S3_PREFIXES, such as `s3://bucket/prefix/ s3://other/`.

    Raises:
        ConfigError: one is not an S3 address that ends in a slash.
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
    """Whether a request names objects, by a quick look that does not validate it."""
    return content_type.partition(";")[0].strip().lower() == JSON_TYPE and _MARK in body[:200]


def parse_references(body: bytes, allowed: tuple[Prefix, ...]) -> list[Reference]:
    """Read which objects a request names: at least one, in the request's order.

    Args:
        body: JSON in UTF-8.
        allowed: the deployer's prefixes.

    Raises:
        MalformedRequest: other JSON, an object twice, or a bucket or key that is not plain.
        PayloadTooLarge: more than MAX_REFERENCES.
        ReferenceNotAllowed: an object is below none of the prefixes.
    """
    if len(body) > MAX_REFERENCES_BYTES or body.count(b"{") > MAX_REFERENCES + 1:
        raise PayloadTooLarge(f"more than {MAX_REFERENCES} objects in one request; name their folder, or send several")
    try:
        request = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest("the body is not valid JSON in UTF-8") from error
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
        raise MalformedRequest(f"object {index}: the bucket must be a plain name, not a URL, ARN or access point")
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
