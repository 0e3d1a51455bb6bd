"""Replacements for UIDs, patients and dates: the same for the same input and salt, in every file, run and process.

They are HMAC-SHA256 with the salt as the key, so that names, IDs or dates cannot be guessed without it. Each purpose
has its own prefix: the pseudonym is published, and without prefixes it would be part of the very number that hides the
dates.
"""

import base64
import hashlib
import hmac
import re
import secrets
from datetime import date, timedelta

from sagemaker_monai.deidentification.profile import is_standard_uid
from sagemaker_monai.errors import ConfigError

MIN_SALT_BYTES = 16
MAX_SHIFT_DAYS = 3650
# PS3.5, 6.2: a DT may end after any part; only one with a complete date can be shifted. An old DA has dots.
_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)|(\d{4})\.(\d\d)\.(\d\d)")
_CLOCK = r"(?:[01]\d|2[0-3])(?:{0}[0-5]\d(?:{0}(?:[0-5]\d|60)(?:\.\d{{1,6}})?)?)?"
_DATE_TIME = re.compile(rf"(\d{{8}})((?:{_CLOCK.format('')})?(?:[+-](?:0\d|1[0-4])[0-5]\d)?)")
_TIME = re.compile("|".join(_CLOCK.format(separator) for separator in ("", ":")))


def make_salt() -> bytes:
    """A random salt of 32 bytes for one run; another salt gives other UIDs, dates and pseudonyms."""
    return secrets.token_bytes(32)


def check_salt(salt: bytes) -> None:
    """Refuse a salt that could be guessed: ConfigError below 16 bytes."""
    if len(salt) < MIN_SALT_BYTES:
        raise ConfigError(f"the salt must have at least {MIN_SALT_BYTES} bytes, got {len(salt)}; use 32 random ones")


def _digest(salt: bytes, purpose: str, value: str) -> bytes:
    return hmac.digest(salt, f"{purpose}:{value}".encode("utf-8", "surrogateescape"), hashlib.sha256)


def pseudonym(salt: bytes, patient_id: str) -> str:
    """The name and ID that replace a patient's: "P-" and 60 bits of HMAC-SHA256(salt, "patient:" + ID) in base 32.

    Blanks around the PatientID do not count. ConfigError if the salt is too short.
    """
    check_salt(salt)
    return "P-" + base64.b32encode(_digest(salt, "patient", patient_id.strip(" \0")))[:12].decode()


def shift_of(salt: bytes, patient_id: str) -> int:
    """The number of days, 1 to 3650, by which the patient's dates are moved back."""
    number = int.from_bytes(_digest(salt, "days", patient_id.strip(" \0"))[:8], "big")
    return 1 + number % MAX_SHIFT_DAYS


KEYED_WORD = re.compile(r"W_[A-Z2-7]{12}")


def keyed_word(salt: bytes, word: str) -> str:
    """The replacement for an unknown word: the same for the same word, and valid in VR CS, SH and LO."""
    return "W_" + base64.b32encode(_digest(salt, "word", word))[:12].decode()


def mapped_uid(salt: bytes, uid: str) -> str:
    """The replacement for a UID: 2.25 and the first 128 bits of HMAC-SHA256(salt, "uid:" + UID) (PS3.5, B.2).

    The standard's own UIDs and empty ones are kept.
    """
    old = uid.strip(" \0")
    if not old or is_standard_uid(old):
        return old
    return f"2.25.{int.from_bytes(_digest(salt, 'uid', old)[:16], 'big')}"


def _shifted_date(text: str, days: int) -> str | None:
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    try:
        moved = date(*(int(part) for part in match.groups() if part is not None)) - timedelta(days)
    except (ValueError, OverflowError):
        return None
    return f"{moved.year:04d}{moved.month:02d}{moved.day:02d}"


def shifted(value: str, vr: str, days: int) -> str | None:
    """Move a value of VR DA or DT back by some days; time, fraction and offset stay, and so does a TM.

    Returns:
        The new value; None for ranges, dates without a day, and invalid values.
    """
    if not value.isascii():  # \d matches the digits of every script
        return None
    if vr == "TM":
        return value if _TIME.fullmatch(value) else None
    if vr == "DA":
        return _shifted_date(value, days)
    match = _DATE_TIME.fullmatch(value)
    moved = _shifted_date(match[1], days) if match else None
    return moved + match[2] if match and moved else None
