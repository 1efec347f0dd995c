"""Shards against two oracles: the unsharded tensor, and safetensors' own reader."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_aquila.shards import Shard, ShardError, ShardReader, shard_path, write_shards

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def whole(key: str, tensor: torch.Tensor) -> Shard:
    return Shard(key, tuple(tensor.shape), (0,) * tensor.ndim, tensor)


def random_tensor(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    values = torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(seed))
    return values.to(dtype)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """For comparing dtypes that torch.equal does not know."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def cut(length: int, pieces: int, chance: random.Random) -> list[tuple[int, int]]:
    """`length` in consecutive intervals; some may be empty."""
    edges = [0, *sorted(chance.randint(0, length) for _ in range(pieces - 1)), length]
    return list(itertools.pairwise(edges))


def grid(key: str, tensor: torch.Tensor, chance: random.Random) -> Iterator[Shard]:
    """`tensor` cut along random planes."""
    per_axis = [cut(length, chance.randint(1, 4), chance) for length in tensor.shape]
    for box in itertools.product(*per_axis):
        block = tensor[tuple(slice(*interval) for interval in box)]
        yield Shard(key, tuple(tensor.shape), tuple(start for start, _ in box), block)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (5, 7), (2, 3, 4, 5)], ids=str)
def test_every_dtype_and_shape_comes_back(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = random_tensor(shape, dtype)
    write_shards(shard_path(tmp_path, 0), [whole("x", tensor)])
    read = ShardReader(tmp_path).read("x")
    assert read.dtype == dtype and read.shape == tensor.shape
    assert torch.equal(bits(read), bits(tensor))


def test_files_are_plain_safetensors(tmp_path: Path) -> None:
    """The file layout is our own code: safetensors' reader must agree on names, shapes and values."""
    tensors = {str(dtype): random_tensor((3, 5), dtype, seed) for seed, dtype in enumerate(DTYPES)}
    path = shard_path(tmp_path, 0)
    write_shards(path, [whole(key, tensor) for key, tensor in tensors.items()])
    loaded = load_file(path)
    assert loaded.keys() == {f"{key}#0" for key in tensors}
    for key, tensor in tensors.items():
        assert loaded[f"{key}#0"].dtype == tensor.dtype
        assert torch.equal(bits(loaded[f"{key}#0"]), bits(tensor))
        assert loaded[f"{key}#0"].data_ptr() % tensor.element_size() == 0


@pytest.mark.parametrize("seed", range(12))
def test_resharding_any_grid_to_any_slice(tmp_path: Path, seed: int) -> None:
    """Tensors in random grids, dealt out to random ranks, some blocks twice: any slice is the oracle's."""
    chance = random.Random(seed)
    ranks: list[list[Shard]] = [[] for _ in range(chance.randint(1, 6))]
    tensors = {}
    for index in range(8):
        shape = tuple(chance.randint(1, 9) for _ in range(chance.randint(0, 4)))
        tensor = random_tensor(shape, chance.choice([torch.float32, torch.bfloat16, torch.int64]), index)
        tensors[f"layer.{index}"] = tensor
        for shard in grid(f"layer.{index}", tensor, chance):
            for rank in chance.sample(ranks, min(len(ranks), chance.choice([1, 1, 2]))):
                rank.append(shard)
    for number, shards in enumerate(ranks):
        chance.shuffle(shards)
        write_shards(shard_path(tmp_path, number), shards)

    reader = ShardReader(tmp_path)
    assert reader.keys() == sorted(tensors)
    for key, tensor in tensors.items():
        assert reader.shape(key) == tensor.shape and reader.dtype(key) == tensor.dtype
        assert torch.equal(reader.read(key), tensor)
        for _ in range(20):
            box = [sorted((chance.randint(0, n), chance.randint(0, n))) for n in tensor.shape]
            offset, shape = tuple(a for a, _ in box), tuple(b - a for a, b in box)
            expected = tensor[tuple(slice(a, b) for a, b in box)]
            assert torch.equal(reader.read(key, offset, shape), expected)
            assert torch.equal(reader.read(key, offset, shape, torch.float64), expected.double())


def test_blocks_that_overlap_in_part(tmp_path: Path) -> None:
    """Replicas need not have the same box: every block of three rows out of ten, and nothing more."""
    tensor = random_tensor((10, 10), torch.float32)
    for start in range(8):
        write_shards(
            shard_path(tmp_path, start),
            [Shard("x", (10, 10), (start, start), tensor[start : start + 3, start:])],
        )
    write_shards(shard_path(tmp_path, 8), [Shard("x", (10, 10), (1, 0), tensor[1:, :9])])
    reader = ShardReader(tmp_path)
    assert torch.equal(reader.read("x"), tensor)
    assert torch.equal(reader.read("x", (2, 1), (7, 8)), tensor[2:9, 1:9])


def test_strides_and_shared_storage(tmp_path: Path) -> None:
    base = random_tensor((6, 8), torch.float32)
    shards = [whole("t", base.T), whole("step", base[:, ::3]), whole("tied", base), whole("tied too", base)]
    shards.append(whole("grad", base.clone().requires_grad_()))
    write_shards(shard_path(tmp_path, 0), shards)
    reader = ShardReader(tmp_path)
    assert torch.equal(reader.read("t"), base.T)
    assert torch.equal(reader.read("step"), base[:, ::3])
    for key in ["tied", "tied too", "grad"]:
        assert torch.equal(reader.read(key), base)


def test_what_is_read_is_the_callers_own(tmp_path: Path) -> None:
    path = shard_path(tmp_path, 0)
    write_shards(path, [whole("x", torch.ones(4))])
    before = path.read_bytes()
    reader = ShardReader(tmp_path)
    reader.read("x").zero_()
    assert torch.equal(reader.read("x"), torch.ones(4))
    assert path.read_bytes() == before


def test_a_read_looks_only_at_blocks_nearby(tmp_path: Path) -> None:
    """512 blocks side by side: a slice inside one of them concerns one."""
    tensor = random_tensor((4, 2048), torch.int32)
    blocks = [Shard("x", (4, 2048), (0, start), tensor[:, start : start + 4]) for start in range(0, 2048, 4)]
    random.Random(0).shuffle(blocks)
    write_shards(shard_path(tmp_path, 0), blocks)
    reader = ShardReader(tmp_path)
    assert [block.box for block in reader._tensor("x").near(((0, 4), (101, 103)))] == [((0, 4), (100, 104))]
    assert torch.equal(reader.read("x", (1, 99), (2, 10)), tensor[1:3, 99:109])


def test_a_missing_block_is_named_with_its_region(tmp_path: Path) -> None:
    tensor = random_tensor((8, 6), torch.float32)
    for rank, (row, column) in enumerate([(0, 0), (0, 3), (4, 0)]):  # the one at (4, 3) is lost
        block = tensor[row : row + 4, column : column + 3]
        write_shards(shard_path(tmp_path, rank), [Shard("w", (8, 6), (row, column), block)])
    reader = ShardReader(tmp_path)
    assert torch.equal(reader.read("w", (0, 0), (4, 6)), tensor[:4])
    with pytest.raises(ShardError, match=r"'w'.*\(8, 6\).*\[4:8, 3:6\]"):
        reader.read("w")
    with pytest.raises(ShardError, match=r"\[5:6, 3:5\]"):
        reader.read("w", (5, 2), (1, 3))


def test_asking_for_what_is_not_there(tmp_path: Path) -> None:
    write_shards(shard_path(tmp_path, 0), [whole("decoder.weight", torch.ones(3, 4)), whole("lr", torch.ones(()))])
    reader = ShardReader(tmp_path)
    with pytest.raises(ShardError, match=r"no tensor 'decoder\.wieght'; the nearest is 'decoder\.weight'"):
        reader.read("decoder.wieght")
    for offset, shape in [
        ((0, 0), (3, 5)),
        ((-1, 0), (1, 1)),
        ((0,), (3,)),
        ((3, 0), (1, 4)),
        ((4, 0), None),
    ]:
        with pytest.raises(ShardError, match=r"does not lie in 'decoder\.weight' of global shape \(3, 4\)"):
            reader.read("decoder.weight", offset, shape)
    assert reader.read("decoder.weight", (3, 0)).shape == (0, 4)


def test_blocks_outside_their_tensor_are_refused() -> None:
    for global_shape, offset in [((4,), (2,)), ((4, 3), (0,)), ((4, 3), (0, 0)), ((4,), (-1,))]:
        with pytest.raises(ShardError, match="'w'"):
            Shard("w", global_shape, offset, torch.ones(3))
    with pytest.raises(ShardError, match="complex64"):
        whole("w", torch.ones(3, dtype=torch.complex64))


@pytest.mark.parametrize("other", [torch.ones(3, 5), torch.ones(3, 4).half()], ids=["shape", "dtype"])
def test_files_of_different_checkpoints_do_not_mix(tmp_path: Path, other: torch.Tensor) -> None:
    write_shards(shard_path(tmp_path, 0), [whole("w", torch.ones(3, 4))])
    write_shards(shard_path(tmp_path, 1), [whole("w", other)])
    with pytest.raises(ShardError, match=r"'w' is .* in shard-00000.safetensors but .* in shard-00001"):
        ShardReader(tmp_path)


def test_files_that_are_not_shards(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="holds no shard"):
        ShardReader(tmp_path)
    path = shard_path(tmp_path, 0)
    save_file({"w": torch.ones(3)}, path)
    with pytest.raises(ShardError, match="not written by write_shards"):
        ShardReader(tmp_path)
    write_shards(path, [whole("w", torch.ones(300))])
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ShardError, match=r"shard-00000\.safetensors is not a readable"):
        ShardReader(tmp_path)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"cannot write .*gone.*bytes\): No such file"):
        write_shards(shard_path(tmp_path / "gone", 0), [whole("w", torch.ones(3))])
