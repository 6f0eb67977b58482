"""MODELS: name -> constructor. torchvision's architectures with a stem for small images, from scratch.

The stem keeps early resolution: on 32x32 input torchvision's ImageNet stems would throw away 15 of 16 pixels
before the first block. Constructors take the number of classes and give a module that maps float images
(N, 3, H, W) to logits (N, classes).
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

from cifar_tune.libraries import import_torchvision
from cifar_tune.models import pruning


def _resnet18(classes: int) -> nn.Module:
    model = import_torchvision().models.resnet18(weights=None, num_classes=classes)
    model.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


class NarrowResNet(nn.Module):
    """A ResNet for small images with three stages of basic blocks, given channels and blocks a stage.

    Dense and compact: CPUs with matrix units run it many times closer to their peak than depthwise models. With 32, 64
    and 128 channels and two blocks it has 0.70 M parameters and 211 MFLOP at 32x32, with 16, 32 and 64 and one block
    0.08 M and 23 MFLOP.
    """

    def __init__(self, classes: int, channels: tuple[int, int, int], blocks: int) -> None:
        super().__init__()
        resnet = import_torchvision().models.resnet

        def stage(inputs: int, outputs: int, stride: int) -> nn.Module:
            shortcut = None
            if stride != 1:
                convolution = nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)
                shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs))
            first = resnet.BasicBlock(inputs, outputs, stride, shortcut)
            return nn.Sequential(first, *(resnet.BasicBlock(outputs, outputs) for _ in range(blocks - 1)))

        low, middle, high = channels
        stem = nn.Conv2d(3, low, kernel_size=3, padding=1, bias=False)
        stages = stage(low, low, 1), stage(low, middle, 2), stage(middle, high, 2)
        self.features = nn.Sequential(stem, nn.BatchNorm2d(low), nn.ReLU(inplace=True), *stages)
        self.fc = nn.Linear(high, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> logits (N, classes)."""
        return self.fc(self.features(images).mean((2, 3)))


class SpeedNet(nn.Module):
    """A narrow net in the shape of airbench's (Keller Jordan, arXiv 2404.00498): it learns fast and answers fast.

    A thin first layer, then three pairs of convolutions. Pooling comes before normalisation and halves the picture at
    once, so that most of the arithmetic is in few, dense layers: 129 MFLOP at 32x32, 0.57 M parameters.
    """

    def __init__(self, classes: int, channels: tuple[int, int, int] = (64, 128, 128)) -> None:
        super().__init__()

        def convolution(inputs: int, outputs: int, *more: nn.Module) -> list[nn.Module]:
            layer = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
            return [layer, *more, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

        def pair(inputs: int, outputs: int) -> nn.Module:
            return nn.Sequential(*convolution(inputs, outputs, nn.MaxPool2d(2)), *convolution(outputs, outputs))

        low, middle, high = channels
        # 12 directions of 2x2 patches of three colours, and their negatives
        self.stem = nn.Sequential(nn.Conv2d(3, 24, kernel_size=2, padding=1), nn.ReLU(inplace=True))
        self.features = nn.Sequential(pair(24, low), pair(low, middle), pair(middle, high))
        self.fc = nn.Linear(high, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> logits (N, classes)."""
        return self.fc(self.features(self.stem(images)).amax((2, 3)))


def _mobilenet_v3_small(classes: int) -> nn.Module:
    model = import_torchvision().models.mobilenet_v3_small(weights=None, num_classes=classes)
    stem = model.features[0][0]
    stem.stride = (1, 1)
    return model


def _shufflenet_v2(width: str) -> Callable[[int], nn.Module]:
    def build(classes: int) -> nn.Module:
        model = getattr(import_torchvision().models, f"shufflenet_v2_{width}")(weights=None, num_classes=classes)
        model.conv1[0].stride = (1, 1)
        model.maxpool = nn.Identity()
        return model

    return build


def _vit_tiny(patch: int, side: int) -> Callable[[int], nn.Module]:
    """timm's ViT-Tiny, whose embedding of positions fits a side; images of other sides have theirs interpolated."""

    def build(classes: int) -> nn.Module:
        return require_timm().VisionTransformer(
            img_size=side,
            patch_size=patch,
            num_classes=classes,
            embed_dim=192,
            depth=12,
            num_heads=3,
            dynamic_img_size=True,
        )

    return build


def require_timm() -> ModuleType:
    """timm's module of Vision Transformers; ValueError says how to install it."""
    import_torchvision()  # in our way: timm imports it
    try:
        return importlib.import_module("timm.models.vision_transformer")
    except ImportError as error:
        raise ValueError(f"timm is not installed: pip install -e '.[vit]' ({error})") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """How to build a model, and what its arithmetic is made of."""

    build: Callable[[int], nn.Module]
    dense: bool
    """Full rather than depthwise convolutions: on many CPUs bf16 then trains faster."""
    attends: bool = False
    """A transformer: its layers have no channels of their own that could be cut off."""


MODELS: dict[str, Architecture] = {
    "resnet18": Architecture(build=_resnet18, dense=True),
    "resnet_narrow": Architecture(build=lambda classes: NarrowResNet(classes, (32, 64, 128), 2), dense=True),
    "speednet": Architecture(build=SpeedNet, dense=True),
    "speednet_wide": Architecture(build=lambda classes: SpeedNet(classes, (64, 256, 256)), dense=True),
    "resnet_tiny": Architecture(build=lambda classes: NarrowResNet(classes, (16, 32, 64), 1), dense=True),
    "mobilenet_v3_small": Architecture(build=_mobilenet_v3_small, dense=False),
    "shufflenet_v2_x0_5": Architecture(build=_shufflenet_v2("x0_5"), dense=False),
    "shufflenet_v2_x1_0": Architecture(build=_shufflenet_v2("x1_0"), dense=False),
    "vit_tiny_patch4_32": Architecture(build=_vit_tiny(4, 32), dense=True, attends=True),
    "vit_tiny_patch8_64": Architecture(build=_vit_tiny(8, 64), dense=True, attends=True),
    "vit_tiny_patch16_224": Architecture(build=_vit_tiny(16, 224), dense=True, attends=True),
}


def architecture(name: str) -> Architecture:
    """The registered architecture, of a pruned model the one it was; ValueError lists those there are."""
    base, share = pruning.parse(name)
    if base not in MODELS:
        raise ValueError(f"model {base!r} is unknown; allowed are {', '.join(MODELS)}")
    if share is not None and MODELS[base].attends:
        raise ValueError(f"model is {name!r}; allowed are convolutional ones: attention is not narrowed")
    return MODELS[base]


def build_model(name: str, classes: int, seed: int = 0) -> nn.Module:
    """A model with freshly initialised weights, the same for the same seed; `NAME@SHARE`: a pruned one.

    Batch-norm statistics follow with momentum 0.1: torchvision's 0.01 for MobileNetV3 needs hundreds of steps to
    follow a change, so a short training would be judged on stale statistics.
    """
    _, share = pruning.parse(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = architecture(name).build(classes)
    if share is not None:
        pruning.narrowed(model, share)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return model


def place(model: nn.Module, device: torch.device | str, layout: torch.memory_format = torch.channels_last) -> nn.Module:
    """The model on a device, its weights in a memory layout; changed in place."""
    # torch's own annotations lack the overload with only a layout
    return model.to(device).to(memory_format=layout)  # pyright: ignore[reportCallIssue] - an overload the stubs lack


def frozen(model: nn.Module, example: Tensor, *, portable: bool = False) -> torch.jit.ScriptModule:
    """The model's forward pass for good: traced on inputs (N, 3, H, W), normalisations folded into convolutions.

    For any number of images of that size. Called where gradients are off. `portable`: without the layouts that are
    best on this processor, as a file needs it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, yet needs no compiler; tracing warns of every constant
        script = torch.jit.freeze(torch.jit.trace(model, example, check_trace=False))
        return script if portable else torch.jit.optimize_for_inference(script)


def count_parameters(model: nn.Module) -> int:
    """Number of trained values."""
    return sum(p.numel() for p in model.parameters())
