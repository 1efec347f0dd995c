"""`docs/recipe_reference.md` out of the models that check recipes: every key with type, default and meaning.

A meaning is a field's description, the string that stands below it in the source, or the comment above it: one of the
three, so that nothing is said twice in the code.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

_HEAD = """# Recipe reference

Every key of every recipe, written by `aquila config reference` from the models that check them; a test compares. A key
that is not here is refused with the nearest one that is. Nested keys are written with dots on the command line:
`optimizer.schedule.warmup_ratio=0.05`, `steps.2.fineweb=false`.
"""
_LONGEST_DEFAULT = 60  # characters in a table's cell; of longer ones the number of entries is told


class Root(NamedTuple):
    """A kind of recipe: its heading, its model, the command that reads it."""

    title: str
    model: type[BaseModel]
    command: str


def roots() -> list[Root]:
    """The kinds of recipes, in the order of the road."""
    from data_tools.corpus.recipe import Recipe
    from data_tools.dialogues.recipe import DialogueRecipe
    from data_tools.labelling.recipe import LabelRecipe
    from data_tools.preferences.recipe import PairsRecipe
    from megatron_aquila.config import RunConfig
    from megatron_aquila.evaluation.judge.config import PairConfig, RubricConfig
    from megatron_aquila.evaluation.settings import EvaluationSettings

    return [
        Root("Training", RunConfig, "aquila train RECIPE"),
        Root("Corpus", Recipe, "aquila data corpus RECIPE"),
        Root("Labels", LabelRecipe, "aquila data label RECIPE"),
        Root("Dialogues", DialogueRecipe, "aquila data dialogues RECIPE"),
        Root("Pairs", PairsRecipe, "aquila data pairs RECIPE"),
        Root("Evaluation settings", EvaluationSettings, "aquila eval run MODEL KEY=VALUE"),
        Root("Judge, pairs", PairConfig, "aquila judge pair RECIPE"),
        Root("Judge, rubric", RubricConfig, "aquila judge rubric RECIPE"),
    ]


def reference_page() -> str:
    """The page, in Markdown. Each model has one table, where it is first met; later keys link to it."""
    kinds = roots()
    headings: dict[type[BaseModel], str] = {root.model: root.title for root in kinds}
    for root in kinds:
        _name_sections(root.model, root.title, "", headings)
    lines, written = [_HEAD], set[type[BaseModel]]()
    lines += [f"- [{root.title}](#{anchor(root.title)}): `{root.command}`" for root in kinds]
    for root in kinds:
        lines += ["", f"## {root.title}", "", f"`{root.command}`"]
        for model in _sections(root.model, written):
            lines += _table(model, headings, root.model is model)
    return "\n".join(lines) + "\n"


def anchor(heading: str) -> str:
    """The fragment that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """What each key of `model` means, by name; empty where nothing says it."""
    found: dict[str, str] = {}
    for parent in reversed(model.__mro__):
        if parent is not BaseModel and isinstance(parent, type) and issubclass(parent, BaseModel):
            found |= {name: text for name, text in _source_meanings(parent).items() if text}
    described = {name: field.description for name, field in model.model_fields.items() if field.description}
    return {
        name: described.get(name) or found.get(name) or _from_annotation(field)
        for name, field in model.model_fields.items()
    }


# -- which models there are --------------------------------------------------------------------------------------


def _sections(model: type[BaseModel], written: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    if model in written:
        return
    written.add(model)
    yield model
    for field in model.model_fields.values():
        for nested in _models_in(field.annotation):
            yield from _sections(nested, written)


def _name_sections(model: type[BaseModel], title: str, prefix: str, headings: dict[type[BaseModel], str]) -> None:
    for name, field in model.model_fields.items():
        for nested in _models_in(field.annotation):
            if nested in headings:
                continue
            step = nested.model_fields.get("step")
            key = f"step {step.default}" if step is not None else f"{prefix}{name}"
            headings[nested] = f"{title}: {key}"
            if sum(heading == headings[nested] for heading in headings.values()) > 1:  # a key of several forms
                headings[nested] += f" ({nested.__name__})"
            _name_sections(nested, title, f"{key}.", headings)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


# -- a table -----------------------------------------------------------------------------------------------------


def _table(model: type[BaseModel], headings: Mapping[type[BaseModel], str], is_root: bool) -> list[str]:
    lines = [""] if is_root else ["", f"### {headings[model]}", "", _first_sentence(model), ""]
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    said = meanings(model)
    for name, field in model.model_fields.items():
        kind = _type(field.annotation, field.metadata, headings)
        cells = (f"`{name}`", kind, _default(field), _plain(said[name]))
        lines.append("| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |")
    return lines


def _plain(text: str) -> str:
    """Markdown of a docstring: ``code`` with one backtick, and no HTML outside of it."""
    parts = " ".join(text.split()).replace("``", "`").split("`")
    return "`".join(part if place % 2 else part.replace("<", "&lt;") for place, part in enumerate(parts))


def _type(annotation: Any, metadata: Sequence[Any], headings: Mapping[type[BaseModel], str]) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(parts[0], [*parts[1:], *metadata], headings)
    if origin in (Union, types.UnionType):
        several = [part for part in parts if part is not type(None)]
        texts = list(dict.fromkeys(_type(part, metadata, headings) for part in several))
        return " or ".join([*texts, *(["null"] if type(None) in parts else [])])
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin is tuple and len(parts) == 2 and parts[1] is Ellipsis:
        return f"list of {_type(parts[0], (), headings)}"
    if origin is tuple:
        return "[" + ", ".join(_type(part, (), headings) for part in parts) + "]"
    if origin is not None and len(parts) == 2:  # a mapping
        return f"{_type(parts[0], (), headings)}: {_type(parts[1], (), headings)}"
    if origin is not None and parts:
        return f"list of {_type(parts[0], (), headings)}"
    if annotation in headings:
        return f"[{headings[annotation]}](#{anchor(headings[annotation])})"
    names = {int: "integer", float: "number", str: "text", bool: "true, false", Path: "path", Any: "anything"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation))) + _bounds(metadata)


def _bounds(metadata: Sequence[Any]) -> str:
    limits: list[str] = []
    for constraint in metadata:
        if isinstance(constraint, FieldInfo):
            limits.append(_bounds(constraint.metadata).strip())
        signs = (("gt", "above"), ("ge", "from"), ("lt", "below"), ("le", "to"))
        if isinstance(constraint, annotated_types.Gt | annotated_types.Ge | annotated_types.Lt | annotated_types.Le):
            limits += [f"{word} {getattr(constraint, sign):g}" for sign, word in signs if hasattr(constraint, sign)]
    return " " + " ".join(filter(None, limits)) if any(limits) else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if field.default_factory is not None:
        return "" if _models_in(field.annotation) or field.default_factory not in (dict, list, tuple) else "empty"
    value = field.default
    if isinstance(value, BaseModel):
        facts = json.dumps(value.model_dump(mode="json"), ensure_ascii=False)
        return f"`{facts}`" if len(facts) <= _LONGEST_DEFAULT else ""
    if value == () or value == {}:
        return "empty"
    if isinstance(value, frozenset | set):
        value = sorted(value)
    text = json.dumps(value, ensure_ascii=False, default=str)
    if len(text) <= _LONGEST_DEFAULT and "=" not in text:
        return f"`{text}`"
    return f"{len(value)} {'entry' if len(value) == 1 else 'entries'}"


# -- what the source says ----------------------------------------------------------------------------------------


def _source_meanings(model: type[BaseModel]) -> dict[str, str]:
    """By name, the strings below the fields of a class and, where there is none, the comments above them."""
    try:
        source = textwrap.dedent(inspect.getsource(model))
    except (OSError, TypeError):  # made at run time
        return {}
    body = typing.cast(ast.ClassDef, ast.parse(source).body[0]).body
    lines, found = source.splitlines(), {}
    for place, statement in enumerate(body):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        below = body[place + 1] if place + 1 < len(body) else None
        text = ""
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            text = below.value.value
        else:
            above = statement.lineno - 2
            while above >= 0 and lines[above].strip().startswith("#"):
                text = f"{lines[above].strip().removeprefix('#').strip()} {text}"
                above -= 1
        found[statement.target.id] = text
    return found


def _from_annotation(field: FieldInfo) -> str:
    """What the type says by itself: a model's docstring, or that a key names the model it stands in."""
    if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1:
        return "names what the other keys are of"
    return next((_first_sentence(nested) for nested in _models_in(field.annotation)), "")


def _first_sentence(model: type[BaseModel]) -> str:
    return re.split(r"(?<=\.)\s", _plain(model.__doc__ or ""))[0]
