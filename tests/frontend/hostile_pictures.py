"""Files that mean harm, or were harmed, made by code; and a few that only look so."""

from __future__ import annotations

import functools
import io
import random
import struct
import zipfile
import zlib

import pillow_heif
from pictures import exif, file_of, noise, soft
from PIL import Image, PngImagePlugin

pillow_heif.register_heif_opener()
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "HEIF")


def _zip() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("run.js", "alert(1)")
    return target.getvalue()


ZIP = _zip()
SCRIPT = b"<script>alert('ours')</script>"


@functools.cache
def good(format_: str, width: int = 48, height: int = 32) -> bytes:
    """A small picture of a format, with what formats can have beside pixels."""
    options = {"exif": exif(6, place=True)} if format_ != "GIF" else {"comment": b"text"}
    return file_of(soft(width, height), format_, **options)


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2, pixels: bytes = b"") -> bytes:
    """A PNG of parts."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + data


def with_jpeg_size(width: int, height: int) -> bytes:
    """A JPEG whose frame header lies."""
    data = bytearray(file_of(soft(48, 32)))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def with_gif_size(width: int, height: int) -> bytes:
    data = bytearray(file_of(soft(48, 32), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def with_webp_size(width: int, height: int) -> bytes:
    data = bytearray(file_of(soft(48, 32).convert("RGBA"), "WEBP", exif=exif(1)))
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def tiff(*entries: tuple[int, int, int, int], following: int = 0, tail: bytes = b"") -> bytes:
    """A TIFF of tags: number, type, count, value."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + struct.pack("<I", following) + tail


def scans_without_end(count: int) -> bytes:
    """A progressive JPEG whose last scan, of few bytes for many pixels, comes again and again."""
    data = file_of(Image.new("RGB", (4000, 4000), (90, 90, 90)), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


def lies() -> dict[str, bytes]:
    """Headers that promise what nobody should decode."""
    side = [
        (256, 4, 1, 2**31 - 1),
        (257, 4, 1, 2**31 - 1),
        (258, 3, 1, 8),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (279, 4, 1, 9),
    ]
    one = [(256, 4, 1, 40), (257, 4, 1, 30), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    return {
        "png of 2^31 by 2^31": png(2**31 - 1, 2**31 - 1),
        "png of 50,000 by 50,000": png(50_000, 50_000, depth=1, colour=0, pixels=b"\0" * 100_000),
        "png of 0 by 0": png(0, 0),
        "png of 1 by 2^31": png(1, 2**31 - 1),
        "png within bounds, of few bytes": png(9_000, 9_000, depth=1, colour=0, pixels=b"\0" * 10_000),
        "png of nothing": png(40, 30),
        "png with a text of 1 GB": png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8), 9) * 3)),
        "png with texts": png(8, 8, *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6), 9)) for _ in range(80)]),
        "png with a profile of 100 MB": png(8, 8, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**8), 9))),
        "png of many empty chunks": png(8, 8, chunk(b"aaAa", b"") * 100_000),
        "png of a wrong colour type": png(8, 8, colour=5),
        "png of an impossible depth": png(8, 8, depth=16, colour=3),
        "jpeg of 65,500 by 65,500": with_jpeg_size(65_500, 65_500),
        "jpeg of 9,000 by 9,000 without pixels": with_jpeg_size(9_000, 9_000),
        "jpeg of 0 by 0": with_jpeg_size(0, 0),
        "jpeg of segments alone": b"\xff\xd8" + b"\xff\xe5\0\2" * 500_000 + b"\xff\xd9",
        "jpeg of fill bytes": b"\xff\xd8" + b"\xff" * 1_000_000,
        "jpeg of two starts": b"\xff\xd8\xff\xd8" + good("JPEG"),
        "gif of 65,535 by 65,535": with_gif_size(65_535, 65_535),
        "gif of 0 by 0": with_gif_size(0, 0),
        "webp of 16,383 by 16,383": with_webp_size(16_383, 16_383),
        "webp of 2^24 by 2^24": with_webp_size(2**24, 2**24),
        "tiff of 2^31 by 2^31": tiff(*side),
        "tiff of a directory that follows itself": tiff(*one, (273, 4, 1, 8), (279, 4, 1, 1200), following=8),
        "tiff of a strip behind its end": tiff(*one, (273, 4, 1, 2**31), (279, 4, 1, 1200)),
        "tiff of a strip of 4 GB": tiff(*one, (273, 4, 1, 8), (279, 4, 1, 2**32 - 1)),
        "tiff of 2^32 strips": tiff(*one, (273, 4, 2**32 - 1, 8), (279, 4, 2**32 - 1, 8)),
        "tiff of wrong types": tiff((256, 2, 4, 40), (257, 12, 9, 30), (258, 99, 1, 1), (262, 3, 1, 77)),
        "tiff without tags": tiff(),
        "tiff of no image": b"II*\0\0\0\0\0",
    }


def wrong_types() -> dict[str, bytes]:
    """What is no photo, or a picture of a kind that is not taken."""
    image = soft(40, 30)
    return {
        "nothing": b"",
        "one zero": b"\0",
        "zeros": bytes(100_000),
        "ones": b"\xff" * 100_000,
        "noise": random.Random(1).randbytes(100_000),
        "text": b"a photo of a bridge\n" * 100,
        "html": b"<!doctype html><title>x</title>" + SCRIPT,
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'>" + SCRIPT + b"</svg>",
        "svg of entities": b"<!DOCTYPE x [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'>]><svg>&b;</svg>",
        "zip": ZIP,
        "pdf": file_of(image, "PDF"),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
        "bmp": file_of(image, "BMP"),
        "ico": file_of(image, "ICO"),
        "tga": file_of(image, "TGA"),
        "ppm": file_of(image, "PPM"),
        "jpeg 2000 by its head": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
        "psd": b"8BPS\0\1" + bytes(100),
        "elf": b"\x7fELF" + bytes(100),
        "mp4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(100),
        "heic by its head": b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(100),
        "avif by its head": b"\0\0\0\x18ftypavif\0\0\0\0avifmif1" + bytes(100),
        "webp by its head": b"RIFF\x64\0\0\0WEBPVP8 " + bytes(100),
    }


def polyglots() -> dict[str, bytes]:
    """Good pictures that are something else, too."""
    comment = b"\xff\xfe" + struct.pack(">H", len(SCRIPT) + 2) + SCRIPT
    jpeg = good("JPEG")
    texts = PngImagePlugin.PngInfo()
    texts.add_text("x", SCRIPT.decode())
    return {
        "jpeg and zip": jpeg + ZIP,
        "jpeg and html": jpeg[:2] + comment + jpeg[2:] + SCRIPT,
        "png and zip": good("PNG") + ZIP,
        "png and html": file_of(soft(48, 32), "PNG", pnginfo=texts) + SCRIPT,
        "gif and script": file_of(soft(48, 32), "GIF", comment=SCRIPT) + SCRIPT,
        "webp and zip": good("WEBP") + ZIP,
        "tiff and html": good("TIFF") + SCRIPT,
    }


def truncated(format_: str, places: int = 12) -> dict[str, bytes]:
    """A picture cut off at many places; not at its last bytes, which formats may do without."""
    whole = file_of(noise(60, 40), format_)
    cuts = [len(whole) * at // (places + 1) for at in range(1, places + 1)]
    return {f"{format_} cut off at {at}": whole[:at] for at in cuts}


def odd_ones() -> dict[str, bytes]:
    """Rare, and meant well: they may be taken or refused."""
    frames = [Image.new("P", (30, 20), at) for at in range(1, 250)]
    return {
        "gif of 250 frames": file_of(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=0),
        "png of one pixel": file_of(Image.new("RGB", (1, 1)), "PNG"),
        "png of 1 by 60,000": file_of(Image.new("L", (1, 60_000)), "PNG"),
        "png of 60,000 by 1, showing through": file_of(Image.new("RGBA", (60_000, 1)), "PNG"),
        "jpeg of 60,000 by 1": file_of(Image.new("RGB", (60_000, 1))),
        "cmyk": file_of(noise(60, 40, mode="CMYK")),
    }


def broken_exif() -> dict[str, bytes]:
    """Good pictures whose camera wrote nonsense: they are taken all the same."""

    def entry(tag: int, kind: int, count: int, value: int) -> bytes:
        return struct.pack("<HHII", tag, kind, count, value)

    def directory(*entries: bytes, following: int = 0, tail: bytes = b"") -> bytes:
        head = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
        return head + b"".join(entries) + struct.pack("<I", following) + tail

    found = {
        "of itself": directory(entry(0x8769, 4, 1, 8), entry(0x8825, 4, 1, 8), following=8),
        "outside": directory(entry(0x8769, 4, 1, 2**31), entry(0x8825, 4, 1, 2**32 - 1)),
        "of 2^32 values": directory(entry(0x0112, 3, 2**32 - 1, 8), entry(0x9003, 2, 2**32 - 1, 8)),
        "of wrong types": directory(entry(0x0112, 2, 4, 6), entry(0x9003, 12, 9, 8), entry(0x010F, 99, 1, 1)),
        "of an orientation of 77": directory(entry(0x0112, 3, 1, 77)),
        "of a place over zero": directory(
            entry(0x8825, 4, 1, 26), tail=struct.pack("<H", 2) + entry(1, 2, 2, 78) + entry(2, 5, 3, 60) + bytes(40)
        ),
        "cut off": b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        "of zeros": b"Exif\0\0" + bytes(60_000),
        "of noise": b"Exif\0\0" + random.Random(2).randbytes(60_000),
        "that is a picture": b"Exif\0\0" + good("JPEG"),
        "as XMP": b"http://ns.adobe.com/xap/1.0/\0<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a '&a;'>]><x>&a;",
    }
    whole = good("JPEG")
    segments = {name: b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body for name, body in found.items()}
    return {f"jpeg with exif {name}": whole[:2] + one + whole[2:] for name, one in segments.items()} | {
        f"png with exif {name}": png(8, 8, chunk(b"eXIf", body[6:]), pixels=bytes(8 * 25))
        for name, body in found.items()
        if body.startswith(b"Exif")
    }
