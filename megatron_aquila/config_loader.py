"""A training recipe in, a checked :class:`RunConfig` out."""

from collections.abc import Sequence
from pathlib import Path

from data_tools.config_files import ConfigFileError, config_hash, dump_config, load_model
from megatron_aquila.config import SHAPE_TAGS, RunConfig
from megatron_aquila.errors import ConfigError

__all__ = ["config_hash", "dump_config", "load_config"]


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the recipe at ``path`` with ``overrides``; see :func:`data_tools.config_files.load_model`.

    Raises ConfigError with one line per problem, naming file and line, or the override, and the dotted key.
    """
    try:
        return load_model(RunConfig, path, overrides, tags=SHAPE_TAGS)
    except ConfigFileError as error:
        raise ConfigError(str(error)) from error
