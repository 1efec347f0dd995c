"""How much a dialogue's turns have to do with what was said before: the paper's Context Relevance (arXiv 2406.12182,
§2.2.1, eq. 1–3).

    CR(tᵢ) = L(tᵢ | H) / L(tᵢ),   L the mean cross-entropy of the turn's tokens, H the turns before it

Below 1 the history helps to foretell the turn; about or above 1 they have little to do with each other; far below 1
the turn repeats the history. So what is cut are both ends of the distribution, by the step `select`: this one scores.

What stands where:

- An exchange is what the user says and the assistant's answer to it. "Without history" is the dialogue of that one
  exchange (and of the system message, which is no history), laid out as any dialogue is; "with history" is the dialogue
  up to it. Both begin alike (`template`), so that the first token of a turn has something before it in both.
- Every text is tokenised once, by itself, and both computations read these ids. Tokenising the joined text again would
  merge over its joints, and compare losses of different tokens.
- What the layout puts around a text is never counted in a loss.
- The first exchange has no history, and no score: its ratio is 1 whatever it says. User messages after the last
  answer belong to no exchange.
- A dialogue is read once for all its turns: a causal model's losses with history of all of them come out of one pass.
  Where that is longer than the context, each turn beyond it gets a pass of its own, with as many whole tokens of
  history as fit, the latest. A turn that leaves no room for a token of history has no score.
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import field_validator

from data_tools.causal_model import CausalModel, CausalSettings, load_causal_model
from data_tools.chat import TEMPLATES, ChatError
from data_tools.corpus.batch import Batch, Outcome, Scale
from data_tools.corpus.step_config import Resources, StepConfig
from data_tools.dialogues.layout import LaidOut, Layout, Unit, make_layout
from data_tools.dialogues.teacher_forcing import Row, TeacherForcing
from data_tools.scorers.protocol import SCORE_DECIMALS

TURNS, DIALOGUE = "context_relevance", "context_relevance_dialogue"
_MEASURES = ("context relevance", "context relevance, lowest turn", "context relevance, highest turn")
_AGGREGATES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "geometric-mean": lambda ratios: math.exp(statistics.fmean(math.log(ratio) for ratio in ratios)),
    "median": statistics.median,
    "min": min,
    "max": max,
}


class ContextRelevanceConfig(StepConfig):
    """Score how much the turns of dialogues have to do with what was said before."""

    step: Literal["context-relevance"] = "context-relevance"
    model: CausalSettings
    """θ. The paper does not name it; the base model of the fine-tuning is a good one: what it foretells is what it
    will be trained on."""
    unit: Unit = "answer"
    """Whose tokens are a turn: the answer's alone, foretold from its question with and without the exchanges before;
    or those of the exchange, question and answer. The paper leaves both open; ours is the answer, because only answers
    are trained on."""
    template: str = "plain"
    """How messages are joined: plain, a line end between two of them after the token that begins a text; or the name
    of a chat template, for a model that was trained with one."""
    aggregate: Literal["mean", "geometric-mean", "median", "min", "max"] = "mean"
    """Of the turns' ratios to that of the dialogue. The paper has no word on it; it takes the mean for its other
    score."""

    @field_validator("template")
    @classmethod
    def _known(cls, name: str) -> str:
        if name != "plain" and name not in TEMPLATES:
            raise ValueError(f"there is no template {name!r}: give plain or one of {', '.join(TEMPLATES)}")
        return name

    def build(self, resources: Resources) -> "ContextRelevance":
        """Load the model; the recipe's tokenizer is not used.

        Raises:
            InputError: as `load_causal_model`, `make_layout` and `TeacherForcing`.
        """
        return ContextRelevance(self, load_causal_model(self.model, "model"))

    def files(self) -> tuple[Any, ...]:
        """The model."""
        return self.model.files()


class ContextRelevance:
    """Notes the scores `context_relevance`, a list with the ratio of each exchange from the second on (None where there
    is none), and `context_relevance_dialogue`, their aggregate (None where no turn has one).

    counts: "turns scored" and, of those that are not, why; "histories cut"; "single-turn dialogues"; "cannot be laid
    out: REASON", of dialogues that the template refuses.
    """

    name: ClassVar[str] = "context-relevance"

    def __init__(self, config: ContextRelevanceConfig, causal: CausalModel) -> None:
        self.scales: Mapping[str, Scale] = dict.fromkeys(_MEASURES, Scale(0.1, 10, log=True, bins=80))
        self.aggregate = _AGGREGATES[config.aggregate]
        self.layout: Layout = make_layout(causal.coder, config.template, config.unit)
        self.forcing = TeacherForcing(causal)
        self.max_length = causal.max_length

    @property
    def facts(self) -> Mapping[str, int]:
        """The tokens of the context."""
        return {"tokens of a context": self.max_length}

    def __call__(self, batch: Batch) -> Outcome:
        counts: Counter[str] = Counter()
        laid_out = [self._lay_out(messages, counts) for messages in batch.messages]
        plans = [Plan(dialogue, self.max_length, counts) for dialogue in laid_out]
        losses = self.forcing.losses([plan.rows for plan in plans])
        found = [plan.ratios(part, counts) for plan, part in zip(plans, losses)]
        notes: list[Mapping[str, Any] | None] = []
        measures = {name: np.full(len(batch), np.nan) for name in _MEASURES}
        for place, ratios in enumerate(found):
            scored = [ratio for ratio in ratios if ratio is not None]
            whole = round(self.aggregate(scored), SCORE_DECIMALS) if scored else None
            if whole is not None:
                for name, value in zip(_MEASURES, (whole, min(scored), max(scored))):
                    measures[name][place] = value
            scores = {**batch.metas[place].get("scores", {}), TURNS: ratios, DIALOGUE: whole}
            notes.append({"scores": scores})
        return Outcome(notes=notes, counts=counts, measures=measures)

    def _lay_out(self, messages: Sequence[Mapping[str, str]], counts: Counter[str]) -> LaidOut:
        try:
            laid_out = self.layout(messages)
        except ChatError as error:
            counts[f"cannot be laid out: {error.reason}"] += 1
            return LaidOut.empty()
        counts["single-turn dialogues"] += len(laid_out.turns) < 2
        return laid_out


class Plan:
    """The rows of one dialogue that the model reads, and what their losses say.

    `counts` gets what cannot be scored, and the cut histories.
    """

    def __init__(self, dialogue: LaidOut, max_length: int, counts: Counter[str]) -> None:
        ids, head = dialogue.ids, dialogue.head
        self.rows: list[Row] = []
        self.turns: list[tuple[tuple[int, slice], tuple[int, slice]] | None] = []
        """Of each turn with a history: row, and part of its losses, with and without it."""
        shared: list[np.ndarray] = []
        for turn in dialogue.turns[1:]:
            room = max_length - head - (turn.end - turn.begin)
            if not len(turn.counted) or room < 1:
                counts["turns not scored: " + ("longer than the context" if len(turn.counted) else "empty")] += 1
                self.turns.append(None)
                continue
            alone = np.concatenate([ids[:head], ids[turn.begin : turn.end]])
            self.rows.append(Row(alone, turn.counted - turn.begin + head))
            without = len(self.rows) - 1, slice(None)
            if turn.end <= max_length:
                start = sum(map(len, shared))
                shared.append(turn.counted)
                self.turns.append(((-1, slice(start, start + len(turn.counted))), without))
                continue
            counts["histories cut"] += 1
            first = turn.begin - room
            cut = np.concatenate([ids[:head], ids[first : turn.end]])
            self.rows.append(Row(cut, turn.counted - first + head))
            self.turns.append(((len(self.rows) - 1, slice(None)), without))
        if shared:
            self.rows.append(Row(ids, np.concatenate(shared)))

    def ratios(self, losses: Sequence[np.ndarray], counts: Counter[str]) -> list[float | None]:
        """CR of each exchange from the second on, rounded; `losses` are those of `rows`."""
        found: list[float | None] = []
        for turn in self.turns:
            if turn is None:
                found.append(None)
                continue
            given, alone = (float(losses[row][part].mean()) for row, part in turn)
            ratio = given / alone if alone > 0 else math.nan
            if not 0 < ratio < math.inf:
                counts["turns not scored: no finite ratio"] += 1
                found.append(None)
                continue
            counts["turns scored"] += 1
            found.append(round(ratio, SCORE_DECIMALS))
        return found
