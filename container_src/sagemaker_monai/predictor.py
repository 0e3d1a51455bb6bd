"""A Bundle on a device: pictures in, Predictions out. Evaluation after training and every server go through here."""

from collections.abc import Sequence
from pathlib import Path

import torch

from sagemaker_monai.bundle import Bundle, read_bundle
from sagemaker_monai.images import name_picture
from sagemaker_monai.samples import Sample
from sagemaker_monai.tasks.classification import Prediction, make_predictions

BATCH_SIZE = 32  # pictures that go through the network at once; bounds memory, does not change answers beyond 1e-6


class Predictor:
    """Answers for pictures.

    Attributes:
        bundle: the checked artifact.
        labels: class names in the order of the probabilities.
        model_version: digest of the artifact.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu") -> None:
        self.bundle = bundle
        self.labels = bundle.labels
        self.model_version = bundle.model_version
        self._device = torch.device(device)
        self._network = bundle.network.to(self._device)

    @classmethod
    def read(cls, folder: Path, device: str = "cpu") -> "Predictor":
        """Read the artifact in `folder`.

        Raises:
            BundleError: it is not sound.
        """
        return cls(read_bundle(folder), device)

    def load(self, samples: Sequence[Sample]) -> torch.Tensor:
        """Decode and resize pictures exactly as training did.

        Args:
            samples: one or more.

        Returns:
            uint8, (N, C, W, H).

        Raises:
            CallerError: a picture cannot be used; with several, the message begins with its index from 0.
        """
        pictures = []
        for index, sample in enumerate(samples):
            with name_picture(index, len(samples)):
                pictures.append(self.bundle.preprocessing.load(sample))
        return torch.stack(pictures)

    def logits(self, pictures: torch.Tensor) -> torch.Tensor:
        """Run the network.

        Args:
            pictures: from `load`, uint8, (N, C, W, H).

        Returns:
            float32 on the CPU, (N, classes).
        """
        # Not TF32, which a GPU uses unasked for convolutions: its answers differ from a CPU's by 1e-3.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            parts = [
                self._network(self.bundle.preprocessing.scale(part.to(self._device))).float().cpu()
                for part in torch.split(pictures, BATCH_SIZE)
            ]
        return torch.cat(parts)

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        """One Prediction a picture; raises as `load` does."""
        return make_predictions(self.logits(self.load(samples)), self.labels)
