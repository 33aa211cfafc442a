#!/usr/bin/env python3
"""Trains an embedded full-precision network on Fashion-MNIST, on the CPU.

usage: train_fashion_mnist.py {resnet20,mobilenetv2-tiny} OUT [--epochs N] [--seed S] [--threads N] [--data DIR]

Writes OUT/ARCH-fashion-mnist/model.safetensors and card.toml, those of the last epoch; nothing is selected by test
accuracy. With OUT = assets it replaces the embedded network: run make_assets.py afterwards to renew the checksums, and
bring the model card (README.md) up to date by hand. The defaults are the recipe of the embedded networks. Another
version of PyTorch, machine or number of threads gives other weights of about the same accuracy.

DIR holds Fashion-MNIST's four IDX files, gzipped, as Debian's package `dataset-fashion-mnist` installs them (the
default). Needs torch, numpy and safetensors.
"""
import argparse
import gzip
import os
import struct
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

# Of grey levels / 255 over the training images.
MEAN, STD = 0.2860, 0.3530
BATCH = 128
MAX_LR = 0.2
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
# Largest random shift of a training image, in pixels.
SHIFT = 2


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.downsample = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y = y + (x if self.downsample is None else self.downsample(x))
        return F.relu(y, inplace=True)


class CifarResNet(nn.Module):
    """ResNet of 6 `blocks` + 2 layers (He et al., arXiv 1512.03385, section 4.2), with torchvision-like names."""

    def __init__(self, image_channels=1, classes=10, widths=(16, 32, 64), blocks=3):
        super().__init__()
        channels = widths[0]
        self.conv1 = nn.Conv2d(image_channels, channels, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        for stage, width in enumerate(widths):
            layer = []
            for index in range(blocks):
                layer.append(BasicBlock(channels, width, 2 if stage > 0 and index == 0 else 1))
                channels = width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layer))
        self.fc = nn.Linear(channels, classes)
        initialise(self)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean([2, 3]))


def conv_bn_relu6(c_in, c_out, kernel, stride, groups=1):
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """1x1 expansion (unless its factor is 1), 3x3 depthwise convolution, 1x1 projection; torchvision's names."""

    def __init__(self, c_in, c_out, stride, expansion):
        super().__init__()
        hidden = c_in * expansion
        self.adds = stride == 1 and c_in == c_out
        layers = [conv_bn_relu6(c_in, hidden, 1, 1)] if expansion != 1 else []
        layers += [conv_bn_relu6(hidden, hidden, 3, stride, hidden)]
        layers += [nn.Conv2d(hidden, c_out, 1, bias=False), nn.BatchNorm2d(c_out)]
        self.conv = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2Tiny(nn.Module):
    """A small MobileNetV2 (Sandler et al., arXiv 1801.04381) for grey images, with torchvision's names."""

    # Expansion, channels, repeats, stride of the first block.
    STAGES = [(1, 16, 1, 1), (4, 24, 2, 2), (4, 32, 2, 2), (4, 64, 2, 1)]

    def __init__(self, classes=10, stem=16, last=128):
        super().__init__()
        features = [conv_bn_relu6(1, stem, 3, 1)]
        channels = stem
        for expansion, width, repeats, stride in self.STAGES:
            for index in range(repeats):
                features.append(InvertedResidual(channels, width, stride if index == 0 else 1, expansion))
                channels = width
        features.append(conv_bn_relu6(channels, last, 1, 1))
        self.features = nn.Sequential(*features)
        # torchvision's classifier begins with a dropout layer: without it the linear layer would have another name.
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(last, classes))
        initialise(self)

    def forward(self, x):
        return self.classifier(self.features(x).mean([2, 3]))


ARCHS = {"resnet20": CifarResNet, "mobilenetv2-tiny": MobileNetV2Tiny}


def initialise(network):
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def read_idx(path):
    """The content of a gzipped IDX file of unsigned bytes."""
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    dims = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(dims).copy())


def load_split(folder, prefix):
    """Normalised images (N, 1, 28, 28) and labels (N)."""
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz").float().div_(255.0)
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz").long()
    return ((images - MEAN) / STD).unsqueeze(1), labels


def augment(x, generator):
    """Shifts each image by up to SHIFT pixels both ways, into black, and flips every second one."""
    n, _, _, size = x.shape
    padded = F.pad(x, (SHIFT,) * 4, value=(0 - MEAN) / STD)
    dx = torch.randint(0, 2 * SHIFT + 1, (n,), generator=generator)
    dy = torch.randint(0, 2 * SHIFT + 1, (n,), generator=generator)
    flip = torch.rand(n, generator=generator) < 0.5
    rows = dy.view(-1, 1, 1) + torch.arange(size).view(1, -1, 1)
    columns = torch.arange(size).view(1, 1, -1).expand(n, 1, size).clone()
    columns[flip] = size - 1 - columns[flip]
    columns = columns + dx.view(-1, 1, 1)
    return padded[torch.arange(n).view(-1, 1, 1), 0, rows, columns].unsqueeze(1)


@torch.no_grad()
def accuracy(network, images, labels, batch=500):
    network.eval()
    starts = range(0, len(images), batch)
    right = sum((network(images[i : i + batch]).argmax(1) == labels[i : i + batch]).sum().item() for i in starts)
    return right / len(images)


def train(network, train_split, test_split, epochs, generator):
    """Trains in place and returns the test accuracy (a fraction) after the last epoch."""
    images, labels = train_split
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=MAX_LR, momentum=MOMENTUM, nesterov=True)
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, MAX_LR, total_steps=steps * epochs, pct_start=0.25)
    start = time.time()
    for epoch in range(epochs):
        network.train()
        order = torch.randperm(len(images), generator=generator)
        total = 0.0
        for step in range(steps):
            batch = order[step * BATCH : (step + 1) * BATCH]
            loss = F.cross_entropy(network(augment(images[batch], generator)), labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        test_top1 = accuracy(network, *test_split)
        print(
            f"epoch {epoch + 1} of {epochs}: training loss {total / steps:.4f}, test top-1 {test_top1:.4f}, "
            f"{time.time() - start:.0f} s",
            flush=True,
        )
    return test_top1


def save_weights(folder, arch, network):
    """Writes FOLDER/model.safetensors, under another name first, so that there never is half a file."""
    folder.mkdir(parents=True, exist_ok=True)
    state = network.state_dict()
    tensors = {k: v.detach().float().contiguous().clone() for k, v in state.items() if "num_batches_tracked" not in k}
    unfinished = folder / "model.safetensors.part"
    save_file(tensors, unfinished, metadata={"arch": arch})
    os.replace(unfinished, folder / "model.safetensors")


def save_card(folder, arch, test_top1):
    (folder / "card.toml").write_text(
        "# What the harness checks a checkpoint against before it is quantized.\n"
        f'arch = "{arch}"\n'
        'dataset = "fashion-mnist"\n'
        f"test-top1 = {test_top1:.4f}\n"
        f"mean = [{MEAN:.4f}]\n"
        f"std = [{STD:.4f}]\n"
    )


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arch", choices=ARCHS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=positive, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    splits = [load_split(args.data, prefix) for prefix in ("train", "t10k")]
    network = ARCHS[args.arch]()
    # Of its own, so that the order of the images does not depend on the network.
    generator = torch.Generator().manual_seed(args.seed + 1)
    test_top1 = train(network, *splits, args.epochs, generator)
    folder = args.out / f"{args.arch}-fashion-mnist"
    save_weights(folder, args.arch, network)
    save_card(folder, args.arch, test_top1)


if __name__ == "__main__":
    main()
