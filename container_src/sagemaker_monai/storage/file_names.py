"""What names of files, keys and classes may be, and which of them are litter that systems leave beside people's data.

Names are people's text: letters of any script, every kind of space, joiners and marks that a script needs, and both
Unicode forms. What no name may have is what ends a line or a text (control characters, U+2028 and U+2029), and what
turns the direction of everything behind it (U+202A to U+202E, U+2066 to U+2069): a report or a log line with one of
these shows another name than the one that is meant. The marks U+200E, U+200F and U+061C, which Arabic and Hebrew text
has, turn nothing and are allowed.
"""

import re
from pathlib import PurePosixPath

# In lower case. Only what nobody calls images or a class: of names that could be (`temp`, `backup`) none is here.
LITTER = frozenset(
    {
        "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin",  # Windows
        "system volume information", "found.000",
        "__macosx", "icon\r", "icon\uf00d", "network trash folder",  # macOS; U+F00D is what SMB makes of the \r
        "lost+found", "__pycache__",
        "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@sharebin",  # network storage
    }
)  # fmt: skip
LITTER_BEFORE = (".", "~$")  # hidden files and folders, with AppleDouble's `._x`; lock files of Office
LITTER_BEHIND = (":zone.identifier", "\uf03azone.identifier", "thumbs.db:encryptable")  # Windows, copied through WSL

_CONTROL = r"\0-\x1f\x7f-\x9f\u2028\u2029"
_TURNING = r"\u202a-\u202e\u2066-\u2069"
_UNFIT = re.compile(rf"[{_CONTROL}{_TURNING}\ud800-\udfff]")
_UNFIT_IN_PATHS = re.compile(rf"[{_CONTROL}{_TURNING}\ud800-\udc7f\udd00-\udfff]")  # \udc80-\udcff: bytes, no UTF-8
_DRIVE = re.compile(r"[A-Za-z]:")


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or was left by an operating system, a store or a program.

    Args:
        name: of one file or folder, without those that it is in. `.` and `..` are no names, and no litter.
    """
    small = name.lower()
    return (
        (small.startswith(LITTER_BEFORE) and small not in (".", ".."))
        or small in LITTER
        or small.endswith(LITTER_BEHIND)
    )


def is_litter_path(name: str) -> bool:
    """Whether a relative name or key is litter, or lies in a folder that is.

    Args:
        name: with slashes, below the folder, prefix or archive that somebody named. What that itself is called does
            not count: who names a hidden folder means it.
    """
    return any(map(is_litter, name.split("/")))


def is_fit(text: str) -> bool:
    """Whether a text can be the name of a class, a title or a key: see the module; the empty text is one too."""
    return not _UNFIT.search(text)


def is_fit_path(name: str) -> bool:
    """As `is_fit`, for names of files, in which a byte that is no UTF-8 stands as Python's file names have it."""
    return not _UNFIT_IN_PATHS.search(name)


def leads_out(name: str) -> bool:
    """Whether a name with slashes could lead out of the folder that it is in: absolute, of a drive, or with `..`."""
    first, *_ = parts = name.split("/")
    return name.startswith("/") or ".." in parts or bool(_DRIVE.fullmatch(first))


def parts_of(name: str, *, separators: str = "/") -> tuple[str, ...]:
    r"""The folders and the file that a relative name means; none if it cannot be such a name.

    Args:
        name: of a file below a folder, in a table, an archive or a key. A byte that is no UTF-8 may stand in it as
            Python's file names have it.
        separators: what stands between folders; a character of them is a slash. Windows writes `\` into archives.

    Returns:
        Without `.`. Nothing for absolute names, those of a drive, with `..`, or with characters that no name may have.
    """
    for separator in separators:
        name = name.replace(separator, "/")
    return () if leads_out(name) or not is_fit_path(name) else PurePosixPath(name).parts
