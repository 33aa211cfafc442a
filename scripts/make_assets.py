#!/usr/bin/env python3
"""Makes the embedded data under assets/fashion-mnist/ and assets/SHA256SUMS.

usage: make_assets.py [--source DIR]

DIR holds Fashion-MNIST's four IDX files, gzipped, as Debian's package `dataset-fashion-mnist` installs them (the default).
Needs Python alone. The same input gives the same bytes: gzip headers carry neither names nor times. (Another zlib may
compress the same content otherwise.)
"""
import argparse
import gzip
import hashlib
import json
import math
import struct
from pathlib import Path

ASSETS = Path(__file__).resolve().parent.parent / "assets"

# SHA-256 of the source's four files, unzipped.
SOURCE_SUMS = {
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
}


def read_idx(source, name):
    """Dimensions and header-less content of the IDX file of unsigned bytes `name`, which must be the published one."""
    data = gzip.decompress((source / f"{name}.gz").read_bytes())
    if hashlib.sha256(data).hexdigest() != SOURCE_SUMS[name]:
        raise SystemExit(f"{source / name}.gz: not Fashion-MNIST's (another SHA-256)")
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

    # All is read and checked before anything is written.
    kinds = ["images-idx3-ubyte", "labels-idx1-ubyte"]
    test = {kind: read_idx(source, f"t10k-{kind}") for kind in kinds}
    train = {kind: read_idx(source, f"train-{kind}") for kind in kinds}
    indices = json.loads((target / "pool.json").read_text())["indices"]
    for kind in kinds:
        write_idx(target / f"test-{kind}.gz", *test[kind])
        (_, *dims), content = train[kind]
        size = math.prod(dims)
        pool = b"".join(content[i * size : (i + 1) * size] for i in indices)
        write_idx(target / f"pool-{kind}.gz", (len(indices), *dims), pool)

    listed = sorted(path for path in ASSETS.glob("*/*") if path.suffix in {".gz", ".safetensors", ".toml"})
    sums = "".join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(ASSETS).as_posix()}\n" for p in listed)
    (ASSETS / "SHA256SUMS").write_text(sums)
    print(sums, end="")


if __name__ == "__main__":
    main()
