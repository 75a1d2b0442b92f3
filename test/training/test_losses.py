"""Losses, class weights, learning rate schedule and memory of training."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lgseg_ros.training.losses import (
    background_loss,
    balanced_weights,
    class_logits,
    merge_negatives,
    sample_grid,
    segmentation_loss,
    soft_jaccard,
    weighted_cross_entropy,
)
from lgseg_ros.training.trainer import learning_rate_factor
from lgseg_ros.utils.label_values import OUTSIDE
from street_dataset import TEXT_DIM
from training_harness import make_trainer


def test_class_logits_are_the_maximum_over_prompts():
    logits = torch.tensor([[1.0, 5.0, 2.0, 0.0]])[..., None, None]
    assert class_logits(logits, torch.tensor([0, 1, 1, 2])).flatten().tolist() == [1, 5, 0]


def test_grid_samples_equal_dense_interpolation():
    logits, labels = torch.randn(2, 3, 6, 8), torch.randint(3, (2, 24, 32))
    full = F.interpolate(logits, size=(24, 32), mode='bilinear', align_corners=False)
    for phase in ((0, 0), (0, 1), (1, 1)):
        sampled, sampled_labels = sample_grid(logits, labels, phase)
        torch.testing.assert_close(sampled, full[:, :, phase[0]::2, phase[1]::2], rtol=1e-4, atol=1e-5)
        assert torch.equal(sampled_labels, labels[:, phase[0]::2, phase[1]::2])


def test_negatives_are_merged_into_one_logit():
    """The merged logit has the summed probability; with at most one negative nothing is merged."""
    logits = torch.randn(2, 5, 3, 4)
    merged = merge_negatives(logits, 2)
    assert merged.shape == (2, 3, 3, 4)
    probability = logits.softmax(dim=1)
    torch.testing.assert_close(merged.softmax(dim=1)[:, :2], probability[:, :2])
    torch.testing.assert_close(merged.softmax(dim=1)[:, 2], probability[:, 2:].sum(dim=1))
    assert merge_negatives(logits, 5) is logits and merge_negatives(logits, 4) is logits


@pytest.mark.parametrize('classes', [4, 300])   # classes and negatives may be more than 256
def test_cross_entropy_equals_the_weighted_mean_of_torch(classes):
    logits, labels, weights = torch.randn(2, classes, 5, 6), torch.randint(4, (2, 5, 6)), torch.rand(classes) + 0.5
    labels[0, :2] = 255
    torch.testing.assert_close(weighted_cross_entropy(logits, labels, weights),
                               F.cross_entropy(logits, labels, weights, ignore_index=255))


def test_jaccard_by_hand():
    """Class 0 has 2 pixels with p = 0.9 and 0.6, and p = 0.2 at the pixel of class 1."""
    probability = torch.tensor([[0.9, 0.6, 0.2, 0.5], [0.1, 0.4, 0.8, 0.5]])
    labels = torch.tensor([[[0, 0, 1, 255]]])
    loss = soft_jaccard(probability.log()[None, :, None], labels, 2)
    assert loss.item() == pytest.approx(1 - (1.5 / 2.2 + 0.8 / 1.5) / 2, abs=1e-5)


def test_a_batch_without_labels_has_no_gradient(street_dataset, text_embeddings):
    trainer = make_trainer(street_dataset, text_embeddings)
    output = trainer.model.train()(torch.randn(2, 3, 64, 96), trainer.model.project_text(torch.randn(13, TEXT_DIM)))
    loss, parts = segmentation_loss(output, torch.full((2, 64, 96), 255, dtype=torch.uint8), torch.arange(13),
                                    torch.ones(11), (0, 0))
    loss.backward()
    assert parts['cross_entropy'] == 0
    assert all(p.grad.abs().max() == 0 for p in trainer.model.parameters())


def test_background_loss_by_hand():
    """Two classes and two negatives; of the three pixels the first is labelled."""
    probability = torch.tensor([[0.7, 0.5, 0.1], [0.1, 0.2, 0.1], [0.1, 0.2, 0.3], [0.1, 0.1, 0.5]])
    logits, labels = probability.log()[None, :, None], torch.tensor([[[0, 255, 255]]])
    expected = -(np.log(0.3) + np.log(0.8)) / 2
    assert background_loss(logits, labels, 2).item() == pytest.approx(expected, abs=1e-5)
    assert background_loss(logits, labels, 4) == 0, 'no negatives'
    assert background_loss(logits, torch.zeros(1, 1, 3), 2) == 0, 'every pixel is labelled'


@pytest.mark.parametrize('background_weight', [0.0, 0.5])
def test_ignored_pixels_have_a_gradient_only_with_a_background_loss(street_dataset, text_embeddings, background_weight):
    """Pixels outside the image never have one."""
    trainer = make_trainer(street_dataset, text_embeddings)
    projected = trainer.model.project_text(F.normalize(torch.randn(13, TEXT_DIM), dim=1))
    output = trainer.model.train()(torch.randn(2, 3, 64, 96), projected)
    ignored = torch.full((2, 64, 96), 255, dtype=torch.uint8)
    loss, parts = segmentation_loss(output, ignored, torch.arange(13), torch.ones(11), (0, 0), background_weight)
    _, outside = segmentation_loss(output, torch.full_like(ignored, OUTSIDE), torch.arange(13), torch.ones(11), (0, 0),
                                  background_weight)
    loss.backward()
    assert ('background' in parts) == bool(background_weight)
    assert outside.get('background', 0) == 0, 'pixels outside the image do not count'
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in trainer.model.parameters()) == bool(
        background_weight
    )


def test_class_weights_increase_for_rare_classes_and_have_mean_1():
    frequencies = np.array([0.64, 0.32, 0.04])
    weights = balanced_weights(frequencies).numpy()
    assert weights[2] / weights[0] == pytest.approx(4)
    assert (weights * frequencies).sum() == pytest.approx(1)


def test_freed_memory_is_reused():
    """Page faults of ten tensors of 64 MB, before and after glibc is configured to keep freed memory."""
    code = """
import resource, torch
from lgseg_ros.training.distributed import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
default = faults()
if keep_freed_memory():
    faults()   # the heap grows once
    print(default, faults())
"""
    output = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    if not output:
        pytest.skip('this C library has no mallopt')
    default, kept = map(int, output)
    assert kept < default / 10, (default, kept)


def test_the_learning_rate_schedule():
    factors = [learning_rate_factor(step, 100, 10) for step in range(100)]
    assert factors[0] == 0.1 and max(factors) == factors[9] == factors[10] == 1
    assert factors[55] == pytest.approx(0.5) and 0 < factors[99] < 0.001
    assert max(learning_rate_factor(step, 10, 100) for step in range(10)) == 1 == learning_rate_factor(0, 1, 100)
