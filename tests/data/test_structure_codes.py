"""Codes of structures: the table, dataset.json, and the artifact."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.sr._concepts_dict import concepts  # pydicom's copy of DICOM's context groups

from sagemaker_monai.data.label_names import alike_key
from sagemaker_monai.data.structure_codes import _PAIRED, SIDES, STRUCTURES, codes_of, usual_codes
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.tasks.label_codes import Code, LabelCodes, is_snomed_identifier, read_codes, write_codes

LIVER = LabelCodes(Code("SCT", "91723000", "Anatomical Structure"), Code("SCT", "10200004", "Liver"))
LEFT = Code("SCT", "7771000", "Left")
CATEGORY, TYPE = ["SCT", "91723000", "Anatomical Structure"], ["SCT", "10200004", "Liver"]
SLICER = (
    "Segmentation category and type - DICOM master list~SCT^91723000^Anatomical Structure~SCT^10200004^Liver~{}"
    "~Anatomic codes - DICOM master list~^^~^^"
)


def dcmqi(scheme, value, meaning):
    return {"CodingSchemeDesignator": scheme, "CodeValue": value, "CodeMeaning": meaning}


def known_to_dicom(scheme):
    """Value -> meanings in lower case."""
    known = {}
    for codes in concepts[scheme].values():
        for value, (meaning, *_) in codes.items():
            known.setdefault(value, set()).add(meaning.lower())
    return known


# --- the table


def test_every_code_of_the_table_is_one_of_dicom_with_its_meaning():
    known = {"SCT": known_to_dicom("SCT"), "NCIt": known_to_dicom("NCIt")}
    rows = [row for category, rows in STRUCTURES.items() for row in (("", *category), *rows)]
    rows += [("", side.value, side.meaning) for side in SIDES.values()]

    assert len(rows) > 150
    for _, value, meaning in rows:
        assert meaning.lower() in known["NCIt" if value.startswith("C") else "SCT"][value]
        assert value.startswith("C") or is_snomed_identifier(value)


def test_names_of_the_table_are_normal_and_come_once():
    names = [name for rows in STRUCTURES.values() for own, _, _ in rows for name in own.split()]

    assert len(set(names)) == len(names)
    assert [name for name in names if alike_key(name) != name] == []
    assert set(names) >= _PAIRED


@pytest.mark.parametrize(
    ("name", "meaning", "side"),
    [
        ("liver", "Liver", None),
        ("Gall Bladder", "Gallbladder", None),
        ("kidney_left", "Kidney", "Left"),
        ("Right Kidney", "Kidney", "Right"),
        ("right adrenal-gland", "Adrenal gland", "Right"),
        ("lung_upper_lobe_left", "Upper lobe of lung", "Left"),
        ("lung_middle_lobe_right", "Middle lobe of right lung", None),
        ("heart_atrium_left", "Left atrium", None),
        ("vertebrae_L1", "L1 vertebra", None),
        ("enhancing tumour", "Enhancing Lesion", None),
    ],
)
def test_names_of_public_sets_have_their_code(name, meaning, side):
    codes = usual_codes(name)

    assert codes.type.meaning == meaning
    assert [each.meaning for each in codes.modifiers] == ([] if side is None else [side])


@pytest.mark.parametrize(
    "name",
    ["", "left", "left liver", "liver left", "rib_left_1", "livers", "liver tumor", "L1", "1", "organ", "leftkidney x"],
)
def test_what_is_not_a_whole_name_has_no_code(name):
    assert usual_codes(name) is None


# --- dataset.json


@pytest.mark.parametrize(
    "content",
    [
        {"category": CATEGORY, "type": TYPE},
        {"category": ["91723000", "SCT", "Anatomical Structure"], "type": "SCT^10200004^Liver", "modifier": None},
        {"category": dcmqi(*CATEGORY), "type": [dcmqi(*TYPE)], "modifier": []},
        {"SegmentedPropertyCategoryCodeSequence": dcmqi(*CATEGORY), "SegmentedPropertyTypeCodeSequence": dcmqi(*TYPE)},
        SLICER.format("^^"),
    ],
)
def test_every_usual_form_is_read(content):
    assert read_codes(content) == LIVER


@pytest.mark.parametrize("modifier", [LEFT, [LEFT]], ids=["one", "list"])
def test_modifiers_are_one_or_several(modifier):
    as_list = [LEFT.scheme, LEFT.value, LEFT.meaning]
    written = [as_list] if isinstance(modifier, list) else as_list

    codes = read_codes({"category": CATEGORY, "type": TYPE, "modifier": written})

    assert codes.modifiers == (LEFT,)
    assert read_codes(SLICER.format("SCT^7771000^Left")) == codes
    assert read_codes(json.loads(json.dumps(write_codes(codes)))) == codes


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "must be like"),
        ([], "must be like"),
        ("liver", "Slicer"),
        ({"category": CATEGORY}, "lack type"),
        ({"category": CATEGORY, "type": TYPE, "colour": "red"}, "colour"),
        ({"category": CATEGORY, "type": TYPE, "SegmentedPropertyTypeCodeSequence": TYPE}, "twice"),
        ({"category": CATEGORY, "type": TYPE[:2]}, "scheme, value and meaning"),
        ({"category": CATEGORY, "type": ["SCT", 10200004, "Liver"]}, "scheme, value and meaning"),
        ({"category": CATEGORY, "type": ["SNOMED", "10200004", "Liver"]}, "coding scheme"),
        ({"category": CATEGORY, "type": ["SCT", "10200005", "Liver"]}, "check digit"),
        ({"category": CATEGORY, "type": ["SCT", "10020004", "Liver"]}, "check digit"),
        ({"category": CATEGORY, "type": ["FMA", "72\\03", "Liver"]}, "does not allow"),
        ({"category": CATEGORY, "type": ["FMA", "7203", "Li\nver"]}, "does not allow"),
        ({"category": CATEGORY, "type": ["FMA", "7203", "x" * 65]}, "does not allow"),
        ({"category": CATEGORY, "type": TYPE, "modifier": [TYPE] * 5}, "at most 4"),
    ],
)
def test_what_cannot_be_a_code_is_refused_with_the_cause(content, cause):
    with pytest.raises(DatasetError, match=cause) as refused:
        codes_of(["liver"], {"liver": content})

    assert "codes of 'liver'" in str(refused.value)
    assert "\n" not in str(refused.value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["SCT", "type", "^^", "~~~~", "10200004"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.sampled_from(["category", "type", "modifier"]), inner, max_size=4)
    ),
)


@given(_JSON)
def test_anything_else_is_refused_with_a_code_of_ours(content):
    with contextlib.suppress(ValueError):
        codes = read_codes(content)
        assert read_codes(write_codes(codes)) == codes


def test_given_codes_come_before_the_table_and_names_are_compared_as_labels_are():
    own = {"category": CATEGORY, "type": ["FMA", "7203", "Kidney"]}

    codes = codes_of(["Left Kidney", "spleen", "flap"], {"left_kidney": own})

    assert codes["Left Kidney"].type == Code("FMA", "7203", "Kidney")
    assert codes["spleen"].type.meaning == "Spleen"
    assert "flap" not in codes
    for wrong in ({"heart": own}, {"spleen": own, "SPLEEN": own}, [own]):
        with pytest.raises(DatasetError, match="codes"):
            codes_of(["spleen"], wrong)


# --- the check digit


def test_the_check_digit_finds_every_wrong_digit_and_every_swap_of_two():
    value = "123037004"  # of the SNOMED CT release

    assert is_snomed_identifier(value)
    for place in range(len(value)):
        for digit in "0123456789":
            changed = value[:place] + digit + value[place + 1 :]
            assert is_snomed_identifier(changed) == (changed == value)
    swapped = [value[:i] + value[i + 1] + value[i] + value[i + 2 :] for i in range(1, len(value) - 1)]
    assert [each for each in swapped if each != value and is_snomed_identifier(each)] == []
