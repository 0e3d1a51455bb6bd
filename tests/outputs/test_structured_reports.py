"""Structured reports, checked by dciodvfy (Debian's dicom3tools) where it is installed, and read back by highdicom."""

import dataclasses
import email
import email.policy
import io
import shutil
import subprocess
import tempfile
import warnings
from datetime import datetime

import pydicom
import pytest
from highdicom import sr

from sagemaker_monai.errors import NotAcceptable, PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.dicom.headers import read_header
from sagemaker_monai.outputs.dicom_files import Provenance, encode_multipart
from sagemaker_monai.outputs.structured_reports import Finding, encode_sr
from sagemaker_monai.tasks.label_codes import Code, LabelCodes
from tests.support.dicom_bodies import dicom
from tests.support.places import SHARED_DATA

SHARED = SHARED_DATA
MODEL = Provenance("densenet121", "ab" * 32, ("spacing 1 mm",))
NOW = datetime(2025, 3, 4, 5, 6, 7)
FINDINGS = (
    Finding("contrast", 0.912345678, is_predicted=True),
    Finding("no contrast, größer 日本", 0.087654321),
    Finding("age", value=63.25, unit="a"),
)

needs_validator = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy of dicom3tools")
needs_data = pytest.mark.skipif(not (SHARED / "odd_dicom").is_dir(), reason="needs the shared data")


def headers(count=2, **more):
    return [read_header(dicom(number, **more)) for number in range(1, count + 1)]


def report_on(sources, findings=FINDINGS, model=MODEL, now=NOW, **options):
    return encode_sr(findings, headers=sources, model=model, now=now, **options)


def parse(content):
    return pydicom.dcmread(io.BytesIO(content))


def read(content):
    return sr.ComprehensiveSR.from_dataset(parse(content))


def group_of(document):
    [group] = document.content.get_image_measurement_groups()
    return group


def validate(content):
    """The validator's errors."""
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        file.write(content)
        file.flush()
        result = subprocess.run(["dciodvfy", "-new", file.name], capture_output=True)
    lines = (result.stdout + result.stderr).decode(errors="replace").splitlines()
    assert "ComprehensiveSR" in lines
    return [line for line in lines if line.startswith("Error")]


# --- structures of a mask


@needs_validator
def test_every_structure_is_a_finding_with_its_size_its_side_and_its_code():
    anatomy = Code("SCT", "91723000", "Anatomical Structure")
    kidney, lesion = Code("SCT", "64033007", "Kidney"), Code("SCT", "52988006", "Lesion")
    sides = {"left": Code("SCT", "7771000", "Left"), "right": Code("SCT", "24028007", "Right")}
    codes = {f"kidney_{name}": LabelCodes(anatomy, kidney, (side,)) for name, side in sides.items()}
    codes["spot"] = LabelCodes(Code("SCT", "49755003", "Morphologically Abnormal Structure"), lesion)
    sizes = {"kidney_left": 151.5, "kidney_right": 149.25, "spot": 0.5, "flap": 0.0}
    for unit, (quantity, told) in {
        "ml": ("Volume", "ml"), "mm2": ("Area", "mm2"), "px": ("Area", "{pixels}"),
    }.items():  # fmt: skip
        findings = [Finding(label, value=size, unit=unit, is_structure=True) for label, size in sizes.items()]

        content = report_on(headers(), findings, dataclasses.replace(MODEL, codes=codes))

        assert validate(content) == []
        groups = read(content).content.get_image_measurement_groups()
        measured = [(each.name.meaning, each.value, each.unit.value) for x in groups for each in x.get_measurements()]
        assert measured == [(quantity, size, told) for size in sizes.values()]
        assert [each.tracking_identifier for each in groups] == list(sizes)
        assert [each.finding_type.meaning for each in groups] == ["Kidney", "Kidney", "Lesion", "flap"]
        assert [each.finding_type.scheme_designator for each in groups] == [*["SCT"] * 3, "99SMMONAI"]
        assert [[site.laterality.meaning for site in each.finding_sites] for each in groups] == [
            ["Left"], ["Right"], [], [],
        ]  # fmt: skip
        assert all(len(each.source_images) == 2 for each in groups)


# --- what it says


@pytest.fixture(scope="module")
def document():
    return read(report_on(headers()))


def test_probabilities_and_values_are_measurements_and_the_decision_an_evaluation(document):
    group = group_of(document)

    measured = [(item.name.meaning, item.value, item.unit.value) for item in group.get_measurements()]
    assert measured == [
        ("Probability of contrast", 0.912345678, "1"),
        ("Probability of no contrast, größer 日本", 0.087654321, "1"),
        ("age", 63.25, "a"),
    ]
    [evaluation] = group.get_qualitative_evaluations()
    assert (evaluation.name.meaning, evaluation.value.meaning) == ("Predicted class", "contrast")


def test_the_images_are_its_evidence_and_the_source_of_its_measurements(document):
    sources = group_of(document).source_images

    assert [uids[2] for uids in document.get_evidence()] == ["1.2.3.4.1", "1.2.3.4.2"]
    assert [item.referenced_sop_instance_uid for item in sources] == ["1.2.3.4.1", "1.2.3.4.2"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"PatientID": "1"}, {"PatientID": "2"}),
        ({"PatientID": "1"}, {"PatientID": ""}),
        ({"PatientID": "1", "PatientName": "Doe^Jane"}, {"PatientID": "1", "PatientName": "Roe^Jane"}),
        ({"PatientID": "ANON", "PatientBirthDate": "19700101"}, {"PatientID": "ANON", "PatientBirthDate": "19710101"}),
        ({"PatientID": "1", "IssuerOfPatientID": "A"}, {"PatientID": "1", "IssuerOfPatientID": "B"}),
        ({"StudyInstanceUID": "1.2.3.1"}, {"StudyInstanceUID": "1.2.3.2"}),
    ],
)
def test_there_is_no_report_on_images_that_are_not_all_of_the_patient_it_would_name(first, second):
    sources = [read_header(dicom(number, **more)) for number, more in enumerate((first, second, second), start=1)]

    with pytest.raises(UnsuitableImage, match="one patient and one study") as caught:
        report_on(sources)

    assert not any(
        value and value in str(caught.value) for value in (*first.values(), *second.values()) if len(value) > 1
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"PatientID": "p1", "PatientName": "Doe^Jane"}, {"PatientID": " P1 ", "PatientName": "DOE^JANE^"}),
        ({"PatientID": "1", "PatientName": "Doe^Jane"}, {"PatientID": "1", "PatientName": ""}),
    ],
)
def test_one_patient_spelled_in_two_ways_is_one(first, second):
    sources = [read_header(dicom(number, **more)) for number, more in enumerate((first, second), start=1)]

    assert len(parse(report_on(sources)).CurrentRequestedProcedureEvidenceSequence) == 1


def test_algorithm_and_device_are_the_model_with_its_version(document):
    said = texts(document)
    names = dict(said)

    assert names["Algorithm Name"] == "densenet121"
    assert names["Algorithm Version"] == MODEL.version
    assert names["Device Observer Manufacturer"] == "sagemaker-monai"
    assert names["Device Observer Model Name"] == "densenet121"
    assert [text for name, text in said if name == "Algorithm Parameters"] == [
        f"artifact {MODEL.version}",
        "spacing 1 mm",
    ]


def texts(document):
    items = sr.utils.find_content_items(document, value_type="TEXT", recursive=True)
    return [(item.ConceptNameCodeSequence[0].CodeMeaning, item.TextValue) for item in items]


def test_nobody_has_verified_it(document):
    assert (document.CompletionFlag, document.VerificationFlag, document.PreliminaryFlag) == (
        "COMPLETE", "UNVERIFIED", "PRELIMINARY",
    )  # fmt: skip
    assert document.Modality == "SR"
    assert document.SeriesDescription == "AI findings, not verified"


def test_private_codes_depend_on_the_name_alone_and_differ_by_it():
    def codes_of(*labels):
        findings = [Finding(label, 1 / len(labels), is_predicted=True) for label in labels]
        group = group_of(read(report_on(headers(), findings)))
        return [evaluation.value.value for evaluation in group.get_qualitative_evaluations()]

    first, second = codes_of("a", "b")

    assert [*codes_of("b"), *codes_of("a")] == [second, first]
    assert first != second
    assert codes_of("x" * 200 + "1") != codes_of("x" * 200 + "2")


def test_a_frame_is_named_where_the_answer_is_about_one():
    [source] = group_of(read(report_on(headers(1), frame=7))).source_images

    assert source.referenced_frame_numbers == [7]


@pytest.mark.parametrize(("modality", "scheme"), [("CT", "LN"), ("MR", "LN"), ("DX", "LN"), ("", "99SMMONAI")])
def test_the_procedure_follows_from_the_modality(modality, scheme):
    document = parse(report_on(headers(1, Modality=modality)))

    [reported] = [
        item for item in document.ContentSequence if item.ConceptNameCodeSequence[0].CodeMeaning == "Procedure reported"
    ]
    assert reported.ConceptCodeSequence[0].CodingSchemeDesignator == scheme


# --- the same question gives the same report


def test_a_repeat_is_the_same_file_and_anything_else_another():
    first = report_on(headers())

    assert report_on(headers()) == first
    uid = parse(first).SOPInstanceUID
    others = [
        report_on(headers(3)),
        report_on(headers(), FINDINGS[:2]),
        report_on(headers(), model=dataclasses.replace(MODEL, version="cd" * 32)),
        report_on(headers(), frame=1),
    ]
    assert len({uid, *(parse(other).SOPInstanceUID for other in others)}) == 5


def test_reports_of_one_model_on_one_study_are_one_series():
    first, second = parse(report_on(headers(1))), parse(report_on(headers(3)))
    other = parse(report_on(headers(1), model=dataclasses.replace(MODEL, version="cd" * 32)))

    assert first.SeriesInstanceUID == second.SeriesInstanceUID != other.SeriesInstanceUID
    assert first.StudyInstanceUID == "1.2.3"


def test_uids_are_valid_and_the_time_is_the_callers():
    document = parse(report_on(headers()))

    for uid in (document.SOPInstanceUID, document.SeriesInstanceUID):
        assert uid.is_valid
        assert uid.startswith("2.25.")
    assert (document.ContentDate, document.ContentTime, document.InstanceCreationDate) == (
        "20250304", "050607", "20250304",
    )  # fmt: skip


# --- sources as they are


def test_patient_and_study_are_the_sources():
    about = {
        "SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jörg", "PatientID": "4711", "PatientSex": "M",
        "PatientBirthDate": "19700102", "StudyDate": "20200304", "StudyTime": "101112", "AccessionNumber": "A1",
        "StudyID": "S1", "ReferringPhysicianName": "Who^Doctor", "PatientAge": "050Y",
    }  # fmt: skip

    document = parse(report_on(headers(**about)))

    for keyword, value in (about | {"SpecificCharacterSet": "ISO_IR 192"}).items():
        assert document[keyword].value == value, keyword


def test_what_the_source_lacks_is_empty():
    document = parse(report_on(headers()))

    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "AccessionNumber"):
        assert not document[keyword].value, keyword


@pytest.mark.filterwarnings("ignore:Invalid value:UserWarning")
@pytest.mark.filterwarnings("ignore:.*value length:UserWarning")
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientBirthDate", "1.2.1970"),
        ("PatientSex", "W"),
        ("StudyTime", "morning"),
        ("AccessionNumber", "x" * 40),
        ("PatientID", ["a", "b"]),
        ("PatientAge", "old"),
    ],
)
def test_what_the_source_has_wrong_is_left_out(keyword, value):
    assert not parse(report_on(headers(**{keyword: value}))).get(keyword)


@pytest.mark.parametrize("method", [None, "blurred", ["first", "second"]])
@needs_validator
def test_a_de_identified_source_gives_a_de_identified_report(method):
    more = {"PatientIdentityRemoved": "YES"} | ({} if method is None else {"DeidentificationMethod": method})
    content = report_on(headers(**more))

    assert parse(content).PatientIdentityRemoved == "YES"
    assert (parse(content).DeidentificationMethod == "blurred") == (method == "blurred")
    assert validate(content) == []


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_without_uids_there_is_no_report(keyword):
    [source] = headers(1)
    delattr(source, keyword)

    with pytest.raises(UnsuitableImage, match=f"{keyword}.*application/json"):
        report_on([source])


@pytest.mark.filterwarnings("ignore::UserWarning")  # which is what they are about
def test_uids_with_leading_zeros_are_quoted_as_the_archive_knows_them():
    content = report_on(headers(StudyInstanceUID="1.2.840.00123.5"))

    assert parse(content).StudyInstanceUID == "1.2.840.00123.5"


@pytest.mark.filterwarnings("ignore::UserWarning")  # which is what they are about
@pytest.mark.parametrize("uid", ["1.2.840.x", "1..2", ".1.2", "1.2.", "1." * 40 + "1", "none"])
def test_a_malformed_uid_is_named_and_not_called_missing(uid):
    with pytest.raises(UnsuitableImage, match=r"StudyInstanceUID.*malformed.*application/json"):
        report_on(headers(StudyInstanceUID=uid))


def test_what_is_not_dicom_gets_no_report():
    with pytest.raises(NotAcceptable, match="needs DICOM images"):
        report_on([])


@pytest.mark.parametrize("findings", [[], [Finding("a", float("nan"))], [Finding("a", value=float("inf"))]])
def test_a_report_without_sound_numbers_is_a_mistake_of_ours(findings):
    with pytest.raises(ValueError, match="findings"):
        report_on(headers(), findings)


@pytest.mark.parametrize("number", [0.0, 1e-300, -1.5, 1 / 3, 123456789.123456789, 1e30])
def test_any_number_comes_back(number):
    group = group_of(read(report_on(headers(), [Finding("a", value=number)])))

    assert group.get_measurements()[0].value == pytest.approx(number, rel=1e-9)


@pytest.mark.parametrize("label", ["", "\\", "a\\b", "\n", "x" * 200, "^=&", "日本" * 7])
@needs_validator
def test_any_class_name_gives_a_sound_report(label):
    assert validate(report_on(headers(), [Finding(label, 0.5, value=1.0, is_predicted=True)])) == []


# --- several


def test_several_reports_come_as_dicomweb_sends_them():
    reports = [report_on(headers(count)) for count in (1, 2)]

    body, content_type = encode_multipart(reports)

    head = f"MIME-Version: 1.0\r\nContent-Type: {content_type}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    assert message.get_content_type() == "multipart/related"
    assert message.get_param("type") == "application/dicom"
    assert [part.get_content_type() for part in message.iter_parts()] == ["application/dicom"] * 2
    pieces = body.split(b"--" + message.get_boundary().encode())
    assert [piece.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for piece in pieces[1:-1]] == reports


# --- the validator


@needs_validator
def test_a_report_on_drawn_images_has_no_errors():
    assert validate(report_on(headers())) == []


def real_series():
    odd = sorted(
        path for path in (SHARED / "odd_dicom").rglob("*") if path.is_file() and path.suffix not in (".md", ".csv")
    )
    return {
        "ct": sorted((SHARED / "ct_contrast_dicom/dicom_dir").glob("*.dcm"))[:1],
        "ct signed": sorted((SHARED / "ct_contrast_dicom/dicom_dir").glob("*.dcm"))[-1:],
        "mr series": sorted((SHARED / "dicom_series/PGBM-003/36468-FLAIRreg-58706").iterdir()),
        "x-ray": sorted((SHARED / "chest_xray_dicom").glob("*.dcm"))[:1],
        **{str(path.relative_to(SHARED)): [path] for path in odd},
    }


@needs_data
@needs_validator
def test_reports_on_real_files_have_no_errors_or_are_refused():
    outcomes = {}
    for name, files in real_series().items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the headers' own faults
                sources = [read_header(path) for path in files]
                content = report_on(sources)
        except (UndecodableImage, PayloadTooLarge, UnsuitableImage) as error:
            outcomes[name] = error.code
        else:
            outcomes[name] = validate(content)

    # The UIDs of this file begin with 999, which is nobody's; a report has to quote them as they are.
    assert all("Illegal root for UID" in error for error in outcomes.pop("odd_dicom/rgb/color-pl.dcm"))
    assert {name: outcome for name, outcome in outcomes.items() if outcome and not isinstance(outcome, str)} == {}
    assert all(outcomes[name] == [] for name in ("ct", "ct signed", "mr series", "x-ray"))
    assert sum(outcome == [] for outcome in outcomes.values()) >= 100
