"""Picture files as people send them, and as those do who mean harm: made here, none is kept in the repository."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

MARK = b"<script>alert('who sent this')</script>"
"""What must not be found in anything that the box keeps."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def corners(width: int = 64, height: int = 48) -> Image.Image:
    """Four corners of four colours, so that a turned picture is told from one that is not."""
    picture = Image.new("RGB", (width, height), (255, 0, 0))
    picture.paste((0, 255, 0), (width // 2, 0, width, height // 2))
    picture.paste((0, 0, 255), (0, height // 2, width // 2, height))
    picture.paste((40, 40, 40), (width // 2, height // 2, width, height))
    return picture


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The file of a picture."""
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG, its sum right."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colours: int = 2) -> bytes:
    """A PNG of this size by its header, whatever is in it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))
    return SIGNATURE + header + b"".join(chunks) + chunk(b"IEND", b"")


def chunk_names(content: bytes) -> list[bytes]:
    """The chunks of a PNG in their order; fails where it does not end with its last one."""
    names, at = list[bytes](), len(SIGNATURE)
    while at < len(content):
        names.append(content[at + 4 : at + 8])
        at += 12 + int.from_bytes(content[at : at + 4], "big")
    assert at == len(content), "something follows the picture"
    return names


def turned(kind: str, orientation: int) -> bytes:
    """The corners, with EXIF that says how a viewer is to turn them."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = MARK.decode()
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    return encoded(corners(), kind, exif=exif, **options)


def animated(kind: str) -> bytes:
    """Three frames."""
    frames = [Image.new("RGB", (64, 48), (80 * number, 0, 0)) for number in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, loop=0)


def with_everything(kind: str) -> bytes:
    """EXIF, XMP, comments, an ICC profile and what follows the file's end, each with the mark in it."""
    exif = Image.Exif()
    exif[0x010E] = MARK.decode()
    options: dict[str, Any] = {"exif": exif, "icc_profile": srgb_profile() + MARK}
    if kind == "PNG":
        info = PngInfo()
        info.add_text("Comment", MARK.decode())
        info.add_itxt("XML:com.adobe.xmp", MARK.decode())
        info.add(b"prVt", MARK)
        options["pnginfo"] = info
    elif kind == "JPEG":
        options |= {"comment": MARK, "xmp": MARK}
    else:
        options |= {"xmp": MARK, "lossless": True}
    return encoded(corners(), kind, **options) + b"<html>" + MARK + b"</html>"


def srgb_profile() -> bytes:
    """An ICC profile."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def declared(content: bytes, width: int, height: int) -> bytes:
    """A baseline JPEG whose header tells of another size."""
    at = content.index(b"\xff\xc0")
    return content[: at + 5] + struct.pack(">HH", height, width) + content[at + 9 :]


def webp_canvas(width: int, height: int) -> bytes:
    """An extended WebP that is nothing but the header of a canvas of this size."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + sides
    return b"RIFF" + struct.pack("<I", len(body)) + body


def deflated_zeros(length: int) -> bytes:
    """So many zeros in a thousandth of the bytes."""
    packer, step = zlib.compressobj(9), bytes(1 << 20)
    parts = [packer.compress(step) for _ in range(length >> 20)]
    return b"".join([*parts, packer.flush()])


def damaging() -> dict[str, tuple[Callable[[], bytes], str]]:
    """Files that begin as a picture and must not become one, made when they are wanted, each with a word of why."""
    photo, grey = encoded(corners(), "JPEG"), encoded(corners(), "PNG")
    webp = encoded(corners(256, 256), "WEBP")
    scan = photo[photo.index(b"\xff\xda") : -2]
    dot = chunk(b"IDAT", zlib.compress(b"\0"))
    pixels, damaged, costly, small = "million pixels", "damaged", "too much time", "too small"

    def within(inserted: Callable[[], bytes]) -> Callable[[], bytes]:
        return lambda: grey[:33] + inserted() + grey[33:]

    return {
        "a PNG of 60000 x 60000": (lambda: png(60_000, 60_000, dot), pixels),
        "a PNG of the largest size there is": (lambda: png(2**31 - 1, 2**31 - 1), pixels),
        "a PNG one row above the bound": (lambda: png(8_000, 5_001, dot), pixels),
        "a JPEG of 65500 x 65500": (lambda: declared(photo, 65_500, 65_500), pixels),
        "a WebP of 16383 x 16383": (lambda: webp_canvas(16_383, 16_383), pixels),
        "a WebP of 2**24 x 2**24": (lambda: webp_canvas(2**24, 2**24), pixels),
        "a PNG of a text that inflates": (
            within(lambda: chunk(b"zTXt", b"Comment\0\0" + deflated_zeros(64 << 20))),
            damaged,
        ),
        "a PNG of a profile that inflates": (
            within(lambda: chunk(b"iCCP", b"icc\0\0" + deflated_zeros(64 << 20))),
            damaged,
        ),
        "a PNG of very many chunks": (within(lambda: chunk(b"IDAT", b"") * 100_000), costly),
        "a JPEG of very many scans": (lambda: photo[:-2] + scan * 1_000 + photo[-2:], costly),
        "a JPEG of very many markers": (lambda: photo[:2] + b"\xff\xe5\x00\x02" * (4 << 20) + photo[2:], costly),
        "a PNG that is cut short": (lambda: grey[:-40], damaged),
        "a PNG without pixels": (lambda: png(64, 64), damaged),
        "a PNG of no size": (lambda: png(0, 0, dot), damaged),
        "a PNG whose header is not of its sum": (lambda: grey[:30] + bytes([grey[30] ^ 1]) + grey[31:], damaged),
        "a PNG's signature": (lambda: SIGNATURE, damaged),
        "a JPEG that is cut short": (lambda: photo[: len(photo) // 2], damaged),
        "a JPEG's signature": (lambda: b"\xff\xd8\xff", damaged),
        "a WebP that is cut short": (lambda: webp[: len(webp) // 2], damaged),
        "a WebP's signature": (lambda: b"RIFF\xff\xff\xff\x7fWEBP", damaged),
        "HTML behind a PNG's signature": (lambda: SIGNATURE + b"<html>" + MARK, damaged),
        "a PNG that moves": (lambda: animated("PNG"), "animated"),
        "a WebP that moves": (lambda: animated("WEBP"), "animated"),
        "a line": (lambda: encoded(Image.new("RGB", (4_000, 8))), small),
        "a line that becomes one": (lambda: encoded(Image.new("L", (40_000, 100))), small),
        "a dot": (lambda: encoded(Image.new("RGB", (1, 1)), "JPEG"), small),
    }


def strange() -> dict[str, bytes]:
    """Files that are no picture that is taken, whatever they are called."""
    return {
        "GIF": encoded(corners(), "GIF"),
        "moving GIF": animated("GIF"),
        "BMP": encoded(corners(), "BMP"),
        "TIFF": encoded(corners(), "TIFF"),
        "ICO": encoded(corners(), "ICO"),
        "PPM": encoded(corners(), "PPM"),
        "EPS": encoded(corners(), "EPS"),
        "PDF": encoded(corners(), "PDF"),
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        "HTML": b"<!doctype html>" + MARK,
        "HTML before a PNG": b"<html>" + MARK + encoded(corners()),
        "a playlist": b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n",
        "ImageMagick's language": b"push graphic-context\nimage over 0,0 0,0 'https://example.com/x'\n",
        "AVI": b"RIFF\x00\x01\x00\x00AVI LIST",
        "a PNG's signature, half": SIGNATURE[:4],
        "one byte": b"\0",
        "zeros": bytes(100_000),
    }
