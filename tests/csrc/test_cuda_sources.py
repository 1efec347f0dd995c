"""The CUDA sources, run on the CPU under an emulation of blocks, warps and barriers, against float64."""

from __future__ import annotations

import math
import mmap
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.csrc import emulated
from tests.csrc.emulated import IGNORE_INDEX, SEEDS, Kernels, bits, guarded, relative

INF, NAN = math.inf, math.nan
TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 3e-3, torch.float16: 1e-3}
each_dtype = pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: str(dtype).removeprefix("torch."))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_logits(rows: int, columns: int, dtype: torch.dtype, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return (torch.randn(rows, columns, generator=generator(seed)) * scale).to(dtype)


def random_targets(rows: int, vocab_size: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, vocab_size, (rows,), generator=generator(seed))


def expected(x: torch.Tensor, ids: torch.Tensor, upstream: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 log-probabilities and their gradient; (0, 0) where ignored."""
    logps = torch.zeros(len(ids), dtype=torch.float64)
    gradient = torch.zeros(x.shape, dtype=torch.float64)
    for row, target in enumerate(ids.tolist()):
        if target == IGNORE_INDEX:
            continue
        row_logps = x[row].double().log_softmax(0)
        logps[row] = row_logps[target]
        gradient[row] = -upstream[row].double() * row_logps.exp()
        gradient[row, target] += upstream[row].double()
    return logps, gradient


def finished(kernels: Kernels, x: torch.Tensor, ids: torch.Tensor, columns: int | None = None) -> torch.Tensor:
    vocab_size = x.shape[1] if columns is None else columns
    return kernels.merge([kernels.stats(x, ids, columns)], ids, vocab_size)


def placed(x: torch.Tensor, offset: int, row_stride: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`x` inside a buffer of NaN, `offset` elements past a 64-byte boundary, and the buffer."""
    rows, columns = x.shape
    buffer = torch.full((offset + rows * row_stride + 64,), NAN, dtype=x.dtype)
    assert buffer.data_ptr() % 64 == 0
    view = buffer.as_strided((rows, columns), (row_stride, 1), offset)
    view.copy_(x)
    return view, buffer


def check_problem(kernels: Kernels, x: torch.Tensor, ids: torch.Tensor) -> None:
    upstream = torch.randn(len(ids), generator=generator(2))
    logps, gradient = expected(x, ids, upstream)
    state = finished(kernels, x, ids)
    assert relative(state[2], logps) < 1e-6
    found = kernels.gradient(x, ids, state, upstream)
    assert relative(found, gradient) < TOLERANCES[x.dtype]
    assert not found[ids == IGNORE_INDEX].any()


@each_dtype
@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("columns", [1, 17, 4097, 12501])
def test_values_and_gradients(kernels: Kernels, dtype: torch.dtype, rows: int, columns: int) -> None:
    check_problem(kernels, random_logits(rows, columns, dtype), random_targets(rows, columns))


@each_dtype
def test_a_large_vocabulary(kernels: Kernels, dtype: torch.dtype) -> None:
    check_problem(kernels, random_logits(3, 100008, dtype), torch.tensor([100007, IGNORE_INDEX, 4]))


@each_dtype
@pytest.mark.parametrize("columns", [3, 41, 4099])
def test_every_alignment(kernels: Kernels, dtype: torch.dtype, columns: int) -> None:
    x = random_logits(3, columns, dtype)
    ids = random_targets(3, columns)
    upstream = torch.tensor([0.5, -2.0, 1.5])
    logps, gradient = expected(x, ids, upstream)
    for offset in range(32 // dtype.itemsize):
        view, _ = placed(x, offset, columns + 5)
        state = finished(kernels, view, ids)
        assert relative(state[2], logps) < 1e-6
        for out_offset in {offset, (offset + 1) % 16, (offset + 8) % 16}:
            out, buffer = placed(torch.zeros_like(x), out_offset, columns + 5)
            kernels.gradient(view, ids, state, upstream, out=out)
            assert relative(out, gradient) < TOLERANCES[dtype]
            assert int(buffer.isnan().sum()) == buffer.numel() - x.numel(), "a write outside the rows"


@each_dtype
@pytest.mark.parametrize("ignored", [[0, 1, 2, 3], [], [0], [3]], ids=["all", "none", "first", "last"])
def test_ignored_rows_are_not_read(kernels: Kernels, dtype: torch.dtype, ignored: list[int]) -> None:
    x, ids = random_logits(4, 301, dtype), random_targets(4, 301)
    ids[ignored] = IGNORE_INDEX
    x[ignored] = NAN
    check_problem(kernels, x, ids)
    stats = kernels.stats(x, ids)
    assert stats[:, ignored].tolist() == [[-INF] * len(ignored), [0.0] * len(ignored), [-INF] * len(ignored)]
    assert not finished(kernels, x, ids)[:, ignored].any()


def test_targets_with_a_stride(kernels: Kernels) -> None:
    x, ids = random_logits(3, 50, torch.float32), random_targets(3, 50)
    spread = torch.full((3, 4), 10**15)
    spread[:, 0] = ids
    assert bits(finished(kernels, x, spread[:, 0])) == bits(finished(kernels, x, ids))


@each_dtype
@pytest.mark.parametrize("bounds", [(0, 60, 101), (0, 33, 34, 101), (0, 0, 101)], ids=["two", "three", "an empty one"])
def test_shards_add_up(kernels: Kernels, dtype: torch.dtype, bounds: tuple[int, ...]) -> None:
    x = random_logits(9, 101, dtype)
    x[3, : bounds[-2]] = -INF  # all shards but the last see nothing
    ids = torch.tensor([0, 32, 33, 100, 59, 60, IGNORE_INDEX, 34, 99])
    upstream = torch.randn(9, generator=generator(2))
    logps, gradient = expected(x, ids, upstream)
    shards = [(first, x[:, first:last]) for first, last in pairwise(bounds)]
    parts = [kernels.stats(shard, ids, first_column=first) for first, shard in shards]
    state = kernels.merge(parts, ids, 101)
    assert relative(state[2], logps) < 1e-6
    folded = kernels.merge([kernels.merge(parts, ids, 101, finish=False)], ids, 101)
    assert bits(folded) == bits(state)
    found = [kernels.gradient(shard, ids, state, upstream, first_column=first) for first, shard in shards]
    assert relative(torch.cat(found, 1), gradient) < TOLERANCES[dtype]


@pytest.mark.parametrize("target", [-1, 101, 2**62, -(2**63)])
def test_a_target_outside_the_vocabulary_is_nan(kernels: Kernels, target: int) -> None:
    x, ids = random_logits(2, 101, torch.float32), torch.tensor([target, 5])
    stats = kernels.stats(x, ids)
    assert stats[2, 0] == -INF
    state = finished(kernels, x, ids)
    assert state[2].isnan().tolist() == [True, False]


def test_stats_of_one_shard(kernels: Kernels) -> None:
    x = random_logits(4, 50, torch.float32)
    ids = torch.tensor([99, 100, 149, 150])  # before, first, last, after
    m, s, t = kernels.stats(x, ids, first_column=100)
    assert torch.equal(m, x.amax(1))
    assert relative(s, (x.double() - x.double().amax(1, keepdim=True)).exp().sum(1)) < 1e-6
    assert t.tolist() == [-INF, float(x[1, 0]), float(x[2, 49]), -INF]


@each_dtype
def test_minus_infinity_anywhere(kernels: Kernels, dtype: torch.dtype) -> None:
    x = random_logits(67, 67, dtype)
    x.fill_diagonal_(-INF)
    check_problem(kernels, x, (torch.arange(67) + 1) % 67)
    state = finished(kernels, x, torch.arange(67))
    assert (state[2] == -INF).all()


@each_dtype
def test_minus_infinity_blocks(kernels: Kernels, dtype: torch.dtype) -> None:
    x = random_logits(3, 40000, dtype)
    x[0, :20000] = -INF  # more than what a block reads at once
    x[1, 1:] = -INF
    x[2] = -INF
    ids = torch.tensor([39999, 0, 7])
    stats = kernels.stats(x, ids)
    assert stats[:, 2].tolist() == [-INF, 0.0, -INF]
    check_problem(kernels, x[:2], ids[:2])
    state = finished(kernels, x, ids)
    assert state[2, 1] == 0
    assert state[2, 2].isnan(), "as torch's log_softmax"
    assert kernels.gradient(x[2:], ids[2:], state[:, 2:].contiguous(), torch.ones(1)).isnan().all()


@each_dtype
@pytest.mark.parametrize("value", [NAN, INF])
def test_nan_and_infinity_show_wherever_they_are(kernels: Kernels, dtype: torch.dtype, value: float) -> None:
    x = random_logits(75, 75, dtype)
    x.fill_diagonal_(value)
    for ids in ((torch.arange(75) + 1) % 75, torch.arange(75)):
        state = finished(kernels, x, ids)
        assert state[2].isnan().all()
        assert kernels.gradient(x, ids, state, torch.ones(75)).isnan().all(1).all()
    large = random_logits(6, 40000, dtype)
    for row, position in enumerate((0, 7, 511, 4096, 32768, 39999)):
        large[row, position] = value
    assert finished(kernels, large, random_targets(6, 40000))[2].isnan().all()
    if math.isnan(value):
        m, total, t = kernels.stats(large, torch.arange(6) + 100)
        assert torch.equal(m, large.float().nan_to_num(nan=-INF).amax(1)), "NaN does not win the maximum"
        assert total.isnan().all()
        assert not t.isnan().any()
    everywhere = torch.full((1, 40), value, dtype=dtype)
    assert finished(kernels, everywhere, torch.tensor([3]))[2].isnan().all()


@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_large_offsets_lose_nothing(kernels: Kernels, offset: float) -> None:
    for dtype, spread in ((torch.float32, 3.0), (torch.float16, 30.0), (torch.bfloat16, 200.0)):
        x = (torch.randn(5, 4097, generator=generator()) * spread + offset).to(dtype)
        check_problem(kernels, x, random_targets(5, 4097))


@each_dtype
@pytest.mark.parametrize("columns", [0, 1, 17, 1000])
def test_padding_columns_do_not_matter(kernels: Kernels, dtype: torch.dtype, columns: int) -> None:
    x = random_logits(3, columns + 29, dtype)
    x[:, columns:] = torch.finfo(dtype).max
    x[1, columns:] = NAN
    ids = torch.tensor([columns - 1, 0, IGNORE_INDEX])
    upstream = torch.tensor([1.5, -0.5, 1.0])
    stats = kernels.stats(x, ids, columns)
    if columns == 0:
        assert stats.tolist() == [[-INF] * 3, [0.0] * 3, [-INF] * 3]
        state = torch.ones(3, 3)
    else:
        assert bits(stats) == bits(kernels.stats(x[:, :columns], ids))
        state = kernels.merge([stats], ids, columns)
    found = kernels.gradient(x, ids, state, upstream, columns=columns)
    assert not found[:, columns:].any()
    _, gradient = expected(x[:, :columns], ids if columns else torch.full((3,), IGNORE_INDEX), upstream)
    assert relative(found[:, :columns], gradient) < TOLERANCES[dtype]
    assert kernels.stats(x[:, :0], ids).tolist() == [[-INF] * 3, [0.0] * 3, [-INF] * 3]


@each_dtype
@pytest.mark.parametrize("columns", [17, 4097])
def test_gradient_in_place(kernels: Kernels, dtype: torch.dtype, columns: int) -> None:
    x, ids = random_logits(4, columns, dtype), random_targets(4, columns)
    ids[1] = IGNORE_INDEX
    state, upstream = finished(kernels, x, ids), torch.tensor([1.0, 1.0, -0.25, 0.0])
    wanted = kernels.gradient(x, ids, state, upstream)
    assert kernels.gradient(x, ids, state, upstream, out=x) is x
    assert bits(x) == bits(wanted)


@each_dtype
def test_upstream_gradients_and_scale(kernels: Kernels, dtype: torch.dtype) -> None:
    x, ids = random_logits(5, 777, dtype), random_targets(5, 777)
    state = finished(kernels, x, ids)
    upstream = torch.tensor([[1.0], [-3.5], [0.0], [1e-3], [0.7]]).expand(5, 2).contiguous()[:, 0]
    x[2] = NAN  # its coefficient is 0: not read
    scale = torch.tensor([-1.25])
    wanted = expected(x.nan_to_num(), ids, upstream * scale)[1]
    found = kernels.gradient(x, ids, state, upstream, scale=scale)
    for row in range(5):
        assert relative(found[row], wanted[row]) < TOLERANCES[dtype]
    single = torch.full((1,), 0.5).expand(5)
    found = kernels.gradient(x[:2], ids[:2], state[:, :2].contiguous(), single)
    assert relative(found, expected(x[:2], ids[:2], single)[1]) < TOLERANCES[dtype]
    assert not kernels.gradient(x, ids, state, single, scale=torch.zeros(1)).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_conversions_are_those_of_torch(kernels: Kernels, dtype: torch.dtype) -> None:
    patterns = torch.cat([torch.arange(-32768, 32768, 131), torch.tensor([0, 1, 2, 1023, 1024, -32768, 31743])])
    x = patterns.to(torch.int16).view(dtype).unsqueeze(1)
    zeros = torch.zeros(len(x), dtype=torch.int64)
    t = kernels.stats(x, zeros)[2]
    assert torch.equal(t.nan_to_num(nan=1.0), x[:, 0].float().nan_to_num(nan=1.0))
    assert torch.equal(t.isnan(), x[:, 0].isnan())
    # With 1/s = 0 the target's gradient is the upstream gradient itself: it shows the rounding.
    upstream = torch.randn(600, generator=generator()) * 2.0 ** torch.randint(-30, 20, (600,), generator=generator(1))
    halfway = torch.arange(40) * 2.0**-25
    edges = torch.tensor([65504.0, 65519.9, 65520.0, -65520.0, 1e38, 3.4e38, NAN, 1.00390625, 1.01171875])
    upstream = torch.cat([upstream, halfway, 1 + torch.arange(40) * 2.0**-12, edges])
    rows = len(upstream)
    ids = torch.zeros(rows, dtype=torch.int64)
    out = kernels.gradient(torch.zeros(rows, 1, dtype=dtype), ids, torch.zeros(3, rows), upstream)
    assert torch.equal(out[:, 0].nan_to_num(nan=7.0), upstream.to(dtype).nan_to_num(nan=7.0))


@each_dtype
@pytest.mark.parametrize("columns", [5, 2500])
def test_nothing_is_touched_outside_the_rows(kernels: Kernels, dtype: torch.dtype, columns: int) -> None:
    rows = 2
    values, ids = random_logits(rows, columns, dtype), random_targets(rows, columns)
    upstream = torch.ones(rows)
    wanted = expected(values, ids, upstream)[1]
    for at_end in (True, False):
        x = guarded(rows * columns, dtype, at_end).view(rows, columns)
        out = guarded(rows * columns, dtype, at_end).view(rows, columns)
        x.copy_(values)
        out.fill_(NAN)
        state = finished(kernels, x, ids)
        kernels.gradient(x, ids, state, upstream, out=out)
        assert relative(out, wanted) < TOLERANCES[dtype]
        kernels.gradient(x, ids, state, torch.zeros(rows), out=out)
        assert not out.any()


def test_rows_beyond_two_to_the_31_elements(kernels: Kernels) -> None:
    row_stride, columns = 2**31 + 5, 100
    no_reserve = 0x4000  # mmap.MAP_NORESERVE, which Python names from 3.13 on
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve
    memory = mmap.mmap(-1, (row_stride + columns) * 2, flags=flags)  # only the touched pages take memory
    x = torch.frombuffer(memory, dtype=torch.bfloat16).as_strided((2, columns), (row_stride, 1))
    x.copy_(random_logits(2, columns, torch.bfloat16))
    ids, upstream = torch.tensor([3, 99]), torch.tensor([1.0, -2.0])
    logps, gradient = expected(x, ids, upstream)
    state = finished(kernels, x, ids)
    assert relative(state[2], logps) < 1e-6
    kernels.gradient(x, ids, state, upstream, out=x)
    assert relative(x, gradient) < TOLERANCES[torch.bfloat16]


@each_dtype
def test_any_order_of_threads_gives_the_same_bits(kernels: Kernels, dtype: torch.dtype) -> None:
    x, ids = random_logits(3, 20003, dtype), random_targets(3, 20003)
    found = set()
    for seed in SEEDS:
        kernels.schedule(seed)
        state = finished(kernels, x, ids)
        found.add(bits(state) + bits(kernels.gradient(x, ids, state, torch.ones(3))))
    assert len(found) == 1


def test_refusals(kernels: Kernels) -> None:
    x, ids = random_logits(2, 5, torch.float64), random_targets(2, 5)
    with pytest.raises(RuntimeError, match=f"^{emulated.BAD_DTYPE}$"):
        kernels.stats(x, ids)
    with pytest.raises(RuntimeError, match=f"^{emulated.BAD_DTYPE}$"):
        kernels.gradient(x, ids, torch.zeros(3, 2), torch.ones(2))
    with pytest.raises(RuntimeError, match=f"^{emulated.BAD_ARGUMENT}$"):
        kernels.stats(x.float(), ids, columns=-1)
    with pytest.raises(RuntimeError, match=f"^{emulated.BAD_ARGUMENT}$"):
        kernels.stats(x.float(), ids, columns=6)
    with pytest.raises(RuntimeError, match=f"^{emulated.TOO_LARGE}$"):
        kernels.gradient(x.float()[:1].expand(2**31, 5), ids, x, x[0], out=x.float())
    kernels.device = 8  # the emulation has eight
    with pytest.raises(RuntimeError, match=f"^{emulated.CUDA_ERROR + 101}$"):
        kernels.stats(x.float(), ids)


def test_the_current_device_is_put_back(kernels: Kernels) -> None:
    x, ids = random_logits(2, 5, torch.float32), random_targets(2, 5)
    wanted = kernels.stats(x, ids)
    kernels.device = 7
    assert bits(kernels.stats(x, ids)) == bits(wanted)
    assert kernels.library.aquila_emulation_current_device() == 0


def test_the_emulation_shows_a_missing_barrier(kernels: Kernels) -> None:
    wanted = ((torch.arange(64) + 1) % 64).float()
    for with_barrier in (True, False):
        found = set()
        for seed in SEEDS:
            kernels.schedule(seed)
            out = emulated.poisoned(64)
            kernels.library.aquila_emulation_ring(int(with_barrier), emulated.c_void_p(out.data_ptr()))
            found.add(bits(out))
        assert (found == {bits(wanted)}) == with_barrier
        assert (len(found) > 1) != with_barrier


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("divergent_barrier", "of 64 threads 32 wait at the barrier"),
        ("divergent_shuffle", "31 for their warp, 33 have ended"),
        ("misaligned", "not aligned"),
    ],
)
def test_the_emulation_aborts(library: Path, function: str, message: str) -> None:
    program = f"import ctypes; ctypes.CDLL({str(library)!r}).aquila_emulation_{function}((ctypes.c_float * 64)())"
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert outcome.returncode == -6
    assert message in outcome.stderr
