"""Names that must not become keys: what may tell who somebody is, and what S3 or a job cannot take."""

import pytest

from sagemaker_monai_aws.data.keys import both_file_and_folder, masked, private_columns, private_in, unusable


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("images/DOE^JANE.dcm", "name"),
        ("Smith, Peter/1.jpg", "name"),
        ("smith_john.png", "name"),
        ("Maria-Gonzalez/1.dcm", "name"),
        ("Frau_Weber.png", "name"),
        ("patientname.png", "name"),
        ("jane.doe@example.org/1.png", "e-mail"),
        ("078-05-1120.png", "social security"),
        ("dob_x/1.png", "date of birth"),
        ("case_1957-03-21.png", "date"),
        ("case_19570321.png", "date"),
        ("21.03.1957/1.png", "date"),
        ("MRN0012345.png", "record"),
        ("mrn-12345/1.png", "record"),
        ("accession_98765.dcm", "record"),
        ("AccessionNumber=A98765.dcm", "record"),
    ],
)
def test_what_may_tell_who_somebody_is_is_found(name, what):
    assert what in (private_in(name) or "")


@pytest.mark.parametrize(
    "name",
    [
        "dataset.json",
        "images/ISIC_0024306.jpg",
        "images/HAM_0000118.jpg",
        "HAM10000_images_part_1/ISIC_0029306.jpg",
        "HAM10000_metadata.csv",
        "imagesTr/hippocampus_190.nii.gz",
        "1.2.840.113619.2.55.3.20190101.1.dcm",
        "1.3.6.1.4.1.14519.5.2.1.6279.6001.105756658031515062000744821260.dcm",
        "3f2504e0-4f89-41d3-9a0c-0305e82c3301.png",
        "d41d8cd98f00b204e9800998ecf8427e.png",
        "Basal_Cell_Carcinoma/0001.jpg",
        "Actinic keratosis/img_10000032.jpg",
        "MR_brain_scan/slice_12.dcm",
        "ms_lesion/patient_001.png",
        "train/class 2/IM-0001-0023.png",
        "2019/05/img.png",
    ],
)
def test_pseudonyms_and_classes_pass(name):
    assert private_in(name) is None


def test_a_masked_name_has_no_letter_or_digit_of_it_but_its_form():
    assert masked("José_Müller/DOB 1957-03-21.dcm") == "xxxx_xxxxxx/xxx 9999-99-99.dcm"
    assert masked("smith.a/john") == "xxxxx.x/xxxx"


def test_columns_about_a_person_are_found_and_others_are_not():
    columns = ["image", "PatientName", "birth_date", "dx", "file_name", "age", "sex", "localization", "e-mail"]

    assert private_columns(columns) == ["PatientName", "birth_date", "e-mail"]


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("a//b", "//"),
        ("a/", "slash at an end"),
        ("a/../b", ".."),
        ("a/b.", "period"),
        ("a./b", "period"),
        ("ä" * 513, "1024 bytes"),
        ("a\nb", "control"),
        ("a\\b", "backslash"),
    ],
)
def test_keys_that_no_file_can_be_made_of_are_named_with_the_reason(key, why):
    assert why in unusable(key)


@pytest.mark.parametrize("key", ["ä" * 512, "a/b.c/d e+(1).jpg", "…/…"])
def test_other_keys_are_usable(key):
    assert unusable(key) is None


def test_a_key_that_is_also_a_folder_is_found():
    assert both_file_and_folder(["a", "a/b", "c/d/e", "c/d", "ab"]) == ["a", "c/d"]
