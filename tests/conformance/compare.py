"""Whether what happened conforms to what Erlang/OTP did: the comparison that the corpus's README defines."""

import json

MULTISETS = ("failed_starts", "observed", "async")


def instance(event):
    return f"{event[1]}#{event[2]}"


def groups(events, order, unordered):
    keys = {
        "total": lambda event: "",
        "parent": lambda event: event[1].rpartition("/")[0],
        "path": lambda event: event[1],
        "instance": instance,
    }
    found = {}
    for event in events:
        alone = instance(event) in unordered
        found.setdefault(("alone", instance(event)) if alone else ("", keys[order](event)), []).append(event)
    return found


def without(step, ignore):
    kept = {key: value for key, value in step.items() if key not in {"events", "order", "unordered", *ignore}}
    for key in MULTISETS:
        value = kept.pop(key, None)
        if value:
            kept[key] = sorted(value, key=lambda item: json.dumps(item, sort_keys=True))
    if "counts" in ignore:
        if "tree" in kept:
            kept["tree"] = {
                path: {key: value for key, value in node.items() if key != "counts"}
                for path, node in kept["tree"].items()
            }
        result = kept.get("result")
        if isinstance(result, dict) and isinstance(result.get("ok"), dict) and "active" in result["ok"]:
            kept["result"] = "counts"
    return kept


def difference(kind, expected, got, ignore=()):
    """Say how a step's result differs from OTP's, or nothing if it conforms."""
    wanted, found = without(expected, ignore), without(got, ignore)
    if wanted != found:
        keys = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
        return "\n".join(f"{key}:\n    OTP  {wanted.get(key)}\n    otpy {found.get(key)}" for key in keys)
    if "events" not in expected:
        return ""
    events = [
        [event for event in side.get("events", []) if not ("info" in ignore and event[0] == "info")]
        for side in (expected, got)
    ]
    order = expected.get("order", "total" if kind == "supervisor" else "instance")
    unordered = set(expected.get("unordered", ()))
    if groups(events[0], order, unordered) != groups(events[1], order, unordered):
        return f"events:\n    OTP  {events[0]}\n    otpy {events[1]}"
    return ""
