"""Which calls no file of the repository may make, where a linter cannot tell: by an argument, or by what is absent.

Ruff bans modules and functions by name (pyproject.toml: the S rules and TID251); this finds safe functions that a
keyword makes unsafe, and unsafe functions under whatever name they were imported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

UNSAFE_KEYWORDS = {
    ("trust_remote_code", True): "runs Python that came with a model",
    ("allow_pickle", True): "runs what a pickle says",
    ("weights_only", False): "runs what a pickle says",
    ("use_safetensors", False): "reads pickled weights",
    ("verify", False): "takes any server for the right one",
    ("shell", True): "hands a string to a shell",
    ("autoescape", False): "lets text become HTML",
    ("filter", "fully_trusted"): "lets an archive write anywhere",
}
UNSAFE_FUNCTIONS = {
    **{
        f"{module}.{function}": "runs what a pickle says"
        for module in ("pickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "torch")
        for function in ("load", "loads", "Unpickler")
    },
    "shelve.open": "runs what a pickle says",
    "pandas.read_pickle": "runs what a pickle says",
    "torch.hub.load": "runs Python from the network",
    "torch.jit.load": "runs a program that came with a model",
    "torch.load_library": "runs native code",
    "yaml.unsafe_load": "makes any object that a file names",
    "yaml.full_load": "makes objects that a file names",
    "yaml.load_all": "makes objects that a file names",
    "yaml.UnsafeLoader": "makes any object that a file names",
    "yaml.FullLoader": "makes objects that a file names",
    "os.system": "hands a string to a shell",
    "os.popen": "hands a string to a shell",
    "subprocess.getoutput": "hands a string to a shell",
    "subprocess.getstatusoutput": "hands a string to a shell",
    "tempfile.mktemp": "gives a name that another may take first",
    "builtins.eval": "runs text",
    "builtins.exec": "runs text",
    "jinja2.Template": "renders a template outside the sandbox",
    "jinja2.Environment": "renders templates outside the sandbox",
    "shutil.unpack_archive": "lets an archive write outside its folder",
    "tarfile.TarFile.extractall": "lets an archive write outside its folder",
    "ssl._create_unverified_context": "takes any server for the right one",
}
# Methods, whatever they are called on: their owner cannot be told without running.
UNSAFE_METHODS = {
    "extractall": "lets an archive write outside its folder",
    "read_pickle": "runs what a pickle says",
    "create_subprocess_shell": "hands a string to a shell",
}
# What must be said, since the default is unsafe or asks at the terminal: function → keyword, wanted value.
REQUIRED = {
    "numpy.load": ("allow_pickle", False),
}
REQUIRED_OF_METHODS = {
    "from_pretrained": ("trust_remote_code", False),
}
_SAYS_NOT = "does not say"
_MODES = ("chmod", "mkdir", "makedirs", "open", "touch")
_LAST = frozenset(name.rsplit(".", 1)[-1] for name in UNSAFE_FUNCTIONS)
# Words of which a file that makes an unsafe call holds all of one group, however it imports: others are not parsed.
_GROUPS = {
    *(frozenset((name.split(".")[0], name.rsplit(".", 1)[-1])) for name in UNSAFE_FUNCTIONS if "builtins" not in name),
    *(frozenset((name.split(".")[0], name.rsplit(".", 1)[-1])) for name in REQUIRED),
    *(frozenset((key, str(value))) for key, value in UNSAFE_KEYWORDS),
    *(frozenset((name,)) for name in (*_MODES[:3], *UNSAFE_METHODS, *REQUIRED_OF_METHODS, "builtins")),
}
_LOOKED_AT = (ast.Name, ast.Attribute, ast.Dict, ast.Call)
_RUNS_TEXT = re.compile(r"(?<!\.)\b(?:eval|exec)\b")


class Finding(NamedTuple):
    """`line` of a file makes `call`, which is unsafe for `reason`."""

    line: int
    call: str
    reason: str


def unsafe_calls(source: str, *, own_files: bool = False) -> list[Finding]:
    """The findings in a Python file, in the order of its lines. With `own_files`, as of tests, which open what they
    have made themselves, a default need not be said.
    """
    words = set(re.findall(r"\w+", source))
    if not any(group <= words for group in _GROUPS) and not _RUNS_TEXT.search(source):
        return []
    nodes = list(ast.walk(ast.parse(source)))
    names = dict(_imported(nodes))
    findings = {finding for node in nodes if type(node) in _LOOKED_AT for finding in _of(node, names)}
    return sorted(finding for finding in findings if not (own_files and finding.reason.startswith(_SAYS_NOT)))


def _imported(nodes: list[ast.AST]) -> Iterator[tuple[str, str]]:
    """Local name → what it stands for, of every import in the file."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _of(node: ast.AST, names: dict[str, str]) -> Iterator[Finding]:
    if isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and node.attr in _LAST):
        name = _full_name(node, names)
        if name in UNSAFE_FUNCTIONS:
            yield Finding(node.lineno, name, UNSAFE_FUNCTIONS[name])
    elif isinstance(node, ast.Dict):  # keywords on their way: {"trust_remote_code": True}
        for key, value in zip(node.keys, node.values):
            if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                yield from _keyword(node.lineno, key.value, value.value)
    elif isinstance(node, ast.Call):
        yield from _of_call(node, names)


def _of_call(call: ast.Call, names: dict[str, str]) -> Iterator[Finding]:
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    for name, value in given.items():
        if isinstance(value, ast.Constant):
            yield from _keyword(call.lineno, name, value.value)
    name = _full_name(call.func, names)
    method = call.func.attr if isinstance(call.func, ast.Attribute) else None
    if method in UNSAFE_METHODS:
        yield Finding(call.lineno, f".{method}", UNSAFE_METHODS[method])
    if (method or name.rsplit(".", 1)[-1]) in _MODES:
        for value in (*call.args, *given.values()):
            if isinstance(value, ast.Constant) and type(value.value) is int and value.value & 0o002:
                yield Finding(call.lineno, f"mode {value.value:o}", "lets everybody on the machine write")
    required = REQUIRED.get(name) or REQUIRED_OF_METHODS.get(method or "")
    if required and None not in given:  # **settings may bring it; the dictionary is looked at where it is written
        keyword, wanted = required
        value = given.get(keyword)
        if not (isinstance(value, ast.Constant) and value.value is wanted):
            yield Finding(call.lineno, name or f".{method}", f"{_SAYS_NOT} {keyword}={wanted}")
    if name == "yaml.load" and not _is_safe_loader(call, given):
        yield Finding(call.lineno, name, "is not given a SafeLoader")


def _keyword(line: int, name: object, value: object) -> Iterator[Finding]:
    for (unsafe, wrong), reason in UNSAFE_KEYWORDS.items():
        if name == unsafe and value == wrong and type(value) is type(wrong):
            yield Finding(line, f"{name}={value!r}", reason)


def _is_safe_loader(call: ast.Call, given: dict[str | None, ast.expr]) -> bool:
    """Whether the loader is PyYAML's safe one, or a class of ours by the name `_Loader`, which derives from it."""
    loader = given.get("Loader") or (call.args[1] if len(call.args) > 1 else None)
    return loader is not None and ast.unparse(loader).rsplit(".", 1)[-1] in ("SafeLoader", "CSafeLoader", "_Loader")


def _full_name(node: ast.expr, names: dict[str, str]) -> str:
    """The dotted name of an expression with its imports resolved, or ""."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    first = names.get(node.id) or (f"builtins.{node.id}" if node.id in ("eval", "exec") else "")
    return ".".join([first, *reversed(parts)]) if first else ""
