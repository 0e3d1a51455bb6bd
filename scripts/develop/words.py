"""Refuse phrases that read like a translation, in documents, comments, docstrings and messages (`make lint`)."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Phrase -> what a native engineer writes instead.
PHRASES = {
    r"whoever": "who, anyone who",
    r"be had": "available, no capacity",
    r"but for": "except",
    r"in small letters": "in lower case",
    r"as said": "as above, or nothing",
    r"of one's own": "your own",
    r"is for nobody": "is not for anyone",
    r"nobody's but": "only ...'s",
    r"(?<!instead\s)of before": "earlier, from before",
    r"in good order": "cleanly",
    r"the very same": "the same, exactly the same",
    r"none the worse": "unaffected",
    r"at hand": "available",
    r"by itself alone": "alone",
    r"none that can be": "invalid",
    r"(?:which|that) (?:is|are) (?-i:none)": "not a ..., invalid",
    r"the one that chooses": "who chooses, the choice",
    r"to the bit": "bit for bit",
    r"says? nothing of": "does not show, identifies nobody",
    r"(?:says?|said) of itself": "claims",
    r"in vain": "timed out, without success",
    r"to nobody": "to no one, or name who it is",
    r"(?<!there\s)(?:is|are) no (?:numbers?|files?|images?|pictures?|DICOM|paths?|names?)": "is not a ...",
    r"(?:lie|stand)s? beside": "next to, with",
    r"lest": "so that ... not",
    r"one behind the other": "one after the other",
    r"knows nothing of": "does not know",
    r"as people have it": "in any form",
}
FILES = (
    "README.md",
    "CHANGELOG.md",
    "docs/*.md",
    "container_src/*.py",
    "scripts/*.py",
    "tests/*.py",
    ".ci/run",
    ":!scripts/develop/words.py",
    "docker",
    "Makefile",
    "Dockerfile",
    "buildspec.yml",
)
BLANKS = r"[\s#]+"  # also between lines of a comment


def found(text: str) -> list[tuple[int, str, str]]:
    """Line, phrase and remedy of every phrase found in a text, also across two lines."""
    return [
        (text.count("\n", 0, match.start()) + 1, match[0], remedy)
        for phrase, remedy in PHRASES.items()
        for match in re.finditer(rf"\b{BLANKS.join(phrase.split())}\b", text, re.IGNORECASE)
    ]


def main() -> int:
    """Print every place; returns 1 if there is one."""
    names = subprocess.run(["git", "ls-files", *FILES], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    places = [
        f"{name}:{line}: {' '.join(phrase.split())!r}: write {remedy}"
        for name in names.splitlines()
        for line, phrase, remedy in found((ROOT / name).read_text(encoding="utf-8"))
    ]
    print("\n".join(places), end="\n" if places else "")
    return bool(places)


if __name__ == "__main__":
    sys.exit(main())
