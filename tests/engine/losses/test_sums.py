"""Background and batch in the sums of an overlap loss."""

import pytest
import torch
from torch import Tensor

from engine.losses import specs
from engine.losses.objective import build
from engine.losses.overlap import dice, focal_tversky, tversky
from engine.losses.sums import summing


def sample(space: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    p = torch.rand((2, 3, *space), generator=draw)
    y = torch.rand((2, 3, *space), generator=draw) < 0.3
    valid = torch.rand((2, 1, *space), generator=draw) < 0.7
    return p, y, valid


@pytest.mark.parametrize("space", [(6, 7), (3, 4, 5)])
def test_background_is_averaged_in(space: tuple[int, ...]) -> None:
    p, y, valid = sample(space)
    loss = summing(tversky, include_background=True)(p, y, valid=valid, alpha=0.2)
    pair = tversky(p, y, alpha=0.2, valid=valid) + tversky(1 - p, 1 - y.float(), alpha=0.2, valid=valid)
    torch.testing.assert_close(loss, pair / 2)


@pytest.mark.parametrize("space", [(6, 7), (3, 4, 5)])
def test_a_batch_is_summed_as_one_image(space: tuple[int, ...]) -> None:
    p, y, valid = sample(space)
    loss = summing(focal_tversky, batch=True)(p, y, valid=valid)
    assert loss.shape == (3,)
    one = [torch.cat([x[:1], x[1:]], dim=-1) for x in (p, y, valid)]
    torch.testing.assert_close(loss, focal_tversky(one[0], one[1], valid=one[2])[0])


def test_a_batch_of_one_image_is_the_image() -> None:
    p, y, valid = (x[:1] for x in sample((6, 7)))
    torch.testing.assert_close(summing(dice, batch=True)(p, y, valid=valid), dice(p, y, valid=valid)[0])


def test_the_settings_reach_the_objective() -> None:
    p, y, valid = sample((6, 7))
    logits = p.logit()
    plain = build(specs.Dice(), "sigmoid", 3)(logits, y, valid)
    torch.testing.assert_close(plain, dice(p, y, valid=valid).mean())
    pooled = build(specs.Dice(batch=True, smooth=0.5), "sigmoid", 3)(logits, y, valid)
    expected = summing(dice, batch=True)(p, y, valid=valid, smooth=0.5).mean()
    torch.testing.assert_close(pooled, expected)
    both = build(specs.TverskyPlusPlus(include_background=True, batch=True), "sigmoid", 3)(logits, y, valid)
    wide = summing(tversky, include_background=True, batch=True)
    torch.testing.assert_close(both, wide(p, y, valid=valid, gamma=2.0).mean())
    assert len({plain.item(), pooled.item(), both.item()}) == 3
