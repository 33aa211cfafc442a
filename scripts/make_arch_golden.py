#!/usr/bin/env python3
"""Writes tests/golden/arch_logits.safetensors: logits of torchvision's, timm's and EfficientNet-PyTorch's models with weights made up by a rule.

    pip install torch torchvision timm efficientnet-lite-pytorch safetensors numpy
    scripts/make_arch_golden.py

The rule is that of crates/ptq/src/arch/made_up.rs: what a tensor holds depends on its name, so that the same logits can only come out of a
network that reads every tensor by the name that the library gives it. One image of 64 x 64.
"""
import math
import os

import numpy as np
import timm
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet
from safetensors.numpy import save_file
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


def main():
    torch.manual_seed(0)
    image = made_up("image.bias", (1, 3, 64, 64)) * 5
    logits = {}
    for name, build in MODELS.items():
        model = build().eval()
        with torch.no_grad():
            for key, value in model.state_dict().items():
                if value.dim() > 0:
                    value.copy_(made_up(key, tuple(value.shape)))
            logits[name] = model(image).numpy()
        print(name, float(np.abs(logits[name]).max()))
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    save_file(logits, os.path.join(root, "tests", "golden", "arch_logits.safetensors"))
    print("torch", torch.__version__, "torchvision", torchvision.__version__, "timm", timm.__version__)


if __name__ == "__main__":
    main()
