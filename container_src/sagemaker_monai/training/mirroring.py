"""Test-time mirroring: whether a trained network segments better if it also sees images mirrored.

Asked after training, of the weights that ship and on the validation split. Each axis doubles the time of an answer, so
nothing is mirrored unless the hyperparameter `test_time_mirroring` says so.
"""

import logging
import time
from collections.abc import Sequence

from sagemaker_monai.artifact.sliding_window import mirrorings
from sagemaker_monai.tasks.paired import are_gains
from sagemaker_monai.tasks.segmentation import Segmentation
from sagemaker_monai.training.run import Run

logger = logging.getLogger(__name__)


def choose_mirroring(run: Run, axes: Sequence[int], *, is_asked: bool) -> tuple[tuple[int, ...], Segmentation]:
    """Compare answers with and without mirror images, each with its own rules of the largest component.

    Args:
        run: with the weights that ship.
        axes: along which training mirrored.
        is_asked: mirror in any case.

    Returns:
        The axes along which answers are mirrored: all or, unless the images' mean Dice is higher by more than chance
        (`paired.are_gains`), none; and the task tuned to these answers.
    """
    tasks, dice, seconds = [], [], []
    for mirrored_axes in ((), axes):
        began = time.monotonic()
        answers = run.answers(mirrored_axes)
        seconds.append(time.monotonic() - began)
        task = run.tuned(answers)
        assert isinstance(task, Segmentation)
        tasks.append(task)
        dice.append(task.image_dice(answers))
    is_used = is_asked or bool(are_gains(dice[1] - dice[0], run.validation_groups)[0])
    logger.info(
        "test-time mirroring, the mean of %d answers: validation Dice %.4f instead of %.4f, in %.1f times the time: %s",
        len(mirrorings(axes)), dice[1].mean(), dice[0].mean(), seconds[1] / max(seconds[0], 1e-9),
        "used" if is_used else "not used",
    )  # fmt: skip
    return (tuple(axes) if is_used else ()), tasks[is_used]
