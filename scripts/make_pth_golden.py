#!/usr/bin/env python3
"""Writes tests/golden/pth/: small checkpoints by the real PyTorch, honest and hostile.

    pip install torch numpy
    scripts/make_pth_golden.py
"""
import argparse
import collections
import io
import os
import pickle
import zipfile

import torch

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "golden", "pth")


class Command:
    def __reduce__(self):
        return os.system, ("touch executed-by-pickle",)


class Storages(pickle.Unpickler):
    """Notes the element size of every storage."""

    def __init__(self, file):
        super().__init__(file)
        self.sizes = {}

    def find_class(self, module, name):
        return {"OrderedDict": collections.OrderedDict}.get(name, lambda *args: None if args else name)

    def persistent_load(self, id):
        kind = id[1]()
        self.sizes[id[2]] = {"FloatStorage": 4, "HalfStorage": 2, "LongStorage": 8}[kind]


def with_bytes_swapped(source, target):
    """The archive as a machine that stores the highest byte first writes it."""
    with zipfile.ZipFile(source) as read, zipfile.ZipFile(target, "w") as write:
        folder = read.namelist()[0].split("/")[0]
        storages = Storages(io.BytesIO(read.read(f"{folder}/data.pkl")))
        storages.load()
        for name in read.namelist():
            content = read.read(name)
            if name.startswith(f"{folder}/data/"):
                size = storages.sizes[name.rsplit("/", 1)[1]]
                content = b"".join(content[i : i + size][::-1] for i in range(0, len(content), size))
            # A fixed date: the same bytes every time.
            write.writestr(zipfile.ZipInfo(name), b"big" if name.endswith("/byteorder") else content)


def classifier(value):
    return collections.OrderedDict({"fc.weight": torch.tensor([value]), "fc.bias": torch.tensor([value])})


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
    old = {"_use_new_zipfile_serialization": False}
    torch.save(tensors, path("legacy.pth"), **old)
    for protocol in (4, 5):
        torch.save(tensors, path(f"protocol{protocol}.pth"), pickle_protocol=protocol)
    with_bytes_swapped(path("plain.pth"), path("big-endian.pth"))
    swapped = torch.load(path("big-endian.pth"), weights_only=True)
    assert all(torch.equal(swapped[name], tensor) for name, tensor in tensors.items())
    parallel = {f"module.{name}": tensor for name, tensor in tensors.items()}
    best = torch.tensor(71.0)
    torch.save({"epoch": 90, "arch": "x", "best_acc1": best, "state_dict": parallel}, path("wrapped.pth.tar"))
    for name, options in [("hostile", {}), ("hostile4", {"pickle_protocol": 4}), ("hostile-legacy", old)]:
        torch.save({"plain.weight": base, "command": Command()}, path(f"{name}.pth"), **options)
    with open(path("bare.pkl"), "wb") as file:
        pickle.dump({"plain.weight": [1.0]}, file, protocol=4)
    torch.save({"epoch": 1}, path("empty.pth"))
    torch.save({"fc.bias": torch.zeros(1).expand(100000, 1000000)}, path("expanded.pth"))
    large = torch.zeros(960)
    torch.save({f"{i}.weight": large.view(960) for i in range(100)}, path("shared.pth"))
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1, bias=False), torch.nn.BatchNorm2d(2))
    torch.save(module.state_dict(), path("module.pth"))
    torch.save({"plain.weight": base}, path("outside.pth"))
    with zipfile.ZipFile(path("outside.pth"), "a") as archive:
        archive.writestr("outside/../../written-by-archive", "x")

    # Several tables, and one beside what else training leaves.
    torch.save({"epoch": 1, "state_dict": classifier(1.0), "state_dict_ema": classifier(2.0)}, path("two.pth"))
    torch.save({"state_dict_ema": classifier(2.0), "state_dict": classifier(1.0)}, path("two-reversed.pth"))
    averaged = {"decay": 0.9, "module": classifier(2.0)}
    torch.save({"model": classifier(1.0), "ema": averaged}, path("nested.pth"))
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    weights = classifier(1.0)
    training = {
        "epoch": 3,
        "state_dict": weights,
        "model": weights,
        "optimizer": optimizer.state_dict(),
        "optim_by_name": {"exp_avg": {"fc.weight": torch.tensor([1.0])}},
        "scheduler": {"milestones": collections.Counter({30: 1}), "gamma": 0.1},
        "best_acc1": best,
        "input": {"mean": torch.tensor([0.5]), "std": torch.tensor([0.25])},
        "args": argparse.Namespace(lr=0.1, size=torch.Size([2, 3]), dtype=torch.float32),
    }
    torch.save(training, path("training.pth"))
    torch.save(training, path("training-legacy.pth"), **old)


if __name__ == "__main__":
    main()
