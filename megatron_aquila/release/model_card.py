"""README.md of an export: what it is, how it was made, what was measured, what it is not for.

Pure: facts in, Markdown out. It holds file names, never paths, and nothing of a recipe but the settings named here.
"""

from __future__ import annotations

from dataclasses import dataclass

from data_tools.chat import TEMPLATES
from megatron_aquila.release.evidence import Evidence
from megatron_aquila.release.figures import (
    READING,
    contamination_section,
    evaluation_section,
    judgement_section,
    model_index,
    number,
)
from megatron_aquila.release.history import History, Stage
from megatron_aquila.release.markdown import Markdown, code, front_matter, table, text
from megatron_aquila.shapes import ModelShape

_STAGES = {
    "cpt": ("continued pre-training", "tokens"),
    "sft": ("supervised fine-tuning", "trained tokens of answers"),
    "dpo": ("preference training", "pairs"),
}

_FORGED = (
    " In transformers a control token in what a user wrote becomes one, and so can end his turn; "
    "`apply_chat_template(..., sanitize_control_tokens=True)` keeps it text, as training did."
)


@dataclass(frozen=True)
class Card:
    """What a model card is made of. `licence` and `base_model` are the user's word; `datasets` are file names of the
    dataset cards, by the digest of the data."""

    name: str
    licence: str | None
    base_model: str | None
    shape: ModelShape
    dtype: str
    history: History
    evidence: Evidence
    datasets: dict[str, str]


def model_card(card: Card) -> str:
    """The whole card, front matter first."""
    sections = [
        f"# {text(card.name)}",
        _summary(card),
        "## Intended use and limits",
        _limits(card),
        "## Results",
        _results(card.evidence),
        "## How it was made",
        _making(card),
        "## How to load it",
        _loading(card),
        "## Licence",
        _licence(card),
    ]
    return _front_matter(card) + "\n" + "\n\n".join(sections) + "\n"


def _front_matter(card: Card) -> str:
    kinds = dict.fromkeys(stage.kind for stage in card.history.stages)
    return front_matter(
        {
            "license": card.licence,
            "language": ["zh", "en"],
            "library_name": "transformers",
            "pipeline_tag": "text-generation",
            "base_model": card.base_model,
            "tags": ["medical", "llama", "megatron-core", "megatron-aquila", *kinds],
            "model-index": model_index(card.name, card.evidence.evaluations.values()),
        }
    )


def _summary(card: Card) -> str:
    last = card.history.stages[-1]
    shape = card.shape
    kinds = dict.fromkeys(_called(card.history, place) for place in range(len(card.history.stages)))
    base = "" if card.base_model is None else f" It was made from {code(card.base_model)}."
    template = (
        "It has no chat template: it continues text, and does not answer questions."
        if last.chat_template is None
        else f"It answers in the chat template {code(last.chat_template)} (`chat_template.jinja`)."
    )
    return (
        f"A language model for Chinese and English medical text, {shape.parameters():,} parameters, a plain "
        f"`LlamaForCausalLM` in {code(card.dtype)} with a context of {shape.max_position_embeddings:,} tokens.{base} "
        f"It was trained with megatron-aquila, after the process of Aquila-Med (arXiv 2406.12182), by "
        f"{text(', '.join(kinds))}. {template}"
    )


def _limits(card: Card) -> str:
    evidence = card.evidence
    lines = [
        "**This model is not a doctor, and its answers are not medical advice.** It is for research on language models "
        "in medicine. Do not diagnose, treat, or choose or dose a drug by it, and do not put it before patients "
        "without the oversight of clinicians and the approvals that your law asks for.",
        "**本模型不是医生，其回答不构成医疗建议，不能代替医生的诊断和治疗；仅供研究使用。**",
        "- It states false things fluently, and it cannot tell you when it does.\n"
        "- It knows nothing of the person who asks, and nothing that happened after its training data.\n"
        "- Errors and prejudices of its data, about groups of people too, are in its answers.",
    ]
    missing = [
        "its use in care, by anybody",
        "the harm that its wrong answers may do",
        "fairness between groups of people",
    ]
    if not evidence.evaluations:
        missing.insert(0, "knowledge, by questions with known answers")
    if not evidence.judgements:
        missing.insert(0, "the quality of its dialogues")
    if not evidence.contamination:
        missing.append("whether test questions occur in its training data")
    lines.append(f"Not evaluated here: {'; '.join(missing)}; languages other than Chinese and English.")
    return "\n\n".join(lines)


def _results(evidence: Evidence) -> str:
    parts = [evaluation_section(name, evaluation) for name, evaluation in evidence.evaluations.items()]
    if parts:
        parts.insert(0, READING)
    parts += [judgement_section(name, summary) for name, summary in evidence.judgements.items()]
    parts += [contamination_section(name, report) for name, report in evidence.contamination.items()]
    return "\n\n".join(parts) or "No evaluation of these weights was recorded."


def _making(card: Card) -> str:
    history = card.history
    origin = {
        "random": "Training began with random weights.",
        "huggingface": f"Training began with the weights of {code(history.origin_name)}.",
        "missing": f"Training began with the run {code(history.origin_name)}, which could not be read when this card "
        "was written: what was done before is not told here.",
    }[history.origin]
    headings = ("stage", "run", "step", "trained on", "recipe", "checkpoint")
    rows = [
        (
            _called(history, place),
            code(stage.name),
            number(stage.step),
            Markdown(f"{stage.counted:,} {text(_STAGES.get(stage.kind, ('', 'units'))[1])}"),
            code(stage.recipe_digest[:16]),
            code(stage.digest[:16]),
        )
        for place, stage in enumerate(history.stages)
    ]
    parts = [
        origin,
        table(headings, rows, right=(2,)),
        "Digests are the first 16 digits of SHA-256: of the resolved recipe, and of the manifest that lists the "
        f"checkpoint's files with theirs. The tokenizer is {code(history.stages[-1].tokenizer[:16])}.",
        "\n".join(_settings(stage) for stage in history.stages),
        _data_table(card),
    ]
    return "\n\n".join(part for part in parts if part)


def _called(history: History, place: int) -> str:
    """A stage in words: nothing is continued where training began with random weights."""
    kind = history.stages[place].kind
    if kind == "cpt" and place == 0 and history.origin == "random":
        return "pre-training"
    return _STAGES.get(kind, (kind, ""))[0]


def _settings(stage: Stage) -> str:
    training, optimizer = stage.recipe.get("training", {}), stage.recipe.get("optimizer", {})
    facts = {
        "learning rate": optimizer.get("lr"),
        "schedule": optimizer.get("schedule", {}).get("kind"),
        "global batch": training.get("global_batch_size"),
        "sequence length": stage.recipe.get("data", {}).get("sequence_length"),
        "precision": training.get("precision"),
    }
    if stage.kind == "dpo":
        preference = stage.recipe.get("preference", {})
        facts |= {"loss": preference.get("loss"), "beta": preference.get("beta")}
    facts |= {name: version for name, version in stage.versions.items() if version}
    told = ", ".join(f"{text(name)} {code(value)}" for name, value in facts.items() if value is not None)
    return f"- {code(stage.name)}: {told}; layout {code(stage.layout)}"


def _data_table(card: Card) -> str:
    rows = []
    for stage in card.history.stages:
        for data in stage.data:
            counts = (data.manifest or {}).get("counts", {})
            digest, named = data.digest, Markdown("no manifest was kept")
            if digest is not None:
                file = card.datasets.get(digest)
                named = code(digest[:16]) if file is None else Markdown(f"[{code(digest[:16])}](datasets/{file})")
            units, tokens = counts.get("documents"), counts.get("tokens")
            rows.append(
                (
                    code(stage.name),
                    {"train": "training", "valid": "validation"}[data.part],
                    code(data.name),
                    number(units) if units is not None else "",
                    number(tokens) if tokens is not None else "",
                    named,
                )
            )
    return (
        table(("run", "part", "data", "records", "tokens", "SHA-256 of the tokens"), rows, right=(3, 4)) if rows else ""
    )


def _loading(card: Card) -> str:
    name = card.history.stages[-1].chat_template
    template = TEMPLATES.get(name) if name else None
    if template is None:
        ask = (
            'inputs = tokenizer("高血压是", return_tensors="pt")\n'
            "output = model.generate(**inputs, max_new_tokens=256)\n"
        )
        stop = ""
    else:
        closing = (
            "" if template.stop_tokens else f", stop_strings=[{template.assistant.closing!r}], tokenizer=tokenizer"
        )
        ask = (
            'messages = [{"role": "user", "content": "What is hypertension?"}]\n'
            'inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", '
            "return_dict=True)\n"
            f"output = model.generate(**inputs, max_new_tokens=256{closing})\n"
        )
        stop = (
            "\n\nAn answer ends at a token listed in `generation_config.json`."
            if template.stop_tokens
            else f"\n\nAn answer ends with the text {code(template.assistant.closing)}, which no token marks: give it "
            "to whatever generates as a stop string."
        )
    return (
        "```python\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'tokenizer = AutoTokenizer.from_pretrained("PATH")\n'
        'model = AutoModelForCausalLM.from_pretrained("PATH", dtype="auto")\n'
        f"{ask}"
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))\n'
        "```\n\n"
        "No remote code is needed."
        f"{_FORGED if template else ''}"
        f"{stop}\n\n"
        "```sh\n"
        "vllm serve PATH --served-model-name NAME        # samples at temperature 1 unless a request says otherwise\n"
        "python convert_hf_to_gguf.py PATH --outfile model.gguf && llama-cli -m model.gguf"
        f"{' --jinja' if template else ''}\n"
        "```\n\n"
        "`generation_config.json` asks for no sampling: transformers decodes greedily."
    )


def _licence(card: Card) -> str:
    if card.licence is None:
        return (
            "Not stated by whoever made this export. The licence of the base model and the terms of the training data "
            "decide what may be done with these weights: find them out before you use or pass on the model."
        )
    return (
        f"{code(card.licence)}, as stated by whoever made this export. The licence of the base model and the terms of "
        "the training data hold as well."
    )
