"""What is in an answer of an endpoint or of a batch: JSON documents, and in them this container's predictions."""

import json
import re
from typing import Any

from sagemaker_monai_aws.client.tasks import task_of

JSON_TYPES = frozenset({"application/json", "application/jsonlines", "application/x-ndjson"})
SPACE = re.compile(r"\s*")


def plain_type(content_type: str) -> str:
    """The type without parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def documents(content_type: str, body: bytes) -> list[Any] | None:
    """The JSON documents of an answer, one or, as in JSON lines, several; None where it has another type or is broken.

    Where a batch has joined an answer with its input, the answer is taken out again.

    Source: SageMaker Developer Guide, "Associate Prediction Results with Input Records" (SageMakerOutput).
    """
    if plain_type(content_type) not in JSON_TYPES:
        return None
    decoder = json.JSONDecoder()
    found: list[Any] = []
    try:
        text = body.decode()
        position = _after_space(text, 0)
        while position < len(text):
            document, position = decoder.raw_decode(text, position)
            joined = isinstance(document, dict) and "SageMakerOutput" in document
            found.append(document["SageMakerOutput"] if joined else document)
            position = _after_space(text, position)
    except (ValueError, RecursionError):
        return None
    return found


def _after_space(text: str, position: int) -> int:
    match = SPACE.match(text, position)
    return match.end() if match else position


def predictions(content_type: str, body: bytes) -> list[dict[str, Any]] | None:
    """This container's predictions in an answer, in their order; None for other answers."""
    found: list[Any] = []
    for document in documents(content_type, body) or [None]:
        listed = document.get("predictions", [document]) if isinstance(document, dict) else [document]
        found += listed if isinstance(listed, list) else [listed]
    return found if all(task_of(each) is not None for each in found) else None
