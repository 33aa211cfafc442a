#!/usr/bin/env python3
"""Writes tests/golden/pth/: small checkpoints by the real PyTorch, honest and hostile.

    pip install torch numpy
    scripts/make_pth_golden.py
"""
import os
import zipfile

import torch

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "golden", "pth")


class Command:
    def __reduce__(self):
        return os.system, ("touch executed-by-pickle",)


def main():
    os.makedirs(FOLDER, exist_ok=True)
    path = lambda name: os.path.join(FOLDER, name)  # noqa: E731
    base = torch.arange(24, dtype=torch.float32)
    tensors = {
        "plain.weight": base.reshape(2, 3, 4).clone(),
        "transposed.weight": base.reshape(4, 6).t(),
        "view.bias": base[5:9],
        "strided.bias": base[1::5],
        "half.bias": torch.tensor([0.5, -2.0], dtype=torch.float16),
        "parameter.bias": torch.nn.Parameter(torch.tensor([1.5])),
        "bn.num_batches_tracked": torch.tensor(7),
    }
    torch.save(tensors, path("plain.pth"))
    parallel = {f"module.{name}": tensor for name, tensor in tensors.items()}
    best = torch.tensor(71.0)
    torch.save({"epoch": 90, "arch": "x", "best_acc1": best, "state_dict": parallel}, path("wrapped.pth.tar"))
    torch.save({"plain.weight": base}, path("legacy.pth"), _use_new_zipfile_serialization=False)
    torch.save({"plain.weight": base, "command": Command()}, path("hostile.pth"))
    torch.save({"epoch": 1}, path("empty.pth"))
    torch.save({"fc.bias": torch.zeros(1).expand(100000, 1000000)}, path("expanded.pth"))
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1, bias=False), torch.nn.BatchNorm2d(2))
    torch.save(module.state_dict(), path("module.pth"))
    torch.save({"plain.weight": base}, path("outside.pth"))
    with zipfile.ZipFile(path("outside.pth"), "a") as archive:
        archive.writestr("outside/../../written-by-archive", "x")


if __name__ == "__main__":
    main()
