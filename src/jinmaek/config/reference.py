"""``docs/recipe.md``: every setting with its default and meaning, from the recipe's own definition.

``python -m jinmaek.config.reference > docs/recipe.md`` writes it; a test keeps it current.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from jinmaek.config.recipe import Recipe


def reference() -> str:
    """The page, in Markdown."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "# Recipe settings"
    yield ""
    yield "A recipe is a TOML file with these tables. On the command line: `section.key=value`, and `section.key=`"
    yield "takes a key out. Unknown keys, keys without effect and contradictions are errors, told all at once."
    for name, info in Recipe.model_fields.items():
        table = info.annotation
        if isinstance(table, type) and issubclass(table, BaseModel):
            yield ""
            yield f"## [{name}]"
            yield (table.__doc__ or "").strip()
            yield ""
            yield "| key | default | values | |"
            yield "| --- | --- | --- | --- |"
            for key, setting in table.model_fields.items():
                meaning = (setting.description or "").replace("``", "`").replace("|", "\\|")
                yield f"| `{key}` | {_default(setting)} | {_values(setting.annotation)} | {meaning} |"


def _default(setting: FieldInfo) -> str:
    if setting.is_required():
        return "required"
    value = setting.get_default()
    if value is None:
        return "—"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _values(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return _values(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if isinstance(annotation, type) and not parts:
        return {"str": "text", "int": "whole number", "float": "number", "bool": "true, false"}[annotation.__name__]
    if get_origin(annotation) is tuple:
        return "list of texts"
    return " or ".join(_values(part) for part in parts if part is not Ellipsis)


if __name__ == "__main__":
    print(reference())
