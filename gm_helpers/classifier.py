"""The digit classifier, in whose features samples without a likelihood are compared."""

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from gm_helpers.train import Players


class DigitClassifier(nn.Module):
    """Images (B, 1, 28, 28) or (B, 784) in [0, 1], grey or binary, to logits of the ten digits, (B, 10).

    Two convolutions of 3×3 with 16 and 32 channels, each followed by ReLU and a 2×2 maximum, and 64 hidden units.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *(nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3)),
            *(nn.Linear(32 * 7 * 7, 64), nn.ReLU()),
        )
        self.head = nn.Linear(64, 10)

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer, (B, 64), in which samples are compared."""
        return self.trunk(x.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def loss(self, rows: Tensor, generator: Generator | None = None) -> dict[str, Tensor]:
        """Cross-entropy in nats and accuracy, means over the batch. rows: (B, 785), images with their labels behind."""
        logits, labels = self(rows[:, :-1]), rows[:, -1].long()
        return {"loss": F.cross_entropy(logits, labels), "accuracy": (logits.argmax(1) == labels).float().mean()}

    def players(self) -> Players:
        """The classifier plays alone: name -> (module, loss)."""
        return {"classifier": (self, self.loss)}
