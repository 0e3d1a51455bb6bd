"""How good the masks of an artifact are on a data set: of every image on its own grid, as a server answers it."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sagemaker_monai.artifact.mask_predictor import MaskPredictor, describe
from sagemaker_monai.data.datasets import Record
from sagemaker_monai.data.legends import Legend
from sagemaker_monai.data.mask_reading import ReadCase, read_case
from sagemaker_monai.errors import CallerError, TrainingStopped
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.messages.progress import track
from sagemaker_monai.tasks.label_maps import IGNORED
from sagemaker_monai.tasks.segmentation import MaskPrediction, Segmentation
from sagemaker_monai.tasks.task import Floats

OnMask = Callable[[Record, MaskPrediction], None]


def score_masks(
    predictor: MaskPredictor,
    records: Sequence[Record],
    legend: Legend,
    *,
    what: str,
    is_stopping: Callable[[], bool],
    on_unreadable: Callable[[Record, CallerError], None] | None = None,
    on_mask: OnMask | None = None,
) -> Floats:
    """Segment image files as a server does, and measure the masks against the true ones.

    Args:
        predictor: the artifact.
        records: of the files.
        legend: of their masks, in the order of the artifact's labels.
        what, is_stopping, on_unreadable, on_mask: as for `scoring.score_files`.

    Returns:
        float64 (N, columns), as `Segmentation.measure`, in the order of the records.

    Raises:
        TrainingStopped, CallerError: as for `scoring.score_files`.
    """
    task = predictor.task
    assert isinstance(task, Segmentation)
    rows = []
    for record in track(records, total=len(records), what=what):
        if is_stopping():
            raise TrainingStopped(f"{what} was cut off, as the job was asked to stop")
        assert record.mask is not None
        try:
            case = read_case(predictor.bundle.preprocessing.load_pixels, Sample(record.image), record.mask, legend)
        except CallerError as error:
            if on_unreadable is None:
                raise
            on_unreadable(record, error)
            continue
        own, row = _measure(predictor, task, case)
        rows.append(row)
        if on_mask is not None:
            on_mask(record, describe(own, predictor.labels, case.traits, task.regions))
    return np.stack(rows) if rows else np.zeros((0, task.columns))


def _measure(predictor: MaskPredictor, task: Segmentation, case: ReadCase) -> tuple[NDArray[np.uint8], Floats]:
    """The label map on the image's own grid, and what is measured of it."""
    prepared = torch.from_numpy(case.prepared_labels(predictor.bundle.preprocessing.load_pixels))
    losses: list[float] = []

    def add_loss(place: tuple[slice, ...], logits: torch.Tensor) -> None:
        losses.append(task.summed_loss(logits, prepared[place]))

    labels = predictor.prepared_labels(torch.from_numpy(case.values), add_loss)
    annotated = int((prepared != IGNORED).sum())
    own = predictor.on_own_grid(labels, case.traits)
    return own, task.measure(
        own, case.true, case.traits.spacing_mm, loss=sum(losses) / max(annotated, 1), affine=case.traits.affine
    )
