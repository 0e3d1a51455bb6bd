"""A de-identified header keeps no identity in any attribute, VR or depth, and keeps what images are read by."""

import itertools
import string
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian

from sagemaker_monai.deidentification.deidentify import Deidentifier
from sagemaker_monai.deidentification.number_values import are_numbers, number_text
from sagemaker_monai.deidentification.proof import prove_deidentified
from sagemaker_monai.deidentification.proved import write_deidentified
from sagemaker_monai.errors import CallerError, UnsuitableImage
from sagemaker_monai.images.dicom.headers import read_instance
from tests.attacks.header_places import PLAIN_TAGS, SECRETS, TRICKS, element, file_with, hidden
from tests.support.identified import SALT, ct, read_back
from tests.support.made_dicom import as_file

TOGETHER = 256  # attributes in one file


def written(content: bytes, folder: Path) -> tuple[bytes, Dataset] | None:
    """The written file, or None if it is refused."""
    target = folder / "out.dcm"
    try:
        result = write_deidentified(read_instance(content), target, Deidentifier(SALT, burned_in="keep"))
    except CallerError:
        return None
    return target.read_bytes(), result


def refusals(tags, secret, trick, folder) -> int:
    """Hide a secret and search the result; if it is refused, try the halves, so that no bad value shields others."""
    found = written(hidden(tags, secret, trick), folder)
    if found is not None:
        assert secret not in found[0], (trick, secret, tags)
        return 0
    if len(tags) == 1:
        return 1
    middle = len(tags) // 2
    return refusals(tags[:middle], secret, trick, folder) + refusals(tags[middle:], secret, trick, folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("headers")


@given(
    tags=st.lists(st.sampled_from(PLAIN_TAGS), min_size=30, max_size=60, unique=True),
    secret=st.sampled_from(SECRETS),
    trick=st.sampled_from(TRICKS),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_attribute_carries_an_identity(folder, tags, secret, trick):
    assert refusals(tuple(tags), secret, trick, folder) <= len(tags) // 4


@pytest.mark.attacks
@pytest.mark.parametrize("trick", TRICKS)
def test_none_of_all_attributes_carries_any_identity(folder, trick):
    for secret, start in itertools.product(SECRETS, range(0, len(PLAIN_TAGS), TOGETHER)):
        refusals(PLAIN_TAGS[start : start + TOGETHER], secret, trick, folder)


# Each goes up or down by itself: letters that rise from one to the next might be a counter.
SYLLABLES = ("Za", "mü", "Aé", "oB", "łA", "Ïx", "n9", "Ив", "а-", "Q^", "Δo", "李a")


@given(
    name=st.lists(st.sampled_from(SYLLABLES), min_size=5, max_size=8).map("".join),
    encoding=st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "utf-32-le"]),
    places=st.lists(st.sampled_from(PLAIN_TAGS), min_size=20, max_size=40, unique=True),
    trick=st.sampled_from(TRICKS),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_attribute_carries_an_unknown_name(folder, name, encoding, places, trick):
    refusals(tuple(places), name.encode(encoding), trick, folder)


KEPT = {
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"],
    "BodyPartExamined": "CHEST",
    "ScanOptions": ["FC", "HELICAL MODE"],
    "SequenceVariant": ["SP", "OSP"],
    "PatientPosition": "HFS",
    "ConvolutionKernel": "B30f",
    "ManufacturerModelName": "Sensation 16",
    "RescaleType": "HU",
    "RescaleIntercept": "-1024",
    "RescaleSlope": "1",
    "PixelSpacing": ["0.9765625", "0.9765625"],
    "ImagePositionPatient": ["-249.51171875", "-460.51171875", "-658.100000"],
    "ImageOrientationPatient": ["1.00000", "0", "0.00000", "0", "1", "-1.2e-10"],
    "WindowCenter": ["40", "-600"],
    "AcquisitionMatrix": [0, 256, 256, 0],
    "RadionuclideTotalDose": "370000000",
    "DiffusionBValue": 1000.0,
    "DiffusionGradientOrientation": [0.5773502691896258, -0.5773502691896258, 0.5773502691896257],
    "FrameIncrementPointer": 0x00181063,
    "SliceVector": list(range(1, 130)),
    "LargestImagePixelValue": 4095,
}


def test_codes_that_are_left_are_valid(folder):
    original = ct()
    local, known = Dataset(), Dataset()
    local.CodeValue, local.CodingSchemeDesignator, local.CodeMeaning = "4711", "99LOCAL", "Ward 7"
    known.CodeValue, known.CodingSchemeDesignator, known.CodeMeaning = "T-D3000", "SRT", "Chest"
    known.ContextIdentifier, known.MappingResource, known.ContextGroupVersion = "4031", "DCMR", "20200301"
    original.ProcedureCodeSequence = original.AnatomicRegionSequence = [local]
    original.AnatomicRegionModifierSequence = [local, known]

    _, result = written(as_file(original), folder)

    assert "ProcedureCodeSequence" not in result
    assert list(result.AnatomicRegionSequence) == []  # of type 2 in DX
    (item,) = result.AnatomicRegionModifierSequence
    assert set(item.dir()) == {"CodeValue", "CodingSchemeDesignator", "CodeMeaning"}


def test_what_pictures_are_read_by_stays(folder):
    original = ct()
    for keyword, value in KEPT.items():
        setattr(original, keyword, value)

    _, result = written(as_file(original), folder)

    for keyword in KEPT:
        assert result[keyword].value == read_back(original)[keyword].value, keyword


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("Manufacturer", "SIEMENS AG, Dr. Roe", "SIEMENS"),
        ("Manufacturer", "GEoffrey Roe", ""),
        ("Manufacturer", "ge medical systems", "GE MEDICAL SYSTEMS"),
        ("Modality", "SMITH", "OT"),
        ("BodyPartExamined", "SMITHZEB", None),
        ("BodyPartExamined", "Chest", "CHEST"),
        ("ScanOptions", ["FC", "SMITH"], "FC"),
        ("SegmentLabel", "Roe", "REMOVED"),
        ("LUTLabel", "Roe", "REMOVED"),
        ("SoftwareVersions", "28.02.1949", "W_"),
        ("ImageType", ["ORIGINAL", "SMITH"], "ORIGINAL\\W_"),
        ("RescaleType", "Roe", None),
        ("WindowCenter", "19490228", None),
        ("WindowCenter", "0040", "40"),
        ("WindowCenter", "+40.50", "40.5"),
        ("WindowCenter", "nan", None),
        ("PixelSpacing", ["1", "1", "1949"], None),
        ("StudyTime", "256199", ""),
        ("ImageComments", "Roe", None),
        ("ICCProfile", b"Roe\0", None),
        ("ContextUID", "1.2.840.10008.6.1.19490228", "2.25."),
        ("CodingSchemeUID", "1.2.840.10008.2.16.4", "1.2.840.10008.2.16.4"),
    ],
)
def test_what_nobody_vouches_for_goes_or_is_replaced(keyword, value, expected):
    original = ct()
    original.add(
        DataElement(tag_for_keyword(keyword), dictionary_VR(tag_for_keyword(keyword)), value, validation_mode=0)
    )

    result = read_back(Deidentifier(SALT, burned_in="keep")(original))

    if expected is None:
        assert keyword not in result
        return
    found = result[keyword].value
    text = "\\".join(found) if isinstance(found, list) or hasattr(found, "append") else str(found or "")
    assert text.startswith(expected)
    assert "Roe" not in text


def test_equal_words_stay_equal_and_others_different():
    first, second, third = (
        Deidentifier(SALT)(ct(ManufacturerModelName=name)).ManufacturerModelName
        for name in ("Roe One", "Roe One", "Roe Two")
    )

    assert first == second != third


def code_item(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def test_codes_of_the_standard_stay_with_its_meaning_and_others_go():
    codes = [
        code_item("39607008", "SCT", "Roe's lung"),
        code_item("T-28000", "SRT", "x"),
        code_item("4711", "L", "Roe"),
    ]

    result = read_back(Deidentifier(SALT)(ct(AnatomicRegionSequence=codes)))

    found = [(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning) for item in result.AnatomicRegionSequence]
    assert found == [("39607008", "SCT", "Lung"), ("T-28000", "SRT", "Lung")]


def test_an_unknown_class_is_refused_and_a_strangers_2_25_is_replaced():
    with pytest.raises(UnsuitableImage, match="SOPClassUID"):
        Deidentifier(SALT)(ct(SOPClassUID="1.2.3.19490228"))

    assert Deidentifier(SALT)(ct(StudyInstanceUID="2.25.19490228")).StudyInstanceUID != "2.25.19490228"


def lut_item(data: bytes, count: int, bits: int = 16) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [count, 0, bits])
    item.add_new("LUTData", "OW", data)
    return item


@pytest.mark.parametrize("is_big_endian", [False, True])
def test_a_table_ends_with_its_last_entry(folder, is_big_endian):
    order = ">" if is_big_endian else "<"
    entries = np.linspace(0, 65535, 256).astype(f"{order}u2").tobytes()
    original = ct(ModalityLUTSequence=[lut_item(entries + b"Jane Roe", 256)])
    if is_big_endian:
        original.file_meta.TransferSyntaxUID = ExplicitVRBigEndian

    data, result = written(as_file(original), folder)

    assert result.ModalityLUTSequence[0].LUTData == entries
    assert b"Jane Roe" not in data


@pytest.mark.parametrize(
    "table",
    [
        b"Jane Roe, 28.02.1949".ljust(512, b"\0"),
        np.frombuffer(b"Jane Roe, 28.02.1949", "u1").astype("<u2").tobytes().ljust(512, b"\0"),
        b"Quixotic".rjust(512, b"\0"),
    ],
    ids=["a text", "a text in UTF-16", "the name"],
)
def test_a_table_that_reads_like_a_text_is_refused(folder, table):
    assert written(as_file(ct(ModalityLUTSequence=[lut_item(table, 256)])), folder) is None


@given(st.floats(-9_999_999, 9_999_999, allow_nan=False), st.sampled_from(["WindowCenter", "SliceThickness"]))
@settings(max_examples=100)
def test_numbers_keep_their_value_in_the_usual_form(value, keyword):
    text = f"{value:.9g}"
    kept = number_text(tag_for_keyword(keyword), "DS", text.encode())

    assert kept is not None
    assert float(kept) == pytest.approx(float(text), rel=1e-9)
    assert len(kept.strip()) <= 16


@given(st.text(string.ascii_letters + string.digits, min_size=8, max_size=8))
def test_a_word_is_no_number(word):
    assert not are_numbers(tag_for_keyword("DiffusionBValue"), "FD", word.encode(), is_little_endian=True)


@given(st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=3))
def test_numbers_are_numbers(values):
    data = struct.pack("<3d", *values)
    assert are_numbers(tag_for_keyword("DiffusionGradientOrientation"), "FD", data, is_little_endian=True)


def test_private_unknown_and_repeated_groups_and_lengths_go(folder):
    tags = (0x00090010, 0x00091001, 0x00080000, 0x00180000, 0x50003000, 0x60003000, 0x60000022, 0x00089999, 0x00411234,
            0x40000010, 0xFFFCFFFC)  # fmt: skip
    elements = {tag: element(tag, "LO", b"Jane Roe", is_implicit=False) for tag in tags}
    content = file_with(elements, is_implicit=False, depth=0)

    data, result = written(content, folder)

    assert b"Jane Roe" not in data
    assert not set(tags) & set(result.keys())


def test_a_second_pass_changes_pseudonyms_only(folder):
    original = ct(ManufacturerModelName="Roe One", ImageType=["ORIGINAL", "PRIMARY", "ROE"], BodyPartExamined="CHEST",
                  AnatomicRegionSequence=[code_item("39607008", "SCT", "Lung")])  # fmt: skip
    _, first = written(as_file(original), folder)
    data, second = written(as_file(first), folder)

    assert prove_deidentified(first, second) == []
    assert set(first.keys()) == set(second.keys())
    replaced = {
        element.keyword for element in first if element.VR != "SQ" and element.value != second[element.tag].value
    }
    assert replaced == {"SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID",
                        "PatientName", "StudyDate", "ManufacturerModelName", "ImageType"}  # fmt: skip
    assert str(first.SOPInstanceUID).encode() not in data


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("BodyPartExamined", "SMITH"), ("Modality", "SMITH"), ("ManufacturerModelName", "Jane Roe"), ("KVP", "19490228"),
     ("SegmentLabel", "Roe"), ("ReferencedSOPClassUID", "1.2.3.4")],
)  # fmt: skip
def test_the_proof_notices_what_nobody_vouches_for(keyword, value):
    result = read_back(Deidentifier(SALT)(ct()))
    setattr(result, keyword, value)

    assert prove_deidentified(ct(), result)


def test_the_proof_notices_a_code_of_a_local_scheme_and_meta_information():
    result = read_back(Deidentifier(SALT)(ct()))
    result.AnatomicRegionSequence = Sequence([code_item("4711", "L", "Roe")])
    assert prove_deidentified(ct(), result)

    result = read_back(Deidentifier(SALT)(ct()))
    result.file_meta.SourceApplicationEntityTitle = "ROE"
    assert prove_deidentified(ct(), result)


def test_a_patient_who_is_called_as_a_term_is_no_fault(folder):
    original = ct(PatientName="Chest^Head", PatientID="CHEST", BodyPartExamined="CHEST")

    _, result = written(as_file(original), folder)

    assert result.BodyPartExamined == "CHEST"
    assert result.PatientID.startswith("P-")
