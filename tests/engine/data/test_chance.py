"""Chance: uniform, independent, and the same whatever the order and the company."""

import torch

from engine.data.chance import _GOLDEN, Stream, _mix, _signed, bits, uniforms


def draws(seed=0, epoch=1, n=4000, count=4, stream=Stream.AUGMENT):
    ids = torch.arange(n)
    return uniforms(seed, epoch, ids, torch.zeros_like(ids), count, stream)


def correlation(a, b):
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].abs()


def test_known_answer_pins_the_numbers_that_stored_runs_rely_on():
    # SplitMix64 from state 0 starts with this number, by its authors' own code.
    assert _mix(torch.tensor(_signed(_GOLDEN))).item() % 2**64 == 0xE220A8397B1DCDAF
    one = torch.tensor([1])
    assert bits(2, 3, one, one, 1, Stream.CROP).item() == -1588423182716182976


def test_uniform_in_the_unit_interval():
    u = draws()
    assert u.dtype == torch.float64
    assert u.min() >= 0
    assert u.max() < 1
    expected = u.numel() / 64
    chi_square = ((torch.histc(u, 64, 0, 1) - expected) ** 2 / expected).sum()
    assert 25 < chi_square < 115  # 63 degrees of freedom, 99.99 % either way


def test_independent_between_columns_neighbours_epochs_seeds_visits_and_streams():
    u, ids = draws(), torch.arange(4000)
    others = [
        draws(epoch=2),
        draws(seed=1),
        draws(stream=Stream.CROP),
        uniforms(0, 1, ids, torch.ones_like(ids), 4, Stream.AUGMENT),
        uniforms(0, 1, torch.zeros_like(ids), ids, 4, Stream.AUGMENT),
    ]
    limit = 4.5 / u.numel() ** 0.5
    assert all(correlation(u, other) < limit for other in others)
    assert correlation(u[:, :-1], u[:, 1:]) < 1.2 * limit
    assert correlation(u[:-1], u[1:]) < limit


def test_seed_and_epoch_are_not_interchangeable():
    assert not torch.equal(draws(seed=1, epoch=2), draws(seed=2, epoch=1))


def test_the_company_does_not_matter():
    ids, visits = torch.tensor([5, 0, 10**12, 5]), torch.tensor([0, 3, 1, 1])
    together = uniforms(2**63 + 11, 7, ids, visits, 5, Stream.ELASTIC)
    for row in range(4):
        one = slice(row, row + 1)
        assert torch.equal(uniforms(2**63 + 11, 7, ids[one], visits[one], 5, Stream.ELASTIC), together[one])
    shorter = uniforms(2**63 + 11, 7, ids, visits, 3, Stream.ELASTIC)
    assert torch.equal(shorter, together[:, :3])
