"""PET: the factor from modality values to the standardised uptake value by body weight (SUVbw)."""

import datetime
import math
from collections.abc import Callable

from pydicom import Dataset

from sagemaker_monai.errors import UndecodableImage
from sagemaker_monai.images.dicom.elements import items, number, text_of, word

_DAY_S = 24 * 3600.0


def suv_factor(dataset: Dataset) -> float | None:
    """The factor from rescaled values to g/ml.

    None if the header does not allow it: not PET, other units, not corrected for attenuation and decay, or no weight,
    dose or times.

    Source: QIBA, "Calculation of SUV", vendor-neutral pseudo-code (happy and robust path); Units of DICOM PS3.3
    C.8.9.1.1.3. DecayCorrection ADMIN, which QIBA omits, means activity at injection: no decay is subtracted.
    """
    if word(dataset, "Modality") != "PT":
        return None
    try:
        rule = _RULES.get(word(dataset, "Units"))
        factor = rule(dataset) if rule is not None else None
    except UndecodableImage:
        return None
    return factor if factor is not None and math.isfinite(factor) and factor > 0 else None


def _from_becquerel(dataset: Dataset) -> float | None:
    corrections = set(text_of(dataset, "CorrectedImage").split("\\"))
    tracers = items(dataset, "RadiopharmaceuticalInformationSequence")
    if not {"ATTN", "DECY"} <= corrections or not tracers:
        return None
    weight_kg, dose_bq = number(dataset, "PatientWeight"), number(tracers[0], "RadionuclideTotalDose")
    half_life_s = number(tracers[0], "RadionuclideHalfLife")
    if not weight_kg or not dose_bq or not half_life_s or min(weight_kg, dose_bq, half_life_s) <= 0:
        return None
    decay_s = _decay_s(dataset, tracers[0], half_life_s)
    return None if decay_s is None else weight_kg * 1000 / (dose_bq * 2 ** (-decay_s / half_life_s))


def _from_counts(dataset: Dataset) -> float | None:
    """Philips: a private factor to SUV, or one to Bq/ml."""
    factor = _private(dataset, 0x7053, "Philips PET Private Group", 0x00)
    if factor:
        return factor
    activity = _private(dataset, 0x7053, "Philips PET Private Group", 0x09)
    rest = _from_becquerel(dataset) if activity else None
    return activity * rest if activity and rest else None


def _from_grams(dataset: Dataset) -> float | None:
    """The values are SUV; by body weight where SUVType says so or is missing, as QIBA assumes."""
    return 1.0 if word(dataset, "SUVType") in ("", "BW") else None


_RULES: dict[str, Callable[[Dataset], float | None]] = {
    "BQML": _from_becquerel,
    "CNTS": _from_counts,
    "GML": _from_grams,
}


def _decay_s(dataset: Dataset, tracer: Dataset, half_life_s: float) -> float | None:
    """Seconds from injection to the time to which the activity was corrected."""
    correction = word(dataset, "DecayCorrection")
    if correction == "ADMIN":
        return 0.0
    if correction != "START":
        return None
    scan = _scan_time(dataset, half_life_s)
    if scan is None:
        return None
    start = _moment(word(tracer, "RadiopharmaceuticalStartDateTime"))
    if start is not None:
        seconds = (scan - start).total_seconds()
    else:
        clock = _moment(f"{scan:%Y%m%d}" + word(tracer, "RadiopharmaceuticalStartTime"))
        if clock is None or not word(tracer, "RadiopharmaceuticalStartTime"):
            return None
        seconds = (scan - clock).total_seconds() % _DAY_S  # a scan after midnight
    return seconds if 0 <= seconds <= 30 * half_life_s else None


def _scan_time(dataset: Dataset, half_life_s: float) -> datetime.datetime | None:
    series = _moment(word(dataset, "SeriesDate") + word(dataset, "SeriesTime"))
    acquired = _moment(word(dataset, "AcquisitionDate") + word(dataset, "AcquisitionTime"))
    if series is not None and acquired is not None and series <= acquired:
        return series
    scan = _private_word(dataset, 0x0009, "GEMS_PETD_01", 0x0D)
    if scan:
        return _moment(scan)
    # The series was derived later: use the acquisition minus the frame's time since the scan began.
    duration_ms, reference_ms = number(dataset, "ActualFrameDuration"), number(dataset, "FrameReferenceTime")
    if acquired is None or not duration_ms or duration_ms <= 0 or reference_ms is None:
        return None
    rate = math.log(2) / half_life_s
    decay = rate * duration_ms / 1000
    mean_s = math.log(decay / (1 - math.exp(-decay))) / rate
    try:
        return acquired - datetime.timedelta(seconds=reference_ms / 1000 - mean_s)
    except OverflowError:
        return None


def _moment(text: str) -> datetime.datetime | None:
    """YYYYMMDDHHMMSS.ffffff without fraction and time zone; the zone is the same throughout a file."""
    digits = text.split(".")[0].split("+")[0].split("-")[0]
    try:
        return datetime.datetime.strptime(digits, "%Y%m%d%H%M%S")
    except ValueError:
        return None


def _private(dataset: Dataset, group: int, creator: str, element: int) -> float | None:
    text = _private_word(dataset, group, creator, element)
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _private_word(dataset: Dataset, group: int, creator: str, element: int) -> str:
    try:
        value = dataset.private_block(group, creator)[element].value
    except Exception:  # no such block or element, or an unreadable one, as in `elements.value`
        return ""
    return value.decode("ascii", "replace").strip(" \0") if isinstance(value, bytes) else str(value)
