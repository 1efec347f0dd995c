"""accounts.json: what the runs of the same pairs spent, whatever their end; the report adds them up."""

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from data_tools.llm import LanguageModel
from data_tools.publish import write_whole

FILE = "accounts.json"
_SECONDS = 2.0  # between two writes: what a killed run spent since the last one is missing


class Accounts:
    """This run's account of each model, beside those of former runs of the same plan; runs of other pairs go.

    Args:
        output: the directory that is written.
        digest: of all that decides the pairs.
        models: nothing else is asked of them.
    """

    def __init__(self, output: Path, digest: str, models: Mapping[str, LanguageModel]) -> None:
        self._path, self._digest, self._models = output / FILE, digest, models
        self._former = self._read()
        self._written = -_SECONDS

    def write_at_times(self) -> None:
        """`write`, unless it was done a moment ago: a run that is killed leaves its account too."""
        if time.monotonic() >= self._written + _SECONDS:
            self.write()

    def write(self) -> None:
        """Publish the accounts as they stand.

        Raises:
            StorageError: no space left.
        """
        self._written = time.monotonic()
        if not self._models:
            self._path.unlink(missing_ok=True)
            return
        content = {"plan": self._digest, "runs": [*self._former, self._own()]}
        write_whole(self._path, orjson.dumps(content, option=orjson.OPT_INDENT_2))

    def total(self) -> dict[str, dict[str, Any]]:
        """By model, all runs added up."""
        runs = [*self._former, self._own()]
        return {name: _added([run[name] for run in runs]) for name in self._models}

    def _own(self) -> dict[str, Any]:
        return {name: model.account.to_json() for name, model in self._models.items()}

    def _read(self) -> list[dict[str, Any]]:
        try:
            known = orjson.loads(self._path.read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return []
        return list(known["runs"]) if known.get("plan") == self._digest else []


def _added(accounts: list[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for account in accounts:
        for name, value in account.items():
            if isinstance(value, Mapping):
                total[name] = dict(sorted((Counter(total.get(name, {})) + Counter(value)).items()))
            else:
                total[name] = total.get(name, 0) + value
    return total
