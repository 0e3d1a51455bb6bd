"""`evaluate`: scores an artifact on a data set, in a SageMaker processing job or on the command line.

The defaults are the paths that processing jobs use by convention. Images are read as a server reads them; on the data
that an artifact was trained with, the scores are bit for bit those that training reported.
"""

import os
import sys
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from sagemaker_monai.data.splitting import SPLITS
from sagemaker_monai.entrypoints.processing import Parser, run_command
from sagemaker_monai.messages.item_names import NAMES_FILE, current
from sagemaker_monai.sagemaker.environment import library_defaults
from sagemaker_monai.sagemaker.inputs import base_folder
from sagemaker_monai.sagemaker.stopping import stop_on_signal

if TYPE_CHECKING:
    from sagemaker_monai.data.datasets import Record
    from sagemaker_monai.tasks.segmentation import MaskPrediction

EVERYTHING = "all"
DESCRIPTION = "Score a model artifact on a data set."
EPILOGUE = (
    "OUTPUT gets metrics.json (as training writes it), evaluation.json (model quality in SageMaker's form, for "
    "pipelines and the model registry) and SPLIT_predictions.csv."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Score one artifact.

    Args:
        argv: arguments of the command; None takes those of this process.

    Returns:
        The exit code: 0 when everything is written, 1 with the cause in one line.
    """
    return run_command(_parser, _run, argv)


def _parser() -> Parser:
    places = base_folder(os.environ) / "processing"
    parser = Parser(prog="evaluate", description=DESCRIPTION, epilog=EPILOGUE)
    parser.add_argument(
        "--model", type=Path, default=places / "input" / "model",
        help="folder with the artifact or its model.tar.gz, or that file (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, default=places / "input" / "data",
        help="data set in any layout that train takes (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--split", choices=(*SPLITS, EVERYTHING), default="test",
        help="what to score (default: %(default)s); a split that the data lacks is drawn as training drew it; all: "
        "every image, for data that training never saw",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=places / "output", help="a folder (default: %(default)s)")
    parser.add_argument(
        "--save-masks", action="store_true",
        help="write the mask of each image to OUTPUT/masks too, under the image's name: NIfTI of volumes, PNG of "
        "single images, on the image's own grid",
    )  # fmt: skip
    return parser


def _run(options: Namespace) -> None:
    os.environ.update(library_defaults(os.environ))
    # Imported late: this takes seconds, and a wrong option should be refused at once.
    from sagemaker_monai.evaluation.evaluation import evaluate

    current().add(options.data)
    current().file = options.output / NAMES_FILE
    with (
        stop_on_signal("stopping") as stopping,
        tempfile.TemporaryDirectory(prefix="sagemaker-monai-") as scratch,
    ):
        evaluate(
            options.model,
            options.data,
            split=options.split,
            output=options.output,
            scratch=Path(scratch),
            is_stopping=stopping.is_set,
            on_mask=_saver(options.output / "masks") if options.save_masks else None,
        )


def _saver(folder: Path) -> Callable[["Record", "MaskPrediction"], None]:
    """A function that writes the mask of a record below a folder."""
    from sagemaker_monai.data.entries import BETWEEN_SEQUENCES, SUFFIXES
    from sagemaker_monai.data.name_matching import stem_of
    from sagemaker_monai.outputs.label_map_files import MASK_FILES, PACKED_NIFTI_TYPE, PNG_TYPE

    written: Counter[Path] = Counter()

    def save(record: "Record", prediction: "MaskPrediction") -> None:
        suffix, encode = MASK_FILES[PNG_TYPE if prediction.mask.ndim == 2 else PACKED_NIFTI_TYPE]
        first = stem_of(record.name.split(BETWEEN_SEQUENCES)[0], SUFFIXES)
        parts = [part for part in PurePosixPath(first).parts if part not in ("/", "..")]
        stem = folder.joinpath(*parts)
        written[stem] += 1  # of pictures that differ in their suffix
        path = stem.with_name(f"{stem.name}{f'-{written[stem]}' if written[stem] > 1 else ''}{suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(prediction))

    return save


if __name__ == "__main__":
    sys.exit(main())
