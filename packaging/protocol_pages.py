# SPDX-License-Identifier: Apache-2.0
"""Writes docs/protocol.md and docs/protocol.schema.json of the messages in `agent.protocol`; --check: exit 1 when they differ.

What the page says in prose stands in docs/protocol.head.md; tables and schema are made.
"""

from __future__ import annotations

import inspect
import json
import sys
import types
import typing
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from agent import envelope, protocol  # noqa: E402

HEAD, PAGE, SCHEMA = (ROOT / "docs" / name for name in ("protocol.head.md", "protocol.md", "protocol.schema.json"))
COMMANDS: list[type[msgspec.Struct]] = [
    protocol.Command,
    *protocol.PAYLOADS.values(),
    protocol.RepositoryReference,
    protocol.Disk,
    protocol.ChangeMap,
    protocol.Secret,
    protocol.Sealed,
    protocol.SealedKey,
]
EVENTS: list[type[msgspec.Struct]] = [*get_args(protocol.Event), protocol.ErrorBody]
OTHERS: list[type[msgspec.Struct]] = [envelope.Header, envelope.Claim, protocol.PoisonEntry]


def page() -> str:
    parts = [HEAD.read_text().rstrip(), "", "## Commands"]
    parts += [table(kind) for kind in COMMANDS]
    parts += ["", "## Events", "", "The member `event` names the kind."]
    parts += [table(kind) for kind in EVENTS]
    parts += ["", "## Around them"]
    parts += [table(kind) for kind in OTHERS]
    return "\n".join(parts) + "\n"


def table(kind: type[msgspec.Struct]) -> str:
    config = kind.__struct_config__
    name = kind.__name__ if config.tag is None else f"{kind.__name__} (`{config.tag}`)"
    kinds = [word for word, payload in protocol.PAYLOADS.items() if payload is kind]
    name += f": payload of `{kinds[0]}`" if kinds else ""
    text = " ".join(inspect.getdoc(kind).split()) if kind.__doc__ and "\n" in (kind.__doc__ + "\n") else ""
    lines = ["", f"### {name}", "", text, "", "| member | type | default |", "| --- | --- | --- |"]
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in msgspec.structs.fields(kind):
        default = "required" if field.required else f"`{shown(field)}`"
        lines.append(f"| `{field.encode_name}` | {type_name(hints[field.name])} | {default} |")
    return "\n".join(lines)


def shown(field: msgspec.structs.FieldInfo) -> str:
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return json.dumps(msgspec.to_builtins(value))


def type_name(hint: Any) -> str:
    """A type in words, its bounds behind it."""
    if get_origin(hint) is Annotated:
        inner, *metas = get_args(hint)
        bounds = [
            f"{label} {value}"
            for meta in metas
            if isinstance(meta, msgspec.Meta)
            for label, value in (
                ("at least", meta.ge),
                ("at most", meta.le),
                ("length from", meta.min_length),
                ("length to", meta.max_length),
                ("matches", f"`{meta.pattern}`" if meta.pattern else None),
            )
            if value is not None
        ]
        return ", ".join([type_name(inner), *bounds]).replace("|", "\\|")
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is typing.Literal:
        return " or ".join(f"`{json.dumps(value)}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(one) for one in arguments)
    if origin is tuple:
        inner = [type_name(one) for one in arguments if one is not Ellipsis]
        return f"list of {inner[0]}" if Ellipsis in arguments else f"[{', '.join(inner)}]"
    if origin is dict:
        return f"object of {type_name(arguments[1])}"
    names = {
        str: "text",
        int: "integer",
        float: "number",
        bool: "true or false",
        bytes: "bytes in Base64",
        type(None): "null",
    }
    names |= {datetime: "time, RFC 3339", msgspec.Raw: "any JSON"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def schema() -> str:
    """A command's payload is that of its kind, which msgspec's schema of a union cannot say."""
    kinds = [protocol._Envelope, *(kind for kind in COMMANDS if kind is not protocol.Command), *EVENTS, *OTHERS]
    _, components = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    command = components.pop("_Envelope") | {"title": "Command", "description": inspect.getdoc(protocol.Command)}
    command["properties"]["payload"] = {"type": "object"}
    command["properties"]["kind"] = {"enum": list(protocol.PAYLOADS)}
    command["allOf"] = [
        {
            "if": {"properties": {"kind": {"const": kind}}},
            "then": {"properties": {"payload": {"$ref": f"#/$defs/{payload.__name__}"}}},
        }
        for kind, payload in protocol.PAYLOADS.items()
    ]
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Messages of data-mover, schema {protocol.SCHEMA}",
        "$defs": dict(sorted((components | {"Command": command}).items())),
    }
    return json.dumps(document, indent=1) + "\n"


def main() -> int:
    stale = 0
    for path, text in ((PAGE, page()), (SCHEMA, schema())):
        if "--check" not in sys.argv[1:]:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            print(f"{path.relative_to(ROOT)} is not what the messages are; hint: python packaging/protocol_pages.py")
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
