"""Masks at full resolution from logits at stride 4, compared with dense interpolation of every class."""

import pytest
import torch
from torch.nn import functional as F

from lgseg_ros.model.postprocessing import logits_to_mask
from lgseg_ros.model.upsampling import UpsampleHead, convex_upsample
from lgseg_ros.utils.label_values import UNLABELLED

NO_THRESHOLD = torch.tensor(0.0)


def dense(logits, class_ids):
    """The exact result: class logits (maximum over text embeddings) interpolated to full size, then the best class."""
    classes = class_ids.unique()
    by_class = torch.stack([logits[:, class_ids == i].amax(dim=1) for i in classes], dim=1)
    full = F.interpolate(by_class, scale_factor=4, mode='bilinear', align_corners=False)
    probability, best = full.softmax(dim=1).max(dim=1)
    return classes[best], probability


def random_logits(batch, num_embeddings, height=12, width=16, smooth=3, seed=0):
    """Logits that vary smoothly over a few positions, as those of a network do."""
    torch.manual_seed(seed)
    coarse = torch.randn(batch, num_embeddings, height // smooth + 1, width // smooth + 1)
    return 4 * F.interpolate(coarse, size=(height, width), mode='bicubic')


@pytest.mark.parametrize('every_cell', [False, True])
def test_two_classes_are_exact(every_cell):
    """With two text embeddings no third one can win inside a cell, so the result is exact."""
    logits, class_ids = random_logits(2, 2, smooth=1), torch.tensor([0, 7])
    ids, confidence = logits_to_mask(logits, class_ids, NO_THRESHOLD, every_cell=every_cell)
    expected, _ = dense(logits, class_ids)
    assert ids.shape == confidence.shape == (2, 48, 64) and ids.dtype == confidence.dtype == torch.uint8
    assert torch.equal(ids.long(), expected)
    assert set(ids.unique().tolist()) == {0, 7}


def test_cells_whose_corners_agree_are_exact():
    """Bilinear interpolation is a convex combination: a class that wins at all four corners wins between them."""
    logits, class_ids = random_logits(1, 30, smooth=4), torch.arange(30)
    ids, _ = logits_to_mask(logits, class_ids, NO_THRESHOLD)
    expected, _ = dense(logits, class_ids)
    best = F.pad(logits.argmax(dim=1)[:, None].float(), (1, 1, 1, 1), mode='replicate')[0, 0]
    corners = torch.stack([best[:-1, :-1], best[:-1, 1:], best[1:, :-1], best[1:, 1:]])
    agree = (corners == corners[:1]).all(dim=0)
    pixels = agree.repeat_interleave(4, 0).repeat_interleave(4, 1)[2:-2, 2:-2]
    assert 0.2 < pixels.float().mean() < 0.95, 'both kinds of cells must occur'
    assert torch.equal(ids[0][pixels].long(), expected[0][pixels])


@pytest.mark.parametrize('num_embeddings', [3, 11, 100, 255])
def test_nearly_all_pixels_are_exact(num_embeddings):
    """Most classes of a large vocabulary are not in the image: their logits are close, but win few pixels."""
    logits, class_ids = random_logits(1, num_embeddings, 48, 64, smooth=8), torch.arange(num_embeddings)
    logits[:, 11:] -= 4
    ids, confidence = logits_to_mask(logits, class_ids, NO_THRESHOLD)
    expected, probability = dense(logits, class_ids)
    assert (ids == expected).float().mean() > 0.995
    assert (confidence / 255 - probability).abs().mean() < 0.03


@pytest.mark.parametrize('num_embeddings', [1, 2, 11, 100])
def test_every_cell_gives_the_same_as_mixed_cells_only(num_embeddings):
    logits, class_ids = random_logits(2, num_embeddings, seed=num_embeddings), torch.arange(num_embeddings) // 2
    for confidence_threshold in (0.0, 0.5):
        sparse = logits_to_mask(logits, class_ids, torch.tensor(confidence_threshold))
        every = logits_to_mask(logits, class_ids, torch.tensor(confidence_threshold), every_cell=True)
        assert all(map(torch.equal, sparse, every))


def test_images_of_a_batch_are_independent():
    logits, class_ids = random_logits(3, 9), torch.arange(9)
    together = logits_to_mask(logits, class_ids, NO_THRESHOLD)
    for i in range(3):
        alone = logits_to_mask(logits[i:i + 1], class_ids, NO_THRESHOLD)
        assert all(torch.equal(part[i], own[0]) for part, own in zip(together, alone, strict=True))


def test_probabilities_of_one_class_are_summed():
    """Two text embeddings of one class at p = 0.4 each give the class p = 0.8."""
    probabilities = torch.tensor([0.4, 0.4, 0.2])
    logits = probabilities.log()[None, :, None, None].expand(1, 3, 5, 6)
    for class_ids, expected in (([0, 0, 1], 0.8), ([0, 1, 2], 0.4)):
        ids, confidence = logits_to_mask(logits, torch.tensor(class_ids), NO_THRESHOLD)
        assert (ids == 0).all()
        assert ((confidence / 255 - expected).abs() < 0.003).all()


def test_confidence_between_two_classes_is_a_half():
    """As in the softmax of the interpolated logits: a text embedding that wins at two corners of a cell counts once."""
    logits = torch.tensor([[3.0, -3.0], [-3.0, 3.0]])[None, :, None].expand(1, 2, 4, 2)
    ids, confidence = logits_to_mask(logits, torch.tensor([0, 1]), NO_THRESHOLD)
    full = F.interpolate(logits, scale_factor=4, mode='bilinear', align_corners=False)
    torch.testing.assert_close(confidence[0] / 255, full.softmax(dim=1).amax(dim=1)[0], atol=0.003, rtol=0)
    assert (ids[0, :, 3] == 0).all() and (ids[0, :, 4] == 1).all()


def test_a_single_class_has_confidence_one():
    ids, confidence = logits_to_mask(torch.randn(1, 1, 4, 5), torch.tensor([42]), NO_THRESHOLD)
    assert (ids == 42).all() and (confidence == 255).all()


def test_pixels_below_the_threshold_are_unlabelled():
    logits, class_ids = random_logits(1, 5), torch.arange(5)
    free, confidence = logits_to_mask(logits, class_ids, NO_THRESHOLD)
    ids, same = logits_to_mask(logits, class_ids, torch.tensor(0.6))
    assert torch.equal(confidence, same)
    below = confidence < 0.6 * 255 - 0.5
    above = confidence > 0.6 * 255 + 0.5
    assert below.any() and above.any()
    assert (ids[below] == UNLABELLED).all()
    assert torch.equal(ids[above], free[above])


def test_the_highest_id_is_not_unlabelled():
    ids, _ = logits_to_mask(torch.tensor([[[[0.0]], [[9.0]]]]), torch.tensor([3, 254]), NO_THRESHOLD)
    assert (ids == 254).all()


@pytest.mark.parametrize('every_cell', [False, True])
def test_learned_upsampling_equals_upsampling_all_logits(every_cell):
    """With two text embeddings none can win only inside a cell, so upsampling every map gives the same result."""
    logits, class_ids = random_logits(2, 2, smooth=1), torch.tensor([0, 7])
    upsample_logits = 3 * torch.randn(2, 64, 12, 16)
    ids, _ = logits_to_mask(logits, class_ids, NO_THRESHOLD, upsample_logits, every_cell)
    best = convex_upsample(logits, upsample_logits).softmax(dim=1).argmax(dim=1)
    assert torch.equal(ids.long(), class_ids[best])
    bilinear, _ = logits_to_mask(logits, class_ids, NO_THRESHOLD)
    assert 0.005 < (ids != bilinear).float().mean() < 0.5, 'the learned weights must have an effect'


def test_untrained_upsampling_is_bilinear():
    upsample = UpsampleHead(8, 16).eval()
    logits = random_logits(2, 5)
    upsample_logits = upsample(torch.randn(2, 3, 48, 64), torch.randn(2, 8, 12, 16))
    expected = F.interpolate(logits, scale_factor=4, mode='bilinear')
    torch.testing.assert_close(convex_upsample(logits, upsample_logits), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize('step', [1, 2, 4])
def test_upsampling_to_every_nth_pixel_is_a_slice_of_full_upsampling(step):
    logits, upsample_logits = random_logits(1, 3), torch.randn(1, 64, 12, 16)
    full = convex_upsample(logits, upsample_logits)
    for phase in ((0, 0), (step - 1, 0), (0, step - 1)):
        part = convex_upsample(logits, upsample_logits, phase, step)
        assert torch.equal(part, full[:, :, phase[0]::step, phase[1]::step])
