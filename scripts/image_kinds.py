"""Small image files of every kind, made from pictures that a formula gives: for make_image_golden.py and check_image_pixels.py.

Needs numpy and Pillow, and for JPEG the programs cjpeg and jpegtran of libjpeg-turbo.
"""
import io
import subprocess
import tempfile
import zlib

import numpy as np
from PIL import Image

# Luma and chroma, horizontal x vertical; the second half with luma below chroma, or the chromas unlike each other.
SAMPLINGS = [
    "1x1,1x1,1x1", "2x1,1x1,1x1", "1x2,1x1,1x1", "2x2,1x1,1x1", "4x1,1x1,1x1", "1x4,1x1,1x1", "4x2,1x1,1x1", "2x4,1x1,1x1",
    "1x1,2x1,2x1", "1x1,1x2,1x2", "1x1,2x2,2x2", "2x1,1x1,2x1", "1x2,1x1,1x2", "2x2,2x1,1x2", "2x2,1x1,2x2", "2x1,1x2,1x1",
]  # fmt: skip
SIZES = [(1, 1), (1, 17), (17, 1), (7, 9), (8, 8), (15, 33), (16, 16), (31, 31), (48, 64), (67, 45)]
# Scan scripts as cjpeg takes them.
SCANS = {
    "planes": "0;1;2;",
    "luma-apart": "0;1 2;",
    "spectral": "0,1,2:0-0,0,0;0:1-9,0,0;2:1-63,0,0;1:1-63,0,0;0:10-63,0,0;",
    # Ends before all coefficients are known: libjpeg smooths over the blocks.
    "unfinished": "0,1,2:0-0,0,1;0:1-5,0,2;0,1,2:0-0,1,0;",
}


# Files of `others` that Pillow reads and the harness refuses, saying why.
REFUSED = {
    f"{kind}.tiff"
    for kind in ["la", "p", "ycbcr", "lab", "i", "f", "jpeg", "zstd", "lzma", "rgb-16", "multiplied", "cmyk", "inks"]
}


def picture(height, width, seed=0):
    """Gradients, waves, an edge and noise, (H, W, 3) of 8-bit levels."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    noise = np.random.default_rng(seed).integers(-24, 25, (height, width, 3))
    waves = np.stack([np.sin((x + 2 * y) / 3), np.cos((3 * x - y) / 5), np.sin(x * y / 60)], axis=2)
    ramps = np.stack([x / max(width - 1, 1), y / max(height - 1, 1), (x + y) / max(width + height - 2, 1)], axis=2)
    edge = np.where((x + y > (height + width) / 2)[..., None], np.array([60, -50, 80]), 0)
    return np.clip(60 * waves + 200 * ramps + noise + edge, 0, 255).astype(np.uint8)


def ppm(levels):
    kind = b"P5" if levels.ndim == 2 else b"P6"
    return kind + b" %d %d 255\n" % (levels.shape[1], levels.shape[0]) + levels.tobytes()


def cjpeg(levels, *arguments, scans=None):
    if scans is None:
        return subprocess.run(["cjpeg", *arguments], input=ppm(levels), capture_output=True, check=True).stdout
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(SCANS[scans])
        file.flush()
        return cjpeg(levels, *arguments, "-scans", file.name)


def jpegtran(file, *arguments):
    return subprocess.run(["jpegtran", *arguments], input=file, stdout=subprocess.PIPE, check=True).stdout


def markers(file):
    """(offset, marker, length with the marker) of everything before the first scan's data."""
    found, at = [], 2
    while True:
        length = 2 + int.from_bytes(file[at + 2 : at + 4], "big")
        found.append((at, file[at + 1], length))
        if file[at + 1] == 0xDA:
            return found
        at += length


def without(file, marker):
    for at, kind, length in reversed(markers(file)):
        if kind == marker:
            file = file[:at] + file[at + length :]
    return file


def adobe(transform):
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])


def after_start(file, inserted):
    return file[:2] + inserted + file[2:]


def after_jfif(file, inserted):
    at, kind, length = markers(file)[0]
    assert kind == 0xE0
    return file[: at + length] + inserted + file[at + length :]


def with_ids(file, ids):
    """The components called otherwise, in the frame and in its scans."""
    file = bytearray(file)
    renamed = {}
    for at, kind, length in markers(bytes(file)):
        if kind in (0xC0, 0xC1, 0xC2):
            for number, new in enumerate(ids):
                renamed[file[at + 10 + 3 * number]] = new
                file[at + 10 + 3 * number] = new
        if kind == 0xDA:
            for number in range(file[at + 4]):
                file[at + 5 + 2 * number] = renamed[file[at + 5 + 2 * number]]
    return bytes(file)


def of_sampling(levels, sampling):
    """Files of one sampling in every mode: entropy coding, scans, restarts, tables, colour markers, surroundings."""
    base = ["-sample", sampling, "-quality", "88"]
    plain = cjpeg(levels, *base)
    bare = without(plain, 0xE0)
    return {
        "baseline": plain,
        "optimized": cjpeg(levels, *base, "-optimize"),
        "progressive": cjpeg(levels, *base, "-progressive"),
        "arithmetic": cjpeg(levels, *base, "-arithmetic"),
        "arithmetic-progressive": cjpeg(levels, *base, "-arithmetic", "-progressive"),
        "restart-blocks": cjpeg(levels, *base, "-restart", "1B"),
        "restart-rows-progressive": cjpeg(levels, *base, "-restart", "1", "-progressive"),
        "planes": cjpeg(levels, *base, scans="planes"),
        "luma-apart": cjpeg(levels, *base, scans="luma-apart"),
        "spectral": cjpeg(levels, *base, scans="spectral"),
        "unfinished": cjpeg(levels, *base, scans="unfinished"),
        "coarse": cjpeg(levels, "-sample", sampling, "-quality", "4"),
        "fine": cjpeg(levels, "-sample", sampling, "-quality", "100"),
        "rgb-adobe": after_start(bare, adobe(0)),
        "jfif-adobe-0": after_jfif(plain, adobe(0)),
        "rgb-ids": with_ids(bare, b"RGB"),
        "trailer": plain + b"\xff\xd8 more of the camera's \xff\xda\x00" * 3,
    }


def singles():
    """JPEG files of kinds of their own."""
    levels = picture(37, 53, 1)
    plain = cjpeg(levels, "-quality", "90")
    bare = without(plain, 0xE0)
    thumbnail = cjpeg(picture(8, 8, 2), "-quality", "50")
    cmyk = saved(Image.fromarray(levels).convert("CMYK"), "JPEG", quality=90)
    at = cmyk.index(b"Adobe") + 11
    grey = levels[..., 1]
    inner = bytes.fromhex("ffe1") + (len(thumbnail) + 8).to_bytes(2, "big") + b"Exif\0\0" + thumbnail
    return {
        "grey": cjpeg(grey, "-quality", "90"),
        "grey-2x2-progressive": cjpeg(grey, "-quality", "90", "-sample", "2x2", "-progressive"),
        "grey-arithmetic": cjpeg(grey, "-quality", "90", "-arithmetic"),
        "cmyk": cmyk,
        "cmyk-progressive": jpegtran(cmyk, "-progressive", "-copy", "all"),
        "ycck": cmyk[:at] + b"\x02" + cmyk[at + 1 :],
        "cmyk-without-adobe": without(cmyk, 0xEE),
        "ycbcr-adobe": after_start(bare, adobe(1)),
        "ycbcr-adobe-2": after_start(bare, adobe(2)),
        "no-marker": bare,
        "odd-ids": with_ids(bare, bytes([7, 0, 200])),
        "ids-0": with_ids(bare, bytes([0, 1, 2])),
        "adobe-then-jfif": after_start(plain, adobe(0)),
        "thumbnail": after_jfif(plain, inner),
        "fill-bytes": plain[:2] + b"\xff\xff\xff" + plain[2:],
        "wide": cjpeg(np.repeat(picture(1, 1025, 3), 16, axis=1)[:, :16385], "-quality", "20"),
        "rgb-cjpeg": cjpeg(levels, "-quality", "90", "-rgb"),
    }


def altered():
    """JPEG files with something wrong: what is made of them is up to libjpeg's warnings and Pillow's rules."""
    levels = picture(64, 48, 4)
    plain = cjpeg(levels, "-quality", "90", "-restart", "1")
    progressive = cjpeg(levels, "-quality", "90", "-progressive")
    scan = markers(plain)[-1][0] + 14
    at = plain.index(b"\xff\xd1")
    sof = next(at for at, kind, _ in markers(plain) if kind == 0xC0)
    files = {
        "end-missing": plain[:-2],
        "half": plain[: len(plain) // 2],
        "progressive-half": progressive[: len(progressive) // 2],
        "progressive-end-missing": progressive[:-2],
        "restart-missing": plain[:at] + plain[at + 2 :],
        "restart-out-of-order": plain[: at + 1] + b"\xd5" + plain[at + 2 :],
        "bytes-before-marker": plain[:at] + b"\x12\x34\x56" + plain[at:],
        "zeros": plain[: scan + 400] + bytes(60) + plain[scan + 460 :],
        "12-bit": plain[: sof + 4] + b"\x0c" + plain[sof + 5 :],
        "no-height": plain[: sof + 5] + b"\0\0" + plain[sof + 7 :],
        "two-components": two_components(),
        "too-large": plain[: sof + 5] + b"\xff\x00\xff\x00" + plain[sof + 9 :],
        "header-alone": plain[:scan],
        "garbage-after-rows": plain[:-2] + b"\xff\xe1\xff\xff" + plain[-2:],
    }
    for number in range(12):
        hit = scan + (number * 997) % (len(plain) - scan - 4)
        files[f"bit-{number}"] = plain[:hit] + bytes([plain[hit] ^ 1 << number % 8]) + plain[hit + 1 :]
        hit = 700 + (number * 991) % (len(progressive) - 704)
        files[f"progressive-bit-{number}"] = (
            progressive[:hit] + bytes([progressive[hit] ^ 1 << number % 8]) + progressive[hit + 1 :]
        )
    return files


def two_components():
    """A frame of luma and one chroma."""
    plain = cjpeg(picture(8, 8, 5), "-sample", "1x1", "-quality", "50")
    file = bytearray(plain)
    for at, kind, length in reversed(markers(plain)):
        if kind == 0xC0:
            file[at : at + length] = b"\xff\xc0\x00\x0e\x08\x00\x08\x00\x08\x02" + plain[at + 10 : at + 16]
        if kind == 0xDA:
            file[at : at + length] = b"\xff\xda\x00\x0a\x02" + plain[at + 5 : at + 9] + b"\x00\x3f\x00"
    return bytes(file)


def saved(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png(levels, depth, colour):
    """A PNG file without a filter: samples of 8 or 16 bits, (H, W) or (H, W, S)."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    height, width = levels.shape[:2]
    rows = levels.astype(">u2" if depth == 16 else np.uint8).reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, colour, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def bmp(size, bits, rows, compression=0, masks=b"", palette=b"", top_down=False):
    """A BMP file with the header of Windows 3."""
    height, width = size
    header = (40).to_bytes(4, "little") + width.to_bytes(4, "little")
    header += (-height if top_down else height).to_bytes(4, "little", signed=True) + b"\1\0" + bits.to_bytes(2, "little")
    header += compression.to_bytes(4, "little") + len(rows).to_bytes(4, "little") + bytes(8)
    header += (len(palette) // 4).to_bytes(4, "little") + bytes(4) + masks + palette
    start = 14 + len(header)
    return b"BM" + (start + len(rows)).to_bytes(4, "little") + bytes(4) + start.to_bytes(4, "little") + header + rows


def tiff(levels, photometric, order="<", tags=()):
    """A TIFF file of one strip, (H, W) or (H, W, S), in the order of bytes that numpy calls "<" or ">"."""
    height, width, samples = *levels.shape[:2], 1 if levels.ndim == 2 else levels.shape[2]
    bits = 8 * levels.dtype.itemsize
    data = levels.astype(levels.dtype.newbyteorder(order)).tobytes()
    fields = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: samples, 278: height}
    fields |= {279: len(data), **dict(tags)}
    pack = lambda number, size: int(number).to_bytes(size, "little" if order == "<" else "big")
    entries, extra, after = b"", b"", 8 + len(data) + 2 + 12 * len(fields) + 4
    for tag, value in sorted(fields.items()):
        values = [value] * samples if tag == 258 else [value]
        packed = b"".join(pack(value, 2) for value in values)
        if len(packed) > 4:
            packed, extra = pack(after + len(extra), 4), extra + packed
        entries += pack(tag, 2) + pack(3, 2) + pack(len(values), 4) + packed.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + pack(8 + len(data), 4) + data + pack(len(fields), 2) + entries + bytes(4) + extra


def others():
    """PNG, BMP, GIF, TIFF and WebP files."""
    levels = picture(21, 30, 6)
    image, grey = Image.fromarray(levels), Image.fromarray(levels[..., 0])
    alpha = Image.merge("RGBA", (*image.split(), grey))
    palette = image.quantize(20)
    wide = np.arange(21 * 30 * 4, dtype=np.uint32).reshape(21, 30, 4) * 7919 % 65536
    words = (np.arange(20 * 30, dtype=np.uint32) * 7919 % 65536).astype("<u2").tobytes()
    hole = palette.copy()
    hole.info["transparency"] = 3
    files = {
        "grey-16.png": png(wide[..., 0], 16, 0),
        "grey-16-small.png": png(wide[..., 0] % 300, 16, 0),
        "rgb-16.png": png(wide[..., :3], 16, 2),
        "grey-alpha-16.png": png(wide[..., :2], 16, 4),
        "rgba-16.png": png(wide, 16, 6),
        "rgb.png": saved(image, "PNG"),
        "rgba.png": saved(alpha, "PNG"),
        "grey-alpha.png": saved(alpha.convert("LA"), "PNG"),
        "palette.png": saved(palette, "PNG", bits=8),
        "palette-hole.png": saved(hole, "PNG", transparency=3),
        "bilevel.png": saved(image.convert("1"), "PNG"),
        "rgb.bmp": saved(image, "BMP"),
        "rgba.bmp": saved(alpha, "BMP"),
        "grey.bmp": saved(grey, "BMP"),
        "bilevel.bmp": saved(image.convert("1"), "BMP"),
        "palette.bmp": saved(palette, "BMP"),
        "palette-4.bmp": bmp((4, 8), 4, bytes(range(0, 256, 16)), palette=bytes(range(64))),
        "555.bmp": bmp((20, 30), 16, words),
        "565.bmp": bmp((20, 30), 16, words, 3, b"\0\xf8\0\0\xe0\x07\0\0\x1f\0\0\0"),
        "555-masks.bmp": bmp((20, 30), 16, words, 3, b"\0\x7c\0\0\xe0\x03\0\0\x1f\0\0\0"),
        "32.bmp": bmp((20, 15), 32, words),
        "32-masks.bmp": bmp((20, 15), 32, words, 3, b"\0\0\xff\0\0\xff\0\0\xff\0\0\0"),
        "top-down.bmp": bmp((20, 8), 24, words[:480], top_down=True),
        "rle8.bmp": bmp((2, 6), 8, b"\x03\x01\x00\x03\x02\x03\x04\x00\x00\x00\x06\x05\x00\x00\x00\x01", 1, palette=bytes(range(24))),
        "rle4.bmp": bmp((2, 6), 4, b"\x04\x12\x02\x33\x00\x00\x06\x45\x00\x00\x00\x01", 2, palette=bytes(range(24))),
        "palette.gif": saved(palette, "GIF"),
        "grey.gif": saved(grey, "GIF"),
        "rgb.gif": saved(image, "GIF"),
        "hole.gif": saved(palette, "GIF", transparency=3),
        "plain-rows.gif": saved(palette, "GIF", interlace=0),
        "animated.gif": saved(palette, "GIF", save_all=True, append_images=[palette.rotate(180)], transparency=3),
        "lossless.webp": saved(image, "WEBP", lossless=True),
        "lossless-alpha.webp": saved(alpha, "WEBP", lossless=True, exact=True),
        "animated-lossless.webp": saved(image, "WEBP", lossless=True, save_all=True, append_images=[image.rotate(180)]),
        "lossy.webp": saved(image, "WEBP", quality=80),
        "lossy-alpha.webp": saved(alpha, "WEBP", quality=80),
        "animated-lossy.webp": saved(image, "WEBP", quality=60, save_all=True, append_images=[image.rotate(180)]),
    }
    left = bytearray(saved(palette, "GIF"))
    screen = left.index(b"GIF8") + 6
    left[screen : screen + 4] = (40).to_bytes(2, "little") + (25).to_bytes(2, "little")
    files["small-frame.gif"] = bytes(left)
    for mode in ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"]:
        of_mode = {"P": palette, "RGBA": alpha, "LA": alpha.convert("LA")}.get(mode)
        if mode == "I;16":
            of_mode = Image.fromarray(wide[..., 0].astype(np.uint16))
        name = mode.lower().replace(";", "-")
        if mode == "LAB":
            of_mode = Image.frombytes("LAB", image.size, levels.tobytes())
        files[f"{name}.tiff"] = saved(of_mode or image.convert(mode), "TIFF")
    for compression in ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma"]:
        files[f"{compression}.tiff"] = saved(image, "TIFF", compression=compression)
    files["group4.tiff"] = saved(image.convert("1"), "TIFF", compression="group4")
    files["predictor.tiff"] = saved(image, "TIFF", compression="tiff_lzw", tiffinfo={317: 2})
    for orientation in range(2, 9):
        files[f"orientation-{orientation}.tiff"] = saved(image, "TIFF", tiffinfo={274: orientation})
    files["pages.tiff"] = saved(image, "TIFF", save_all=True, append_images=[grey])
    files["big.tiff"] = saved(image, "TIFF", big_tiff=True)
    files["big-endian.tiff"] = tiff(levels, 2, ">")
    files["grey-16-low-first.tiff"] = tiff(wide[..., 0].astype(np.uint16) % 300, 1)
    files["grey-16-high-first.tiff"] = tiff(wide[..., 0].astype(np.uint16) % 300, 1, ">")
    files["white-is-0.tiff"] = tiff(levels[..., 0], 0)
    files["rgb-16.tiff"] = tiff(wide[..., :3].astype(np.uint16), 2)
    files["multiplied.tiff"] = tiff(np.asarray(alpha), 2, tags={338: 1}.items())
    files["alpha.tiff"] = tiff(np.asarray(alpha), 2, tags={338: 2}.items())
    files["fourth.tiff"] = tiff(np.asarray(alpha), 2, tags={338: 0}.items())
    inks = np.random.default_rng(7).integers(0, 256, (100, 100, 4), np.uint8)
    files["inks.tiff"] = tiff(inks, 5)
    files["short.bmp"] = files["rgb.bmp"][:-40]
    files["short.gif"] = files["palette.gif"][:200]
    files["short.tiff"] = files["rgb.tiff"][:300]
    files["short.webp"] = files["lossless.webp"][:-20]
    files["large.bmp"] = files["rgb.bmp"][:18] + b"\x60\xea\0\0\x60\xea\0\0" + files["rgb.bmp"][26:]
    return files
