"""Every runtime against FP32 eager, and what each says where it cannot run."""

import itertools
import sys
from pathlib import Path

import pytest
import torch
from shipped import CPU
from torch import nn
from torch._inductor import cpp_builder

from cifar_tune.config import Variant, grid_variants
from cifar_tune.errors import UnsupportedError
from cifar_tune.models.registry import build_model
from cifar_tune.runtimes import RUNTIMES, Runnable, Source

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
HERE = [v for runtime in RUNTIMES.values() for v in (*runtime.variants, *runtime.cuda_variants)]


def source(variant: Variant, folder: Path, model: nn.Module | None = None) -> Source:
    model = build_model("resnet_narrow", 10) if model is None else model
    return Source(
        model=model.eval(), variant=variant, device="cpu", example=torch.zeros(1, 3, 32, 32), threads=1, folder=folder
    )


def load(variant: Variant, folder: Path, model: nn.Module | None = None) -> Runnable:
    runtime = RUNTIMES[variant.runtime]
    if runtime.export is not None:
        runtime.export(source(variant, folder, model))
    return runtime.load(source(variant, folder, model))


def answers(runnable: Runnable) -> torch.Tensor:
    with runnable.scope():
        return torch.cat([runnable.call(runnable.prepare_input(i[None])).float().clone() for i in IMAGES])


def test_grid_is_precision_by_compile_by_layout() -> None:
    cells = {(v.precision, v.compile, v.channels_last) for v in grid_variants()}
    assert cells == set(itertools.product(("fp32", "fp16"), ("none", "default"), (False, True)))


def test_variant_names_are_unique() -> None:
    variants = {*grid_variants(), *HERE}
    assert len({v.name for v in variants}) == len(variants)


def test_runtimes_add_nothing_that_the_grid_has() -> None:
    assert not set(HERE) & set(grid_variants())


FLOATS = [v for v in CPU if v.runtime != "aotinductor" and v.precision != "int8"]


@pytest.mark.parametrize("variant", FLOATS, ids=lambda v: v.name)
def test_answers_agree_with_fp32_eager(variant: Variant, tmp_path: Path) -> None:
    pytest.importorskip(variant.runtime, reason=f"pip install -e '.[{variant.runtime}]'")
    expected = answers(load(Variant(), tmp_path))
    got = answers(load(variant, tmp_path))
    assert (got - expected).norm() / expected.norm() < (1e-4 if variant.precision == "fp32" else 0.05)


def test_each_call_of_an_autocast_variant_casts_the_weights(tmp_path: Path) -> None:
    """Many calls are timed in one scope; what is shipped enters one for each."""
    with load(Variant(precision="bf16"), tmp_path).scope():
        assert not torch.is_autocast_cache_enabled()


@pytest.mark.parametrize("name", ["cudagraph", "tensorrt"])
def test_runtime_of_a_gpu_is_unsupported_without_one(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="needs a CUDA device"):
        load(Variant(runtime=name), tmp_path)


def test_reduce_overhead_is_unsupported_without_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="CUDA graphs"):
        load(Variant(compile="reduce-overhead"), tmp_path)


def test_runtime_that_is_not_installed_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnsupportedError, match=r"onnxruntime is not installed: pip install -e '\.\[onnx\]'"):
        load(Variant(runtime="onnxruntime"), tmp_path)


class Unexportable(nn.Module):
    """An operator that ONNX does not have."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(images[:, 0]).abs()


def test_export_that_fails_on_an_operator_raises(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="linalg_eig"):
        load(Variant(runtime="onnxruntime"), tmp_path, Unexportable())


def test_fp16_variant_computes_in_fp16(tmp_path: Path) -> None:
    runnable = load(Variant(precision="fp16"), tmp_path)
    with runnable.scope():
        assert runnable.call(torch.randn(1, 3, 32, 32)).dtype == torch.float16


def test_fp16_weights_take_half_the_memory(tmp_path: Path) -> None:
    whole, half = load(Variant(), tmp_path), load(Variant(precision="fp16_weights"), tmp_path)
    assert half.artifact_mb == pytest.approx(whole.artifact_mb / 2, rel=0.01)


def test_channels_last_variant_has_channels_last_weights(tmp_path: Path) -> None:
    model = build_model("resnet18", 10)
    load(Variant(channels_last=True), tmp_path, model)
    weight = model.get_parameter("layer1.0.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("variant", [Variant(compile="default"), Variant(runtime="aotinductor")], ids=lambda v: v.name)
def test_missing_compiler_makes_a_variant_unsupported(
    variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpp_builder.cpp_compiler_search.cache_clear()  # what an earlier test has found
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UnsupportedError, match=r"needs a C\+\+ compiler"):
        load(variant, tmp_path)
