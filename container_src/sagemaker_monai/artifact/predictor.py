"""A Bundle on a device: images in, predictions out. Evaluation after training and every server use it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sagemaker_monai.artifact.bundle import Bundle, read_bundle
from sagemaker_monai.errors import UndecodableImage, UnsuitableImage
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.several import name_picture, split_arrays
from sagemaker_monai.images.volumes import Traits
from sagemaker_monai.networks.networks import images_at_once
from sagemaker_monai.preprocessing.preprocessing import LoadPhotograph
from sagemaker_monai.preprocessing.visibility import shows_nothing
from sagemaker_monai.tasks.task import Prediction

BATCH_SIZE = 32  # images that go through the network at once; bounds memory, changes answers by 1e-6 at most


@dataclass(frozen=True)
class Answered:
    """The answer for one sample, which may hold several images if it is DICOM.

    Attributes:
        predictions: one per image, at least one.
        traits: what is known of each image, with all its findings.
    """

    predictions: tuple[Prediction, ...]
    traits: tuple[Traits, ...]


class Predictor:
    """Answers for images; its attributes are those of the checked artifact `bundle`."""

    def __init__(self, bundle: Bundle, device: str = "cpu") -> None:
        self.bundle = bundle
        self.labels = bundle.labels
        self.task = bundle.task
        self.model_version = bundle.model_version
        self._device = torch.device(device)
        self._network = bundle.network.to(self._device)

    @classmethod
    def read(cls, folder: Path, device: str = "cpu") -> "Predictor":
        """Read the artifact in `folder`.

        Raises:
            BundleError: it is damaged or not an artifact.
        """
        return cls(read_bundle(folder), device)

    def load(self, sample: Sample) -> torch.Tensor:
        """Read and prepare one image exactly as training did: (C, *size), in the preprocessing's type.

        Raises:
            CallerError: it cannot be used, or is not exactly one image.
        """
        return self.bundle.preprocessing.load(sample)

    def outputs(self, images: torch.Tensor) -> torch.Tensor:
        """Run the network on images from `load`, (N, C, *size); float32 on the CPU, (N, outputs of the task)."""
        at_once = images_at_once(images.shape[2:], BATCH_SIZE)
        # Not TF32, a GPU's default for convolutions: its answers differ from a CPU's by 1e-3.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            parts = [
                self._network(self.bundle.preprocessing.scale(part.to(self._device))).float().cpu()
                for part in torch.split(images, at_once)
            ]
        return torch.cat(parts)

    def answer(self, samples: Sequence[Sample]) -> list[Answered]:
        """Answer every image of one or more samples, with one entry per sample.

        Raises:
            CallerError: a sample cannot be used; with several, the message begins with its index from 0.
        """
        spatial_dims = self.bundle.preprocessing.spatial_dims
        loaded: list[list[tuple[torch.Tensor, Traits]]] = []
        for index, sample in enumerate(samples):
            with name_picture(index, len(samples)):
                parts = split_arrays([sample], spatial_dims=spatial_dims)
                loaded.append([image for part in parts for image in self._load_each(part)])
        outputs = self.outputs(torch.stack([image for images in loaded for image, _ in images]))
        predictions = iter(self.task.predictions(self.task.answers(outputs)))
        return [
            Answered(tuple(next(predictions) for _ in images), tuple(traits for _, traits in images))
            for images in loaded
        ]

    def _load_each(self, sample: Sample) -> list[tuple[torch.Tensor, Traits]]:
        with self._noticing_volumes(sample):
            loaded = self.bundle.preprocessing.load_each(sample, self.bundle.scope)
            return [(image, self._with_findings(image, each)) for image, each in loaded]

    @contextmanager
    def _noticing_volumes(self, sample: Sample) -> Iterator[None]:
        """Say of a file that is read in the block and is not a picture if it is a volume."""
        try:
            yield
        except UndecodableImage as error:
            # Checked only now, so that pictures do not pay for it.
            if isinstance(self.bundle.preprocessing.load_pixels, LoadPhotograph) and _is_volume_file(sample):
                raise UnsuitableImage("this model takes pictures, not a file of a volume") from error
            raise

    def _with_findings(self, image: torch.Tensor, traits: Traits) -> Traits:
        scope = self.bundle.scope
        findings = traits.findings if scope is None else traits.findings + scope.findings(traits)
        if shows_nothing(image.numpy(), self.bundle.preprocessing.value_range):
            findings += ("nothing_visible",)
        return replace(traits, findings=findings)

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        """The predictions of all images of all samples, in order; raises as `answer` does."""
        return [prediction for answered in self.answer(samples) for prediction in answered.predictions]


def _is_volume_file(sample: Sample) -> bool:
    from sagemaker_monai.images.volume_files import HEAD_BYTES, volume_format_of

    return isinstance(sample.source, bytes) and volume_format_of(sample.source[:HEAD_BYTES], "") is not None
