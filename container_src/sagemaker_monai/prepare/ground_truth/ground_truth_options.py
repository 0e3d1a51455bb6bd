"""The options of an import from Ground Truth."""

from dataclasses import dataclass

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.messages.option_fields import option
from sagemaker_monai.prepare.fractions import check_options, fractions_option, seed_option
from sagemaker_monai.prepare.ground_truth.consolidation import LABELS, VOTED_TASKS
from sagemaker_monai.tasks.tasks import task_for

ON_DISPUTE = ("keep", "drop", "refuse")
ON_MISSING = ("refuse", "leave-out")
TITLE = "Ground Truth"


@dataclass(frozen=True)
class GroundTruthOptions:
    """How to import a labeling job; in this order in import_report.json.

    Attributes:
        label_attribute: None takes the only one; several of masks, separated by commas, are several annotators.
        answer_path: "" searches for the classes.
        task: "auto" is segmentation if the answers are masks; else multilabel if the task type allows or an answer has
            several classes.
        labels: "soft" is for classes, "staple" for masks.
        disputed: "keep" images with a tie or too little agreement (a tie of classes as a soft label, a tie about one
            class of multilabel as yes), "drop" them, or "refuse" the import. All are in the report.
        group_by: see `image_groups.group_images`.
        fractions, seed: of the split of groups, which is stratified by class.

    Raises:
        ConfigError: a value is out of range.
    """

    label_attribute: str | None = option(
        None, "which label of the manifest, if there are several; of masks also several, as a,b", metavar="NAME"
    )  # fmt: skip
    answer_path: str = option("", "where the classes stand in an answer of a custom task", metavar="A.B.C")
    task: str = option("auto", "(default: %(default)s)", choices=("auto", *VOTED_TASKS, task_for("mask")))
    labels: str = option(
        "majority",
        "the majority's class, or the annotators' shares; of masks, the majority's or STAPLE's (default: %(default)s)",
        choices=LABELS,
    )
    disputed: str = option(
        "keep", "images with a tie or too little agreement (default: %(default)s)", choices=ON_DISPUTE
    )
    min_agreement: float = option(0.5, "below this share an image is disputed (default: %(default)s)", metavar="SHARE")
    min_annotators: int = option(1, "leave out images with fewer answers (default: %(default)s)", metavar="N")
    missing: str = option(
        "refuse", "images of the job that are not in the folder (default: %(default)s)", choices=ON_MISSING
    )
    group_by: str | None = option(
        None,
        "what tells the patient: a regular expression with one group on the image's key, or a key of the manifest's "
        "lines (default: the DICOM header)",
        metavar="PATTERN|KEY",
    )
    fractions: tuple[float, float, float] = fractions_option()
    seed: int = seed_option()
    title: str = option(TITLE, "what the data set is called (default: %(default)s)")

    def __post_init__(self) -> None:
        """Refuse values that are out of range."""
        check_options(self)
        if not 0 <= self.min_agreement <= 1 or self.min_annotators < 1:
            raise ConfigError(
                "min_agreement must be from 0 to 1 and min_annotators at least 1, "
                f"got {self.min_agreement:g} and {self.min_annotators}"
            )


DEFAULTS = GroundTruthOptions()
