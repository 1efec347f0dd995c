"""What the commands of `aquila data` share: errors in one sentence, the console, progress bars. Light to import."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

# Exit codes. 1: the data or the machine stands in the way, what was done is kept. 2: it could not be begun as
# asked.
DATA_FAULT, USAGE_FAULT = 1, 2


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn the errors that are meant for the user into one sentence on stderr and an exit code."""
    from data_tools.indexed import IndexedDatasetError
    from data_tools.inputs import InputError, RunError
    from data_tools.manifest import ManifestError
    from data_tools.pool import WorkerDiedError
    from data_tools.publish import BusyError
    from data_tools.tokenizers import TokenizerError

    try:
        yield
    except (InputError, TokenizerError) as error:
        fail(str(error), USAGE_FAULT)
    except (RunError, BusyError, WorkerDiedError, IndexedDatasetError, ManifestError) as error:
        fail(str(error), DATA_FAULT)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror or error}", DATA_FAULT)


def fail(sentence: str, code: int) -> None:
    typer.echo(f"aquila data: {sentence}", err=True)
    raise typer.Exit(code)


def console() -> "Console":
    """On stderr: stdout is for results."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def bar(console: "Console", wanted: bool) -> "Iterator[Callable[[str, int, int], None]]":
    """Yields what is to be called with what is being done, how many bytes of it are done, and how many there are."""
    if not wanted:
        yield lambda title, done, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress("[progress.description]{task.description}", *columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def update(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = bars.add_task(title, total=None)
            bars.update(tasks[title], completed=done, total=total)

        yield update
