"""What a training step does to images and masks on a GPU: few operations, and the host waits for none.

Host and device work at the same time only as long as the host does not wait, and a small batch costs what
asking for its operations costs.
"""

import pytest
import torch
from pretended import DEVICE, Pretended, There

from engine import bits
from engine.bits import PackedMasks, Window
from engine.data import augment
from engine.data.specs import Augment
from engine.modulation.dilation import dilate

SIDE = 32
TURNS = Augment(brightness=(0.8, 1.2), contrast=(0.8, 1.2), probability=0.5)
ALL = TURNS.model_copy(
    update={"rotation": 20, "scale": (0.8, 1.2), "elastic_alpha": (0, 200), "probability": 1}
)


@pytest.fixture(autouse=True)
def _sent_ahead(monkeypatch):
    monkeypatch.setattr(bits, "AHEAD", {*bits.AHEAD, DEVICE.type})


def values(x: torch.Tensor) -> torch.Tensor:
    assert isinstance(x, There)
    return x.values


def window(*ids: int, corner: int = 0, side: int = SIDE) -> Window:
    return Window(torch.tensor(ids), torch.full((len(ids), 2), corner), (side, side))


def filled() -> PackedMasks:
    packed = PackedMasks(torch.full((5, 2), SIDE), 2)
    masks = torch.rand((5, 2, SIDE, SIDE), generator=torch.Generator().manual_seed(0)) < 0.3
    packed.write(window(0, 1, 2, 3, 4), masks)
    return packed


@pytest.mark.parametrize(
    ("where", "most"),
    [(window(3, 1, 4), 5), (window(3, 1, 4, corner=8, side=16), 11)],
    ids=["whole", "crops"],
)
def test_masks_are_read_grown_and_written(where, most):
    here = filled()
    grown = dilate(here.read(where, halo=2))
    with Pretended() as first:
        there = here.to(DEVICE)
        there.read(where)  # what is sent once
    assert first.waits["sent"] <= 2
    with Pretended() as reading:
        found = there.read(where.to(DEVICE), halo=2)
    assert not reading.waits
    assert reading.asked.total() <= most + 3
    with Pretended() as growing:
        found = dilate(found)
    assert torch.equal(values(found), grown)
    with Pretended() as writing:
        masks = there.read(where, halo=0).clone()
        writing.asked.clear()
        there.write(where, ~masks)
    assert not growing.waits
    assert not writing.waits
    assert writing.asked.total() <= most
    here.write(where, ~here.read(where))
    assert torch.equal(values(there.bits), here.bits)


@pytest.mark.parametrize(("settings", "most"), [(TURNS, 30), (ALL, 100)], ids=["turns", "all"])
def test_a_batch_is_changed_as_on_the_cpu(settings, most):
    ids, visits, zero = torch.arange(4), torch.zeros(4, dtype=torch.int64), torch.full((4, 3), -1.0)
    image = torch.rand((4, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(0)).movedim(-1, 1)
    masks = torch.stack([image[:, 0] > 0.6, image[:, 1] > 0.6], dim=1)
    drawn = augment.draw(settings, 0, 1, ids, visits, (SIDE, SIDE))
    expected = [*augment.apply(drawn, image, masks, zero)]
    with Pretended():
        given = [x.to(DEVICE) for x in (image, masks, zero)]
        augment.draw(settings, 0, 1, ids, visits, (SIDE, SIDE), DEVICE)  # what is sent once
        augment.apply(augment.draw(settings, 0, 1, ids, visits, (SIDE, SIDE), DEVICE), *given)
    with Pretended() as pretended:
        drawn = augment.draw(settings, 0, 1, ids, visits, (SIDE, SIDE), DEVICE)
        found = [*augment.apply(drawn, *given)]
        if not drawn.resampled:
            expected.append(masks)
            found.append(augment.undo(drawn, found[1]))
    assert not pretended.waits
    assert pretended.asked.total() <= most
    for there, here in zip(found, expected, strict=True):
        torch.testing.assert_close(values(there), here)
