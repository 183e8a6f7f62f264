import platform
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import torch

from engine.device import arithmetic, find_device, find_precision, full_precision, kept_memory
from engine.errors import InputError

CPU = torch.device("cpu")
CUDA = torch.cuda.is_available()
needs_cuda = pytest.mark.skipif(not CUDA, reason="there is no CUDA device")


def test_the_cpu_is_always_there() -> None:
    assert find_device("cpu") == CPU


def test_auto_takes_the_best_that_is_there() -> None:
    best = "cuda" if CUDA else "mps" if torch.backends.mps.is_available() else "cpu"
    found = find_device("auto")
    assert found.type == best
    assert torch.zeros(1, device=found).device.type == best


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cuda:", "AUTO", "cpu cpu"])
def test_what_is_no_device_is_refused_with_what_is(name: str) -> None:
    with pytest.raises(InputError, match=r"is no device: auto, cpu, cuda, cuda:1, mps are") as refused:
        find_device(name)
    assert repr(name) in str(refused.value)


@pytest.mark.parametrize("name", ["meta", "xla"])
def test_a_device_that_cannot_train_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="is not on this machine: use auto or cpu"):
        find_device(name)


@pytest.mark.skipif(CUDA, reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    for name in ("cuda", "cuda:0"):
        with pytest.raises(InputError, match=f"'{name}' is not on this machine"):
            find_device(name)


@needs_cuda
def test_a_number_beyond_the_last_device_is_refused() -> None:
    with pytest.raises(InputError, match="is one of"):
        find_device(f"cuda:{torch.cuda.device_count()}")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("auto", None), ("float32", None), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
)
def test_precision_on_a_cpu(name: str, dtype: torch.dtype | None) -> None:
    assert find_precision(name, CPU) is dtype


@needs_cuda
def test_precision_auto_is_half_on_a_gpu() -> None:
    major, _ = torch.cuda.get_device_capability()
    assert find_precision("auto", find_device("auto")) is (torch.bfloat16 if major >= 8 else torch.float16)


def settings() -> tuple[object, ...]:
    return (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,
    )


@pytest.mark.parametrize("deterministic", [True, False])
def test_arithmetic_is_set_for_the_block_and_back_after_it(deterministic: bool) -> None:
    before = settings()
    threads = 1 if torch.get_num_threads() > 1 else 2
    with arithmetic(threads, deterministic):
        assert settings() == (threads, deterministic, deterministic, not deterministic, False)
    assert settings() == before


def test_arithmetic_is_set_back_after_an_error_too() -> None:
    before = settings()
    with pytest.raises(ZeroDivisionError), arithmetic(1, True):
        print(1 / 0)
    assert settings() == before


def test_without_a_number_the_threads_stay() -> None:
    before = torch.get_num_threads()
    with arithmetic(None, True):
        assert torch.get_num_threads() == before


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="the C library is not glibc")
def test_freed_memory_is_kept_for_the_block_and_given_back_after_it() -> None:
    size = 2**26

    def resident() -> int:
        return psutil.Process().memory_info().rss

    def use() -> None:
        torch.ones(size, dtype=torch.uint8)

    use()
    before = resident()
    with kept_memory():
        use()
        assert resident() > before + size / 2
    assert resident() < before + size / 2
    use()
    assert resident() < before + size / 2


BACKENDS: Any = torch.backends


def precisions() -> dict[str, Any]:
    """How float32 is reckoned, and whether cuDNN may choose its algorithms."""
    cudnn = BACKENDS.cudnn
    found = {"deterministic": cudnn.deterministic, "benchmark": cudnn.benchmark}
    if hasattr(cudnn, "conv"):
        parts = {"cudnn": cudnn, "mkldnn": BACKENDS.mkldnn}
        found |= {f"{name}.conv": part.conv.fp32_precision for name, part in parts.items()}
        found |= {f"{name}.rnn": part.rnn.fp32_precision for name, part in parts.items()}
        found["mkldnn.matmul"] = BACKENDS.mkldnn.matmul.fp32_precision
        return {**found, "matmul": BACKENDS.cuda.matmul.fp32_precision}
    return {**found, "conv": cudnn.allow_tf32, "matmul": BACKENDS.cuda.matmul.allow_tf32}


@pytest.fixture
def hasty() -> Iterator[dict[str, Any]]:
    """Settings under which float32 would not be float32."""
    before = precisions()
    matmul = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    BACKENDS.cudnn.benchmark = True
    found = precisions()
    assert found != before
    yield found
    assert precisions() == found
    torch.set_float32_matmul_precision(matmul)
    BACKENDS.cudnn.benchmark = before["benchmark"]


def test_full_precision_is_set_for_the_block_and_back_after_it(hasty: dict[str, Any]) -> None:
    with full_precision():
        inside = precisions()
        assert inside.pop("deterministic")
        assert not inside.pop("benchmark")
        assert set(inside.values()) <= {"ieee", False}
    assert precisions() == hasty
    with pytest.raises(ZeroDivisionError), full_precision():
        print(1 / 0)
    assert precisions() == hasty


@needs_cuda
def test_float32_on_a_gpu_is_float32() -> None:
    device = find_device("auto")
    x = torch.randn(1, 64, 64, 64, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(64, 64, 3, 3, generator=torch.Generator().manual_seed(1)) / 24
    exact = torch.nn.functional.conv2d(x.double(), weight.double())
    with full_precision():
        found = torch.nn.functional.conv2d(x.to(device), weight.to(device)).cpu()
    assert (found.double() - exact).abs().max() < 2e-5
