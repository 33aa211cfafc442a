#!/usr/bin/env python3
"""Makes tests/golden/images.safetensors: small image files of every kind, and what Pillow makes of them.

usage: make_image_golden.py

Needs numpy, Pillow and safetensors (written with 2.4, 13.0 and 0.8), and cjpeg and jpegtran of libjpeg-turbo (2.1.5).

file/NAME      the file
sha256/NAME    of the levels (H, W, 3) of Image.open(...).convert("RGB"), 32 bytes; absent where Pillow refuses the file
size/NAME      H and W
"""
import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

import image_kinds

TARGET = Path(__file__).resolve().parent.parent / "tests" / "golden" / "images.safetensors"
# Of most samplings some modes, of two all.
SOME = ["baseline", "progressive", "planes", "unfinished", "restart-blocks", "jfif-adobe-0"]
WHOLE = ["2x2,1x1,1x1", "1x1,2x2,2x2"]


def main():
    files = {}
    levels = image_kinds.picture(19, 35)
    for sampling in image_kinds.SAMPLINGS:
        for mode, file in image_kinds.of_sampling(levels, sampling).items():
            if mode in SOME or sampling in WHOLE:
                files[f"jpeg/{sampling}/{mode}"] = file
    files |= {f"jpeg/{name}": file for name, file in (image_kinds.singles() | image_kinds.altered()).items()}
    files |= image_kinds.others()
    tensors = {}
    for name, file in files.items():
        tensors[f"file/{name}"] = np.frombuffer(file, np.uint8)
        try:
            image = Image.open(io.BytesIO(file)).convert("RGB")
        except (OSError, Image.DecompressionBombError) as error:
            print(f"{name}: {error}")
            continue
        tensors[f"sha256/{name}"] = np.frombuffer(hashlib.sha256(image.tobytes()).digest(), np.uint8)
        tensors[f"size/{name}"] = np.array([image.height, image.width], np.uint32)
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, TARGET)
    print(f"{TARGET}: {len(files)} files, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
