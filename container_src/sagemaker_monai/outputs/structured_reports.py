"""Answers as DICOM: one structured report (TID 1500, Measurement Report) per image or series, made by highdicom.

The images are the report's evidence and the source of its measurement groups. A probability is a measurement with the
unit 1, a predicted class is a coded evaluation, and a value (regression) is a measurement with its unit; they are one
group. Each structure of a mask is a group of its own, whose finding it is and whose measurement is its size. Algorithm
and device are the model with its version. The report is complete and UNVERIFIED, because no person has looked at it.

A class has the code of its label (`dicom_files`). Its probability has that code with `P-` in front.

highdicom is imported when the first report is made: most servers never make one.
"""

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sagemaker_monai.outputs.dicom_files import (
    MANUFACTURER,
    MAX_LO_CHARS,
    SECONDARY_CAPTURE,
    SERIES_DESCRIPTION,
    SERIES_NUMBER,
    Provenance,
    category_of,
    code_of,
    coding_scheme,
    concept_of,
    derived_uid,
    digest_of,
    names_of,
    private_code,
    to_bytes,
)
from sagemaker_monai.outputs.evidence import make_evidence, text_of

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept
    from pydicom import Dataset

# What the size of a structure is, by its unit (SNOMED CT), and the unit in UCUM with its meaning.
_SIZES = {
    "ml": ("118565006", "Volume", "ml", "ml"),
    "mm2": ("42798000", "Area", "mm2", "mm2"),
    "px": ("42798000", "Area", "{pixels}", "pixels"),
}
_SIDES = ("7771000", "24028007", "51440002")  # left, right and both (CID 244)
_ANATOMICAL = "91723000"  # the category of structures that are also where something is found
# LOINC, by Modality (CID 100); the others have a private code.
_PROCEDURES = {
    "CT": ("25045-6", "CT unspecified body region"),
    "MR": ("25056-3", "MRI unspecified body region"),
    "NM": ("49118-3", "NM unspecified body region"),
    "PT": ("44136-0", "PET unspecified body region"),
    **dict.fromkeys(("CR", "DX", "RG", "RF", "XA"), ("43468-8", "XR unspecified body region")),
}


@dataclass(frozen=True)
class Finding:
    """One line of a report.

    Attributes:
        label: name of the class, or of the measured quantity.
        probability: of the class, 0 to 1; None: not reported.
        value: of the measured quantity; None: nothing was measured.
        unit: of the value, a UCUM code ("1", "mm", "a"); the unit 1 is "no units".
        is_predicted: whether the model predicts this class; it may predict several or none.
        is_structure: whether the value is the size of a structure of this name: ml, mm2 or px.
    """

    label: str
    probability: float | None = None
    value: float | None = None
    unit: str = "1"
    is_predicted: bool = False
    is_structure: bool = False


def encode_sr(
    findings: Sequence[Finding],
    *,
    headers: Sequence["Dataset"],
    model: Provenance,
    now: datetime,
    frame: int | None = None,
) -> bytes:
    """Write the report on one image or one series.

    Args:
        findings: at least one, with finite numbers.
        headers: of the image's files, without pixel data; `Identity.headers`. The first has the patient and study.
        model: the model.
        now: when the answer was made, local time.
        frame: number of the frame from 1, if the answer is about one of several; `Identity.frame`.

    Returns:
        A DICOM file, Comprehensive SR, Explicit VR Little Endian.

    Raises:
        NotAcceptable, UnsuitableImage: as of `make_evidence`.
    """
    if not findings or not all(math.isfinite(number) for finding in findings for number in _numbers(finding)):
        raise ValueError("a report needs findings, and finite numbers in them")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pydicom|highdicom)\.")  # the source's header may have faults
        evidence = make_evidence(headers)
        from highdicom import sr

        uids = [str(source.SOPInstanceUID) for source in evidence]
        report = sr.MeasurementReport(
            observation_context=_observer(model),
            procedure_reported=_procedure(text_of(headers[0], "Modality")),
            imaging_measurements=_groups(findings, evidence, model, frame, uids),
        )
        first_class, evidence[0].SOPClassUID = evidence[0].SOPClassUID, SECONDARY_CAPTURE
        document = sr.ComprehensiveSR(
            evidence=evidence,
            content=report,
            series_instance_uid=derived_uid("series", str(evidence[0].StudyInstanceUID), model.name, model.version),
            series_number=SERIES_NUMBER,
            sop_instance_uid=derived_uid("report", *uids, str(frame), model.name, model.version, repr(tuple(findings))),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=model.name[:MAX_LO_CHARS],
            software_versions=model.version[:MAX_LO_CHARS],
            series_description=SERIES_DESCRIPTION,
            is_complete=True,
            is_final=False,
            is_verified=False,
            content_date=now.date(),
            content_time=now.time(),
            series_date=now.date(),
            series_time=now.time(),
            specific_character_set="ISO_IR 192",
            coding_schemes=[coding_scheme()],
        )
        references = document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
        references.ReferencedSOPSequence[0].ReferencedSOPClassUID = first_class
        return to_bytes(document, now)


def _numbers(finding: Finding) -> Iterable[float]:
    return (number for number in (finding.probability, finding.value) if number is not None)


# --- content ---------------------------------------------------------------------------------------------------------


def _observer(model: Provenance) -> Any:
    from highdicom import sr
    from pydicom.sr.codedict import codes

    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=codes.DCM.Device,
            observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                uid=derived_uid("device", model.name, model.version),
                name=MANUFACTURER,
                manufacturer_name=MANUFACTURER,
                model_name=model.name,
                serial_number=model.version,
            ),
        )
    )


def _groups(
    findings: Sequence[Finding], evidence: Sequence["Dataset"], model: Provenance, frame: int | None, uids: list[str]
) -> list[Any]:
    """One group of all findings on the image, and one of each structure."""
    from highdicom import sr

    named = (*uids, str(frame), model.name, model.version)
    algorithm = sr.AlgorithmIdentification(
        name=model.name,
        version=model.version,
        parameters=[f"artifact {model.version}", *model.parameters],
        manufacturer=MANUFACTURER,
    )

    def group(identifier: str, *parts: str, **content: Any) -> Any:
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(
                uid=derived_uid("tracking", *named, *parts), identifier=identifier
            ),
            algorithm_id=algorithm,
            source_images=[
                sr.SourceImageForMeasurementGroup(
                    referenced_sop_class_uid=source.SOPClassUID,
                    referenced_sop_instance_uid=source.SOPInstanceUID,
                    referenced_frame_numbers=None if frame is None else [frame],
                )
                for source in evidence
            ],
            **content,
        )

    on_image = [finding for finding in findings if not finding.is_structure]
    structures = [finding for finding in findings if finding.is_structure]
    groups = [group("image-level findings", **_on_image(on_image))] if on_image else []
    names = names_of([finding.label for finding in structures])
    return groups + [
        group(name, finding.label, **_of_structure(finding, model))
        for name, finding in zip(names, structures, strict=True)
    ]


def _of_structure(finding: Finding, model: Provenance) -> dict[str, Any]:
    """What the group of one structure says."""
    from highdicom import sr

    value, meaning, unit, unit_meaning = _SIZES[finding.unit]
    known = model.codes.get(finding.label)
    category = category_of(finding.label, model.codes)
    kind = code_of(finding.label) if known is None else concept_of(known.type)
    modifiers = () if known is None else known.modifiers[:1]
    where = {"laterality" if each.value in _SIDES else "topographical_modifier": concept_of(each) for each in modifiers}
    site = sr.FindingSite(anatomic_location=kind, **where)
    return {
        "finding_category": category,
        "finding_type": kind,
        "finding_sites": [site] if category.value == _ANATOMICAL else None,
        "measurements": [
            sr.Measurement(
                name=sr.CodedConcept(value, "SCT", meaning),
                value=float(finding.value or 0.0),
                unit=sr.CodedConcept(unit, "UCUM", unit_meaning),
            )
        ],
    }


def _on_image(findings: Sequence[Finding]) -> dict[str, Any]:
    """What the group of findings on the whole image says."""
    from highdicom import sr

    measurements, evaluations = [], []
    for finding in findings:
        concept = code_of(finding.label)
        if finding.probability is not None:
            name = private_code(
                f"P-{digest_of(concept.scheme_designator, concept.value)}", f"Probability of {finding.label}"
            )
            measurements.append(sr.Measurement(name=name, value=float(finding.probability), unit=_unit("1")))
        if finding.value is not None:
            measurements.append(sr.Measurement(name=concept, value=float(finding.value), unit=_unit(finding.unit)))
        if finding.is_predicted:
            name = private_code("PREDICTED", "Predicted class")
            evaluations.append(sr.QualitativeEvaluation(name=name, value=concept))
    return {"measurements": measurements, "qualitative_evaluations": evaluations}


def _unit(unit: str) -> "CodedConcept":
    from highdicom.sr import CodedConcept

    return CodedConcept(value=unit, scheme_designator="UCUM", meaning="no units" if unit == "1" else unit)


def _procedure(modality: str) -> "CodedConcept":
    from highdicom.sr import CodedConcept

    if modality in _PROCEDURES:
        value, meaning = _PROCEDURES[modality]
        return CodedConcept(value=value, scheme_designator="LN", meaning=meaning)
    return private_code("IMAGING", "Imaging procedure")
