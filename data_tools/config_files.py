"""YAML and dotted overrides in, a checked pydantic model out; and back to YAML, and to a hash.

A recipe may name another one, ``base: ../sft.yaml``, over whose keys its own are laid: mappings merge, lists and
single values replace. The path is relative to the file that names it, and the other may have a base of its own.

The YAML read here is 1.2's core schema where 1.1 sets traps: ``2e-7`` and ``1_000`` are numbers, ``off`` and
``no`` are words, ``1:30`` is not sixty-and-a-half, and a key given twice is an error.
"""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Collection, Hashable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from data_tools.credentials import secret_in

_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_NUMBERS_AND_WORDS = (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:int", rf"[-+]?{_DIGITS}", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        rf"[-+]?(\.{_DIGITS}|{_DIGITS}(\.({_DIGITS})?)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("tag:yaml.org,2002:merge", r"<<", "<"),
)

_MAX_CHARACTERS = 4 << 20
_MAX_VALUES = 100_000  # with what aliases repeat: a few lines of `*a, *a` can stand for billions ("billion laughs")


Model = TypeVar("Model", bound=BaseModel)


class ConfigFileError(ValueError):
    """A configuration file or an override is wrong; one line per problem, each naming its place and key."""


class _Layer(NamedTuple):
    """A file of a recipe: itself, or one of its bases."""

    path: Path
    root: yaml.Node | None


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}  # type: ignore[misc]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # refused by SafeLoader
            line = key.start_mark.line + 1
            if key.value in seen:
                raise ConfigFileError(f"line {line}: key '{key.value}' was already given in line {seen[key.value]}")
            seen[key.value] = line
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 would misread as well (``off``), for other readers of a saved run."""


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))  # not PyYAML's, which reads 010 as eight


for _tag, _pattern, _first in _NUMBERS_AND_WORDS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            _tag, re.compile(rf"(?:{_pattern})\Z"), [char.replace("\0", "") for char in _first]
        )
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def load_model(
    model: type[Model],
    path: Path | str | None,
    overrides: Sequence[str] = (),
    *,
    tags: Collection[str] = (),
    schema: str = "`aquila config schema`",
) -> Model:
    """Read the recipe at ``path`` (None: an empty one) over its bases, apply ``key=value`` overrides in order, and
    check the whole.

    An override's value is read as YAML; lists and mappings replace, ``key=`` sets null,
    ``data.train.0.weight=2`` reaches into a list, and a path that does not exist yet is created for
    validation to judge.

    ``tags`` are the names of ``model``'s union members, which are no keys; ``schema`` says where all keys are listed.

    Raises ConfigFileError with one line per problem, naming file and line, or the override, and the dotted key.
    """
    tree, layers = ({}, []) if path is None else _read_layers(Path(path))
    overridden = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ConfigFileError(f"'{override}' is not an override; write key=value, as in optimizer.lr=2e-7")
        parts = key.split(".")
        _set(tree, parts, _parse(value, f"override {override}")[0])
        overridden.append(parts)

    def origin(location: list[str]) -> str:
        for parts in overridden:
            if location[: len(parts)] == parts:
                return "override"
        if path is None:
            return "overrides"
        if not location:  # several sections do not fit each other
            return str(path)
        return _place(layers, location)

    secrets = [
        f"{origin(key.split('.'))}: {key} {_NO_SECRETS.format(secret)}"
        for key, value in _leaves(tree)
        if isinstance(value, str) and (secret := secret_in(value, key))
    ]
    if secrets:
        raise ConfigFileError("\n".join(secrets))
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = []
        for problem in _own_problems(error):
            location = [str(part) for part in problem["loc"] if part not in tags]
            lines += [f"{origin(location)}: {sentence}" for sentence in _sentences(problem, location, model, schema)]
        raise ConfigFileError("\n".join(lines)) from error


def load_mapping(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file, read as recipes are.

    Raises ConfigFileError when it cannot be read or holds no mapping.
    """
    tree, _ = _read(path)
    return tree


def parse_value(text: str) -> Any:
    """A value as it stands behind `key=`, read as in a recipe.

    Raises ConfigFileError for what is no YAML.
    """
    return _parse(text, f"the value {text!r}")[0]


def dump_config(config: BaseModel) -> str:
    """``config`` as YAML, every default written out; :func:`load_model` reads it back to an equal object."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def config_hash(config: BaseModel) -> str:
    """SHA-256, in hexadecimal, of ``config`` as JSON with sorted keys."""
    canonical = json.dumps(
        config.model_dump(mode="json"),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


_NO_SECRETS = "looks like a secret ({}); name the environment variable that holds it instead"


def _read(path: Path) -> tuple[dict[str, Any], yaml.Node | None]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigFileError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigFileError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    tree, root = _parse(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigFileError(f"{path} does not hold a mapping of keys to values")
    return tree, root


def _read_layers(path: Path) -> tuple[dict[str, Any], list[_Layer]]:
    """The keys of ``path`` laid over its bases', and the files they come from, ``path`` first."""
    trees: list[dict[str, Any]] = []
    layers: list[_Layer] = []
    following: Path | None = path
    while following is not None:
        if any(following.resolve() == layer.path.resolve() for layer in layers):
            chain = " -> ".join(str(one) for one in [*(layer.path for layer in layers), following])
            raise ConfigFileError(f"{_base_place(layers[-1])}: base goes in a circle: {chain}")
        try:
            tree, root = _read(following)
        except ConfigFileError as error:
            if not layers or following.is_file():
                raise
            raise ConfigFileError(f"{_base_place(layers[-1])}: base: {error}") from error
        layers.append(_Layer(following, root))
        base = tree.pop("base", None)
        if base is not None and not (isinstance(base, str) and base):
            raise ConfigFileError(f"{_base_place(layers[-1])}: base is {base!r}; it must be the path of another recipe")
        trees.append(tree)
        following = None if base is None else Path(os.path.normpath(following.parent / base))
    whole: dict[str, Any] = {}
    for tree in reversed(trees):
        whole = _laid_over(whole, tree)
    return whole, layers


def _base_place(layer: _Layer) -> str:
    return f"{layer.path}:{_find(layer.root, ['base'])[0]}"


def _laid_over(base: Any, own: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(own, dict)):
        return own
    merged = {key: _laid_over(base[key], value) if key in base else value for key, value in own.items()}
    return {key: merged.get(key, value) for key, value in base.items()} | merged


def _parse(text: str, source: str) -> tuple[Any, yaml.Node | None]:
    """The value of ``text`` and its syntax tree, which knows the lines."""
    if len(text) > _MAX_CHARACTERS:
        raise ConfigFileError(f"{source} has {len(text):,} characters; at most {_MAX_CHARACTERS:,} are read")
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:  # control characters
        raise ConfigFileError(f"{source}: not valid YAML: {error.reason} at character {error.position}") from error
    try:
        node = loader.get_single_node()
        if node is not None and _values(node) > _MAX_VALUES:
            raise ConfigFileError(f"its aliases (*name) stand for more than {_MAX_VALUES:,} values; write them out")
        return (None if node is None else loader.construct_document(node)), node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}" if mark else ""
        raise ConfigFileError(f"{source}{place}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigFileError(f"{source}: not valid YAML: {error}") from error
    except ConfigFileError as error:
        raise ConfigFileError(f"{source}: {error}") from error
    except RecursionError as error:
        raise ConfigFileError(f"{source}: its lists or mappings lie too deep within each other") from error
    finally:
        loader.dispose()


def _values(node: yaml.Node, counted: dict[int, int] | None = None) -> int:
    """How many nodes ``node`` holds, those behind aliases as often as they are named.

    Raises ConfigFileError for an alias that lies within what it stands for.
    """
    counted = {} if counted is None else counted
    if id(node) not in counted:
        counted[id(node)] = -1  # begun
        inner = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            inner = [one for pair in inner for one in pair]
        counted[id(node)] = 1 + sum(_values(one, counted) for one in inner)
    if counted[id(node)] < 0:
        raise ConfigFileError(f"line {node.start_mark.line + 1}: an alias (*name) lies within what it stands for")
    return counted[id(node)]


def _set(tree: dict[str, Any], parts: list[str], value: Any) -> None:
    key = ".".join(parts)
    here: Any = tree
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        at = ".".join(parts[:depth])
        if isinstance(here, list):
            if not part.isdecimal() or int(part) >= len(here):
                raise ConfigFileError(
                    f"override {key}: {at} has {len(here)} entries, numbered from 0; '{part}' is none"
                )
            index: Any = int(part)
        elif isinstance(here, dict):
            index = part
            if not last and here.get(part) is None:
                here[part] = {}
        else:
            raise ConfigFileError(f"override {key}: {at} is {here!r}, which holds no keys")
        if last:
            here[index] = value
        else:
            here[index] = copy(here[index])  # behind a YAML alias it is another key's too
            here = here[index]


def _place(layers: Sequence[_Layer], location: Sequence[str]) -> str:
    """File and line of the key that ``location`` is read from: the deepest, and of equals the one that is laid over."""
    best, best_depth = f"{layers[0].path}:1", 0
    for layer in layers:
        line, depth, replaces = _find(layer.root, location)
        if depth > best_depth:
            best, best_depth = f"{layer.path}:{line}", depth
        if replaces:  # nothing of the bases shows through
            break
    return best


def _find(root: yaml.Node | None, location: Sequence[str]) -> tuple[int, int, bool]:
    """Line of the deepest key of ``location`` that the file holds, how deep it is, and whether a list or a single value
    stands on the way, which replaces what a base has there.
    """
    node, line, depth = root, 1, 0
    in_list = False
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == part]
            if not found:
                return line, depth, in_list
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and part.isdecimal() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
            in_list = True
        else:
            return line, depth, True
        depth += 1
    return line, depth, in_list or not isinstance(node, yaml.MappingNode)


def _own_problems(error: ValidationError) -> list[Any]:
    """``error``'s list less what only follows from another: defaults not made, lists left short."""
    problems = error.errors()
    places = [problem["loc"] for problem in problems]

    def follows(problem: Any) -> bool:
        here = problem["loc"]
        inner = any(len(loc) > len(here) and loc[: len(here)] == here for loc in places)
        return problem["type"] == "default_factory_not_called" or (problem["type"] == "too_short" and inner)

    return [problem for problem in problems if not follows(problem)]


def _sentences(problem: Any, location: list[str], model: type[BaseModel], schema: str) -> Iterator[str]:
    """A pydantic error as text for the reader; an own validator may have put several into one."""
    key, kind, message = ".".join(location), problem["type"], problem["msg"]
    if kind == "extra_forbidden":
        nearest = _nearest_key(model, location)
        yield f"{key} is unknown; " + (f"did you mean {nearest}?" if nearest else f"see {schema}")
    elif kind == "missing":
        yield f"{key} is required"
    elif kind == "value_error":
        for line in message.removeprefix("Value error, ").splitlines():
            yield f"{key}: {line}" if key else line
    elif isinstance(problem["input"], dict | list | BaseModel):
        yield f"{key}: {message}"
    else:
        yield f"{key} is {problem['input']!r}: {message}"


def _nearest_key(model: type[BaseModel], location: Sequence[str]) -> str | None:
    """The known dotted key that ``location`` most likely stands for, or None when nothing comes near.

    Alike are names spelt alike, and a name and its initials (learning_rate and lr); a key of the same section
    is preferred.
    """

    def likeness(known: tuple[str, ...]) -> float:
        one, other = location[-1].lower(), known[-1]
        alike = difflib.SequenceMatcher(None, one, other).ratio()
        if one in (other, _initials(other)) or other == _initials(one):
            alike = 1.0
        elif other in one.split("_") or one in other.split("_"):
            alike = max(alike, 0.7)
        return alike + (0.2 if len(known) == len(location) and _same_section(known, location) else 0.0)

    best = max(_known_keys(model), key=likeness)
    if likeness(best) < 0.65:
        return None
    numbers = iter([part for part in location if part.isdecimal()])
    return ".".join(next(numbers, "0") if part == "*" else part for part in best)


def _same_section(known: Sequence[str], location: Sequence[str]) -> bool:
    return all(one in (other, "*") for one, other in zip(known[:-1], location[:-1]))


def _initials(name: str) -> str:
    return "".join(word[:1] for word in name.split("_"))


def _known_keys(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of the tree as a path; ``*`` stands for an index."""
    for name, field in model.model_fields.items():
        yield (*prefix, name)
        for inner, listed in _models_in(field.annotation):
            yield from _known_keys(inner, (*prefix, name, "*") if listed else (*prefix, name))


def _models_in(annotation: Any, listed: bool = False) -> Iterator[tuple[type[BaseModel], bool]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, listed
    for inner in get_args(annotation):
        yield from _models_in(inner, listed or getattr(annotation, "__origin__", None) is tuple)


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict | list):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in pairs:
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree
