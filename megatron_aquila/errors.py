"""What the user did or has that cannot work; the command line prints these without a traceback.

And the exit codes by which a launcher knows what became of a rank.
"""

DONE = 0
USER_ERROR = 2  # the user can mend it
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: stopped by a signal, and saved
HUNG = 76  # ended by the watchdog


class AquilaError(Exception):
    """Base of every error whose message is written for the person who runs the program."""

    exit_code = USER_ERROR  # of the command


class ConfigError(AquilaError):
    """A configuration, ours or a model's, is wrong; one line per problem, each naming its key."""


class TrainingError(AquilaError):
    """Training cannot go on without becoming wrong."""
