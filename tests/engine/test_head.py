"""The head: channels, probabilities and the one label of each element."""

import subprocess
import sys

import pytest
import torch

from engine.head import channels, foreground, labels


def test_channels() -> None:
    assert channels("sigmoid", 3) == 3
    assert channels("softmax", 3) == 4


def test_foreground() -> None:
    logits = torch.tensor([1.0, 2.0, 5.0]).log().view(1, 3, 1, 1)
    assert foreground(logits, "softmax").flatten().tolist() == pytest.approx([2 / 8, 5 / 8])
    assert foreground(logits, "sigmoid").flatten().tolist() == pytest.approx([1 / 2, 2 / 3, 5 / 6])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_foreground_of_half_precision_is_float32(dtype: torch.dtype) -> None:
    logits = torch.tensor([0.0, 12.0], dtype=dtype).view(1, 2, 1, 1)
    with torch.autocast("cpu", dtype=dtype):
        probabilities = [foreground(logits, "softmax"), foreground(logits, "sigmoid")]
    for p in probabilities:
        assert p.dtype == torch.float32
        assert (p < 1).all()


def test_exclusive_classes_take_the_largest_of_all_channels() -> None:
    p = torch.tensor([[0.375, 0.35, 0.1], [0.25, 0.4, 0.1]]).view(1, 2, 1, 3)
    # Background has 0.375 (a tie: it wins), 0.25 and 0.8.
    assert labels(p, "softmax").tolist() == [[[0, 2, 0]]]
    # A threshold, once chosen, decides instead.
    assert labels(p, "softmax", [0.375, 0.5]).tolist() == [[[1, 0, 0]]]
    assert labels(p, "softmax", [0.375, 0.1]).tolist() == [[[1, 2, 2]]]


def test_overlapping_classes_take_the_largest_that_passes() -> None:
    p = torch.tensor([[0.5, 0.6, 0.49, 0.7], [0.4, 0.9, 0.1, 0.7]]).view(1, 2, 1, 4)
    assert labels(p, "sigmoid").tolist() == [[[1, 2, 0, 1]]]
    assert labels(p, "sigmoid", [0.5, float("inf")]).tolist() == [[[1, 1, 0, 1]]]
    assert labels(p, "sigmoid").dtype == torch.int64


def test_softmax_labels_are_argmax() -> None:
    logits = torch.randn((2, 4, 5, 6, 7), generator=torch.Generator().manual_seed(0))
    assert torch.equal(labels(foreground(logits, "softmax"), "softmax"), logits.argmax(1))


def test_a_threshold_read_off_p_passes() -> None:
    p = torch.tensor([0.1]).view(1, 1, 1, 1)
    assert labels(p, "sigmoid", [p.item()]).item() == 1
    assert labels(p, "sigmoid", [0.1]).item() == 1


def test_imports_no_torch() -> None:
    code = "import sys, engine.head; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
