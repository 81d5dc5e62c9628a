"""`Audio`: a sound as a field. Pure."""

from __future__ import annotations

import io
import wave
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

from otpy.errors import SignatureError
from otpy.types.media import Medium

__all__ = ["Audio"]


class Audio(Medium):
    r"""A sound: WAV, MP3, FLAC, Ogg, AAC and whatever else its bytes show it to be.

    Args:
        source: Its bytes, an address, or a `data:` URL.
        fields: `allow_private=True`, if the address may be one of this machine or of a private network;
            `media_type`, for an address whose ending does not tell.

    Raises:
        SignatureError: If it is none of these; no file and no address is opened to find out.

    Example:
        >>> from otpy.types import Audio
        >>> Audio(b"fLaC....")
        Audio(8 bytes, audio/flac)
    """

    kind: ClassVar[Literal["image", "audio", "file"]] = "audio"
    max_bytes: ClassVar[int] = 25 * 2**20

    if TYPE_CHECKING:

        def __init__(  # noqa: D107 - as its base does, for the checkers
            self, source: bytes | str, /, *, allow_private: bool = ..., media_type: str = ...
        ) -> None: ...

    @classmethod
    def from_array(cls, samples: Any, sampling_rate: int) -> Self:
        """Make a WAV of 16 bits of an array of numpy's.

        Args:
            samples: Frames, or frames x channels; floats of -1 to 1, or 16-bit integers.
            sampling_rate: Frames per second.

        Raises:
            SignatureError: If it is no such array.
        """
        kind, shape = getattr(samples, "dtype", None), cast("tuple[int, ...]", getattr(samples, "shape", ()))
        if kind is None or len(shape) not in {1, 2} or 0 in shape or not (kind.kind == "f" or kind.name == "int16"):
            what = type(samples).__name__ if kind is None else f"{kind} of shape {shape}"
            raise SignatureError(f"Audio.from_array: an array of floats or int16, frames x channels, not {what}")
        whole = samples if kind.kind == "i" else (samples.clip(-1, 1) * 32767).round()
        file = io.BytesIO()
        with wave.open(file, "wb") as sound:
            sound.setnchannels(1 if len(shape) == 1 else shape[1])
            sound.setsampwidth(2)
            sound.setframerate(sampling_rate)
            sound.writeframes(whole.astype("<i2").tobytes())
        return cls(file.getvalue())
