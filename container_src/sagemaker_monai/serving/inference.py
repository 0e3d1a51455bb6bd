"""sagemaker-inference's four functions, which load the model and answer one request.

The artifact's own code/inference.py may replace any of them if the deployer allows it (`handler_service`).
"""

import importlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sagemaker_inference import content_types

from sagemaker_monai.artifact.mask_predictor import MaskPredictor, read_predictor
from sagemaker_monai.artifact.predictor import Answered, Predictor
from sagemaker_monai.errors import NotAcceptable
from sagemaker_monai.images.sample import PICTURE, PROBABILITIES, Sample
from sagemaker_monai.images.volumes import Identity, Traits
from sagemaker_monai.outputs.dicom_files import DICOM_TYPE, Provenance, encode_multipart
from sagemaker_monai.outputs.encoding import CSV_TYPE, ENCODERS, encode_csv
from sagemaker_monai.outputs.json_masks import WithRuns
from sagemaker_monai.outputs.label_map_files import (
    MASK_FILES,
    NOT_OF_VOLUMES,
    OF_SINGLE_IMAGES,
    OVERLAY_TYPE,
    PACKED_PROBABILITIES_TYPE,
    PROBABILITIES_TYPE,
    encode_mask_files,
)
from sagemaker_monai.outputs.segmentation_objects import encode_seg
from sagemaker_monai.outputs.structure_sets import encode_rtstruct
from sagemaker_monai.outputs.structured_reports import Finding, encode_sr
from sagemaker_monai.preprocessing.preprocessing import LoadPhotograph
from sagemaker_monai.requests.media_types import read_request
from sagemaker_monai.tasks.label_codes import LabelCodes
from sagemaker_monai.tasks.segmentation import MaskPrediction
from sagemaker_monai.tasks.task import Prediction

DEFAULT_TYPE: str = content_types.JSON
ANSWER_TYPES = (*ENCODERS, DICOM_TYPE)
RELATED_TYPE = "multipart/related"  # for several files, or one if a client such as DICOMweb accepts only this
# Imported with a model of medical images, so that its first request does not wait 0.5 s for them; with a model of
# photographs they are imported for its first medical image.
READERS = (
    "sagemaker_monai.images.dicom.series",
    "sagemaker_monai.images.volume_files",
    "sagemaker_monai.images.formats.nifti",
)
NO_HEADER = re.compile(r";\s*header\s*=\s*\"?absent\"?\s*(?=[;,]|$)", re.IGNORECASE)  # RFC 4180, section 3
WITH_UIDS = re.compile(r";\s*uids\s*=\s*\"?true\"?\s*(?=[;,]|$)", re.IGNORECASE)
WITH_RUNS = re.compile(r";\s*mask\s*=\s*\"?rle\"?\s*(?=[;,]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """The answers of one request or several, and the artifact they came from.

    Attributes:
        samples: one entry per sample, with one prediction or, for DICOM files with several images, more.
        model_version: the artifact's digest.
        description: the artifact's description, for reports.
        codes: of its labels, see `Bundle`.
    """

    samples: tuple[Answered, ...]
    model_version: str
    description: str = ""
    codes: Mapping[str, LabelCodes] = field(default_factory=dict)

    @property
    def predictions(self) -> list[Prediction]:
        """All predictions in order."""
        return [prediction for answered in self.samples for prediction in answered.predictions]

    @property
    def traits(self) -> list[Traits]:
        """The image's traits for each prediction."""
        return [traits for answered in self.samples for traits in answered.traits]

    def part(self, start: int, count: int) -> "Answer":
        """The answer to `count` samples from `start`."""
        return replace(self, samples=self.samples[start : start + count])


def model_fn(model_dir: str) -> Predictor:
    """Load the artifact, onto the GPU when there is one.

    Raises:
        BundleError: it is invalid.
    """
    model = read_predictor(Path(model_dir), "cuda" if torch.cuda.is_available() else "cpu")
    if not isinstance(model.bundle.preprocessing.load_pixels, LoadPhotograph):
        for name in READERS:
            importlib.import_module(name)
    return model


def input_fn(body: bytes, content_type: str) -> list[Sample]:
    """Split a request's body into samples, at least one; see `read_request`."""
    return read_request(body, content_type)


def extras_for(accept: str, model: Predictor) -> frozenset[str]:
    """What an answer in the form that the client prefers needs beyond predictions, see `Sample`.

    Raises:
        NotAcceptable: as `negotiate`.
    """
    if not isinstance(model, MaskPredictor):
        negotiate(accept)
        return frozenset()
    return EXTRAS.get(_negotiate_masks(accept, spatial_dims=model.bundle.preprocessing.spatial_dims), frozenset())


def with_extras(samples: Sequence[Sample], extras: frozenset[str]) -> list[Sample]:
    """Samples that ask for them."""
    return [replace(sample, extras=extras) for sample in samples] if extras else list(samples)


def predict_fn(samples: Sequence[Sample], model: Predictor) -> Answer:
    """Read and classify images, also those of several requests.

    Raises:
        UndecodableImage, UnsuitableImage, PayloadTooLarge: an image cannot be used.
    """
    bundle = model.bundle
    return Answer(tuple(model.answer(samples)), model.model_version, str(bundle.metadata["description"]), bundle.codes)


def output_fn(answer: Answer, accept: str) -> tuple[bytes, str]:
    """Write an answer in the form that the client prefers.

    Args:
        answer: from `predict_fn`.
        accept: the header; empty for none. With `uids=true` on a range, text answers name their DICOM series and
            instances; with `header=absent`, CSV has rows only, which batch transform can join; with `mask=rle`, JSON
            has the masks of structures, see `json_masks`.

    Returns:
        The body and its content type.

    Raises:
        NotAcceptable: no supported type is accepted, or only DICOM for images that are not DICOM.
        UnsuitableImage: DICOM is asked for, and the identifiers of the images are missing or broken.
    """
    masks = [prediction for prediction in answer.predictions if isinstance(prediction, MaskPrediction)]
    is_of_masks = bool(masks)
    content_type = _negotiate_masks(accept, spatial_dims=masks[0].mask.ndim) if masks else negotiate(accept)
    if is_of_masks and content_type in MASK_FILES:
        return encode_mask_files(masks, content_type)
    if content_type == RELATED_TYPE or content_type.startswith(DICOM_TYPE):
        files = _dicom_files(answer, MASKS_AS_DICOM.get(content_type, encode_seg) if is_of_masks else _report)
        is_one = len(files) == 1 and content_type != RELATED_TYPE
        return (files[0], DICOM_TYPE) if is_one else encode_multipart(files)
    about = [_about(traits) for traits in answer.traits]
    origins = [_origin(traits.identity) for traits in answer.traits] if WITH_UIDS.search(accept) else []
    encode = ENCODERS[content_type]
    if content_type == CSV_TYPE and NO_HEADER.search(accept):
        encode = partial(encode_csv, has_header=False)
    predictions = answer.predictions
    if WITH_RUNS.search(accept) and content_type != CSV_TYPE:
        predictions = [WithRuns(each) if isinstance(each, MaskPrediction) else each for each in predictions]
    return encode(predictions, answer.model_version, origins, about), content_type


def _origin(identity: Identity | None) -> dict[str, Any]:
    """The image's source for answers with `uids=true`; never names the patient."""
    return {
        "SeriesInstanceUID": None if identity is None else identity.series_instance_uid,
        "SOPInstanceUIDs": [] if identity is None else list(identity.sop_instance_uids),
        "frame": None if identity is None else identity.frame,
    }


def _about(traits: Traits) -> dict[str, Any]:
    """The series of a DICOM image, and findings about any image; no UID and no text from the file.

    DICOM images always have every key, so that the rows of a CSV have the same columns.
    """
    findings = list(dict.fromkeys(traits.findings))
    if (identity := traits.identity) is None:
        return {"findings": findings} if findings else {}
    return {
        "series": identity.series,
        "modality": identity.modality,
        "series_number": identity.series_number,
        "volume": identity.volume or None,
        "passed_over": identity.passed_over,
        "findings": findings,
    }


_FINDINGS: dict[str, Callable[[float], Finding]] = {
    "probability": lambda number: Finding("", probability=number),
    "value": lambda number: Finding("", value=number),
}


def _dicom_files(answer: Answer, encode: Callable[..., bytes]) -> list[bytes]:
    """One file per image or series."""
    now = datetime.now()
    model = Provenance(name=f"sagemaker-monai {answer.description}", version=answer.model_version, codes=answer.codes)
    files = []
    for prediction, traits in zip(answer.predictions, answer.traits, strict=True):
        if traits.identity is None:
            raise NotAcceptable("an answer as DICOM needs DICOM images: send those, or accept another type")
        passed_over = traits.identity.passed_over
        odd = [f"finding {code}" for code in dict.fromkeys(traits.findings)]
        odd += [f"passed over {passed_over} other series"] if passed_over else []
        told = replace(model, parameters=(*model.parameters, *odd))
        files.append(encode(prediction, traits, model=told, now=now))
    return files


def _report(prediction: Prediction, traits: Traits, *, model: Provenance, now: datetime) -> bytes:
    """The structured report on one image or series."""
    from pydicom import Dataset  # a server of photographs does without

    findings = [
        replace(_FINDINGS[kind](number), label=label, is_predicted=is_predicted)
        for label, kind, number, is_predicted in prediction.findings()
    ]
    if isinstance(prediction, MaskPrediction):
        findings = [replace(each, unit=prediction.unit, is_structure=True, is_predicted=False) for each in findings]
    assert traits.identity is not None
    headers = [header for header in traits.identity.headers if isinstance(header, Dataset)]
    return encode_sr(findings, headers=headers, model=model, now=now, frame=traits.identity.frame)


# What models of masks answer with as DICOM: without a type as it suits the number of structures.
MASKS_AS_DICOM: dict[str, Callable[..., bytes]] = {
    DICOM_TYPE: encode_seg,
    f"{DICOM_TYPE}; type=binary": partial(encode_seg, kind="BINARY"),
    f"{DICOM_TYPE}; type=labelmap": partial(encode_seg, kind="LABELMAP"),
    f"{DICOM_TYPE}; type=fractional": partial(encode_seg, kind="FRACTIONAL"),
    f"{DICOM_TYPE}; type=rtstruct": encode_rtstruct,
    f"{DICOM_TYPE}; type=sr": _report,
}
# What the forms of an answer need beyond the prediction.
EXTRAS = {
    f"{DICOM_TYPE}; type=fractional": frozenset({PROBABILITIES}),
    PROBABILITIES_TYPE: frozenset({PROBABILITIES}),
    PACKED_PROBABILITIES_TYPE: frozenset({PROBABILITIES}),
    OVERLAY_TYPE: frozenset({PICTURE}),
}


def types_of(*, has_masks: bool) -> tuple[str, ...]:
    """What a model answers with, the default first."""
    return (*ENCODERS, *MASKS_AS_DICOM, *MASK_FILES) if has_masks else ANSWER_TYPES


def _negotiate_masks(accept: str, *, spatial_dims: int) -> str:
    """As `negotiate`, for a model of masks; what is of single images only is nothing for volumes.

    Raises:
        NotAcceptable: also if only that is accepted, and the images are volumes.
    """
    types = types_of(has_masks=True)
    if spatial_dims == 2:
        return negotiate(accept, types)
    try:
        return negotiate(accept, [name for name in types if name not in OF_SINGLE_IMAGES])
    except NotAcceptable:
        negotiate(accept, types)
        raise NotAcceptable(NOT_OF_VOLUMES) from None


def negotiate(accept: str, types: Sequence[str] = ANSWER_TYPES) -> str:
    """Choose one of `types` and RELATED_TYPE by an Accept header; JSON for one without a media range.

    The highest q wins, then the range that the client named first, then the table's order; the q of a type is that of
    the most specific range that fits it. Ignored are malformed ranges and parameters other than q, the type of
    multipart/related and, of names that `types` has with a type, the type.

    Raises:
        NotAcceptable: the message lists the supported types.

    Source: RFC 9110, section 12.5.1.
    """
    with_kinds = frozenset(name.partition(";")[0] for name in types if ";" in name)
    parts = (_media_range(part, with_kinds) for part in accept.split(","))
    ranges = [parsed for parsed in parts if parsed is not None]
    if not ranges:
        return DEFAULT_TYPE
    ranked = []
    for order, content_type in enumerate((*types, RELATED_TYPE)):
        # Most specific first: application/json, then application/*, then */*.
        for wanted in (content_type, content_type.partition("/")[0] + "/*", content_types.ANY):
            position = next((place for place, (name, _) in enumerate(ranges) if name == wanted), None)
            if position is not None:
                if ranges[position][1] > 0:
                    ranked.append((-ranges[position][1], position, order, content_type))
                break
    if not ranked:
        raise NotAcceptable(f"Accept names none of {', '.join(types)}")
    return min(ranked)[-1]


def _media_range(part: str, with_kinds: Collection[str]) -> tuple[str, float] | None:
    """Name and q, from 0 to 1, of one range of an Accept header; None if it is malformed.

    The type of those `with_kinds` belongs to the name.
    """
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality, kind = 1.0, ""
    for parameter in parameters:
        key, _, value = (piece.strip() for piece in parameter.partition("="))
        if name == RELATED_TYPE and key == "type" and value.strip('"') != DICOM_TYPE:
            return None
        if name in with_kinds and key == "type":
            kind = value.strip('"')
        if key == "q":
            try:
                quality = float(value)
            except ValueError:
                return None
    return (f"{name}; type={kind}" if kind else name, quality) if "/" in name and 0 <= quality <= 1 else None
