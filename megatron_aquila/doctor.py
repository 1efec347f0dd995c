"""``aquila doctor``: what this machine has, beside what the project was tested with.

A check returns a :class:`Finding`; a finding that is ``broken`` keeps the project from running here.
"""

import importlib
import os
import platform
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import torch

Status = Literal["ok", "differs", "absent", "broken"]

# The tested set (constraints.txt has the same): distribution, module, version.
REQUIRED = (
    ("torch", "torch", "2.13.0"),
    ("megatron-core", "megatron.core", "0.16.1"),
    ("numpy", "numpy", "2.4.6"),
    ("psutil", "psutil", "7.2.2"),  # without it Megatron-core hangs while writing a checkpoint
    ("safetensors", "safetensors", "0.8.0"),
    ("pydantic", "pydantic", "2.14.3"),
    ("PyYAML", "yaml", "6.0.3"),
    ("typer", "typer", "0.29.2"),
    ("rich", "rich", "15.0.0"),
    ("tensorboard", "tensorboard", "2.21.0"),
    ("orjson", "orjson", "3.13.0"),
    ("zstandard", "zstandard", "0.25.0"),
    ("pyarrow", "pyarrow", "26.0.1"),
    ("sentencepiece", "sentencepiece", "0.2.3"),
    ("tokenizers", "tokenizers", "0.23.3"),
    ("gigatoken", "gigatoken", "0.10.0"),
    ("xxhash", "xxhash", "4.1.0"),
)
OPTIONAL = (
    ("transformers", "5.23.0", "loads and checks an exported model"),
    ("transformer-engine", None, "faster layers on a GPU"),
)
_STYLE: dict[Status, tuple[str, str]] = {
    "ok": ("✓", "green"),
    "differs": ("~", "yellow"),
    "absent": ("-", "dim"),
    "broken": ("✗", "bold red"),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, what was found, and what that means."""

    subject: str
    status: Status
    found: str
    note: str = ""


def report() -> int:
    """Print the findings as tables; returns 1 when something essential is broken, else 0."""
    console = Console()
    broken = 0
    for title, findings in (("Packages", packages()), ("Machine", machine())):
        table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for column in ("", "", "found", "note"):
            table.add_column(column, header_style="dim", overflow="fold")
        for finding in findings:
            sign, style = _STYLE[finding.status]
            table.add_row(f"[{style}]{sign}[/]", finding.subject, finding.found, f"[{style}]{finding.note}[/]")
            broken += finding.status == "broken"
        console.print(table)
        console.print()
    if broken:
        console.print(f"[bold red]{broken} of these must be mended before aquila can run here.[/]")
        return 1
    console.print("[green]Ready.[/]")
    return 0


def packages() -> Iterator[Finding]:
    """Python and every package, against the tested version."""
    python = platform.python_version()
    tested = sys.version_info[:2] in ((3, 11), (3, 12))
    yield Finding("python", "ok" if tested else "broken", python, "" if tested else "3.11 or 3.12 is needed")
    for distribution, module, version in REQUIRED:
        yield check_package(distribution, module, version)
    for distribution, optional_version, purpose in OPTIONAL:
        found = _version(distribution)
        if found is None:
            yield Finding(distribution, "absent", "not installed", f"optional: {purpose}")
        else:
            yield _compare(distribution, found, optional_version)


def check_package(distribution: str, module: str, tested: str) -> Finding:
    """Whether a required package is there, imports, and has the tested version (``+cpu`` aside)."""
    found = _version(distribution)
    if found is None:
        return Finding(distribution, "broken", "not installed", f"pip install {distribution}=={tested}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Megatron-core says in four places what the report says in one
            importlib.import_module(module)
    except (ImportError, OSError) as error:
        return Finding(distribution, "broken", found, f"import {module} fails: {error}")
    return _compare(distribution, found, tested)


def machine() -> Iterator[Finding]:
    """Cores, memory, disk, devices, communication, and which tokenizer backend proves exact."""
    import psutil

    cores = len(os.sched_getaffinity(0))
    yield Finding("cores", "ok", str(cores))
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(Path.cwd())
    yield Finding("memory", "ok", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free")
    yield Finding("disk here", "ok", f"{disk.free / 2**30:.1f} of {disk.total / 2**30:.1f} GiB free")
    try:
        yield from devices()
        yield from kernels()
        yield from training_path()
        yield communication()
    except ImportError as error:
        yield Finding("devices", "broken", "unknown", f"torch cannot be imported: {error}")
    yield tokenizer_backend()


def devices() -> Iterator[Finding]:
    """Every GPU that torch sees, and how ranks on GPUs would talk."""
    import torch
    import torch.distributed as dist

    count = torch.cuda.device_count()
    if count == 0:
        yield Finding("GPUs", "absent", "none", "optional: the same code runs on the CPU")
        return
    for index in range(count):
        properties = torch.cuda.get_device_properties(index)
        found = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        capable = properties.major >= 8
        note = "" if capable else f"compute capability {properties.major}.{properties.minor} has no bf16: use fp16"
        yield Finding(f"GPU {index}", "ok" if capable else "differs", found, note)
    nccl = dist.is_nccl_available()
    yield Finding("nccl", "ok" if nccl else "broken", "built in" if nccl else "not built in", "between GPUs")


def training_path() -> Iterator[Finding]:
    """Which of the fast parts a run in bf16 would use on the first GPU, as `engine/gpu_path.py` chooses them."""
    import torch

    from megatron_aquila.engine import gpu_path, varlen

    here = gpu_path.machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if here.capability is None:
        yield Finding("training path", "ok", "own layers, attention one call a document, torch's fused AdamW", "on CPU")
        return
    engine = here.transformer_engine is not None
    attention = varlen.choose(
        capability=here.capability, dtype=torch.bfloat16, head_dim=128, dropout=0.0, available=here.attention
    )
    dropout = varlen.choose(
        capability=here.capability, dtype=torch.bfloat16, head_dim=128, dropout=0.1, available=here.attention
    )
    found = "Transformer Engine" if engine else "own"
    yield Finding("layers", "ok", found, "" if engine else "Transformer Engine would fuse norms and rotations")
    own = "of training.layers=own; " if engine else ""
    status: Status = "ok" if attention.name else "differs"
    yield Finding("attention", status, str(attention), f"{own}with attention_dropout: {dropout.name or 'a document'}")
    yield Finding("optimizer", "ok", gpu_path.adam(here))
    fused = engine or here.apex_gradients
    yield Finding(
        "weight gradients",
        "ok" if fused else "absent",
        "added inside the matrix products" if fused else "added by a kernel of their own",
        "" if fused else "optional: Apex or Transformer Engine",
    )
    note = "" if here.triton else "optional: triton"
    yield Finding("compiled kernels", "ok" if here.triton else "absent", "SwiGLU" if here.triton else "none", note)
    if engine and here.capability >= (8, 9):
        yield Finding("fp8", "ok", "available", "training.fp8=hybrid")


def kernels() -> Iterator[Finding]:
    """What the compiled kernels were built for, and whether they give the right number here."""
    import torch

    try:
        from megatron_aquila import _kernels
    except ImportError as error:
        yield Finding("kernels", "broken", "not built", f"{error}; install again: pip install -e .")
        return
    yield kernel_result("kernels on CPU", _kernels.instruction_set(), torch.device("cpu"))
    if not _kernels.with_cuda:
        missed = torch.cuda.is_available()
        note = "a GPU is here: install again where nvcc is found" if missed else "built where nvcc was not found"
        yield Finding("kernels on GPU", "broken" if missed else "absent", "not built", note)
        return
    built = f"built for compute capability {_kernels.cuda_architectures}"
    if not torch.cuda.is_available():
        yield Finding("kernels on GPU", "absent", built, "no GPU to run them on")
    for index in range(torch.cuda.device_count()):
        yield kernel_result(f"kernels on GPU {index}", built, torch.device("cuda", index))


def kernel_result(subject: str, found: str, device: "torch.device") -> Finding:
    """A log-probability by the kernels on `device`, against torch's."""
    import torch

    from megatron_aquila.kernels.token_logps import vocab_parallel_logps

    logits, target = torch.linspace(-3, 3, 1001).unsqueeze(0), torch.tensor([700])
    try:
        logp = float(vocab_parallel_logps(logits.to(device), target.to(device), vocab_size=1001))
    except RuntimeError as error:
        return Finding(subject, "broken", found, f"does not run: {error}")
    if abs(logp - float(logits.log_softmax(1)[0, 700])) > 1e-5:
        return Finding(subject, "broken", found, "gives a wrong log-probability")
    return Finding(subject, "ok", found, "gives torch's log-probability")


def communication() -> Finding:
    """gloo, tried: one rank adds numbers up, which fails where the host's own name does not resolve."""
    import torch
    import torch.distributed as dist

    if not dist.is_gloo_available():
        return Finding("gloo", "broken", "not built in", "between processes on CPU; this torch lacks it")
    try:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        total = torch.ones(2)
        dist.all_reduce(total)
        dist.destroy_process_group()
    except RuntimeError as error:
        first_line = str(error).partition("\n")[0]
        return Finding("gloo", "broken", "does not start", f"{first_line}; set GLOO_SOCKET_IFNAME=lo to try")
    return Finding("gloo", "ok", "works", "between processes on CPU")


def tokenizer_backend() -> Finding:
    """Which library encodes: gigatoken, if its ids equal the reference's on the parity probe."""
    try:
        import tokenizers

        from data_tools.tokenizers.loader import load_tokenizer

        alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
        model = tokenizers.models.BPE({symbol: index for index, symbol in enumerate(alphabet)}, [])
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        tokenizer.add_special_tokens(["</s>"])
        with tempfile.TemporaryDirectory() as directory:
            tokenizer.save(str(Path(directory) / "tokenizer.json"))
            backend = load_tokenizer(directory, eod="</s>").backend
    except ImportError as error:
        return Finding("tokenizer", "broken", "unknown", f"cannot be imported: {error}")
    if backend == "gigatoken":
        return Finding("tokenizer", "ok", backend, "equals the reference on the parity probe")
    return Finding("tokenizer", "differs", backend, "gigatoken fails the parity probe: the slower encoder serves")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _compare(distribution: str, found: str, tested: str | None) -> Finding:
    if tested is None or found.partition("+")[0] == tested:
        return Finding(distribution, "ok", found)
    return Finding(distribution, "differs", found, f"tested with {tested}")
