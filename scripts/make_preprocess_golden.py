#!/usr/bin/env python3
"""Makes tests/golden/preprocess.safetensors: photographs, and what Pillow makes of them.

usage: make_preprocess_golden.py

Needs numpy, Pillow, safetensors and scikit-image (written with 2.4, 13.0, 0.8 and 0.26), whose package brings the photographs: `chelsea`
(S. van der Walt, CC0) and `astronaut` (NASA, public domain). The same versions give the same bytes.

photo/NAME                            PNG file: a part of the photograph
resized/NAME/FILTER/HEIGHTxWIDTH      levels (H, W, 3) of Image.resize, antialiased as all of Pillow's
input/NAME/FILTER/RESIZE/CROP         (3, CROP, CROP) f32: torchvision's Resize, CenterCrop, ToTensor, Normalize
squash/NAME/FILTER/RESIZE/CROP        levels (CROP, CROP, 3) after the steps of timm's crop_mode "squash"
border/NAME/FILTER/RESIZE/CROP        and "border"
file/KIND                             a JPEG or PNG file of the kind
decoded/KIND                          PNG file of Image.open(...).convert("RGB")
luma/KIND                             levels (H, W) of Image.open(...).convert("L")
"""
import io
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image
from safetensors.numpy import save_file

TARGET = Path(__file__).resolve().parent.parent / "tests" / "golden" / "preprocess.safetensors"
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, **options)
    return np.frombuffer(file.getvalue(), np.uint8)


def png(image):
    return encoded(image, format="PNG", optimize=True)


def network_input(image, filter, resize, crop):
    """torchvision's Resize (int), CenterCrop, ToTensor and Normalize, written out."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    new = {short: resize, long: int(resize * long / short)}
    image = image.resize((new[width], new[height]), FILTERS[filter])
    top, left = round((image.height - crop) / 2.0), round((image.width - crop) / 2.0)
    levels = np.asarray(image.crop((left, top, left + crop, top + crop)))
    return ((levels.astype(np.float32) / np.float32(255) - MEAN) / STD).transpose(2, 0, 1)


def squashed(image, filter, resize, crop):
    """timm's crop_mode "squash": Resize to a square, CenterCrop."""
    image = image.resize((resize, resize), FILTERS[filter])
    start = round((resize - crop) / 2.0)
    return np.asarray(image.crop((start, start, start + crop, start + crop)))


def bordered(image, filter, resize, crop):
    """timm's crop_mode "border": ResizeKeepRatio with longest=1.0, CenterCropOrPad with the mean."""
    ratio = max(image.width, image.height) / resize
    image = image.resize((round(image.width / ratio), round(image.height / ratio)), FILTERS[filter])
    missing = [max(crop - side, 0) for side in image.size]
    padded = Image.new("RGB", (image.width + missing[0], image.height + missing[1]), tuple(round(255 * float(m)) for m in MEAN))
    padded.paste(image, (missing[0] // 2, missing[1] // 2))
    left, top = round((padded.width - crop) / 2.0), round((padded.height - crop) / 2.0)
    return np.asarray(padded.crop((left, top, left + crop, top + crop)))


def main():
    photos = {
        "chelsea": Image.fromarray(skimage.data.chelsea()[70:170, 120:250]),
        "astronaut": Image.fromarray(skimage.data.astronaut()[40:161, 180:271]),
        "small": Image.fromarray(skimage.data.astronaut()[60:100, 200:230]),
        "tall": Image.fromarray(skimage.data.astronaut()[0:170, 200:250]),
    }
    tensors = {}
    for name, photo in photos.items():
        tensors[f"photo/{name}"] = png(photo)
        for filter, method in FILTERS.items():
            # Reduced, or in one direction only, or enlarged. Where the height loses more than twice as many pixels as the
            # width, as with a narrow photograph that keeps its proportions, Pillow does the vertical pass first (since 13.0).
            sizes = {"small": [(52, 41)], "tall": [(85, 25), (60, 60), (120, 25)]}
            for height, width in sizes.get(name, [(43, 33), (photo.height - 1, 20)]):
                resized = np.asarray(photo.resize((width, height), method))
                tensors[f"resized/{name}/{filter}/{height}x{width}"] = resized
        for filter, resize, crop in [("bilinear", 40, 33), ("bicubic", 36, 31)]:
            tensors[f"input/{name}/{filter}/{resize}/{crop}"] = network_input(photo, filter, resize, crop)
            tensors[f"squash/{name}/{filter}/{resize}/{crop}"] = squashed(photo, filter, resize, crop)
            tensors[f"border/{name}/{filter}/{resize}/{crop}"] = bordered(photo, filter, resize, crop)

    small = photos["chelsea"].crop((40, 30, 40 + 75, 30 + 53))
    quality = {"format": "JPEG", "quality": 88}
    files = {
        "baseline-420": encoded(small, **quality, subsampling="4:2:0"),
        "baseline-444": encoded(small, **quality, subsampling="4:4:4"),
        "progressive-422": encoded(small, **quality, subsampling="4:2:2", progressive=True),
        "grey": encoded(small.convert("L"), **quality),
        "cmyk": encoded(small.convert("CMYK"), **quality),
        "palette": encoded(small.quantize(16), format="PNG"),
        "alpha": encoded(Image.merge("RGBA", (*small.split(), small.convert("L"))).crop((0, 0, 20, 20)), format="PNG"),
        "grey-1-bit": encoded(small.convert("1"), format="PNG"),
    }
    for kind, file in files.items():
        image = Image.open(io.BytesIO(file.tobytes()))
        tensors[f"file/{kind}"] = file
        tensors[f"decoded/{kind}"] = png(image.convert("RGB"))
        if kind in ("baseline-444", "palette"):
            tensors[f"luma/{kind}"] = np.asarray(image.convert("L"))
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, TARGET)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
