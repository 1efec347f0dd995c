"""What the user did or has that cannot work; the command line prints these without a traceback."""


class AquilaError(Exception):
    """Base of every error whose message is written for the person who runs the program."""

    exit_code = 2  # of the command: the user can mend it


class ConfigError(AquilaError):
    """A configuration, ours or a model's, is wrong; one line per problem, each naming its key."""


class TrainingError(AquilaError):
    """Training cannot go on without becoming wrong."""
