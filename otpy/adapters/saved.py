"""Adapters in saved programs: a name, and what differs from the adapter as it comes. Pure."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.adapters.baml_adapter import BAMLAdapter
from otpy.adapters.chat_adapter import ChatAdapter
from otpy.adapters.json_adapter import JSONAdapter
from otpy.adapters.prompting import Prompting
from otpy.adapters.template_adapter import TemplateAdapter
from otpy.adapters.two_step_adapter import TwoStepAdapter
from otpy.adapters.words import Words
from otpy.adapters.xml_adapter import XMLAdapter
from otpy.errors import SignatureError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.adapters.adapter import Adapter

__all__ = ["ADAPTERS", "adapter_of", "state_of"]

ADAPTERS: Final[dict[str, Adapter]] = {
    adapter.name: adapter for adapter in (JSONAdapter(), ChatAdapter(), XMLAdapter(), BAMLAdapter(), TwoStepAdapter())
}
"""The adapters that need no arguments, by the names that saved programs use."""

_CLASSES: Final[dict[str, type[Prompting]]] = {
    **{name: cast("type[Prompting]", type(adapter)) for name, adapter in ADAPTERS.items()},
    "template": TemplateAdapter,
}


def state_of(adapter: Adapter) -> str | dict[str, Any]:
    """Return an adapter as JSON data: its name, and its parameters if any is not as it comes.

    Args:
        adapter: The adapter; of one that is not ours only the name is known.

    Example:
        >>> from otpy.adapters import GERMAN, ChatAdapter, JSONAdapter, state_of
        >>> state_of(JSONAdapter()), state_of(ChatAdapter(words=GERMAN, demos="inline"))
        ('json', {'name': 'chat', 'words': 'de', 'demos': 'inline'})
    """
    if not _ours(adapter):
        return adapter.name
    given: dict[str, Any] = {"name": adapter.name}
    for field in fields(cast("Any", adapter)):
        value = getattr(adapter, field.name)
        if field.default is MISSING or value != field.default:
            given[field.name] = _dumped(value)
    return given if len(given) > 1 else adapter.name


def adapter_of(state: str | Mapping[str, Any], own: Adapter | None = None) -> Adapter:
    """Return the adapter that `state_of` described.

    Args:
        state: What it returned.
        own: An adapter that is not ours, for which its name may stand.

    Raises:
        SignatureError: If there is no such adapter, or no such parameter.

    Example:
        >>> from otpy.adapters import ChatAdapter, adapter_of, state_of
        >>> adapter_of(state_of(ChatAdapter(demos="inline")))
        ChatAdapter(demos='inline')
    """
    given: dict[str, Any] = {"name": state} if isinstance(state, str) else dict(state)
    name = given.pop("name", None)
    kind = _CLASSES.get(name) if isinstance(name, str) else None
    if own is not None and own.name == name and not given and not _ours(own):
        return own
    if kind is None:
        raise SignatureError(f"unknown adapter {name!r}; known: {', '.join(_CLASSES)}")
    known = {field.name for field in fields(kind)}
    for key in given:
        if key not in known:
            raise SignatureError(f"adapter {name!r} has no parameter {key!r}; it has {', '.join(sorted(known))}")
    if "words" in given:
        given["words"] = Words.from_state(given["words"])
    for key in ("extraction", "answer"):
        if key in given:
            given[key] = adapter_of(given[key])
    try:
        return cast("Adapter", kind(**given))
    except TypeError as error:
        raise SignatureError(f"adapter {name!r}: {error}") from None


def _ours(adapter: object) -> bool:
    return type(adapter) in _CLASSES.values()


def _dumped(value: Any) -> Any:
    if isinstance(value, Words):
        return value.state()
    return state_of(cast("Any", value)) if isinstance(value, Prompting) else value
