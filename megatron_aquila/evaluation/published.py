"""The results that the Aquila-Med report published (arXiv 2406.12182), and what they show once intervals are put on.

`page()` is docs/the_paper_re-read.md: every figure in it is computed here. Items were not published, so models are
compared as if they had answered different questions (`statistics.two_proportions`).

    python -m megatron_aquila.evaluation.published docs/the_paper_re-read.md
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_aquila.evaluation import statistics
from megatron_aquila.evaluation.comparison import probability
from megatron_aquila.evaluation.results import Interval
from megatron_aquila.evaluation.statistics import Estimate, Verdict

MMLU = (135, 265, 144, 173, 100, 272)  # test: anatomy, clinical knowledge, college biology and medicine, genetics, …
CEVAL = (19, 22, 49, 23)  # validation: basic, clinical, physician, veterinary
ASSUMED_CORRELATION = 0.6  # of two stages' answers to the same questions, where none could be measured


@dataclass(frozen=True)
class Score:
    """One benchmark before and after a stage, per cent as printed. `parts`: sizes of the tasks that it averages."""

    step: str
    benchmark: str
    n: int
    before: float
    after: float
    parts: tuple[int, ...] = ()


# Table 1 (base models, 3 shots) and Table 2 (aligned models).
CPT, DPO = "continued pre-training", "preference training"
SCORES = (
    Score(CPT, "MMLU medical", sum(MMLU), 42.91, 49.32, MMLU),
    Score(CPT, "C-Eval medical", sum(CEVAL), 48.77, 48.40, CEVAL),
    Score(CPT, "MedQA", 1273, 38.65, 41.56),
    Score(CPT, "MedMCQA", 4183, 38.58, 38.23),
    Score(CPT, "PubMedQA", 500, 71.60, 72.40),
    Score(DPO, "MMLU medical", sum(MMLU), 56.2, 56.4, MMLU),
    Score(DPO, "C-Eval medical", sum(CEVAL), 50.44, 53.10),
    Score(DPO, "CMB-Exam", 11_200, 47.63, 47.12),
)


@dataclass(frozen=True)
class Judged:
    """Huatuo, 500 questions (figures 4 and 5): wins, ties and losses in per cent."""

    model: str
    opponent: str
    win: float
    tie: float
    loss: float
    n: int = 500

    def counts(self) -> tuple[int, int, int]:
        win, tie, loss = (round(share * self.n / 100) for share in (self.win, self.tie, self.loss))
        return win, tie, loss


CHAT, RL = "Chat (SFT)", "Chat-RL (DPO)"
PAIRS = (
    Judged(CHAT, "the data set's answer", 62.4, 26.8, 10.8),
    Judged(RL, "the data set's answer", 76.0, 17.8, 6.2),
    Judged(CHAT, "GPT-3.5", 2.4, 23.6, 74.0),
    Judged(RL, "GPT-3.5", 10.6, 42.0, 47.4),
)

# CMB-Clin (figure 7, bars measured): of Chat and of Chat-RL, the mean of each round and the average as drawn.
CLIN_TURNS = (74, 72, 57, 4)
CLIN = {
    "Fluency": ((4.918, 4.596, 4.297, 4.499, 4.627), (4.837, 4.443, 4.315, 4.249, 4.545)),
    "Relevance": ((4.351, 3.736, 3.754, 3.250, 3.952), (4.338, 3.889, 3.789, 4.250, 4.029)),
    "Completeness": ((3.743, 3.000, 2.947, 3.500, 3.261), (4.041, 3.319, 3.333, 3.500, 3.585)),
    "Proficiency": ((4.270, 4.000, 3.947, 3.750, 4.077), (4.338, 4.028, 3.982, 4.250, 4.130)),
}

# Percentages that must be a count over n if the paper's words are right: benchmark, as printed, n, what n is.
CLAIMS = (
    ("C-Eval, table 2", (50.44, 53.10), 113, "all questions of the four parts"),
    ("C-Eval, table 1", (48.77, 48.40), 113, "all questions of the four parts"),
    ("MMLU, table 1", (42.91, 49.32), 1089, "all questions of the six parts"),
    ("MedQA", (38.65, 41.56), 1273, "test"),
    ("PubMedQA", (71.60, 72.40), 500, "test"),
    ("MedMCQA", (38.58, 38.23), 6100, "“test” as the paper counts it"),
    ("MedMCQA", (38.58, 38.23), 6150, "test, whose labels are hidden"),
    ("MedMCQA", (38.58, 38.23), 4183, "validation"),
    ("CMB-Exam", (47.63, 47.12), 11_200, "test"),
)


@dataclass(frozen=True)
class Reread:
    """A score with what can be said of it; shares between 0 and 1. `p_macro`: with the standard error of a mean over
    tasks, where the paper averages tasks."""

    score: Score
    before: Interval
    after: Interval
    difference: Estimate
    p: float
    adjusted: float
    p_macro: float | None
    visible: float
    visible_paired: float
    verdict: Verdict


def reread(scores: Sequence[Score] = SCORES) -> list[Reread]:
    """Each score; Holm over all of them."""
    ps = [statistics.two_proportions(s.before / 100, s.n, s.after / 100, s.n) for s in scores]
    return [_reread(score, p, adjusted) for score, p, adjusted in zip(scores, ps, statistics.holm(ps))]


def _reread(score: Score, p: float, adjusted: float) -> Reread:
    before, after, n = score.before / 100 * score.n, score.after / 100 * score.n, score.n
    difference = statistics.share_difference(before, n, after, n)
    return Reread(
        score=score,
        before=statistics.wilson(before, n),
        after=statistics.wilson(after, n),
        difference=difference,
        p=p,
        adjusted=adjusted,
        p_macro=statistics.z_test(difference.value, _macro_error(score)) if score.parts else None,
        visible=statistics.minimum_detectable_effect(n),
        visible_paired=statistics.minimum_detectable_effect(n, correlation=ASSUMED_CORRELATION),
        verdict=statistics.verdict(difference.interval, adjusted),
    )


def _macro_error(score: Score) -> float:
    """Of the difference of two macro averages whose tasks all have the share that was printed."""
    return math.hypot(
        *(
            statistics.macro_average([share / 100 * size for size in score.parts], score.parts).standard_error
            for share in (score.before, score.after)
        )
    )


def counts_that_fit(percent: float, n: int, digits: int = 2) -> list[int]:
    """Whole numbers k for which 100 k / n is printed as `percent`; either way of rounding a half."""
    half = 0.5 * 10**-digits
    first = max(0, math.ceil((percent - half) * n / 100 - 1e-9))
    last = min(n, math.floor((percent + half) * n / 100 + 1e-9))
    return list(range(first, last + 1))


def page() -> str:
    """The whole of docs/the_paper_re-read.md."""
    found = reread()
    by = {(row.score.step, row.score.benchmark): row for row in found}
    sure = [row for row in found if row.verdict != "not distinguishable"]
    mmlu, medqa, ceval = by[CPT, "MMLU medical"], by[CPT, "MedQA"], by[DPO, "C-Eval medical"]
    chat, rl = PAIRS[0], PAIRS[1]
    wins = [statistics.wilson(pair.counts()[0], pair.n) for pair in (chat, rl)]
    wins_p = statistics.two_proportions(chat.win / 100, chat.n, rl.win / 100, rl.n)
    gpt_p = statistics.two_proportions(PAIRS[2].win / 100, 500, PAIRS[3].win / 100, 500)
    tested = statistics.two_proportions(0.3858, 6100, 0.3823, 6100)
    return f"""# The paper re-read

What the published tables of Aquila-Med (arXiv 2406.12182) show, once every figure has an interval. All of it is
computed by `megatron_aquila.evaluation.published` with the functions that judge our own runs
([statistics](statistics.md)); a test keeps this page equal to what they say.

The paper gives no intervals and no answers question by question, so the models are compared as if they had answered
different questions. On the same questions, item by item, smaller differences can be told from chance: "visible, same"
says how small, if the answers of two stages correlate at {ASSUMED_CORRELATION}.

## Exams

{_scores_table(found)}

Intervals: Wilson, 95 %. p: two shares, z. Holm: p once {len(found)} tests are allowed for. Visible: the least true
difference that so many questions show four times in five, asked of two models anew, or of two on the same questions.

**What holds.** {len(sure)} of {len(found)} differences: MMLU medical after continued pre-training,
{_points(mmlu.difference.value)} points (p = {probability(mmlu.p)}; {probability(mmlu.adjusted)} after Holm).

**What does not.** The rest lies within chance. MedQA ({_points(medqa.difference.value)}, p = {probability(medqa.p)})
may be a gain: asked anew, {medqa.score.n:,} questions miss a true one of that size two times in three. C-Eval after
preference training ({_points(ceval.difference.value)}) is three questions of {ceval.score.n}; nothing under
{100 * ceval.visible:.0f} points shows on so few. The small losses (C-Eval, MedMCQA, CMB-Exam) prove no harm either.

**Averages over tasks.** The paper averages the parts of MMLU and of C-Eval without weights, which is less sure than
pooling their questions. At one half the standard error is {_macro_se(CEVAL)} points for C-Eval instead of
{_micro_se(CEVAL)}, and {_macro_se(MMLU)} instead of {_micro_se(MMLU)} for MMLU. With it, the gain on MMLU has
p = {probability(mmlu.p_macro or 0)}.

**Which questions.** MedMCQA is taken as the {by[CPT, "MedMCQA"].score.n:,} of its validation split (see below). With
6,100, as the paper counts, p would be {probability(tested)}.

## Judged answers

{_pairs_table()}

500 questions; a win or a loss only where GPT-4 said so in both orders. Intervals: Goodman, which hold for the three
shares at once. Net: wins less losses. p: exact sign test on wins and losses.

**What holds.** Preference training wins more often against the data set's answers: {rl.win:.1f} %
({_interval(wins[1])}) against {chat.win:.1f} % ({_interval(wins[0])}), Wilson, p {_with_sign(wins_p)}. It also wins
more often against GPT-3.5 ({PAIRS[2].win:.1f} → {PAIRS[3].win:.1f} %, p {_with_sign(gpt_p)}), **and still loses to
it**: {abs(100 * _net(PAIRS[3]).value):.1f} points net.

**What it leaves open.** One judge, whose version and temperature are not said. Length, which judges like, was not
controlled. A tie is both a tie and a disagreement of the two orders: how often the judge only followed the order, no
figure tells.

## Scores by round

CMB-Clin, 1 to 5, {sum(CLIN_TURNS)} answers in rounds of {", ".join(map(str, CLIN_TURNS[:-1]))} and {CLIN_TURNS[-1]}:

{_clin_table()}

Nothing was published of their spread, so there is no test; answers of one case are not independent either. Round 4 is
**four answers**: its bars move by a quarter point for one point of one judgement. The averages weigh answers alike, not
rounds: recomputed from the bars they agree to {_clin_worst():.3f}.

## Sums that can be checked

A percentage of n questions is a whole number over n.

{_claims_table()}

- C-Eval in table 2 pools its {sum(CEVAL)} questions; in table 1 it cannot have done so. The tables do not compare.
- MedMCQA was scored on the validation split. The test split has no public labels.

## What else is off

- 320,000 samples cannot be chosen from 199,000; a vocabulary cannot be 15k where the released model has some 151k.
- The released "7 billion" model has 8.2 billion parameters.
- Figures 6 and 7 are called tables 6 and 7; figure 7 says CMT-Clin for CMB-Clin.
- The prompt for single answers speaks of "two multi-turn conversations".
- Shots, prompts and decoding of table 2, and the judge's version, are not given.
- CMB-Exam's training questions are in the fine-tuning data and its test questions are scored; the same for Huatuo.
  Contamination has to be measured: `aquila eval contamination`.
"""


def _scores_table(found: Sequence[Reread]) -> str:
    lines = [
        "| step | benchmark | n | before | after | difference | p | Holm | visible, anew / same | later model |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        score, difference = row.score, row.difference
        lines.append(
            f"| {score.step} | {score.benchmark} | {score.n:,} | {score.before:g} ({_interval(row.before)}) "
            f"| {score.after:g} ({_interval(row.after)}) | {_points(difference.value)} "
            f"({_points(difference.interval.low)} to {_points(difference.interval.high)}) | {probability(row.p)} "
            f"| {probability(row.adjusted)} | {100 * row.visible:.1f} / {100 * row.visible_paired:.1f} "
            f"| {'**better**' if row.verdict == 'better' else row.verdict} |"
        )
    return "\n".join(lines)


def _pairs_table() -> str:
    lines = ["| model | against | win | tie | loss | net | p |", "|---|---|---|---|---|---|---|"]
    for pair in PAIRS:
        win, tie, loss = pair.counts()
        cells = [
            f"{100 * count / pair.n:.1f} ({_interval(interval)})"
            for count, interval in zip((win, tie, loss), statistics.goodman((win, tie, loss)))
        ]
        net = _net(pair)
        cells.append(f"{_points(net.value)} ({_points(net.interval.low)} to {_points(net.interval.high)})")
        lines.append(
            f"| {pair.model} | {pair.opponent} | {' | '.join(cells)} | {probability(statistics.sign_test(win, loss))} |"
        )
    return "\n".join(lines)


def _clin_table() -> str:
    lines = ["| | Chat | Chat-RL | difference | difference in round 4 |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {chat[-1]:.2f} | {rl[-1]:.2f} | {_signed(rl[-1] - chat[-1])} | {_signed(rl[3] - chat[3])} |"
        for name, (chat, rl) in CLIN.items()
    ]
    return "\n".join(lines)


def _claims_table() -> str:
    lines = ["| figure | n | right | a figure at random fits |", "|---|---|---|---|"]
    for name, percents, n, what in CLAIMS:
        right = []
        for percent in percents:
            fits = counts_that_fit(percent, n)
            right.append(" or ".join(f"{k:,}" for k in fits) if fits else "none fits")
        chance = min(1.0, (n + 1) / 10_001)
        odds = (
            "always" if chance == 1 else f"1 time in {1 / chance:.0f}" if chance < 0.4 else f"{chance:.0%} of the time"
        )
        printed = ", ".join(f"{percent:.2f}" for percent in percents)
        lines.append(f"| {name}: {printed} | {n:,}: {what} | {'; '.join(right)} | {odds} |")
    return "\n".join(lines)


def _clin_worst() -> float:
    """The greatest difference between a drawn average and the mean of all answers."""
    rounds = [bars for models in CLIN.values() for bars in models]
    return max(abs(sum(n * m for n, m in zip(CLIN_TURNS, bars)) / sum(CLIN_TURNS) - bars[-1]) for bars in rounds)


def _net(pair: Judged) -> Estimate:
    return statistics.net_win(*pair.counts())


def _macro_se(parts: Sequence[int]) -> str:
    return f"{100 * statistics.macro_average([size / 2 for size in parts], parts).standard_error:.1f}"


def _micro_se(parts: Sequence[int]) -> str:
    return f"{50 / math.sqrt(sum(parts)):.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _interval(interval: Interval) -> str:
    return f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"


def _with_sign(p: float) -> str:
    said = probability(p)
    return said if said.startswith("<") else f"= {said}"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
