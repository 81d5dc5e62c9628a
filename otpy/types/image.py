"""`Image`: a picture as a field. Pure."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from otpy.lm import Media, Part
from otpy.types.media import Medium

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Image"]


class Image(Medium):
    r"""A picture: PNG, JPEG, GIF, WebP and whatever else its bytes show it to be.

    Args:
        source: Its bytes, an address, a `data:` URL, or an image of Pillow's (which becomes a PNG).
        fields: `allow_private=True`, if the address may be one of this machine or of a private network;
            `detail`, how closely the model is to look (`"low"`, `"high"`, `"auto"`), where the provider knows that;
            `media_type`, for an address whose ending does not tell.

    Raises:
        SignatureError: If it is none of these; no file and no address is opened to find out.

    Example:
        >>> from otpy.types import Image
        >>> Image(b"\x89PNG\r\n\x1a\n......")
        Image(14 bytes, image/png)
        >>> Image("https://example.org/cat.jpg").parts()
        (Media('image', 'image/jpeg', https://example.org/cat.jpg),)
        >>> Image("cat.jpg")
        Traceback (most recent call last):
        otpy.errors.SignatureError: Image: 'cat.jpg' is no https:// address; a file is read by Image.from_path(…)
    """

    kind: ClassVar[Literal["image", "audio", "file"]] = "image"
    max_bytes: ClassVar[int] = 20 * 2**20

    detail: Literal["low", "high", "auto"] | None = None

    if TYPE_CHECKING:

        def __init__(  # noqa: D107 - as its base does, for the checkers
            self, source: object, /, *, allow_private: bool = ..., media_type: str = ...,
            detail: Literal["low", "high", "auto"] | None = ...,
        ) -> None: ...  # fmt: skip

    def parts(self) -> tuple[Part, ...]:
        """Return the picture as one part of a message."""
        return (Media(self.kind, self.media_type, self.data, self.url, detail=self.detail),)

    @classmethod
    def _read(cls, source: object) -> Mapping[str, Any] | None:
        picture: Any = source
        if type(picture).__module__.startswith("PIL."):  # so that Pillow is not needed where it is not used
            file = io.BytesIO()
            picture.save(file, format="PNG")
            return {"data": file.getvalue()}
        return super()._read(source)
