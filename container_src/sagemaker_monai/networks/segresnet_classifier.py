"""The encoder of SegResNet (arXiv:1810.11654) with a classification head, which MONAI does not have.

Its instance normalization works for batches of two volumes, for which batch normalization is too noisy.
"""

import torch
from monai.networks.nets.segresnet_ds import SegResEncoder
from torch import nn


class SegResNetClassifier(nn.Module):
    """MONAI's SegResEncoder, the mean of its last features, dropout, one linear layer.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the input.
        num_classes: outputs.
        init_filters: features of the first level; each of the next three has twice as many.
        dropout_prob: of the features, 0 to below 1.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, num_classes: int, init_filters: int, dropout_prob: float
    ) -> None:
        super().__init__()
        blocks = (1, 2, 2, 4)
        self.encoder = SegResEncoder(
            spatial_dims=spatial_dims,
            init_filters=init_filters,
            in_channels=in_channels,
            norm="instance",
            blocks_down=blocks,
        )
        self.dropout = nn.Dropout(dropout_prob)
        self.head = nn.Linear(init_filters * 2 ** (len(blocks) - 1), num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """From (N, C, W, H[, D]) to (N, K)."""
        features = self.encoder(images)[-1]
        outputs: torch.Tensor = self.head(self.dropout(features.flatten(2).mean(dim=2)))
        return outputs
