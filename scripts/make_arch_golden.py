#!/usr/bin/env python3
"""Writes tests/golden/arch_logits.safetensors: logits of torchvision's, timm's and EfficientNet-PyTorch's models with weights made up by a rule, and
cifar_logits.safetensors, the same of ResNets for CIFAR, which neither library has: they are defined here, to be read beside He et al.
(arXiv 1512.03385, section 4.2), under the names of akamaster/pytorch_resnet_cifar10 and chenyaofo/pytorch-cifar-models.

    pip install torch torchvision timm efficientnet-lite-pytorch safetensors numpy
    scripts/make_arch_golden.py [arch_logits | cifar_logits]

The rule is that of crates/ptq/src/arch/made_up.rs: what a tensor holds depends on its name, so that the same logits can only come out of a
network that reads every tensor by the name that the library gives it. One image of 64 x 64; for CIFAR's networks one of their size.
"""
import math
import os
import sys

import numpy as np
import timm
import torch
import torch.nn.functional as F
import torchvision
from efficientnet_lite_pytorch import EfficientNet
from safetensors.numpy import save_file
from torch import nn
from torchvision.models.regnet import BlockParams, RegNet

MASK = (1 << 64) - 1


def noise(name, n):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & MASK
    with np.errstate(over="ignore"):
        z = np.uint64(h) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = (z ^ (z >> np.uint64(31))) >> np.uint64(11)
    return z.astype(np.float64) / (1 << 52) - 1.0


def made_up(name, shape):
    u = noise(name, math.prod(shape)).reshape(shape)
    last = name.rsplit(".", 1)[-1]
    if last == "running_var":
        values = 1.0 + 0.5 * u
    elif last in ("running_mean", "bias"):
        values = 0.2 * u
    elif len(shape) == 1:
        values = 1.0 + 0.25 * u
    else:
        values = u * math.sqrt(6.0 / math.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


def regnetx(depths, widths, group):
    """torchvision has no RegNetX-600M of its own, but the class that builds one."""
    parameters = BlockParams(depths, widths, [group] * 4, [1.0] * 4, [2] * 4)
    return RegNet(parameters)


MODELS = {
    "resnet18.torchvision": lambda: torchvision.models.resnet18(),
    "resnet18.timm": lambda: timm.create_model("resnet18"),
    "resnet50.torchvision": lambda: torchvision.models.resnet50(),
    "resnet50.timm": lambda: timm.create_model("resnet50"),
    "mobilenetv2.torchvision": lambda: torchvision.models.mobilenet_v2(),
    "mobilenetv2.timm": lambda: timm.create_model("mobilenetv2_100"),
    "regnetx-600m.torchvision": lambda: regnetx([1, 3, 5, 7], [48, 96, 240, 528], 24),
    "regnetx-600m.timm": lambda: timm.create_model("regnetx_006"),
    "regnetx-3200m.torchvision": lambda: torchvision.models.regnet_x_3_2gf(),
    "regnetx-3200m.timm": lambda: timm.create_model("regnetx_032"),
    "mnasnet1-0.torchvision": lambda: torchvision.models.mnasnet1_0(),
    "mnasnet1-0.timm": lambda: timm.create_model("mnasnet_100"),
    "mnasnet2-0.torchvision": lambda: torchvision.models.MNASNet(2.0),
    "mobilenetv1.timm": lambda: timm.create_model("mobilenetv1_100"),
    **{f"efficientnet-lite{i}.timm": lambda i=i: timm.create_model(f"tf_efficientnet_lite{i}") for i in range(5)},
    # Its padding is that of images of the published size: only Lite0's is that of 64 x 64, too.
    "efficientnet-lite0.EfficientNet-PyTorch": lambda: EfficientNet.from_name("efficientnet-lite0"),
}


class CifarBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: `projection` is what the library calls option B's, None for option A."""

    def __init__(self, c_in, c_out, stride, projection):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut_of = lambda x: x
        if stride != 1 and projection is None:
            # Option A: every second pixel, and channels of zeros on both sides.
            missing = (c_out - c_in) // 2
            self.shortcut_of = lambda x: F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, missing, missing))
        elif stride != 1:
            layers = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
            self.add_module(projection, layers)
            # Not the module itself, which would be listed under both names.
            self.shortcut_of = lambda x: layers(x)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut_of(x))


class CifarResNet(nn.Module):
    """Three stages of `blocks` blocks; `classifier` and `projection` are the names that the library gives them."""

    def __init__(self, channels, blocks, classifier, projection):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        c_in, self.classifier = 16, classifier
        for stage, width in enumerate((16, 32, 64)):
            strides = [1 if stage == 0 else 2] + [1] * (blocks - 1)
            layer = []
            for stride in strides:
                layer.append(CifarBlock(c_in, width, stride, projection))
                c_in = width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layer))
        self.add_module(classifier, nn.Linear(c_in, 10))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.get_submodule(self.classifier)(x.mean((2, 3)))


def for_cifar():
    """Of each model its size of images and how it is built."""
    models = {}
    for depth in (20, 32, 44, 56):
        # The embedded ResNet-20 takes grey images.
        image = (1, 28, 28) if depth == 20 else (3, 32, 32)
        for layout, classifier, projection in (("torchvision", "fc", "downsample"), ("akamaster", "linear", "shortcut")):
            blocks = (depth - 2) // 6
            build = lambda c=image[0], b=blocks, n=classifier, p=projection: CifarResNet(c, b, n, p)
            models[f"resnet{depth}.{layout}"] = (image, build)
            build = lambda b=blocks, n=classifier: CifarResNet(3, b, n, None)
            models[f"resnet{depth}-identity.{layout}"] = ((3, 32, 32), build)
    return models


# Of each file its models.
FILES = {
    "arch_logits": {name: ((3, 64, 64), build) for name, build in MODELS.items()},
    "cifar_logits": for_cifar(),
}


def main():
    chosen = sys.argv[1:] or list(FILES)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for file in chosen:
        torch.manual_seed(0)
        logits = {}
        for name, (size, build) in FILES[file].items():
            image = made_up("image.bias", (1, *size)) * 5
            model = build().eval()
            with torch.no_grad():
                for key, value in model.state_dict().items():
                    if value.dim() > 0:
                        value.copy_(made_up(key, tuple(value.shape)))
                logits[name] = model(image).numpy()
            print(name, float(np.abs(logits[name]).max()))
        save_file(logits, os.path.join(root, "tests", "golden", f"{file}.safetensors"))
    print("torch", torch.__version__, "torchvision", torchvision.__version__, "timm", timm.__version__)


if __name__ == "__main__":
    main()
