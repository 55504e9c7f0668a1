"""Metrics: functions of (output, target) that give a score for each row, or one for the batch."""

from __future__ import annotations

import torch
from torch import Tensor


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """1 where the largest class score (N, classes) is that of the target class (N,), else 0."""
    return (output.argmax(dim=1) == target).float()


def binary_accuracy(output: Tensor, target: Tensor) -> Tensor:
    """1 where the probability (N, 1) is on the target's side of one half, else 0."""
    return ((output > 0.5) == (target > 0.5)).float().flatten()


def absolute_error(output: Tensor, target: Tensor) -> Tensor:
    """|output − target| of each row."""
    return (output - target).abs().flatten()


def absolute_percentage_error(output: Tensor, target: Tensor) -> Tensor:
    """|output − target| / max(|target|, 1e-7) of each row."""
    return ((output - target).abs() / target.abs().clamp_min(1e-7)).flatten()


def roc_auc(output: Tensor, target: Tensor) -> Tensor:
    """Area under the ROC curve of one batch: how often a positive outranks a negative.

    The Mann–Whitney statistic over average ranks, so ties count one half; NaN if only one class
    is present.
    """
    scores, positive = output.flatten().cpu().double(), target.flatten().cpu() > 0.5
    order = scores.sort().values
    below = torch.searchsorted(order, scores, right=False)
    not_above = torch.searchsorted(order, scores, right=True)
    ranks = (below + not_above + 1).double() / 2
    positives = positive.sum().double()
    negatives = positive.numel() - positives
    area: Tensor = (ranks[positive].sum() - positives * (positives + 1) / 2) / (
        positives * negatives
    )
    return area


def recall(output: Tensor, target: Tensor) -> Tensor:
    """The share of the positives of one batch that are found; NaN if there are none."""
    positive = target > 0.5
    found: Tensor = ((output > 0.5) & positive).sum() / positive.sum()
    return found
