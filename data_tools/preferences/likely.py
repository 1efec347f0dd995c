"""The likely wrong answers of questions, committed: a model's numbers may differ in their last digits in each run."""

from collections.abc import Sequence
from pathlib import Path

from data_tools.causal_model import CausalModel, CausalSettings, load_causal_model
from data_tools.commits import commit, committed, digest_of
from data_tools.preferences.choices import Choice
from data_tools.preferences.objective import Wrong, likely_wrong
from data_tools.preferences.strata import Member

SCORED_AT_ONCE = 256  # questions before a commit


class LikelyWrong:
    """Finds them piece by piece. `digest` stands for all that decides them, the model's files included; the model is
    loaded at the first piece that is not committed in `directory`.
    """

    def __init__(self, settings: CausalSettings, directory: Path, digest: str) -> None:
        self._settings, self._directory, self._digest = settings, directory, digest
        self._model: CausalModel | None = None

    def __call__(self, members: Sequence[Member[Choice]]) -> list[tuple[Wrong, float]]:
        """Of each question its likely wrong answer and that answer's score, as in `likely_wrong`."""
        facts = {"digest": self._digest, "ranks": [f"{member.rank:016x}" for member in members]}
        marker = self._directory / f"likely-{digest_of(facts)}.json"
        known = committed(marker)
        if known is None:
            if self._model is None:
                self._model = load_causal_model(self._settings, "objective.model")
            found = likely_wrong([member.content for member in members], self._model)
            known = {"found": [[list(wrong.letters), wrong.change, logp] for wrong, logp in found]}
            commit(marker, known, [])
        return [(Wrong(tuple(letters), change), logp) for letters, change, logp in known["found"]]
