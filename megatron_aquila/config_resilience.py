"""What a run does when something goes wrong: a rank that hangs, a loss that is no number, a replica that drifts."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from megatron_aquila.config_base import Section


class ResilienceConfig(Section):
    """Watchdogs, the policy on anomalies, and the checks that cost next to nothing.

    Whatever is set here: SIGTERM and SIGUSR1 end the step, save, and end the run with exit code 75.
    """

    step_timeout: NonNegativeFloat = Field(
        default=1800.0,
        description="seconds that a step, a batch of an evaluation or some hundred questions may take; then every "
        "rank's stack is written and the run ends with exit code 76; 0: no watchdog",
    )
    save_timeout: NonNegativeFloat = Field(
        default=3600.0, description="seconds that a save may take, likewise; 0: no watchdog"
    )
    nonfinite: Literal["halt", "skip", "rollback"] = Field(
        default="halt",
        description="a loss or a gradient norm that is not a number: stop before the weights are touched, leave the "
        "batch out, or go back to the last checkpoint and leave it out there",
    )
    spike: Literal["off", "record", "skip", "rollback", "halt"] = Field(
        default="record",
        description="a loss far above those before it: nothing, an event, or as for `nonfinite`",
    )
    spike_factor: PositiveFloat = Field(
        default=10.0,
        description="how far: above the median of the window by so many standard deviations, estimated as 1.4826 "
        "times the median absolute deviation",
    )
    spike_window: Annotated[int, Field(ge=8)] = Field(
        default=128, description="losses that are looked back on; until there are so many, no loss counts as a spike"
    )
    most_anomalies: PositiveInt = Field(
        default=10, description="batches that are left out in a run at most; one more stops it"
    )
    replica_check_every: NonNegativeInt = Field(
        default=500,
        description="steps between comparisons of the weights that ranks hold copies of, bit by bit; 0: never",
    )
    ledger: Literal["digest", "ids", "off"] = Field(
        default="digest",
        description="ledger.jsonl, a line a step: a hash of the samples that the ranks trained on, or their ids too",
    )
    max_restarts: NonNegativeInt = Field(
        default=0,
        description="how often `aquila train` starts the processes of this machine again after a failure; a user's "
        "error (exit code 2) and a stop by signal (75) are none",
    )
