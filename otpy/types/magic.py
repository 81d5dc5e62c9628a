"""What bytes are, by how they begin: names and declarations may lie, the first bytes are what a decoder sees. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["ENDINGS", "media_type_of"]

_STARTS: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"ID3", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"\x1aE\xdf\xa3", "audio/webm"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
)
_INSIDE: Final = {
    (b"RIFF", b"WEBP"): "image/webp",
    (b"RIFF", b"WAVE"): "audio/wav",
    (b"FORM", b"AIFF"): "audio/aiff",
}
_BRANDS: Final = {
    **dict.fromkeys((b"heic", b"heix", b"mif1"), "image/heic"),
    b"avif": "image/avif",
    **dict.fromkeys((b"M4A ", b"M4B ", b"isom", b"mp41", b"mp42", b"dash"), "audio/mp4"),
}

ENDINGS: Final = {
    "png": "image/png",
    **dict.fromkeys(("jpg", "jpeg"), "image/jpeg"),
    **{ending: f"image/{ending}" for ending in ("gif", "webp", "bmp", "tiff", "heic", "avif")},
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    **{ending: f"audio/{ending}" for ending in ("wav", "flac", "ogg", "webm", "aiff", "aac")},
    **{ending: f"application/{ending}" for ending in ("pdf", "json", "zip", "xml")},
    "txt": "text/plain",
    "md": "text/markdown",
    **{ending: f"text/{ending}" for ending in ("html", "csv")},
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
}
"""MIME types by the endings of names: of what is not at hand (an address), or has no mark of its own (texts)."""


def media_type_of(data: bytes) -> str:
    r"""Return the MIME type of bytes that begin as a known image, sound or document does; else nothing.

    Args:
        data: The bytes, or the first 16 of them.

    Example:
        >>> from otpy.types.magic import media_type_of
        >>> media_type_of(b"\x89PNG\r\n\x1a\n..."), media_type_of(b"<html>")
        ('image/png', '')
    """
    for start, kind in _STARTS:
        if data.startswith(start):
            return kind
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "")
    if kind := _INSIDE.get((data[:4], data[8:12]), ""):
        return kind
    if data[:1] == b"\xff":  # eleven bits that begin a frame, then its version and layer
        second = data[1] if len(data) > 1 else 0
        if second & 0xF6 == 0xF0:
            return "audio/aac"
        if second & 0xE6 == 0xE2:
            return "audio/mpeg"
    return ""
