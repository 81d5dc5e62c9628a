"""Who trains a client's model: this machine or its provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otpy.errors import TeleprompterError
from otpy.training.local import LocalTrainer
from otpy.training.provider_job import ProviderTrainer

if TYPE_CHECKING:
    from otpy.config.client_settings import ClientSettings
    from otpy.training.trainer import Trainer

__all__ = ["trainer_for"]


def trainer_for(client: str, settings: ClientSettings) -> Trainer:
    """Return the trainer of a client's model.

    Args:
        client: The client's name, for messages.
        settings: Its settings.

    Raises:
        TeleprompterError: If nobody trains models of this provider.

    Example:
        >>> from otpy.config.client_settings import ClientSettings
        >>> from otpy.training.choosing import trainer_for
        >>> type(trainer_for("default", ClientSettings(model="local/smollm2-135m"))).__name__
        'LocalTrainer'
    """
    if settings.is_local:
        return LocalTrainer(settings.model_name)
    if settings.provider == "openai":
        return ProviderTrainer(client)
    raise TeleprompterError(
        f"client {client!r} is {settings.model}; models of 'local/' are trained here, those of 'openai/' by their"
        f" provider, and for a server with the same API there is trainer=ProviderTrainer({client!r})"
    )
