#!/usr/bin/env python3
"""Makes the embedded data under assets/fashion-mnist/ and assets/SHA256SUMS.

usage: make_assets.py [--source DIR]

DIR holds Fashion-MNIST's four IDX files, gzipped, as Debian's package `dataset-fashion-mnist` installs them (the default).
Needs Python alone. The same input gives the same bytes: gzip headers carry neither names nor times.
"""
import argparse
import gzip
import hashlib
import json
import struct
from pathlib import Path

ASSETS = Path(__file__).resolve().parent.parent / "assets"


def read_idx(path):
    """Header-less content of an IDX file of unsigned bytes, and its dimensions."""
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    dims = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    return dims, data[4 + 4 * rank :]


def write_idx(path, dims, content):
    header = bytes([0, 0, 8, len(dims)]) + struct.pack(f">{len(dims)}I", *dims)
    path.write_bytes(gzip.compress(header + content, compresslevel=9, mtime=0))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    source = parser.parse_args().source
    target = ASSETS / "fashion-mnist"

    for kind in ["images-idx3-ubyte", "labels-idx1-ubyte"]:
        dims, content = read_idx(source / f"t10k-{kind}.gz")
        write_idx(target / f"test-{kind}.gz", dims, content)

    indices = json.loads((target / "pool.json").read_text())["indices"]
    (_, height, width), images = read_idx(source / "train-images-idx3-ubyte.gz")
    _, labels = read_idx(source / "train-labels-idx1-ubyte.gz")
    size = height * width
    pool_images = b"".join(images[i * size : (i + 1) * size] for i in indices)
    write_idx(target / "pool-images-idx3-ubyte.gz", (len(indices), height, width), pool_images)
    write_idx(target / "pool-labels-idx1-ubyte.gz", (len(indices),), bytes(labels[i] for i in indices))

    embedded = sorted(path for path in ASSETS.rglob("*") if path.suffix in {".gz", ".safetensors", ".toml"})
    sums = "".join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(ASSETS).as_posix()}\n" for p in embedded)
    (ASSETS / "SHA256SUMS").write_text(sums)
    print(sums, end="")


if __name__ == "__main__":
    main()
