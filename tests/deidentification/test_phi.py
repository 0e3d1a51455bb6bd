import copy
import re

import pytest
from pydicom import Dataset

from sagemaker_monai.deidentification.deidentify import Deidentifier
from sagemaker_monai.deidentification.phi import PhiFinding, burned_in_risk, find_phi
from sagemaker_monai.deidentification.proof import prove_deidentified
from sagemaker_monai.deidentification.pseudonyms import keyed_word, mapped_uid, pseudonym, shift_of, shifted
from sagemaker_monai.images.dicom.headers import quiet_pydicom
from tests.support.identified import SALT, US, ct, read_back, worst_case


@pytest.fixture(autouse=True)
def _quiet():
    quiet_pydicom()


def kinds(dataset: Dataset, **options) -> dict[str, str]:
    return {finding.keyword: finding.kind for finding in find_phi(dataset, **options)}


def test_an_identified_header_is_named_without_its_values():
    findings = find_phi(ct(InstitutionName="Hospital"))

    found = {(finding.keyword, finding.kind) for finding in findings}
    assert {
        ("PatientName", "attribute"),
        ("PatientID", "attribute"),
        ("PatientBirthDate", "attribute"),
        ("PatientSex", "attribute"),
        ("AccessionNumber", "attribute"),
        ("ReferringPhysicianName", "attribute"),
        ("InstitutionName", "attribute"),
        ("StudyDate", "date"),
        ("StudyInstanceUID", "UID"),
    } <= found
    assert "Zebulon" not in repr(findings)
    assert "Rows" not in {finding.keyword for finding in findings}


def test_a_deidentified_header_has_no_finding():
    assert find_phi(read_back(Deidentifier(SALT)(worst_case()))) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("mail to j.doe@clinic.example", "e-mail"),
        ("taken 2020-03-01", "date"),
        ("on 1.3.2020", "date"),
        ("20200301", "date"),
        ("call +49 30 123456", "telephone number"),
        ("call (030) 123 4567", "telephone number"),
        ("case 12345678", "long number"),
        ("see quixotic there", "known value"),
        ("from DOOLITTLE", "known value"),
    ],
)
def test_texts_that_the_profile_keeps_are_searched(text, kind):
    assert kinds(ct(SoftwareVersions=text))["SoftwareVersions"] == kind


@pytest.mark.parametrize("text", ["1.0", "VB10A syngo CT 2009E", "4.5.1234567.1", "B30f", "1.2.840.10008"])
def test_ordinary_texts_are_no_finding(text):
    assert "SoftwareVersions" not in kinds(ct(SoftwareVersions=text))


def test_known_values_of_the_caller_are_searched_for():
    assert kinds(ct(SoftwareVersions="for Rumpel"), known_values=["rumpel"])["SoftwareVersions"] == "known value"
    assert "SoftwareVersions" not in kinds(ct(SoftwareVersions="for Rum"), known_values=["rumpel"])


def test_private_and_nested_elements_are_found():
    dataset, item = ct(), Dataset()
    item.InstitutionName = "Hospital"
    dataset.ContributingEquipmentSequence = [item]
    dataset.private_block(0x0009, "MAKER", create=True).add_new(1, "LO", "x")

    found = kinds(dataset)
    assert found["InstitutionName"] == "attribute"
    assert found["(0009,1001)"] == "private"


@pytest.mark.parametrize(
    ("values", "risk"),
    [
        ({}, "unknown"),
        ({"BurnedInAnnotation": "YES"}, "stated"),
        ({"BurnedInAnnotation": "NO"}, "none"),
        ({"BurnedInAnnotation": "NO", "Modality": "US"}, "likely"),
        ({"BurnedInAnnotation": "NO", "Modality": "SMITH"}, "likely"),
        ({"Modality": "US"}, "likely"),
        ({"SOPClassUID": US}, "likely"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "likely"),
        ({"Modality": "XA", "ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "likely"),
        ({"Modality": "PT", "PhotometricInterpretation": "RGB"}, "likely"),
        ({"ConversionType": "WSD"}, "likely"),
        (
            {"Manufacturer": "TOSHIBA", "ManufacturerModelName": "Aquilion ONE", "ImageType": ["DERIVED", "SECONDARY"]},
            "likely",
        ),
        ({"Manufacturer": "TOSHIBA", "ManufacturerModelName": "Aquilion ONE"}, "unknown"),
    ],
)
def test_the_risk_of_burned_in_text_is_told_by_the_header(values, risk):
    assert burned_in_risk(ct(**values)) == risk
    assert (PhiFinding("PixelData", f"burned in: {risk}") in find_phi(ct(**values))) == (risk in ("stated", "likely"))


def test_an_overlay_in_unused_bits_of_the_pixels_is_text_in_the_picture():
    dataset = ct()
    dataset.add_new(0x60000010, "US", 4)
    dataset.add_new(0x60000102, "US", 12)

    assert burned_in_risk(dataset) == "stated"
    dataset.add_new(0x60003000, "OW", b"\0\0")
    assert burned_in_risk(dataset) == "unknown"


def test_without_a_picture_nothing_is_burned_in():
    assert burned_in_risk(Dataset()) == "none"


FAULTS = {
    "a name": lambda result: setattr(result, "SoftwareVersions", "Quixotic"),
    "a name in capitals": lambda result: setattr(result, "SoftwareVersions", "ZEBULON"),
    "an ID": lambda result: setattr(result, "Manufacturer", "ID-778899"),
    "an accession number": lambda result: setattr(result, "Manufacturer", "acc4711"),
    "a UID": lambda result: setattr(result, "Manufacturer", "1.2.3.4.7"),
    "a date": lambda result: setattr(result, "Manufacturer", "20200301"),
    "a date of the profile": lambda result: setattr(result, "StudyDate", "20200301"),
    "an unmapped UID": lambda result: setattr(result, "FrameOfReferenceUID", "1.2.3.99"),
    "a private element": lambda result: result.private_block(9, "MAKER", create=True).add_new(1, "LO", "x"),
    "a removed attribute": lambda result: setattr(result, "PatientComments", "x"),
    "an emptied attribute": lambda result: setattr(result, "StudyID", "x"),
    "a name instead of a pseudonym": lambda result: setattr(result, "PatientName", "x"),
    "no statement": lambda result: delattr(result, "PatientIdentityRemoved"),
    "no method": lambda result: delattr(result, "DeidentificationMethodCodeSequence"),
    "meta information": lambda result: setattr(result.file_meta, "MediaStorageSOPInstanceUID", "2.25.1"),
    "the preamble": lambda result: setattr(result, "preamble", b"Quixotic".ljust(128)),
    "the pixel data": lambda result: setattr(result, "PixelData", b"Quixotic".ljust(32)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_proof_notices(fault):
    result = read_back(Deidentifier(SALT)(ct()))
    assert prove_deidentified(ct(), result) == []

    FAULTS[fault](result)

    faults = prove_deidentified(ct(), result)
    assert faults
    assert "Zebulon" not in str(faults)


def test_the_original_is_not_deidentified():
    original = ct()

    assert len(prove_deidentified(original, copy.deepcopy(original))) > 5


KEPT_AS_THEY_WERE = {
    "an own UID": ("FrameOfReferenceUID", "2.25.19490228"),
    "a long one": ("StudyInstanceUID", f"2.25.{'19490228' * 4}"),
    "one as a class": ("SOPClassesInStudy", "2.25.19490228"),
    "a keyed word": ("SoftwareVersions", "W_SMITH2JOHN2"),
    "a pseudonym": ("PatientID", "P-SMITH2JOHN2"),
}


@pytest.mark.parametrize("case", KEPT_AS_THEY_WERE)
def test_what_only_looks_like_a_replacement_does_not_stay(case):
    keyword, value = KEPT_AS_THEY_WERE[case]
    original = ct(**{"PatientID": "W_SMITH2JOHN2", keyword: value})
    result = read_back(Deidentifier(SALT)(original))
    assert prove_deidentified(original, result) == []
    assert result.get(keyword) != value

    setattr(result, keyword, value)

    assert prove_deidentified(original, result)


def test_replacements_that_say_something_by_chance_are_no_fault():
    uid, word = mapped_uid(SALT, "1.2.3.4.7"), keyed_word(SALT, "1.0")
    moved = shifted("20200301", "DA", shift_of(SALT, "ID-778899"))
    accidents = [
        {"AccessionNumber": uid[8:18]},
        {"AccessionNumber": uid[2:9]},
        {"AccessionNumber": pseudonym(SALT, "ID-778899")[:6]},
        {"AccessionNumber": moved},
        {"ReferringPhysicianName": max(re.findall("[A-Z]{3,}", word), key=len)},
        {"PatientComments": f"born {moved[:4]}-{moved[4:6]}-{moved[6:]}"},
        {"DateOfLastCalibration": moved},
        {"StudyDate": "", "AcquisitionDateTime": "20200301101112", "DateOfLastCalibration": moved},
    ]
    for values in accidents:
        original = ct(SoftwareVersions="1.0", **values)

        assert prove_deidentified(original, read_back(Deidentifier(SALT)(original))) == [], values


def test_a_date_that_was_moved_onto_another_is_no_fault():
    days = (Deidentifier(SALT)(ct()).StudyDate, "20200301")
    original = ct(SeriesDate=days[0])  # StudyDate moves onto what SeriesDate was

    assert prove_deidentified(original, read_back(Deidentifier(SALT)(original))) == []
