import base64
import copy
import gzip
import hashlib
import hmac
import shutil
import subprocess
from datetime import date

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, JPEGBaseline8Bit

from sagemaker_monai.deidentification.deidentify import METHOD, Deidentifier
from sagemaker_monai.deidentification.deidentify_nifti import deidentify_nifti
from sagemaker_monai.deidentification.proof import prove_deidentified
from sagemaker_monai.deidentification.proved import write_deidentified
from sagemaker_monai.deidentification.pseudonyms import make_salt, mapped_uid, pseudonym, shift_of, shifted
from sagemaker_monai.errors import CallerError, ConfigError, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.dicom.decoding import decode_stored
from sagemaker_monai.images.dicom.headers import quiet_pydicom, read_instance
from tests.support.compressed_frames import as_jpeg
from tests.support.exhaustive import exhaustive
from tests.support.identified import PDF, SALT, US, ct, read_back, worst_case
from tests.support.made_dicom import as_file
from tests.support.places import SHARED_DATA


@pytest.fixture(autouse=True)
def _quiet():
    quiet_pydicom()


@pytest.fixture
def deidentify():
    return Deidentifier(SALT)


def hmac_of(text: str, salt: bytes = SALT) -> bytes:
    return hmac.new(salt, text.encode(), hashlib.sha256).digest()


def expected_uid(uid: str) -> str:
    return "2.25." + str(int.from_bytes(hmac_of("uid:" + uid)[:16], "big"))


@pytest.mark.parametrize("depth", exhaustive([1, 2]))
def test_a_file_full_of_patients_keeps_nothing_of_them(deidentify, depth):
    original = worst_case(depth)
    assert len(original) > 600

    result = deidentify(original)
    data = as_file(result).lower()

    assert prove_deidentified(original, read_back(result)) == []
    for secret in (b"zanzibar", b"quixotic", b"zebulon", b"1.2.3.", b"id-778899", b"19770517", b"077y", b"7777"):
        assert secret not in data


def test_the_input_is_not_changed(deidentify):
    original = worst_case()
    before = as_file(copy.deepcopy(original))

    result = deidentify(original)
    result.ImageType.append("X")

    assert as_file(original) == before


def test_uids_are_the_same_keyed_hash_wherever_they_stand(deidentify):
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = US, "1.2.3.4.5.9"
    purpose = Dataset()
    purpose.ReferencedFrameOfReferenceUID = "1.2.3.4.8"
    reference.PurposeOfReferenceCodeSequence = [purpose]
    first = deidentify(ct(SourceImageSequence=[reference], IrradiationEventUID=["1.2.3.9", "1.2.3.10"]))
    second = Deidentifier(SALT)(ct(SOPInstanceUID="1.2.3.4.5.9"))
    other = Deidentifier(bytes(16))(ct())

    assert first.SOPInstanceUID == first.file_meta.MediaStorageSOPInstanceUID == expected_uid("1.2.3.4.5.1")
    assert first.SourceImageSequence[0].ReferencedSOPInstanceUID == second.SOPInstanceUID
    assert first.SourceImageSequence[0].ReferencedSOPClassUID == US
    nested = first.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0]
    assert nested.ReferencedFrameOfReferenceUID == first.FrameOfReferenceUID == second.FrameOfReferenceUID
    assert list(first.IrradiationEventUID) == [expected_uid("1.2.3.9"), expected_uid("1.2.3.10")]
    assert other.SOPInstanceUID != first.SOPInstanceUID
    assert first.SOPClassUID == ct().SOPClassUID


def test_frames_of_reference_of_the_standard_and_classes_of_vendors_stay(deidentify):
    result = deidentify(ct(FrameOfReferenceUID="1.2.840.10008.1.4.1.1", SOPClassUID="1.3.12.2.1107.5.9.1"))

    assert result.FrameOfReferenceUID == "1.2.840.10008.1.4.1.1"  # Talairach
    assert result.SOPClassUID == result.file_meta.MediaStorageSOPClassUID == "1.3.12.2.1107.5.9.1"


def test_a_made_up_uid_under_the_standards_root_is_replaced(deidentify):
    uid = "1.2.840.10008.5.1.4.1.1.2.19490228.1"

    assert deidentify(ct(StudyInstanceUID=uid)).StudyInstanceUID == expected_uid(uid)


@given(st.text(min_size=1))
def test_every_mapped_uid_is_valid(uid):
    mapped = mapped_uid(SALT, "x" + uid)

    assert UID(mapped).is_valid
    assert len(mapped) <= 64


def test_patients_have_one_pseudonym_and_keep_their_intervals(deidentify):
    first = deidentify(ct(StudyDate="20200229", AcquisitionDateTime="20200301235959.5+0100", AcquisitionTime="235959"))
    second = deidentify(ct(StudyDate="20200301", PatientID="ID-778899 "))
    other = deidentify(ct(PatientID="ID-778898"))

    expected = "P-" + base64.b32encode(hmac_of("patient:ID-778899")).decode()[:12]
    assert first.PatientID == first.PatientName == second.PatientID == expected == pseudonym(SALT, "ID-778899")
    assert other.PatientID != expected
    days = 1 + int.from_bytes(hmac_of("days:ID-778899")[:8], "big") % 3650
    assert (date(2020, 2, 29) - date.fromisoformat(first.StudyDate)).days == days
    assert (date.fromisoformat(second.StudyDate) - date.fromisoformat(first.StudyDate)).days == 1
    assert first.AcquisitionDateTime == second.StudyDate + "235959.5+0100"
    assert first.AcquisitionTime == "235959"


def test_patients_without_an_id_are_not_one(deidentify):
    same = [deidentify(ct(PatientID="", SOPInstanceUID=uid)).PatientID for uid in ("1.2.3.1", "1.2.3.2")]
    other = deidentify(ct(PatientID="", PatientName="Another")).PatientID

    assert same[0] == same[1] != other


@pytest.mark.parametrize(
    ("vr", "value", "expected"),
    [
        ("DA", "20200301", "20200229"),
        ("DA", "2020.03.01", "20200229"),
        ("DA", "20200101-20200301", None),
        ("DA", "20201301", None),
        ("DA", "00010101", None),
        ("DA", "Smith", None),
        ("DA", "٢٠٢٠٠٣٠١", None),
        ("DT", "2020", None),
        ("DT", "20200301", "20200229"),
        ("DT", "2020030112", "2020022912"),
        ("DT", "20200301121314.123456-0500", "20200229121314.123456-0500"),
        ("DT", "20200301121314 Smith", None),
        ("TM", "121314.5", "121314.5"),
        ("TM", "12:13:14", "12:13:14"),
        ("TM", "121314 Smith", None),
    ],
)
def test_dates_move_by_days_and_broken_ones_go(vr, value, expected):
    assert shifted(value, vr, 1) == expected


def test_a_broken_date_is_treated_as_the_profile_has_it(deidentify):
    result = deidentify(
        ct(StudyDate="before 1999", SeriesDate="20200101-20200301", AdmittingDate="x", AcquisitionTime="at noon")
    )

    assert not result.StudyDate  # Z
    assert result.SeriesDate == "19000101"  # X/D
    assert "AdmittingDate" not in result  # X
    assert not result.AcquisitionTime  # X/Z


def test_several_dates_move_together(deidentify):
    result = deidentify(ct(DateOfLastCalibration=["20200301", "20200229"]))

    first, second = (date.fromisoformat(day) for day in result.DateOfLastCalibration)
    assert (first - second).days == 1


@given(st.text())
def test_the_shift_is_one_to_ten_years(patient_id):
    assert 1 <= shift_of(SALT, patient_id) <= 3650


def test_what_was_done_is_stated(deidentify):
    result = read_back(Deidentifier(SALT, keep_patient_characteristics=True)(ct(DeidentificationMethod="Dr Doolittle")))

    assert result.PatientIdentityRemoved == "YES"
    assert result.LongitudinalTemporalInformationModified == "MODIFIED"
    assert result.DeidentificationMethod == METHOD
    assert len(METHOD) <= 64
    codes = [(item.CodeValue, item.CodingSchemeDesignator) for item in result.DeidentificationMethodCodeSequence]
    assert codes == [("113100", "DCM"), ("113107", "DCM"), ("113108", "DCM")]


def test_characteristics_go_or_stay_with_ages_above_89_as_90():
    values = {"PatientAge": "093Y", "PatientWeight": "70.5", "PatientSize": "1.7"}
    basic, kept = Deidentifier(SALT)(ct(**values)), Deidentifier(SALT, keep_patient_characteristics=True)(ct(**values))

    assert "PatientAge" not in basic
    assert "PatientWeight" not in basic
    assert not basic.PatientSex
    assert not basic.PatientBirthDate
    assert not kept.PatientBirthDate
    assert (kept.PatientAge, kept.PatientWeight, kept.PatientSex) == ("090Y", 70.5, "F")
    for age in ("089Y", "093M"):
        assert Deidentifier(SALT, keep_patient_characteristics=True)(ct(PatientAge=age)).PatientAge == age


def test_a_number_that_is_none_goes(deidentify):
    raw = as_file(ct(SliceThickness="1.25", KVP="120")).replace(b"120 ", b"Zeb\0")

    result = deidentify(read_instance(raw))

    assert result.SliceThickness == 1.25
    assert "KVP" not in result


def test_graphics_documents_and_icons_go(deidentify):
    icon = Dataset()
    icon.PixelData = b"\0\0"
    text = Dataset()
    text.UnformattedTextValue = "Zebulon"
    result = deidentify(
        ct(IconImageSequence=[icon], GraphicAnnotationSequence=[text], EncapsulatedDocument=b"%PDF-1.4 Zebulon")
    )

    assert "IconImageSequence" not in result
    assert "GraphicAnnotationSequence" not in result
    assert result.EncapsulatedDocument == bytes(8)


def test_a_comment_of_the_compressed_picture_goes_and_the_syntax_stays(deidentify):
    original = ct(BitsAllocated=8, BitsStored=8, HighBit=7)
    original.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    picture = as_jpeg(np.arange(16, dtype=np.uint8).reshape(4, 4))
    original.PixelData = encapsulate([picture[:2] + b"\xff\xfe\x00\x0bQUIXOTIC!" + picture[2:]])
    original["PixelData"].is_undefined_length = True
    original = read_back(original)

    result = read_back(deidentify(original))

    assert [frame.rstrip(b"\0") for frame in generate_frames(result.PixelData, number_of_frames=1)] == [picture]
    assert result.file_meta.TransferSyntaxUID == JPEGBaseline8Bit


def test_a_name_in_the_pixels_themselves_is_refused(tmp_path, deidentify):
    original = read_back(ct(PixelData=b"QUIXOTIC".ljust(32, b"\0")))

    with pytest.raises(UnsuitableImage, match="a name of the original is in the pixel data's bytes"):
        write_deidentified(original, tmp_path / "out", deidentify)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"SOPClassUID": "1.2.840.10008.1.3.10"}, "DICOMDIR"),
        ({"SOPClassUID": PDF}, "document"),
        ({"BurnedInAnnotation": "YES"}, "burned"),
        ({"SOPClassUID": US, "Modality": "US"}, "burned"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "burned"),
    ],
)
def test_what_cannot_be_cleaned_is_refused_without_a_value(deidentify, values, message):
    with pytest.raises(UnsuitableImage, match=message) as caught:
        deidentify(ct(**values))
    assert "Zebulon" not in str(caught.value)


def test_an_object_without_identity_is_refused(deidentify):
    dataset = ct()
    del dataset.SOPInstanceUID, dataset.file_meta.MediaStorageSOPInstanceUID

    with pytest.raises(UnsuitableImage, match="SOPInstanceUID"):
        deidentify(dataset)


def test_suspect_pictures_can_be_kept():
    assert Deidentifier(SALT, burned_in="keep")(ct(BurnedInAnnotation="YES")).PixelData == ct().PixelData


def ultrasound(**place: int) -> Dataset:
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = place.get("left", 1), place.get("top", 2)
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = place.get("right", 2), place.get("bottom", 3)
    return ct(
        SOPClassUID=US,
        Modality="US",
        BurnedInAnnotation="YES",
        SequenceOfUltrasoundRegions=[region],
        PixelData=np.full(16, 500, dtype="<u2").tobytes(),
    )


def test_a_region_may_end_where_the_picture_does():
    result = Deidentifier(SALT, burned_in="black_out")(ultrasound(right=4, bottom=4))

    pixels = np.frombuffer(result.PixelData, "<u2").reshape(4, 4)
    np.testing.assert_array_equal(pixels == 500, [[False] * 4] * 2 + [[False, True, True, True]] * 2)


def test_ultrasound_is_blacked_out_outside_of_its_regions():
    original = ultrasound()

    result = read_back(Deidentifier(SALT, burned_in="black_out")(original))

    expected = np.zeros((4, 4), dtype="<u2")
    expected[2:4, 1:3] = 500
    np.testing.assert_array_equal(np.frombuffer(result.PixelData, "<u2").reshape(4, 4), expected)
    assert result.BurnedInAnnotation == "NO"
    assert [item.CodeValue for item in result.DeidentificationMethodCodeSequence] == ["113100", "113107", "113101"]
    assert original.PixelData == ultrasound().PixelData


@pytest.mark.parametrize(
    "dataset",
    [ultrasound(left=0, top=0, right=3, bottom=3), ultrasound(right=9), ct(BurnedInAnnotation="YES")],
    ids=["region is everything", "region is outside", "no region"],
)
def test_a_picture_without_usable_regions_cannot_be_blacked_out(dataset):
    with pytest.raises(UnsuitableImage, match="where in the picture"):
        Deidentifier(SALT, burned_in="black_out")(dataset)


def test_sequences_nested_without_end_are_refused(deidentify):
    item = Dataset()
    for _ in range(60):
        outer = Dataset()
        outer.ContributingEquipmentSequence = [item]
        item = outer

    with pytest.raises(UndecodableImage, match="nested"):
        deidentify(ct(ContributingEquipmentSequence=[item]))


def test_the_salt_is_long_enough_and_shown_nowhere(tmp_path):
    with pytest.raises(ConfigError, match="16"):
        Deidentifier(b"short")
    with pytest.raises(ConfigError, match="burned_in"):
        Deidentifier(SALT, burned_in="maybe")
    deidentifier = Deidentifier(SALT)
    (tmp_path / "in").write_bytes(as_file(ct()))

    write_deidentified(read_instance(tmp_path / "in"), tmp_path / "out", deidentifier)

    assert SALT not in (tmp_path / "out").read_bytes()
    assert "salt" not in repr(deidentifier)
    assert len(make_salt()) == 32
    assert make_salt() != make_salt()


def test_a_file_is_written_whole_or_not_at_all(tmp_path, deidentify):
    (tmp_path / "in").write_bytes(as_file(ct(BurnedInAnnotation="YES")))

    with pytest.raises(UnsuitableImage):
        write_deidentified(read_instance(tmp_path / "in"), tmp_path / "out", deidentify)

    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_the_report_counts_without_values(deidentify):
    deidentify(worst_case())

    text = "\n".join(deidentify.report())
    assert "1 objects de-identified" in text
    assert "private elements removed" in text
    assert "Zanzibar" not in text


def pixels_of(dataset: Dataset) -> tuple[object, ...]:
    """Their type, size and values, or why they cannot be decoded."""
    try:
        values = decode_stored(dataset)
    except CallerError as error:
        return (str(error),)
    return values.dtype, values.shape, values.tobytes()


@pytest.mark.long
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="no shared data")
def test_every_shared_file_is_proven_or_refused():
    deidentify = Deidentifier(SALT, burned_in="keep")
    proven, refused = 0, 0
    for path in sorted(SHARED_DATA.rglob("*")):
        if not path.is_file() or "dicom" not in str(path.relative_to(SHARED_DATA)):
            continue
        try:
            original = read_instance(path)
            result = deidentify(original)
        except CallerError:
            refused += 1
            continue
        again = read_back(result)
        assert prove_deidentified(original, again) == [], path.name
        assert pixels_of(again) == pixels_of(original), path.name
        proven += 1

    assert proven >= 300


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="no dciodvfy (Debian's dicom3tools)")
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="no shared data")
@pytest.mark.parametrize("name", ["ct_contrast_dicom/dicom_dir", "dicom_series/PGBM-003/11-T1post-18670"])
def test_an_independent_validator_finds_no_new_error(name, tmp_path, deidentify):
    def errors(path):
        run = subprocess.run(["dciodvfy", path], capture_output=True, timeout=60)
        return {line for line in run.stderr.decode(errors="replace").splitlines() if line.startswith("Error")}

    for source in sorted((SHARED_DATA / name).iterdir())[:5]:
        write_deidentified(read_instance(source), tmp_path / "out.dcm", deidentify)
        assert errors(tmp_path / "out.dcm") - errors(source) == set()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_nifti_loses_texts_and_extensions_and_keeps_voxels(tmp_path, kind, packed):
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = kind(voxels, np.diag([1.0, 2.0, 3.0, 1.0]))
    image.header["descrip"], image.header["aux_file"], image.header["intent_name"] = b"Zebulon", b"Zebulon", b"Zebulon"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Quixotic Zebulon"))
    name = "Zebulon.nii.gz" if packed else "Zebulon.nii"
    nib.save(image, tmp_path / name)

    deidentify_nifti(tmp_path / name, tmp_path / f"out{'.nii.gz' if packed else '.nii'}")

    path = tmp_path / f"out{'.nii.gz' if packed else '.nii'}"
    raw = path.read_bytes()
    inflated = gzip.decompress(raw) if packed else raw
    assert b"Zebulon" not in raw + inflated
    result = nib.load(path)
    np.testing.assert_array_equal(np.asarray(result.dataobj), voxels)
    np.testing.assert_array_equal(result.affine, image.affine)
    assert len(result.header.extensions) == 0


@pytest.mark.parametrize("data", [b"", b"x" * 1000, nib.Nifti1Header().binaryblock[:200]])
def test_broken_nifti_is_refused(tmp_path, data):
    (tmp_path / "in.nii").write_bytes(data)

    with pytest.raises(UndecodableImage):
        deidentify_nifti(tmp_path / "in.nii", tmp_path / "out.nii")
    assert not (tmp_path / "out.nii").exists()
