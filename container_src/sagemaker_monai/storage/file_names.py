"""Which names files, keys and classes may have, and which are litter that systems leave beside people's data.

Names may have letters of any script, any kind of space, the joiners and marks that a script needs, and any Unicode
form. Names must not contain characters that end a line or a text (control characters, U+2028 and U+2029) or change the
direction of the text that follows (U+202A to U+202E, U+2066 to U+2069), which would falsify names in reports and logs.
The marks U+200E, U+200F and U+061C of Arabic and Hebrew text do not have that effect and are allowed.
"""

import re
from pathlib import PurePosixPath

# In lower case. Names that people may give to images or classes (`temp`, `backup`) are left out.
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
_UNFIT_IN_PATHS = re.compile(rf"[{_CONTROL}{_TURNING}\ud800-\udc7f\udd00-\udfff]")  # \udc80-\udcff: non-UTF-8 bytes
_DRIVE = re.compile(r"[A-Za-z]:")


def is_litter(name: str) -> bool:
    """Whether a file or folder name is hidden, or left by an operating system, network storage or a program.

    Args:
        name: of one file or folder, without its parents. `.` and `..` are not litter.
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
        name: with slashes, relative to the folder, prefix or archive that the user named. The latter's own name does
            not count: users who name a hidden folder mean it.
    """
    return any(map(is_litter, name.split("/")))


def is_fit(text: str) -> bool:
    """Whether a text can be a class name, a title or a key, as the module describes; the empty text can."""
    return not _UNFIT.search(text)


def is_fit_path(name: str) -> bool:
    """As `is_fit`, for file names, where surrogates stand for non-UTF-8 bytes as in Python's file names."""
    return not _UNFIT_IN_PATHS.search(name)


def leads_out(name: str) -> bool:
    """Whether a name with slashes could lead out of its folder: absolute, with a drive letter, or with `..`."""
    first, *_ = parts = name.split("/")
    return name.startswith("/") or ".." in parts or bool(_DRIVE.fullmatch(first))


def parts_of(name: str, *, separators: str = "/") -> tuple[str, ...]:
    r"""Split a relative name into its folders and its file.

    Args:
        name: of a file below a folder, from a table, an archive or a key. Surrogates may stand for non-UTF-8 bytes.
        separators: the characters that count as slashes. Windows writes `\` into archives.

    Returns:
        The parts without `.`; none if the name leads out of the folder or has characters that no name may have.
    """
    for separator in separators:
        name = name.replace(separator, "/")
    return () if leads_out(name) or not is_fit_path(name) else PurePosixPath(name).parts
