"""DICOM objects full of made-up patients, for the tests of de-identification."""

import numpy as np
from pydicom import Dataset
from pydicom.datadict import DicomDictionary, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.sequence import Sequence

from sagemaker_monai.deidentification.profile import LISTED
from sagemaker_monai.images.dicom.headers import quiet_pydicom, read_instance
from tests.support.made_dicom import as_file, made_dataset

SALT = b"a salt for the tests, 32 bytes.."
CT, US, PDF = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.104.1"

SECRETS = {
    **dict.fromkeys(("LO", "SH", "LT", "ST", "UC", "UT"), "Zanzibar77"),
    "AE": "ZANZIBAR77",
    "CS": "ZANZIBAR77",
    "PN": "Quixotic^Zebulon",
    "UI": "1.2.3.456789.77",
    "UR": "http://zanzibar77.example",
    "DA": "19770517",
    "DT": "19770517101112",
    "TM": "101112",
    "AS": "077Y",
    "DS": "77.77",
    "IS": "7777",
    "US": 7777,
    "OB": b"Zanzibar77",
    "UN": b"Zanzibar77",
}


def ct(**values: object) -> Dataset:
    """A small CT slice with the attributes that its module demands, then `values` by keyword."""
    header = {
        "SOPClassUID": CT, "SOPInstanceUID": "1.2.3.4.5.1", "SeriesInstanceUID": "1.2.3.4.6",
        "StudyInstanceUID": "1.2.3.4.7", "FrameOfReferenceUID": "1.2.3.4.8", "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "PatientName": "Quixotic^Zebulon", "PatientID": "ID-778899",
        "PatientBirthDate": "19490228", "PatientSex": "F", "StudyDate": "20200301", "StudyTime": "101112",
        "ReferringPhysicianName": "Doolittle^John", "AccessionNumber": "ACC4711", "StudyID": "S1",
    }  # fmt: skip
    return made_dataset(np.arange(16, dtype=np.uint16).reshape(1, 4, 4), **(header | values))


def read_back(dataset: Dataset) -> Dataset:
    """The dataset after writing and reading."""
    return read_instance(as_file(dataset))


def _fill(dataset: Dataset, depth: int) -> None:
    for tag in LISTED:
        if tag >> 16 in (0x0000, 0x0002) or tag == 0xFFFAFFFA:
            continue
        vr = dictionary_VR(tag).split(" ")[0] if tag in DicomDictionary else "LO"
        if vr == "SQ":
            if depth:
                item = Dataset()
                _fill_plain(item)
                if depth > 1:
                    _fill(item, depth - 1)
                dataset.add(DataElement(tag, "SQ", Sequence([item])))
        else:
            dataset.add(DataElement(tag, vr, SECRETS[vr]))


def _fill_plain(item: Dataset) -> None:
    item.CodeValue, item.CodeMeaning, item.CodingSchemeDesignator = "T-1", "Zanzibar77", "99LOCAL"
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, "1.2.3.456789.77"
    item.PatientName, item.InstitutionName, item.StudyDate = "Quixotic^Zebulon", "Zanzibar77", "19770517"
    _add_private(item)


def _add_private(dataset: Dataset) -> None:
    for group in (0x0009, 0x0029, 0x7FE1):
        block = dataset.private_block(group, "ZANZIBAR MEDICAL", create=True)
        block.add_new(0x01, "LO", "Zanzibar77")
        block.add_new(0x02, "UN", b"Quixotic^Zebulon")
        nested = Dataset()
        nested.PatientName = "Quixotic^Zebulon"
        block.add_new(0x03, "SQ", [nested])


def worst_case(depth: int = 1) -> Dataset:
    """Every attribute of the profile's table filled, nested `depth` times; private blocks, curves, overlays, copies."""
    quiet_pydicom()
    dataset = ct()
    _fill(dataset, depth)
    dataset.SOPInstanceUID = "1.2.3.4.5.1"  # the loop gave all UIDs the same value
    dataset.PatientID, dataset.PatientName, dataset.InstitutionName = "ID-778899", "Quixotic^Zebulon", "Zanzibar77"
    item = Dataset()
    _fill(item, depth - 1)
    _fill_plain(item)
    dataset.ContributingEquipmentSequence = [item]  # not in the table: cleaned inside
    _add_private(dataset)
    dataset.add_new(0x50000010, "US", 1)
    dataset.add_new(0x50003000, "OW", b"Zanzibar77")
    dataset.add_new(0x60000010, "US", 4)
    dataset.add_new(0x60000022, "LO", "Zanzibar77")
    dataset.add_new(0x60003000, "OW", b"Zanzibar77")
    dataset.add_new(0x60004000, "LT", "Zanzibar77")
    dataset.add_new(0x00200222, "LO", "Zanzibar77")  # no such tag
    dataset.SoftwareVersions = ["1.0", "installed for Quixotic"]  # kept by the profile
    dataset.ContentDescription = "scan of ID-778899"
    dataset.SegmentDescription = "Zanzibar77"
    dataset.RetrieveURL = "http://zanzibar77.example"
    dataset.preamble = b"Quixotic^Zebulon".ljust(128, b"\0")
    dataset.file_meta.SourceApplicationEntityTitle = "ZANZIBAR77"
    return dataset
