"""Every message on the page is one that the code can give; every kind of error that a user meets is on the page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

from tests.docs.pages import ROOT, prose

PAGE = ROOT / "docs/troubleshooting.md"
PACKAGES = ("megatron_aquila", "data_tools")
OTHERS = "## Messages of others"
_ANY = "\0"


def messages(*, others: bool = False) -> list[str]:
    """The first cells of the page's tables: what is in the first code span, and the words around it are ours."""
    found, inside = [], False
    for _, line in prose(PAGE):
        if line.startswith("## "):
            inside = line == OTHERS
        cell = re.match(r"\| (`[^|]*(?:\\\|[^|]*)*`)", line)
        if cell and inside == others:
            found.append(cell.group(1).split("`")[1].replace("\\|", "|"))
    return found


@cache
def sources() -> list[ast.Module]:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [ast.parse(path.read_text(encoding="utf-8")) for path in files]


def template(node: ast.AST) -> str | None:
    """The text of a literal, with a mark for every value that is put in; None where it is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else _ANY for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = template(node.left), template(node.right)
        return None if left is None and right is None else (left or _ANY) + (right or _ANY)
    return None


@cache
def templates() -> list[str]:
    """Every text in the code that is long enough to be a message; texts that are put together count as one."""
    return [text for tree in sources() for node in ast.walk(tree) if (text := template(node)) and len(text) > 8]


def is_said_by(message: str, text: str) -> bool:
    """Whether `text` can come out as `message`: its fixed words stand in it in their order."""
    pattern = ".*".join(re.escape(part.strip()) for part in message.split("…") if part.strip())
    return re.search(pattern, text, re.DOTALL) is not None


def raised() -> Iterator[tuple[str, str]]:
    """(class, template) of every error that is raised with words of its own."""
    for tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                called, text = node.exc.func, template(node.exc.args[0])
                if isinstance(called, ast.Name) and text and re.search(r"\w{3}", text.replace(_ANY, "")):
                    yield called.id, text


def user_errors() -> set[str]:
    """AquilaError and all that derive from it, and the errors that `aquila data` turns into one sentence."""
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {"AquilaError", "InputError", "RunError", "IndexedDatasetError", "ManifestError", "WorkerDiedError"}
    found |= {"BusyError", "TokenizerError", "StorageError", "ConfigFileError", "LanguageModelError", "LabellingError"}
    while more := {name for name, parents in bases.items() if parents & found} - found:
        found |= more
    return found


def test_every_message_is_one_that_the_code_gives() -> None:
    missing = [message for message in messages() if not any(is_said_by(message, text) for text in templates())]
    assert not missing, "\n".join(missing)
    assert len(messages()) > 60 and len(messages(others=True)) > 8


def test_every_kind_of_error_is_on_the_page() -> None:
    said = list(raised())
    there = {name for name, text in said if any(is_said_by(message, text) for message in messages())}
    spoken = {name for name, _ in said} & user_errors()
    assert spoken - there == set(), "name a message of each on the page"
    assert len(spoken) > 25


def test_what_is_no_message_of_ours_is_found() -> None:
    """The search finds a changed word, and takes parts in their order alone."""
    assert is_said_by("… holds no checkpoint of step …", f"{_ANY} holds no checkpoint of step {_ANY}: {_ANY}")
    assert not is_said_by("… holds no checkpoint of the step …", f"{_ANY} holds no checkpoint of step {_ANY}: {_ANY}")
    assert not is_said_by("give a run … does not exist", f"{_ANY} does not exist: give a run")
