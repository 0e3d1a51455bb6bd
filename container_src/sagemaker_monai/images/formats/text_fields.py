"""Fields of text headers, as NRRD and MetaImage have them, with checked numbers."""

import re

from sagemaker_monai.errors import UndecodableImage

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?nan|[+-]?inf(inity)?", re.IGNORECASE | re.ASCII)
_WHOLE = re.compile(r"-?\d{1,15}", re.ASCII)


def is_number(word: str) -> bool:
    """Whether a word is a decimal number, nan or inf."""
    return _NUMBER.fullmatch(word) is not None


class Fields(dict[str, str]):
    """Texts by the names of their fields; `kind` is the format for messages."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def numbers(self, name: str, count: int) -> list[float]:
        """The numbers of a field, exactly `count`."""
        words = self[name].split()
        if len(words) != count or not all(map(is_number, words)):
            raise UndecodableImage(f"the {self.kind} field `{name}` must have {count} numbers")
        return [float(word) for word in words]

    def whole(self, name: str, default: str = "") -> int:
        """The whole number of a field."""
        text = self.get(name, default)
        if not _WHOLE.fullmatch(text):
            raise UndecodableImage(f"the {self.kind} field `{name}` must be a whole number")
        return int(text)

    def sizes(self, name: str, count: int) -> tuple[int, ...]:
        """The sizes of `count` axes."""
        words = self.get(name, "").split()
        if len(words) != count or not all(_WHOLE.fullmatch(word) and word[0] != "-" for word in words):
            raise UndecodableImage(f"the {self.kind} field `{name}` must have {count} whole numbers")
        return tuple(map(int, words))
