"""The hyperparameters of training: one typed table, parsed from the strings that SageMaker and shells pass.

An empty value is an error, not the default: an unset shell variable in a job script must not silently train something
else. For the same reason a value without effect (`momentum` with AdamW) is an error. The choices of imbalance and
augmentation are repeated here, because this module may not import the ones that implement them; tests compare both.
The choices of `LOOKED_UP` are the rows of their tables.
"""

import difflib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.networks.networks import NETWORKS
from sagemaker_monai.networks.segmenters import SEGMENTERS
from sagemaker_monai.tasks.tasks import TASKS, metric_goals

# SageMaker, its SDK and its tuner add these to the job's hyperparameters.
IGNORED_PREFIXES = ("sagemaker_", "_tuning_objective_metric")
MESSAGE_LIMIT = 1000  # characters; the failure file takes 1,024 with the error's name
SHOWN_VALUE = 40  # characters of an invalid value in a message

MOST_EPOCHS = 10_000

WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,20}")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
BOOLEANS = {"true": True, "false": False, "1": True, "0": False}

# field -> the other field and its values with which the first has an effect
EFFECTIVE_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "momentum": ("optimizer", ("sgd",)),
    "focal_gamma": ("imbalance", ("focal",)),
    "logit_adjustment_tau": ("imbalance", ("logit_adjusted", "auto")),
}
# field -> its choices
LOOKED_UP: dict[str, Callable[[], Collection[str]]] = {
    "task": lambda: ("auto", *TASKS),
    "best_metric": lambda: ("auto", *metric_goals()),
    "network": lambda: ("auto", *network_names()),
}


def _text_field(default: str, description: str, allowed: str) -> Any:
    return Field(
        default, min_length=1, max_length=2000, description=description, json_schema_extra={"allowed": allowed}
    )


def network_names() -> tuple[str, ...]:
    """The networks by name; segresnet classifies and segments."""
    return tuple(dict.fromkeys((*NETWORKS, *SEGMENTERS)))


class TrainConfig(BaseModel):
    """Every hyperparameter with its type, range, default and help; `model_dump()` goes into the artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    task: str = Field(
        "auto",
        json_schema_extra={"allowed": f"one of auto, {', '.join(TASKS)}"},
        description=f"{', '.join(row.labels_are for row in TASKS.values())}; auto: as dataset.json says, or by the "
        "form of the labels",
    )
    preset: Literal["auto", "photo", "deep", "ct_slice", "xray", "mr_slice", "pet_slice",
                    "ct_volume", "mr_volume", "pet_volume", "volume"] = Field(
        "auto", description="how images are prepared; auto: by the kind of the files and their Modality"
    )  # fmt: skip
    network: str = Field(
        "auto",
        json_schema_extra={"allowed": f"one of auto, {', '.join(network_names())}"},
        description="MONAI network to train; auto: resnet18, or for segmentation dynunet (on a CPU for small volumes, "
        f"else unet). For segmentation: {', '.join(SEGMENTERS)}",
    )
    network_width: int = Field(
        0, ge=0, le=128, description="of a network that segments: filters of its first level; 0: 32 on a GPU, else 16"
    )
    patch_size: str = Field(
        "auto",
        pattern=r"^(auto|[0-9]{1,4}(,[0-9]{1,4}){0,2})$",
        json_schema_extra={"allowed": "auto, or one number or one for each axis like 96 or 128,128,32"},
        description="of volumes to segment: sides in voxels of what the network sees; auto: as large as the images, or "
        "as the memory allows",
    )
    patches_per_image: int = Field(
        0, ge=0, le=1000, description="of images to segment: patches an epoch; 0: by the sizes of image and patch"
    )
    image_size: int = Field(64, ge=8, le=1024, description="side in pixels of the square that the network sees")
    image_depth: int = Field(0, ge=0, le=1024, description="slices of the volume that the network sees; 0: image_size")
    window: str = Field(
        "preset",
        pattern=r"^(preset|header|percentile|zscore|suv|none|lung|bone|brain|soft_tissue|mediastinum|-?[0-9.]{1,9}/[0-9.]{1,9})$",
        description="how medical values are scaled for the network: as the preset says, as the header displays "
        "them, between percentiles, by mean and standard deviation, PET as SUV from 0 to 10, unchanged,"
        " or between limits",
        json_schema_extra={
            "allowed": "one of preset, header, percentile, zscore, suv, none, lung, bone, brain, soft_tissue, "
            "mediastinum, or CENTER/WIDTH like 40/400"
        },
    )
    spacing_mm: str = Field(
        "preset",
        pattern=r"^(preset|none|[0-9.]{1,9}(,[0-9.]{1,9}){0,2})$",
        description="voxel spacing to which volumes are resampled",
        json_schema_extra={"allowed": "one of preset, none, or one or three numbers like 1.5 or 1,1,3"},
    )
    uneven_slices: Literal["refuse", "resample"] = Field(
        "refuse",
        description="DICOM series with missing slices or uneven spacing: refuse them or resample them onto an even "
        "grid, in training and serving alike; volumes only",
    )
    series: Literal["only", "most-slices", "thinnest", "newest"] = Field(
        "only",
        description="which DICOM series to use if an image's folder holds a whole study: the only one, or one "
        "chosen by a rule, in training and serving alike; volumes only",
    )
    modality: str = Field(
        "",
        description="of a study's DICOM series: one modality or several, comma-separated; SEG, RTDOSE and other "
        "non-images are used only if named; volumes only",
        json_schema_extra={"allowed": "values of Modality"},
    )
    series_description: str = Field(
        "",
        description="of a study's DICOM series: a pattern for SeriesDescription, with * and ?, case-insensitive; "
        "volumes only",
        json_schema_extra={"allowed": "a pattern"},
    )
    non_finite: Literal["refuse", "zero"] = Field(
        "refuse",
        description="volume files (NIfTI, NRRD, MetaImage, npy) with NaN or infinite values: refuse them or replace"
        " the values by 0; volumes only",
    )
    fit: Literal["stretch", "pad", "crop"] = Field(
        "stretch",
        description="how an image is brought to the size: stretched, padded with black, or cropped to its centre; "
        "volumes are stretched, or cropped and padded",
    )
    color: Literal["auto", "rgb", "grey"] = Field(
        "auto", description="channels of the network's input: 3, 1, or as in the training images"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout rate; densenet and seresnet50 only")
    epochs: int = Field(
        30, ge=1, le=MOST_EPOCHS, description="passes over the training images; with hours, the most if it is set"
    )
    hours: float = Field(
        0.0,
        ge=0,
        le=720,
        description="time that the job may take from its start to the scored model: as many epochs are trained as fit, "
        "by some measured steps; 0: epochs decides",
    )
    batch_size: int = Field(
        0,
        ge=0,
        le=4096,
        description="images or patches per step, over all processes and hosts, at least 2; 0: 32, or 2 patches of "
        "volumes",
    )
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="SGD uses Nesterov momentum")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="peak learning rate of the schedule")
    weight_decay: float = Field(0.01, ge=0, le=1, description="weight decay; biases and norms have none")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd")
    schedule: Literal["cosine", "poly", "constant"] = Field(
        "cosine", description="learning rate after warm-up, per step; poly: to the power of 0.9 (arXiv:1904.08128)"
    )
    warmup_epochs: float = Field(1.0, ge=0, le=100, description="linear warm-up from 0; at most half of all steps")
    clip_grad_norm: float = Field(2.0, ge=0, le=1e6, description="maximum norm of the gradient; 0: no clipping")
    ema_decay: float = Field(
        0.99, ge=0, lt=1, description="decay of the moving average of the weights, which is scored and shipped; 0: off"
    )
    imbalance: Literal["auto", "none", "balanced_sampler", "class_weighted", "focal", "logit_adjusted"] = Field(
        "auto",
        description="how rare classes are handled: auto (what suits the task), not at all, by balanced sampling, by"
        " class weights in the loss, focal loss (arXiv:1708.02002), logit-adjusted loss "
        "(arXiv:2007.07314)",
    )
    focal_gamma: float = Field(2.0, ge=0, le=10, description="gamma of the focal loss")
    logit_adjustment_tau: float = Field(
        1.0, ge=0, le=5, description="tau of the logit-adjusted loss; 1: balanced error"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target that is spread over all classes")
    augmentation: Literal["auto", "none", "light", "photo", "grey", "volume", "strong"] = Field(
        "auto",
        description="random changes of training images: auto (what suits the preset), none, flips and small "
        "changes, for photographs (any rotation, zoom and colour too), for grey images, for volumes, more of it "
        "for long trainings on volumes",
    )
    test_time_mirroring: Literal["no", "auto", "yes"] = Field(
        "no",
        description="of images to segment: answer with the mean over the image and its mirror images, along the axes "
        "that augmentation mirrors, in 2 to 8 times the time; auto: if the validation split shows that it helps",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="arithmetic precision; auto: bf16 on GPUs that support it, otherwise fp32. fp16 needs a GPU"
    )
    best_metric: str = Field(
        "auto",
        description="validation metric that selects the epoch to ship; auto: what suits the task",
        json_schema_extra={"allowed": f"one of auto, {', '.join(metric_goals())}"},
    )
    early_stop_patience: int = Field(
        0, ge=0, le=10_000, description="epochs without improvement of best_metric after which training stops; 0: never"
    )
    seed: int = Field(
        0, ge=0, le=2**32 - 1, description="seed of the split, the weights, the order and the augmentation"
    )
    deterministic: bool = Field(
        False, description="make runs on a GPU reproducible bit by bit, which is slower; runs on a CPU always are"
    )
    validation_fraction: float = Field(
        0.15,
        gt=0,
        lt=1,
        description="share of the training images used for validation if the data set has no validation split",
    )
    test_fraction: float = Field(
        0.15, ge=0, lt=1, description="share of the training images used for testing if the data set has no test split"
    )
    image_column: str = _text_field(
        "auto",
        "of a table: the column with the image names; auto: image, file, path and the like",
        "a column's name, or auto",
    )
    label_column: str = _text_field(
        "auto",
        "of a table: the column with the label, or several columns with 0 and 1 for findings; auto: label",
        "a column's name, several comma-separated, or auto",
    )
    group_column: str = _text_field(
        "auto",
        "of a table, or the key of items in dataset.json: what stays on one side of the split; auto: "
        "group, or one that names the patient (patient_id, subject, case, lesion_id and the like); "
        "none: each image is its own group",
        "a column's name, auto, or none",
    )
    split_column: str = _text_field(
        "auto",
        "of a table: the column with training, validation or test; auto: split",
        "a column's name, or auto",
    )
    fold: str = _text_field(
        "none",
        "of a column or key fold: the fold used for validation; the others are used for training",
        "a fold, or none",
    )
    grades: str = _text_field(
        "none",
        "of task ordinal: the grades in order, the lowest first",
        "comma-separated names, a JSON list of names, or none",
    )
    missing_labels: Literal["drop", "refuse"] = Field(
        "drop",
        description="images whose label is empty, nan, NA, #N/A, None, - or ?: drop and count them, or refuse the job",
    )
    missing_codes: str = _text_field(
        "none",
        "numbers that stand for a missing label",
        "comma-separated numbers like -999,9999, or none",
    )
    uncertain_labels: Literal["refuse", "missing", "positive", "negative", "class"] = Field(
        "refuse", description="what -1, u or uncertain mean as a label beside 0 and 1"
    )
    similar_labels: Literal["refuse", "merge", "keep"] = Field(
        "refuse",
        description="labels that differ only in case, blanks, Unicode form or as 1 and 1.0: refuse, merge, or keep "
        "apart",
    )
    max_unreadable_fraction: float = Field(
        0.01, ge=0, le=0.5, description="share of images that may be unreadable; these are left out"
    )
    num_workers: int = Field(0, ge=0, le=256, description="processes that decode images; 0: one per CPU")
    processes_per_host: int = Field(
        0, ge=0, le=64, description="training processes per host; 0: one per GPU, or one without a GPU"
    )

    @field_validator(*LOOKED_UP)
    @classmethod
    def _is_in_its_table(cls, value: str, info: ValidationInfo) -> str:
        if value not in LOOKED_UP[str(info.field_name)]():
            raise ValueError("not in its table")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        faults = []
        if self.batch_size == 1:
            faults.append("batch_size must be at least 2, as batch normalization needs two images, or 0, got 1")
        if self.validation_fraction + self.test_fraction >= 1:
            faults.append(
                "validation_fraction and test_fraction must leave something to train on, "
                f"got {self.validation_fraction:g} + {self.test_fraction:g}"
            )
        for name, (other, able) in EFFECTIVE_WITH.items():
            if getattr(self, name) != type(self).model_fields[name].default and getattr(self, other) not in able:
                faults.append(f"{name} has an effect only with {other}={able[0]}: leave it out or set that")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @classmethod
    def parse(cls, hyperparameters: Mapping[str, Any]) -> Self:
        """Parse hyperparameters as they arrive.

        Args:
            hyperparameters: name -> value: a string, possibly JSON-quoted or surrounded by white space, or a JSON
                number or boolean. Dashes in names count as underscores. SageMaker's own names are ignored.

        Raises:
            ConfigError: lists all faults in one line below 1,024 characters, each with the value and what is allowed.
        """
        faults: list[str] = []
        values: dict[str, Any] = {}
        for given, raw in hyperparameters.items():
            name = str(given).strip().replace("-", "_")
            if str(given).startswith(IGNORED_PREFIXES):
                continue
            if name not in cls.model_fields:
                faults.append(_unknown(str(given), cls.model_fields))
            elif name in values:
                faults.append(f"{name} is given twice: leave one out")
            else:
                values[name] = _convert(raw, cls.model_fields[name])
        try:
            config = cls.model_validate(values)
        except ValidationError as error:
            faults += [_describe(dict(fault)) for fault in error.errors(include_url=False)]
        if faults:
            raise ConfigError(_one_line(faults))
        return config


def _text(raw: Any) -> str:
    """A value as text, without surrounding white space and the quotes that the SDK's JSON adds."""
    if isinstance(raw, bool):
        return str(raw).lower()
    text = str(raw).strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        try:
            text = str(json.loads(text)).strip()
        except ValueError:
            return text
    return text


def _convert(raw: Any, field: FieldInfo) -> Any:
    """The value in the field's type; otherwise its text, which the model then rejects."""
    text = _text(raw)
    if field.annotation is bool:
        return BOOLEANS.get(text.lower(), text)
    if field.annotation is int and WHOLE_NUMBER.fullmatch(text):
        return int(text)
    if field.annotation is float and NUMBER.fullmatch(text):
        return float(text)
    return text


def _unknown(name: str, known: Iterable[str]) -> str:
    typed, known = name.strip().replace("-", "_").lower(), list(known)
    initials = [field for field in known if typed == "".join(word[0] for word in field.split("_"))]  # lr, bs, wd
    close = initials or difflib.get_close_matches(typed, known, n=1, cutoff=0.5)
    return f"unknown hyperparameter {_show(name)}" + (f", did you mean {close[0]}?" if close else ", see train --help")


def _show(value: Any) -> str:
    text = ascii(value) if isinstance(value, str) else str(value)
    return text if len(text) <= SHOWN_VALUE else text[: SHOWN_VALUE - 1] + "~"


def _describe(fault: dict[str, Any]) -> str:
    """Translate one of pydantic's errors."""
    if not fault["loc"]:
        return str(fault["ctx"]["error"])
    name, value = str(fault["loc"][0]), fault["input"]
    if value == "":
        return f"{name} is empty: give a value or leave it out"
    return f"{name} must be {allowed(TrainConfig.model_fields[name])}, got {_show(value)}"


def _one_line(faults: list[str]) -> str:
    """As many faults as fit, and the number of the others."""
    line = "; ".join(faults)
    shown = len(faults)
    while len(line) > MESSAGE_LIMIT:
        shown -= 1
        line = "; ".join([*faults[:shown], f"and {len(faults) - shown} more faults"])
    return line


def allowed(field: FieldInfo) -> str:
    """The type and range of a field in words, e.g. "a whole number from 1 to 10000"."""
    if choices := get_args(field.annotation):
        return f"one of {', '.join(map(str, choices))}"
    if field.annotation is bool:
        return "true or false"
    if field.annotation is str:
        assert isinstance(field.json_schema_extra, dict)
        return str(field.json_schema_extra["allowed"])
    kind = "a whole number" if field.annotation is int else "a number"
    words = {"ge": "from", "gt": "above", "le": "to", "lt": "to below"}
    limits = [
        f"{words[name]} {getattr(constraint, name):.12g}"
        for constraint in field.metadata
        for name in words
        if hasattr(constraint, name)
    ]
    return " ".join([kind, *limits])


def hyperparameter_rows() -> list[tuple[str, str, str, str]]:
    """Name, allowed values, default and help of every hyperparameter, as text."""
    return [
        (
            name,
            allowed(field).removeprefix("one of "),
            str(field.default).lower() if isinstance(field.default, bool) else f"{field.default}",
            field.description or "",
        )
        for name, field in TrainConfig.model_fields.items()
    ]


def hyperparameter_table() -> str:
    """The hyperparameters as a Markdown table for the documents."""
    lines = ["| name | values | default | what |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {values} | `{default}` | {text} |" for name, values, default, text in hyperparameter_rows()
    ]
    return "\n".join(lines) + "\n"
