"""Checks of what SageMaker sends about models: the body that loads one, names, folders, pages of the list.

A name is an opaque key here, never part of a path, a command or another server's request. Names that look like paths or
addresses are refused all the same, because they are an operator's mistake.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from sagemaker_monai.errors import MalformedRequest
from sagemaker_monai.storage.file_names import is_fit

MAX_NAME_LENGTH = 256  # SageMaker's are hashes of at most 64 characters
MAX_URL_LENGTH = 4_096  # PATH_MAX
MAX_PAGE = 100
LOAD_BODY_BYTES = 16 * 1024


def parse_load(body: bytes) -> tuple[str, str]:
    """Name and url of the model to load.

    Raises:
        MalformedRequest: the body is not JSON with `model_name` and `url`, or the name is not allowed.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest('the body must be JSON: {"model_name": "...", "url": "/..."}') from error
    if not isinstance(fields, dict) or not all(isinstance(fields.get(key), str) for key in ("model_name", "url")):
        raise MalformedRequest("the body must be a JSON object with the texts model_name and url")
    name: str = fields["model_name"]
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable() or name[0] == "." or set(name) & set("/\\:"):
        raise MalformedRequest(
            f"model_name must be 1 to {MAX_NAME_LENGTH} printable characters without / \\ : and no dot in front"
        )
    return name, fields["url"]


def model_folder(url: str, models_dir: Path) -> Path:
    """The folder of a url, with its links resolved; it need not exist.

    Raises:
        MalformedRequest: `url` is not an absolute path below `models_dir`.
    """
    outside = MalformedRequest("url must be the absolute path of a folder below models in SAGEMAKER_BASE_DIR")
    if not url.startswith("/") or not is_fit(url) or len(url) > MAX_URL_LENGTH or ".." in Path(url).parts:
        raise outside
    try:
        folder = Path(url).resolve()
        root = models_dir.resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise outside from error
    if folder == root or not folder.is_relative_to(root):
        raise outside
    return folder


def page(names: Iterable[str], *, limit: str, token: str) -> tuple[list[str], str | None]:
    """One page of the sorted list of names.

    Args:
        names: all of them.
        limit: the most names, as text; empty or more than MAX_PAGE means MAX_PAGE.
        token: from the previous page; empty for the first.

    Returns:
        The names, and the token of the next page if there is one. A token is the last name of its page: unlike a
        number, it skips and repeats nothing when models come and go in between.

    Raises:
        MalformedRequest: `limit` is not a number above 0.
    """
    if limit and not (limit.isascii() and limit.isdecimal() and len(limit) < 10 and int(limit) > 0):
        raise MalformedRequest("limit must be a whole number from 1")
    size = min(int(limit or MAX_PAGE), MAX_PAGE)
    rest = sorted(name for name in names if name > token)
    return rest[:size], rest[size - 1] if len(rest) > size else None
