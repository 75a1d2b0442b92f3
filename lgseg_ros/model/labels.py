"""From row logits at stride 4 to class ids and confidence at full size, at a cost that hardly grows with words.

Interpolating every row's logits to full size costs many times the network once there
are many rows.  It is not needed: between four neighbouring logit positions (a cell)
whose winners agree, the same class wins everywhere, because bilinear interpolation is
a convex mix.  Only cells whose corners disagree are interpolated, and there only the
rows that win at one of the corners.  What this leaves out is a row that wins inside a
cell and at none of its corners.
"""

from typing import NamedTuple

import torch

UNLABELLED = 255


class Cells(NamedTuple):
    """The (h+1) x (w+1) cells between the logit positions, and beyond them at the border."""

    corners: torch.Tensor   # [N, 4] flat positions in h*w: top left, top right, bottom left, bottom right
    weights: torch.Tensor   # [scale*scale, 4] bilinear weights of a cell's pixels


def make_cells(height, width, scale, like):
    """Cells of an h x w map at `scale` pixels a step; border cells repeat the edge."""
    position = torch.arange(height * width, device=like.device).reshape(height, width)
    position = torch.cat([position[:1], position, position[-1:]], dim=0)
    position = torch.cat([position[:, :1], position, position[:, -1:]], dim=1)
    corners = torch.stack([position[:-1, :-1], position[:-1, 1:], position[1:, :-1], position[1:, 1:]], dim=-1)
    fraction = (torch.arange(scale, device=like.device, dtype=like.dtype) + 0.5) / scale
    y, x = fraction[:, None], fraction[None, :]
    weights = torch.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x], dim=-1)
    return Cells(corners.reshape(-1, 4), weights.reshape(-1, 4))


def winners(logits, row_ids):
    """Best row, its class id and its class's probability at every position.

    logits: [B, K, P]; row_ids: [K].  Returns row [B, P], id [B, P], probability [B, P];
    rows of one class add up.
    """
    best, row = logits.max(dim=1)
    ids = row_ids[row]
    chance = torch.exp(logits - best[:, None])
    own = (row_ids[None, :, None] == ids[:, None]).to(chance.dtype)
    return row, ids, (chance * own).sum(dim=1) / chance.sum(dim=1)


def _resolve(values, rows, ids):
    """Winner inside mixed cells.

    values: [M, S, 4] interpolated logits of the four corners' rows; rows, ids: [M, 4].
    Returns ids [M, S] and probability [M, S] among those rows.
    """
    best, which = values.max(dim=2)
    won = torch.gather(ids[:, None].expand(-1, values.shape[1], -1), 2, which[..., None])
    # A row that wins at several corners must count once: keep its first corner only.
    first = torch.stack([(rows[:, :j] != rows[:, j:j + 1]).all(dim=1) if j else rows[:, 0] >= 0
                         for j in range(4)], dim=1)
    rival = (first[:, None] & (ids[:, None] != won)).to(values.dtype)
    return won[..., 0], 1 / (1 + (rival * torch.exp(values - best[..., None])).sum(dim=2))


def label_image(logits, row_ids, threshold, scale=4, every_cell=False):
    """Class ids and confidence at `scale` times the logits' size.

    logits: [B, K, h, w]; row_ids: [K] integer class id per row, 0..254;
    threshold: scalar tensor 0..1, pixels less confident become 255.
    every_cell: interpolate all cells instead of the mixed ones; the same answer without
    shapes that depend on the data, which is what a GPU's fixed graph wants.
    Returns ids and confidence, uint8 [B, h*scale, w*scale]; confidence 255 is probability 1.
    """
    batch, count, height, width = logits.shape
    flat = logits.reshape(batch, count, height * width)
    row, ids, chance = winners(flat, row_ids)
    cells = make_cells(height, width, scale, logits)
    rows4, ids4 = row[:, cells.corners], ids[:, cells.corners]           # [B, N, 4]
    confidence = chance[:, cells.corners] @ cells.weights.T              # [B, N, S]
    labels = ids4[..., :1].expand(-1, -1, scale * scale).to(torch.int32)
    labels, confidence = labels.flatten(0, 1), confidence.flatten(0, 1)  # [B * N, S]
    corner = (cells.corners + torch.arange(batch, device=flat.device)[:, None, None] * count * height * width)
    corner, rows4, ids4 = corner.flatten(0, 1), rows4.flatten(0, 1), ids4.flatten(0, 1)
    mixed = (ids4 != ids4[:, :1]).any(dim=1)
    if not every_cell:
        chosen = mixed.nonzero()[:, 0]
        corner, rows4, ids4 = corner[chosen], rows4[chosen], ids4[chosen]
    index = corner[:, :, None] + rows4[:, None, :] * (height * width)    # [M, corner, row]
    values = cells.weights @ logits.reshape(-1)[index]                   # [M, S, row]
    inside, inside_chance = _resolve(values, rows4, ids4)
    if every_cell:
        labels = torch.where(mixed[:, None], inside.to(torch.int32), labels)
        confidence = torch.where(mixed[:, None], torch.minimum(inside_chance, confidence), confidence)
    else:
        inside_chance = torch.minimum(inside_chance, confidence[chosen])
        labels = labels.index_put((chosen,), inside.to(torch.int32))
        confidence = confidence.index_put((chosen,), inside_chance)
    labels = torch.where(confidence < threshold, torch.full_like(labels, UNLABELLED), labels)
    shape = (batch, height, width, scale)
    return _cells_to_image(labels.to(torch.uint8), *shape), _cells_to_image(
        (confidence * 255 + 0.5).to(torch.uint8), *shape)


def _cells_to_image(blocks, batch, height, width, scale):
    """Blocks [B * (h+1) * (w+1), S] -> picture [B, h*scale, w*scale]."""
    blocks = blocks.reshape(batch, height + 1, width + 1, scale, scale).permute(0, 1, 3, 2, 4)
    image = blocks.reshape(batch, (height + 1) * scale, (width + 1) * scale)
    half = scale // 2
    return image[:, half:-half, half:-half]
