#!/usr/bin/env python3
"""Trains a full-precision ResNet on CIFAR-10's images as files, on the CPU.

usage: train_cifar.py {resnet20,resnet32,resnet44,resnet56} OUT DATA [--epochs N] [--seed S] [--threads N] [--resume]

DATA holds the images as the Hugging Face Hub's Parquet files: `train-*.parquet` and `test-*.parquet` with a column `img` (or `image`)
of encoded images and an integer `label`. Without that folder there is nothing to do, which is said.

Writes OUT/ARCH-cifar-10/model.safetensors and config.json, those of the last epoch: the test images are looked at once, when
training has ended. A checkpoint.pt is left there after every epoch; with --resume a run that was interrupted goes on from it and
ends with the same weights. With OUT = assets it replaces the network there: run make_assets.py afterwards to renew the checksums,
and bring the model card (README.md) up to date by hand. The defaults are the recipe of that network. Another version of
PyTorch, machine or number of threads gives other weights of about the same accuracy.

Needs torch, numpy, pillow, pyarrow and safetensors.
"""
import argparse
import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import torch
import torch.nn.functional as F
from PIL import Image
from train_fashion_mnist import CifarResNet, positive, save_weights

# Of the training images' levels / 255, as in src/data/cifar.rs.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
SIDE = 32
BATCH = 128
MAX_LR = 0.2
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
# Pixels of black around a training image before a square of them is cut out.
PADDING = 4
# The first half of the epochs trains on squares of this side, which takes little more than half the time.
SMALL_SIDE = 24
# Residual blocks per stage.
ARCHS = {"resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9}


def load_split(folder, split):
    """Levels (N, 32, 32, 3) as bytes and labels (N) of all shards of `split`."""
    images, labels = [], []
    for shard in sorted(folder.glob(f"{split}-*.parquet")):
        table = pyarrow.parquet.read_table(shard)
        column = "img" if "img" in table.column_names else "image"
        for image in table[column].to_pylist():
            images.append(np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("RGB")))
        labels += table["label"].to_pylist()
    if not images:
        raise SystemExit(f"{folder}: no {split}-*.parquet")
    return torch.from_numpy(np.stack(images)), torch.tensor(labels)


def normalised(levels):
    """Levels (N, H, W, 3) as normalised images (N, 3, H, W), channels last in memory."""
    mean, std = (torch.tensor(values) for values in (MEAN, STD))
    return ((levels.float() / 255.0 - mean) / std).permute(0, 3, 1, 2)


def augment(levels, side, generator):
    """Cuts a square of `side` pixels out of each image with its black border, and flips every second one."""
    n = len(levels)
    padded = F.pad(levels, (0, 0) + (PADDING,) * 4)
    positions = SIDE + 2 * PADDING - side + 1
    dx = torch.randint(0, positions, (n, 1, 1), generator=generator)
    dy = torch.randint(0, positions, (n, 1, 1), generator=generator)
    flip = torch.rand(n, 1, 1, generator=generator) < 0.5
    rows = dy + torch.arange(side).view(1, side, 1)
    columns = torch.arange(side).view(1, 1, side)
    columns = dx + torch.where(flip, side - 1 - columns, columns)
    return padded[torch.arange(n).view(n, 1, 1), rows, columns]


@torch.no_grad()
def accuracy(network, levels, labels, batch=500):
    network.eval()
    starts = range(0, len(levels), batch)
    outputs = torch.cat([network(normalised(levels[i : i + batch])) for i in starts])
    return (outputs.argmax(1) == labels).sum().item() / len(levels)


def train(network, levels, labels, epochs, seed, checkpoint, resume):
    """Trains in place, from `checkpoint` where that is asked for and there is one."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=MAX_LR, momentum=MOMENTUM, nesterov=True)
    steps = len(levels) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, MAX_LR, total_steps=steps * epochs, pct_start=0.25)
    # Of its own, so that the order of the images does not depend on the network.
    generator = torch.Generator().manual_seed(seed + 1)
    first = 0
    recipe = {"epochs": epochs, "seed": seed}
    if resume and checkpoint.exists():
        stored = torch.load(checkpoint, weights_only=True)
        if stored["recipe"] != recipe:
            raise SystemExit(f"{checkpoint} is of {stored['recipe']}, not of {recipe}")
        network.load_state_dict(stored["network"])
        optimizer.load_state_dict(stored["optimizer"])
        schedule.load_state_dict(stored["schedule"])
        generator.set_state(stored["generator"])
        first = stored["epoch"]
    start = time.time()
    for epoch in range(first, epochs):
        network.train()
        side = SMALL_SIDE if epoch < epochs // 2 else SIDE
        order = torch.randperm(len(levels), generator=generator)
        total, right = 0.0, 0
        for step in range(steps):
            batch = order[step * BATCH : (step + 1) * BATCH]
            outputs = network(normalised(augment(levels[batch], side, generator)))
            loss = F.cross_entropy(outputs, labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
            right += (outputs.argmax(1) == labels[batch]).sum().item()
        stored = {
            "recipe": recipe,
            "epoch": epoch + 1,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "generator": generator.get_state(),
        }
        unfinished = checkpoint.with_suffix(".part")
        torch.save(stored, unfinished)
        os.replace(unfinished, checkpoint)
        print(
            f"epoch {epoch + 1} of {epochs}: training loss {total / steps:.4f}, top-1 of augmented training images "
            f"{right / (steps * BATCH):.4f}, {time.time() - start:.0f} s",
            flush=True,
        )


def save_config(folder, arch, test_top1):
    """Writes FOLDER/config.json: how the network wants its images, as timm's checkpoints say it, and its accuracy."""
    preprocessing = {
        "input_size": [3, SIDE, SIDE],
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": MEAN,
        "std": STD,
    }
    config = {"architecture": arch, "num_classes": 10, "test_top1": test_top1, "pretrained_cfg": preprocessing}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arch", choices=ARCHS)
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=positive, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    if not args.data.is_dir():
        print(f"skipped: there is no folder {args.data}")
        return

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    (train_levels, train_labels), (test_levels, test_labels) = (load_split(args.data, s) for s in ("train", "test"))
    print(f"{len(train_levels)} training and {len(test_levels)} test images", flush=True)
    network = CifarResNet(image_channels=3, blocks=ARCHS[args.arch]).to(memory_format=torch.channels_last)
    folder = args.out / f"{args.arch}-cifar-10"
    folder.mkdir(parents=True, exist_ok=True)
    train(network, train_levels, train_labels, args.epochs, args.seed, folder / "checkpoint.pt", args.resume)
    test_top1 = accuracy(network, test_levels, test_labels)
    save_weights(folder, args.arch, network)
    save_config(folder, args.arch, test_top1)
    print(f"test top-1 {test_top1:.4f}")


if __name__ == "__main__":
    main()
