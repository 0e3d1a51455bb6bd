"""Searches a DICOMweb server for series by search keys, and lists the instances of a series (QIDO-RS).

Servers differ: some ignore unsupported keys, some ignore `offset`, some return fewer results than requested. So results
that contradict a key are dropped, and a list ends with a page that brings nothing new.

Source: DICOM PS3.18, 10.6.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydicom.datadict import tag_for_keyword

from sagemaker_monai.dicomweb.faults import NotOffered
from sagemaker_monai.dicomweb.stores import is_uid
from sagemaker_monai.dicomweb.transport import Server
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.messages.option_fields import option

PAGE = 500  # results per request; AWS HealthImaging returns at most 1,000, Orthanc 100 by default
MAX_RESULTS = 1_000_000  # of one search
STUDY_UID, SERIES_UID, INSTANCE_UID = "0020000D", "0020000E", "00080018"
MODALITY, PATIENT_ID, NUMBER_OF_INSTANCES = "00080060", "00100020", "00201209"
_OF_PROTOCOL = {"limit", "offset", "fuzzymatching", "includefield"}
_DATE_RANGE = re.compile(r"\d{8}|\d{8}-(\d{8})?|-\d{8}")
_repeated = partial(option, (), read=tuple, action="append")


@dataclass(frozen=True)
class Query:
    """What to search for; several values of one key are alternatives, and all keys must match.

    Attributes:
        studies, series: UIDs.
        modalities: as DICOM writes them, such as CT.
        patients: PatientIDs; `*` and `?` are wildcards.
        study_date: a date or a range, as 20200101-20201231.
        keys: further keywords or tags, each with a value.
        limit: maximum number of series, or None.
    """

    studies: Sequence[str] = _repeated("StudyInstanceUID; may be repeated", flag="--study", metavar="UID")
    series: Sequence[str] = _repeated("SeriesInstanceUID; may be repeated", metavar="UID")
    modalities: Sequence[str] = _repeated("such as CT; may be repeated", flag="--modality", metavar="CODE")
    patients: Sequence[str] = _repeated("may have * and ?; may be repeated", flag="--patient-id", metavar="ID")
    study_date: str | None = option(None, "YYYYMMDD, or a range as 20200101-20201231", metavar="RANGE")
    keys: Sequence[tuple[str, str]] = _repeated(
        "another search key, by keyword or tag, e.g. SeriesDescription=*lung*; may be repeated "
        "(for a blank, Orthanc 1.10 needs ?)",
        flag="--query",
        read=lambda given: [tuple(each.partition("=")[::2]) for each in given],
        metavar="KEY=VALUE",
    )
    limit: int | None = option(None, "series at most", type=int, metavar="N")

    def check(self) -> None:
        """Refuse invalid values with ConfigError, which names the option."""
        for name, uids in {"--study": self.studies, "--series": self.series}.items():
            if any(not is_uid(uid) for uid in uids):
                raise ConfigError(f"{name} must be a DICOM UID: digits and dots, at most 64 characters")
        if any(re.fullmatch("[A-Z0-9_ ]{1,16}", modality) is None for modality in self.modalities):
            raise ConfigError("--modality must be a DICOM code in capitals, such as CT")
        if self.study_date is not None and not _DATE_RANGE.fullmatch(self.study_date):
            raise ConfigError(
                "--study-date must be YYYYMMDD or a range such as 20200101-20201231, 20200101- or -20201231"
            )
        for key, value in self.keys:
            if key in _OF_PROTOCOL or not value:
                raise ConfigError(f"--query {key}: must be KEY=VALUE with a DICOM keyword or tag")
            if tag_for_keyword(key) is None and not re.fullmatch("[0-9A-Fa-f]{8}", key):
                raise ConfigError(f"--query {key}: neither a DICOM keyword nor a tag of eight hexadecimal digits")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit must be at least 1, got {self.limit}")


@dataclass(frozen=True)
class FoundSeries:
    """One series.

    Attributes:
        study, uid: StudyInstanceUID and SeriesInstanceUID.
        count: NumberOfSeriesRelatedInstances, or None.
    """

    study: str
    uid: str
    count: int | None


def find_series(server: Server, query: Query) -> list[FoundSeries]:
    """All matching series, each once, in the server's order; CallerError if the search fails or is incomplete."""
    query.check()
    found: dict[str, FoundSeries] = {}
    alternatives = [each or (None,) for each in (query.studies, query.series, query.modalities, query.patients)]
    for study, series, modality, patient in itertools.product(*alternatives):
        wanted = {STUDY_UID: study, SERIES_UID: series, MODALITY: modality, PATIENT_ID: patient}
        keys = [("SeriesInstanceUID", series), ("Modality", modality), ("PatientID", patient)]
        keys += [("StudyDate", query.study_date), *query.keys]
        words = [(key, value) for key, value in keys if value is not None]
        words += [("includefield", tag) for tag in (STUDY_UID, PATIENT_ID, NUMBER_OF_INSTANCES)]
        path = f"/studies/{study}/series" if study else "/series"
        for record in _pages(server, path, words, SERIES_UID, "series"):
            if not _contradicts(record, wanted):
                each = _series_of(record, study)
                found.setdefault(each.uid, each)
            if query.limit is not None and len(found) >= query.limit:
                return list(found.values())
    return list(found.values())


def list_instances(server: Server, series: FoundSeries) -> list[str]:
    """SOPInstanceUIDs of a series, each once, in the server's order; CallerError if the list fails or is incomplete."""
    path = f"/studies/{series.study}/series/{series.uid}/instances"
    instances = []
    for record in _pages(server, path, [], INSTANCE_UID, "instances of a series", count=series.count):
        uid = value_of(record, INSTANCE_UID)
        if value_of(record, SERIES_UID) not in (None, series.uid):
            raise DatasetError("the server lists instances of a series that was not requested; ask its operator")
        instances.append(str(uid))
    return instances


def _pages(
    server: Server,
    path: str,
    words: Sequence[tuple[str, str]],
    identity: str,
    what: str,
    *,
    count: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Each result once, page by page, until there are `count` of them or no new ones."""
    seen: set[str] = set()
    offset = 0
    while len(seen) != count:
        paging = [("limit", str(PAGE)), ("offset", str(offset)), ("fuzzymatching", "false")]
        try:
            page = server.get_json(path, [*words, *paging])
        except NotOffered as error:
            raise ConfigError(
                f"the server does not offer a search for {what} at this URL ({error.status}): "
                "give the root of its DICOMweb service, such as https://host/dicom-web"
            ) from error
        before = len(seen)
        for record in page:
            uid = value_of(record, identity)
            if not is_uid(uid):
                raise DatasetError(f"the server's list of {what} has an entry without a valid UID; ask its operator")
            if uid not in seen:
                seen.add(uid)
                yield record
        if len(seen) > MAX_RESULTS:
            raise DatasetError(f"the search finds more than {MAX_RESULTS} {what}; narrow it")
        if len(seen) == before:
            if len(page) == PAGE:  # a server that ignores the limit too has returned everything
                raise DatasetError(
                    f"the server returns only the first {before} {what} (it ignores the parameter offset); "
                    "narrow the search, for example by --study"
                )
            return
        offset += len(page)


def value_of(record: dict[str, Any], tag: str) -> Any:
    """The first value of an element of DICOM JSON, or None (PS3.18, F.2)."""
    element = record.get(tag, record.get(tag.lower()))
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _contradicts(record: dict[str, Any], wanted: dict[str, str | None]) -> bool:
    for tag, value in wanted.items():
        given = value_of(record, tag)
        if (
            value is not None
            and isinstance(given, str)
            and not set("*?") & set(value)
            and given.strip() != value.strip()
        ):
            return True
    return False


def _series_of(record: dict[str, Any], study: str | None) -> FoundSeries:
    uid, given = value_of(record, SERIES_UID), study or value_of(record, STUDY_UID)
    if not is_uid(given):
        raise DatasetError("the server lists a series without its StudyInstanceUID; name the study by --study")
    count = value_of(record, NUMBER_OF_INSTANCES)
    is_number = isinstance(count, int | str) and str(count).strip().isdecimal() and len(str(count)) <= 9
    return FoundSeries(str(given), str(uid), int(count) if is_number else None)
