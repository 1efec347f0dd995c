"""Checkpoints under attack: kills at every call that matters, damage to any file, full disks."""

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import torch

from megatron_aquila import checkpoint as checkpoints
from megatron_aquila import manifest as manifests
from megatron_aquila.checkpoint import (
    Checkpoint,
    CheckpointError,
    Communicator,
    SingleProcess,
    find,
    open_checkpoint,
    save,
    sweep,
)
from megatron_aquila.shards import Shard, shard_path, write_shards

REPOSITORY = Path(__file__).parents[2]
ROWS = 64


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill loses nothing in the page cache, so fsync only takes time; one test looks at its calls."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class ThreadRank:
    """One rank of a world whose ranks are threads; if one never comes, the barrier breaks."""

    def __init__(self, rank: int, slots: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.world_size = rank, len(slots)
        self._slots, self._barrier = slots, barrier

    def gather(self, value: Any) -> list[Any]:
        self._slots[self.rank] = json.dumps(value)  # the contract: JSON-able values only
        self._barrier.wait(20)
        values = [json.loads(slot) for slot in self._slots]
        self._barrier.wait(20)
        return values

    def broadcast(self, value: Any, source: int = 0) -> Any:
        return self.gather(value)[source]

    def barrier(self) -> None:
        self._barrier.wait(20)


def run_world(size: int, body: Callable[[Communicator], Any]) -> list[Any]:
    """What `body` returned, or raised, on each rank."""
    slots: list[Any] = [None] * size
    outcomes: list[Any] = [None] * size
    barrier = threading.Barrier(size)

    def run(rank: int) -> None:
        try:
            outcomes[rank] = body(ThreadRank(rank, slots, barrier))
        except Exception as error:  # noqa: BLE001 - handed to the caller
            outcomes[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads), "a rank hangs"
    return outcomes


def weights(step: int, attempt: int = 0) -> torch.Tensor:
    """(ROWS, 48) float32, told apart by step and attempt."""
    return torch.arange(1, ROWS * 48 + 1).reshape(ROWS, 48).float() * (step + attempt / 8)


def writer(tensor: torch.Tensor, communicator: Communicator) -> Callable[[Path], None]:
    """Each rank writes its rows."""
    rows = len(tensor) // communicator.world_size
    start = communicator.rank * rows
    shard = Shard("weight", tuple(tensor.shape), (start, 0), tensor[start : start + rows])
    return lambda directory: write_shards(shard_path(directory, communicator.rank), [shard])


def publish(root: Path, step: int, *, ranks: int = 1, keep: int | None = None, attempt: int = 0) -> Path:
    def body(communicator: Communicator) -> Path:
        return save(
            root,
            step,
            writer(weights(step, attempt), communicator),
            state={"step": step, "attempt": attempt, "rng": [step, 0.1]},
            keep=keep,
            communicator=communicator,
        )

    outcomes = run_world(ranks, body)
    assert outcomes == [root / f"step-{step:08d}"] * ranks
    return outcomes[0]


def latest(root: Path, **options: Any) -> Checkpoint | None:
    return find(root, communicator=SingleProcess(), **options)


def assert_is(found: Checkpoint | None, step: int, attempt: int = 0) -> None:
    assert found is not None
    assert (found.step, found.manifest["step"]) == (step, step)
    assert found.state == {"step": step, "attempt": attempt, "rng": [step, 0.1]}
    assert torch.equal(found.reader().read("weight"), weights(step, attempt))


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


# -- saving ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_what_was_saved_is_found(tmp_path: Path, ranks: int) -> None:
    root = tmp_path / "run" / "checkpoints"
    assert latest(root) is None
    path = publish(root, 7, ranks=ranks)
    for found in run_world(3, lambda communicator: find(root, communicator=communicator)):
        assert_is(found, 7)
    shards = [f"shard-{rank:05d}.safetensors" for rank in range(ranks)]
    assert names(root) == ["LATEST", "step-00000007"]
    assert names(path) == ["manifest.json", "manifest.json.sha256", *shards, "state.json"]
    assert (root / "LATEST").read_text() == "step-00000007\n"


def test_manifest_says_what_sha256sum_would(tmp_path: Path) -> None:
    path = publish(tmp_path, 1, ranks=2)
    manifest = json.loads((path / "manifest.json").read_text())
    assert (manifest["format"], manifest["step"], manifest["world_size"]) == (1, 1, 2)
    assert manifest["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    for name, digest in manifest["files"].items():
        content = (path / name).read_bytes()
        assert digest == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    sealed = hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
    assert (path / "manifest.json.sha256").read_text() == f"{sealed}  manifest.json\n"


def test_keep_deletes_only_old_sound_checkpoints(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        publish(tmp_path, step)
    strangers = [
        "step-notes",
        "best",
        "damaged-step-00000009",
        "step-00000000",
    ]  # the last: no manifest in it
    for name in strangers:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("mine")
    publish(tmp_path, 4, keep=2)
    assert names(tmp_path) == sorted(["LATEST", "step-00000003", "step-00000004", *strangers])


def test_keep_does_not_count_a_damaged_one_and_spares_the_one_just_written(tmp_path: Path) -> None:
    for step in (2, 3, 4):
        publish(tmp_path, step)
    (tmp_path / "step-00000004" / "state.json").unlink()
    publish(tmp_path, 1, keep=1)
    assert names(tmp_path) == ["LATEST", "step-00000001", "step-00000003", "step-00000004"]
    with pytest.raises(ValueError, match="keep must be at least 1"):
        save(tmp_path, 9, lambda _: None, state={}, keep=0, communicator=SingleProcess())


def test_a_step_can_be_saved_again(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    publish(tmp_path, 2)
    publish(tmp_path, 2, attempt=1, ranks=2, keep=5)
    assert_is(latest(tmp_path), 2, attempt=1)
    assert names(tmp_path) == ["LATEST", "step-00000001", "step-00000002"]


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut may undo: an fsync that is missing, or comes after the rename that relies on it."""
    events: list[tuple[str, str]] = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def write(directory: Path) -> None:
        (directory / "plain.bin").write_bytes(b"a file that its writer did not flush")

    def recording_fsync(descriptor: int) -> None:
        events.append(("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink().name)))
        fsync(descriptor)

    def recording_rename(source: Any, target: Any) -> None:
        events.append(("rename", Path(target).name))
        rename(source, target)

    def recording_replace(source: Any, target: Any) -> None:
        events.append(("replace", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "rename", recording_rename)
    monkeypatch.setattr(os, "replace", recording_replace)
    path = save(
        tmp_path,
        3,
        write,
        state={},
        keep=None,
        communicator=SingleProcess(),
    )
    named = events.index(("rename", "step-00000003"))
    before = [event for event in events[:named] if event[0] == "fsync"]
    for name in names(path):
        assert ("fsync", name) in before
    assert before[-1][1].startswith(".tmp-3-")
    pointed = events.index(("replace", "LATEST"))
    assert ("fsync", tmp_path.name) in events[named:pointed]
    assert events[pointed:] == [("replace", "LATEST"), ("fsync", tmp_path.name)]


# -- failures of a rank ---------------------------------------------------------------------------------


def failing_save(root: Path, ranks: int, write: Callable[[Communicator, Path], None], state: Any = None) -> list[str]:
    """Save step 2 in a world where it must fail; the messages of all ranks."""

    def body(communicator: Communicator) -> Path:
        try:
            return save(
                root,
                2,
                lambda directory: write(communicator, directory),
                state={"step": 2} if state is None else state,
                keep=1,
                communicator=communicator,
            )
        finally:  # on every rank, as soon as it hears of it
            assert not list(root.glob(".tmp-*"))

    outcomes = run_world(ranks, body)
    assert [type(outcome) for outcome in outcomes] == [CheckpointError] * ranks
    return [str(outcome) for outcome in outcomes]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_one_rank_fails_and_all_hear_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    publish(tmp_path, 1)
    remove_tree = shutil.rmtree

    def slowly(*arguments: Any, **options: Any) -> None:
        sleep(0.2)
        remove_tree(*arguments, **options)

    monkeypatch.setattr(shutil, "rmtree", slowly)

    def write(communicator: Communicator, directory: Path) -> None:
        writer(weights(2), communicator)(directory)
        if communicator.rank == failing:
            raise OSError(28, "No space left on device", "shard-x")

    messages = failing_save(tmp_path, 3, write)
    assert len(set(messages)) == 1
    assert f"rank {failing}: " in messages[0] and "No space left on device" in messages[0]
    assert names(tmp_path) == ["LATEST", "step-00000001"]
    assert_is(latest(tmp_path), 1)


def test_failures_of_publishing_reach_all_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, 1)

    def broken(temporary: Path, final: Path) -> None:
        raise PermissionError(13, "Permission denied", str(final))

    monkeypatch.setattr(checkpoints, "_move_into_place", broken)
    messages = failing_save(tmp_path, 2, lambda communicator, directory: writer(weights(2), communicator)(directory))
    assert len(set(messages)) == 1 and "rank 0" in messages[0] and "Permission denied" in messages[0]
    assert names(tmp_path) == ["LATEST", "step-00000001"]


@pytest.mark.parametrize("name", ["same.bin", "manifest.json", "state.json"])
def test_two_writers_of_one_name(tmp_path: Path, name: str) -> None:
    def write(communicator: Communicator, directory: Path) -> None:
        if communicator.rank > 0:
            (directory / name).write_bytes(b"1")
        elif name == "same.bin":
            (directory / name).write_bytes(b"0")

    messages = failing_save(tmp_path, 2, write)
    assert f"rank 1 wrote {name}" in messages[0] and names(tmp_path) == []


def test_folders_and_state_that_is_not_json(tmp_path: Path) -> None:
    messages = failing_save(tmp_path, 2, lambda communicator, directory: (directory / "folder").mkdir())
    assert "rank 0" in messages[1] and "rank 1" in messages[1] and "folder" in messages[1]
    messages = failing_save(tmp_path, 2, lambda communicator, directory: None, state={"path": Path()})
    assert "JSON serializable" in messages[1] and names(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(mounted)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("may not mount a small tmpfs here; the file size limit test covers the same road")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def big(communicator: Communicator, directory: Path) -> None:
    tensor = torch.ones(3 << 17)  # 1.5 MiB
    write_shards(shard_path(directory, communicator.rank), [Shard("w", tuple(tensor.shape), (0,), tensor)])


@pytest.mark.parametrize("where", ["in the shards", "in the state"])
def test_disk_full(small_disk: Path, where: str) -> None:
    publish(small_disk, 1)
    if where == "in the shards":
        messages = failing_save(small_disk, 2, big)
        assert "shard-00000.safetensors" in messages[1]
    else:
        messages = failing_save(small_disk, 2, lambda *_: None, state={"long": "x" * (1 << 20)})
    assert "No space left on device" in messages[1]
    assert names(small_disk) == ["LATEST", "step-00000001"]
    assert_is(latest(small_disk), 1)
    publish(small_disk, 3)
    assert_is(latest(small_disk), 3)


def test_file_size_limit(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # Python ignores SIGXFSZ: write() fails instead
    try:
        messages = failing_save(tmp_path, 1, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in messages[0] and "shard-00000.safetensors" in messages[0]
    assert names(tmp_path) == ["LATEST", "step-00000001"]
    assert_is(latest(tmp_path), 1)


# -- kills ----------------------------------------------------------------------------------------------

CALLS = ["fsync", "mkdir", "rename", "replace", "unlink", "rmdir"]
SCENARIOS = {"next": [(1, 0), (2, 0)], "again": [(1, 0), (2, 0), (2, 1)]}
"""(step, attempt) of the checkpoints there are; the kill hits the save of the last."""


def kill_at_call(number: int) -> None:
    """SIGKILL this process as it is about to make its `number`-th call of those that commit something."""
    lock, made = threading.Lock(), Counter[str]()

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            with lock:
                made["calls"] += 1
                if made["calls"] == number:
                    os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return wrapper

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def run_kills(directory: Path, scenario: str, ranks: int) -> None:
    """In `directory/<n>`: what the n-th call's kill leaves. Ends with the first save that is not killed."""
    *before, (step, attempt) = SCENARIOS[scenario]
    start = directory / "start"
    for earlier_step, earlier_attempt in before:
        publish(start, earlier_step, attempt=earlier_attempt, ranks=ranks)
    for number in range(1, 200):
        root = directory / str(number)
        shutil.copytree(start, root)
        child = os.fork()
        if child == 0:
            kill_at_call(number)
            publish(root, step, attempt=attempt, ranks=ranks, keep=1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    raise AssertionError("the save never came to its end")


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All kills, made in a fresh process: this one may run threads of torch, which a fork would break."""
    directory = tmp_path_factory.mktemp("kills")
    code = (
        "import os, sys; from pathlib import Path\n"
        "os.fsync = lambda descriptor: None\n"
        "from tests.megatron_aquila.test_checkpoint import SCENARIOS, run_kills\n"
        "for scenario in SCENARIOS:\n"
        "    for ranks in (1, 2):\n"
        "        run_kills(Path(sys.argv[1]) / f'{scenario}-{ranks}', scenario, ranks)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(directory)], cwd=REPOSITORY, check=True, timeout=120)
    return directory


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_kill_leaves_the_old_or_the_new(kills: Path, scenario: str, ranks: int) -> None:
    directory = kills / f"{scenario}-{ranks}"
    old, new = SCENARIOS[scenario][-2:]
    roots = [directory / str(number) for number in range(1, len(list(directory.iterdir())))]
    assert len(roots) > 15
    outcomes = []
    for root in roots:
        found = latest(root)
        assert found is not None
        outcomes.append((found.step, found.state["attempt"]))
        assert_is(found, *outcomes[-1])
        sweep(root, SingleProcess())
        assert not any(name.startswith((".tmp-", "damaged-")) or name.endswith(".replaced") for name in names(root))
        assert_is(latest(root), *outcomes[-1])
        assert (root / (root / "LATEST").read_text().strip()).is_dir()
        publish(root, 3, ranks=ranks, keep=1)
        assert names(root) == ["LATEST", "step-00000003"]
        assert_is(latest(root), 3)
    turn = outcomes.count(old)
    assert turn > 8 and len(roots) - turn > 5
    if ranks > 1:  # threads that race make a call more or less
        outcomes.sort(key=[old, new].index)
    assert outcomes == [old] * turn + [new] * (len(roots) - turn)


def test_sweep_removes_only_leftovers(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    (tmp_path / ".tmp-2-abc").mkdir()
    (tmp_path / ".tmp-2-abc" / "half").write_bytes(b"x")
    (tmp_path / ".tmp-LATEST-abc").write_text("step")
    (tmp_path / "notes").write_text("mine")
    assert run_world(2, lambda communicator: sweep(tmp_path, communicator)) == [None, None]
    assert names(tmp_path) == ["LATEST", "notes", "step-00000001"]
    sweep(tmp_path / "never made", SingleProcess())


# -- damage ---------------------------------------------------------------------------------------------


def flip(path: Path, position: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1 << bit]))


def is_damaged(path: Path, culprit: str, **options: Any) -> bool:
    try:
        open_checkpoint(path, **options)
    except CheckpointError as error:
        assert culprit in str(error)
        return True
    return False


def test_a_flipped_bit_in_any_file(tmp_path: Path) -> None:
    path = publish(tmp_path, 1, ranks=2)
    chance = random.Random(0)
    for file in sorted(path.iterdir()):
        size = file.stat().st_size
        small = file.suffix in {".json", ".sha256"}
        for position in range(size) if small else [0, size - 1, *chance.sample(range(size), 60)]:
            bit = chance.randrange(8)
            flip(file, position, bit)
            assert is_damaged(path, "manifest.json" if "manifest" in file.name else file.name), (
                file,
                position,
                bit,
            )
            flip(file, position, bit)
    assert_is(open_checkpoint(path), 1)


def zero_page(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(4096)
        stream.write(bytes(4096))


def remove(file: Path) -> None:
    file.unlink()


def truncate_to_half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def truncate_by_one(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def empty(file: Path) -> None:
    os.truncate(file, 0)


def lengthen(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"\n")


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [remove, truncate_to_half, truncate_by_one, empty, lengthen, make_folder])
def test_files_of_the_wrong_size(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = publish(tmp_path / "original", 1, ranks=2)
    for file in sorted(path.iterdir()):
        copy = tmp_path / "copies" / file.name / path.name
        shutil.copytree(path, copy)
        damage(copy / file.name)
        culprit = "manifest.json" if "manifest" in file.name else file.name
        assert is_damaged(copy, culprit)
        assert is_damaged(copy, culprit, verify="sizes")


def test_zeroed_page_swapped_and_extra_files(tmp_path: Path) -> None:
    path = publish(tmp_path, 1, ranks=2)
    shards = sorted(path.glob("shard-*"))
    original = shards[1].read_bytes()
    zero_page(shards[1])
    assert is_damaged(path, shards[1].name)
    shards[1].write_bytes(original)
    (path / "shard-00002.safetensors").write_bytes(original)
    assert is_damaged(path, "shard-00002.safetensors does not belong")
    assert is_damaged(path, "shard-00002.safetensors does not belong", verify="sizes")
    (path / "shard-00002.safetensors").unlink()
    shards[1].write_bytes(shards[0].read_bytes())
    assert is_damaged(path, shards[1].name)
    shards[1].write_bytes(original)
    assert_is(open_checkpoint(path), 1)


def test_cheaper_checks_do_less(tmp_path: Path) -> None:
    """ "sizes" does not read the shards, "off" does not look at them; both still check manifest and state."""
    path = publish(tmp_path, 1)
    flip(path / "shard-00000.safetensors", 5000, 3)
    assert is_damaged(path, "shard-00000")
    assert open_checkpoint(path, verify="sizes").step == 1
    (path / "shard-00000.safetensors").unlink()
    assert is_damaged(path, "shard-00000", verify="sizes")
    assert open_checkpoint(path, verify="off").step == 1
    flip(path / "state.json", 3, 0)
    assert is_damaged(path, "state.json", verify="off")


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_damaged_checkpoint_is_kept_and_the_one_before_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ranks: int
) -> None:
    for step in (1, 2, 3):
        publish(tmp_path, step, ranks=2)
    flip(tmp_path / "step-00000003" / "shard-00001.safetensors", 2000, 0)
    (tmp_path / "step-00000002" / "state.json").unlink()
    damaged = (tmp_path / "step-00000003" / "shard-00001.safetensors").read_bytes()
    for found in run_world(ranks, lambda communicator: find(tmp_path, communicator=communicator)):
        assert_is(found, 1)
    assert names(tmp_path) == ["LATEST", "damaged-step-00000002", "damaged-step-00000003", "step-00000001"]
    assert (tmp_path / "damaged-step-00000003" / "shard-00001.safetensors").read_bytes() == damaged
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2  # from one rank only
    assert "shard-00001.safetensors has changed" in warnings[0] and "state.json" in warnings[1]
    assert all("using step-00000001 instead" in warning for warning in warnings)

    caplog.clear()
    assert_is(latest(tmp_path), 1)
    publish(tmp_path, 3, attempt=1)
    assert_is(latest(tmp_path), 3, attempt=1)
    assert not caplog.records
    empty(tmp_path / "step-00000003" / "manifest.json")
    assert_is(latest(tmp_path), 1)
    assert (tmp_path / "damaged-step-00000003.2").is_dir()


def test_none_sound_is_an_error_for_good(tmp_path: Path) -> None:
    """A run that has lost its checkpoints must not begin again from random weights."""
    for step in (1, 2):
        truncate_to_half(publish(tmp_path, step) / "shard-00000.safetensors")
    for error in run_world(2, lambda communicator: find(tmp_path, communicator=communicator)):
        assert isinstance(error, CheckpointError)
        assert "step-00000001" in str(error) and "step-00000002" in str(error)
    with pytest.raises(CheckpointError, match="only damaged ones"):
        latest(tmp_path)
    for step in (1, 2):
        shutil.rmtree(tmp_path / f"damaged-step-{step:08d}")
    with pytest.raises(CheckpointError, match="LATEST names one that is gone"):
        latest(tmp_path)
    (tmp_path / "LATEST").unlink()
    assert latest(tmp_path) is None


@pytest.mark.parametrize("pointer", ["step-00000001\n", "step-99999999\n", "\x00\x00", None])
def test_the_newest_wins_whatever_latest_says(tmp_path: Path, pointer: str | None) -> None:
    for step in (1, 99_999_999, 100_000_000):  # numbers, not names, are compared
        publish(tmp_path, step)
    (tmp_path / "LATEST").unlink()
    if pointer is not None:
        (tmp_path / "LATEST").write_text(pointer)
    assert_is(latest(tmp_path), 100_000_000)


def test_hashing_is_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, 1, ranks=4)
    hashed: Counter[str] = Counter()
    digest = manifests.sha256_file
    monkeypatch.setattr(manifests, "sha256_file", lambda path: hashed.update([path.name]) or digest(path))
    run_world(3, lambda communicator: find(tmp_path, communicator=communicator))
    assert hashed == {f"shard-{rank:05d}.safetensors": 1 for rank in range(4)} | {"state.json": 1}


def test_a_newer_format_is_neither_read_nor_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, 1)
    monkeypatch.setattr(checkpoints, "_FORMAT", 2)
    publish(tmp_path, 2)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="its format is 2 and this megatron-aquila reads 1"):
        latest(tmp_path)
    assert names(tmp_path) == ["LATEST", "step-00000001", "step-00000002"]


def test_open_a_checkpoint_or_the_newest_in_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (1, 2):
        publish(tmp_path, step)
    assert_is(open_checkpoint(tmp_path / "step-00000001"), 1)
    assert_is(open_checkpoint(tmp_path), 2)
    shutil.copytree(tmp_path / "step-00000001", tmp_path / "best")
    assert_is(open_checkpoint(tmp_path / "best"), 1)
    remove(tmp_path / "step-00000002" / "manifest.json")
    with pytest.raises(CheckpointError, match=r"step-00000002 is damaged: manifest\.json cannot be read"):
        open_checkpoint(tmp_path / "step-00000002")
    assert_is(open_checkpoint(tmp_path), 1)
    assert "using step-00000001 instead" in caplog.text
    assert names(tmp_path) == [
        "LATEST",
        "best",
        "step-00000001",
        "step-00000002",
    ]  # an export renames nothing
    for path in (tmp_path / "nowhere", tmp_path / "best" / "manifest.json"):
        with pytest.raises(CheckpointError, match="no checkpoint"):
            open_checkpoint(path)
