"""The loss of the extra heads that learn auxiliary targets (`isic.data.auxiliary`).

- classes: cross-entropy of a softmax
- number: squared error of the standardised value

The loss is the mean over the heads of the mean over the batch's rows. A row whose value is missing
adds nothing and still counts among the rows, so that batches and ranks add up to the loss of the
epoch, and a column that is rarely filled does not shout.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from isic.data.auxiliary import Head


class AuxiliaryLoss:
    """What the heads' outputs (B, A), side by side, cost.

    weight: Beside the main loss, in training.
    """

    def __init__(self, heads: Sequence[Head], *, weight: float = 0.3) -> None:
        self.heads, self.weight = tuple(heads), weight
        self.n_outputs = sum(head.n_outputs for head in heads)

    def spread(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The batch with targets that may be mixed: floats (B, F), 0 throughout where missing.

        Of classes their shares; of a number y: 1, y and y^2. The losses are linear in these, so
        that the loss of a mix is the mix of the losses.
        """
        return {**batch, **{h.key: _spread(batch[h.key], h) for h in self.heads}}

    def __call__(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean over heads and rows, a scalar; of a batch that `spread` made."""
        parts = outputs.split([head.n_outputs for head in self.heads], dim=1)
        each = [_loss(part, batch[h.key]) for part, h in zip(parts, self.heads, strict=True)]
        mean = torch.stack(each).mean(dim=0)  # (B,)
        weight = batch.get("weight")
        return mean.mean() if weight is None else (weight * mean).sum() / weight.sum()


def _spread(value: Tensor, head: Head) -> Tensor:
    if head.classes:
        shares = functional.one_hot(value.clamp(min=0), len(head.classes))
        return (shares * (value >= 0)[:, None]).float()
    number = value.nan_to_num()
    return torch.stack([value.isfinite().float(), number, number.square()], dim=1)


def _loss(output: Tensor, target: Tensor) -> Tensor:
    """Of each row, (B,); a single output is a number."""
    if output.shape[1] > 1:
        return -(target * functional.log_softmax(output, dim=1)).sum(dim=1)
    known, number, square = target.unbind(1)
    return known * output[:, 0].square() - 2 * number * output[:, 0] + square
