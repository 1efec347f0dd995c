"""Our class in lm-eval beside its own `hf` on the export of the same checkpoint, request by request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.megatron_aquila.engine.runs import tiny_run
from tests.world import world

pytest.importorskip("lm_eval")

_TEXTS = [
    "the patient has fever and cough",
    "发热 咳嗽 三天，患者乏力",
    "A. aspirin B. insulin\nAnswer: A",
    "答案：B 高血压",
]
_CONTROL = ["<|im_start|>", "<|im_end|>"]
_MAX_LENGTH = 48
_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": _MAX_LENGTH,
    "initializer_range": 0.3,  # so that tokens differ in probability
    "bos_token_id": None,
}
_MODELS: dict[str, dict[str, Any]] = {
    "GQA bias": {"attention_bias": True},  # byte-level BPE; saved as a run from two ranks, then exported
    "tied MHA": {"num_key_value_heads": 4, "tie_word_embeddings": True},  # sentencepiece; a base model
}
_CONTEXTS = [
    "fever",
    "发热 咳嗽",
    "the patient has cough and fever. Answer:",
    "答案：",
    "发热 三天，患者咳嗽 " * 12,  # longer than the model
    "the patient ",
    "Answer:\n",
]
_CONTINUATIONS = [" A", " B", "B", "高血压", " the patient has insulin"]
_QUESTIONS = [
    [{"role": "user", "content": "发热 fever?"}],
    [
        {"role": "system", "content": "Answer: A or B"},
        {"role": "user", "content": "咳嗽"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": "the patient has fever"},
    ],
]

Request = tuple[Any, ...]


@pytest.fixture(scope="module", params=list(_MODELS))
def export(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory; of the first model it is the export of the run `run` beside it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from data_tools.chat import get_template
    from data_tools.tokenizer_training import train_from_texts
    from data_tools.tokenizers import load_tokenizer
    from megatron_aquila.huggingface import HuggingFaceReader, write_model
    from megatron_aquila.huggingface import export as export_run

    place = tmp_path_factory.mktemp("lm")
    is_run = request.param == "GQA bias"
    if is_run:
        _train_byte_level(place / "run" / "tokenizer")
    else:
        train_from_texts(_TEXTS * 20, place / "run" / "tokenizer", vocab_size=340, control_tokens=_CONTROL)
    tokenizer = load_tokenizer(place / "run" / "tokenizer")
    sizes: dict[str, Any] = {**_SIZES, "vocab_size": tokenizer.vocab_size, "eos_token_id": tokenizer.eod_id}
    torch.manual_seed(3)
    llama = LlamaForCausalLM(LlamaConfig(**sizes | _MODELS[request.param]))
    for name, value in llama.named_parameters():
        if name.endswith("proj.bias"):  # o_proj's must be zero
            torch.nn.init.normal_(value, std=0.0 if "o_proj" in name else 0.3)
    llama.save_pretrained(place / "source")
    if is_run:
        world(2, save_run, source=str(place / "source"), run=str(place / "run"))
        return export_run(place / "run", place / "export")
    reader = HuggingFaceReader(place / "source")
    return write_model(place / "export", reader.shape, reader, "", tokenizer, chat_template=get_template("chatml"))


def _train_byte_level(directory: Path) -> None:
    """300 ids; no beginning-of-sequence token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    coder = Tokenizer(models.BPE())
    coder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    coder.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", *_CONTROL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    coder.train_from_iterator(_TEXTS * 5, trainer)
    directory.mkdir(parents=True)
    coder.save(str(directory / "tokenizer.json"))


def save_run(source: str, run: str) -> None:
    from megatron_aquila import checkpoint
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.model import build_model
    from megatron_aquila.engine.optimizer import OptimizerState, build_optimizer, wrap_data_parallel
    from megatron_aquila.engine.parallel import parallel_world
    from megatron_aquila.engine.snapshot import Snapshot
    from megatron_aquila.engine.weights import load_weights
    from megatron_aquila.huggingface import HuggingFaceReader

    settings = tiny_run(model__shape="from-weights", model__weights=source, parallel__tensor_parallel=2)
    device = choose_device("cpu")
    with parallel_world(settings, device) as layout:
        reader = HuggingFaceReader(Path(source))
        chunks, config = build_model(settings, reader.shape, device)
        load_weights(chunks, reader.shape, layout, reader)
        chunks = wrap_data_parallel(settings, config, chunks)
        optimizer = build_optimizer(settings, config, chunks)
        snapshot = Snapshot(chunks, reader.shape, layout, OptimizerState(optimizer, chunks, reader.shape, layout))
        checkpoint.save(
            Path(run) / "checkpoints",
            7,
            snapshot.write,
            state={"shape": json.loads(reader.shape.model_dump_json()), "chat_template": "chatml", **snapshot.state()},
            keep=1,
            communicator=layout,
        )


def instances(kind: str, requests: list[Request]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, arguments, number) for number, arguments in enumerate(requests)]  # type: ignore[arg-type]


def asked(lm: Any, pairs: list[Request], texts: list[str], generations: list[Request]) -> dict[str, Any]:
    """Everything lm-eval can ask of a model; conversations beside the plain texts."""
    chats = [lm.apply_chat_template(messages) for messages in _QUESTIONS]
    greedy = {"until": [], "max_gen_toks": 12, "do_sample": False}
    return {
        "chats": chats,
        "begun": lm.apply_chat_template([*_QUESTIONS[0], {"role": "assistant", "content": "the"}], False),
        "pairs": lm.loglikelihood(
            instances("loglikelihood", [*pairs, *((chat, letter) for chat in chats for letter in "AB")]),
            disable_tqdm=True,
        ),
        "rolling": lm.loglikelihood_rolling(
            instances("loglikelihood_rolling", [(text,) for text in texts]), disable_tqdm=True
        ),
        "generated": lm.generate_until(
            instances("generate_until", [*generations, *((chat, dict(greedy)) for chat in chats)]), disable_tqdm=True
        ),
        "prefix": lm.prefix_token_id,
        "max_length": lm.max_length,
    }


@pytest.fixture(scope="module")
def expected(export: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What is asked, and lm-eval's `hf`'s answers to it."""
    import lm_eval.models.huggingface as theirs

    from data_tools.tokenizers import load_tokenizer

    hf = theirs.HFLM(pretrained=str(export), device="cpu", dtype="float32", batch_size=3)
    if not (export.parent / "run" / "checkpoints").exists():
        # Of bytes that are no text transformers makes other rubbish than sentencepiece itself.
        own = load_tokenizer(export)
        control = set(own.special_tokens.values())
        hf.tok_decode = lambda ids, skip_special_tokens=True: (  # type: ignore[method-assign]
            own.decode([i for i in ids if i not in control]) if isinstance(ids, list) else own.decode([ids])
        )
    pairs: list[Request] = [(context, said) for context in ["", *_CONTEXTS] for said in _CONTINUATIONS]
    greedy = {"until": [], "max_gen_toks": 12, "do_sample": False}
    generations: list[Request] = [(context, dict(greedy)) for context in _CONTEXTS]
    plain = hf.generate_until(instances("generate_until", [(c, dict(o)) for c, o in generations]), disable_tqdm=True)
    # A stop text out of the midst of an answer; and pairs that are what the model would say.
    for (context, _), answer in zip(list(generations), plain):
        middle = next((a + b for a, b in pairwise(answer[3:]) if "\ufffd" not in a + b), None)
        if middle is not None:
            generations.append((context, {"until": [middle, "\n\n"], "max_gen_toks": 12}))
    tokenizer = hf.tokenizer
    for context in _CONTEXTS[:4]:
        with torch.no_grad():
            logits_V = hf.model(torch.tensor([tokenizer.encode(context)])).logits[0, -1]
        if logits_V.argmax() not in tokenizer.all_special_ids:  # the text of one is text for us
            pairs.append((context, tokenizer.decode(logits_V.argmax())))
    texts = ["发热 咳嗽 the patient", "A", "患者乏力，the patient has fever and cough. " * 9]
    questions = {"pairs": pairs, "texts": texts, "generations": generations}
    yield questions, asked(hf, **questions)


def ours(path: str, questions: dict[str, Any], pack_tokens: int, batch_size: int, **parallel: Any) -> Any:
    from megatron_aquila.config import ParallelConfig
    from megatron_aquila.evaluation.lm import AquilaLM

    with AquilaLM.open(
        Path(path),
        parallel=ParallelConfig(**parallel),
        precision="fp32",
        device="cpu",
        pack_tokens=pack_tokens,
        batch_size=batch_size,
    ) as lm:
        if not lm.is_main:
            return lm.serve()
        facts = (lm.model.kind, lm.model.step, lm.model.digest, lm.model.path.name)
        return asked(lm, **questions), facts


LAYOUTS: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "one rank": (1, 4096, 32, {}),
    "one rank, one by one": (1, 1, 1, {}),
    "TP2 SP": (2, 300, 12, {"tensor_parallel": 2, "sequence_parallel": True}),
    "PP2": (2, 64, 2, {"pipeline_parallel": 2}),
    "DP2": (2, 300, 3, {"data_parallel": 2}),
    "TP2 PP2": (4, 200, 16, {"tensor_parallel": 2, "pipeline_parallel": 2}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_answer_is_that_of_hf_on_the_export(
    layout: str, export: Path, expected: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    size, pack_tokens, batch_size, parallel = LAYOUTS[layout]
    questions, wanted = expected
    run = export.parent / "run"
    is_run = (run / "checkpoints").exists()
    if not is_run and layout not in ("one rank", "TP2 SP"):
        pytest.skip("one shape on every layout is enough")
    [(found, facts), *others] = world(
        size,
        ours,
        path=str(run if is_run else export),
        questions=questions,
        pack_tokens=pack_tokens,
        batch_size=batch_size,
        **parallel,
    )
    assert others == [None] * (size - 1)
    assert facts[:2] == (("checkpoint", 7) if is_run else ("huggingface", None))
    assert len(facts[2]) == 64
    for name in ("chats", "begun", "prefix", "max_length"):
        assert found[name] == wanted[name]
    assert [logp for logp, _ in found["pairs"]] == pytest.approx([logp for logp, _ in wanted["pairs"]], abs=5e-5)
    assert [greedy for _, greedy in found["pairs"]] == [greedy for _, greedy in wanted["pairs"]]
    assert found["rolling"] == pytest.approx(wanted["rolling"], abs=2e-4)
    assert found["generated"] == wanted["generated"]
    # The questions are such that something can go wrong.
    assert 1 <= sum(greedy for _, greedy in wanted["pairs"]) < len(wanted["pairs"])
    assert len(questions["generations"]) > len(_CONTEXTS) and len(set(wanted["generated"])) > len(_CONTEXTS)


def literal_controls(path: str) -> tuple[list[int], list[int], list[int]]:
    """Ids of a prompt in which the user writes a control token, by text and by the encoder; and of plain text."""
    from data_tools.chat import ChatEncoder, get_template
    from megatron_aquila.evaluation.lm import AquilaLM

    messages = [{"role": "user", "content": "fever<|im_end|>"}]
    with AquilaLM.open(Path(path), precision="fp32", device="cpu") as lm:
        plain = lm.tok_encode("fever<|im_end|>")
        prompt = lm.tok_encode(lm.apply_chat_template(messages))
        encoder = ChatEncoder(get_template("chatml"), lm.model.tokenizer)
        return prompt, encoder.prompt(messages).tolist(), plain


def test_a_control_token_in_a_question_is_text(export: Path) -> None:
    from data_tools.tokenizers import load_tokenizer

    [(prompt, encoded, plain)] = world(1, literal_controls, path=str(export))
    assert prompt == encoded
    control = load_tokenizer(export).special_tokens
    assert prompt.count(control["<|im_end|>"]) == 1  # the layout's own
    assert control["<|im_end|>"] not in plain


def sampled(path: str, batch_size: int, **parallel: Any) -> list[str] | None:
    """Two answers each to two prompts, asked for in two batches; then the second prompt alone."""
    from megatron_aquila.config import ParallelConfig
    from megatron_aquila.evaluation.lm import AquilaLM

    options = {"until": [], "max_gen_toks": 10, "do_sample": True, "temperature": 1.5, "top_k": 50}
    with AquilaLM.open(
        Path(path), parallel=ParallelConfig(**parallel), precision="fp32", device="cpu", batch_size=batch_size
    ) as lm:
        if not lm.is_main:
            return lm.serve()  # type: ignore[func-returns-value]
        requests = [(context, dict(options)) for context in ("fever", "咳嗽", "fever", "咳嗽")]
        alone = lm.generate_until(instances("generate_until", requests[1:2]), disable_tqdm=True)
        return [*lm.generate_until(instances("generate_until", requests), disable_tqdm=True), *alone]


def test_a_drawn_answer_depends_on_its_own_request_only(export: Path) -> None:
    [[fever, cough, fever_again, cough_again, alone]] = world(1, sampled, path=str(export), batch_size=4)
    assert alone == cough
    assert fever != fever_again and cough != cough_again  # a repeat is drawn anew
    [one_by_one, _] = world(2, sampled, path=str(export), batch_size=1, tensor_parallel=2)
    assert one_by_one == [fever, cough, fever_again, cough_again, alone]


def failing(path: str, where: str) -> str:
    """What a rank's block ends with, when something goes wrong on rank 0."""
    from megatron_aquila.config import ParallelConfig
    from megatron_aquila.engine.scoring import TokenRequest
    from megatron_aquila.errors import AquilaError
    from megatron_aquila.evaluation.lm import AquilaLM

    parallel = ParallelConfig(tensor_parallel=2)
    try:
        with AquilaLM.open(Path(path), parallel=parallel, precision="fp32", device="cpu") as lm:
            if not lm.is_main:
                lm.serve()
                return "served"
            if where == "between answers":
                raise KeyError("no such task")
            with pytest.raises(ValueError, match="outside the vocabulary"):
                lm.server.score([TokenRequest([1], [10**6])])
            return f"{len(lm.server.score([TokenRequest([1], [2])]))} score"
    except (KeyError, AquilaError) as error:
        return f"{type(error).__name__}: {error}"


def test_nobody_waits_for_a_rank_0_that_failed(export: Path) -> None:
    first, second = world(2, failing, path=str(export), where="between answers")
    assert first == "KeyError: 'no such task'"
    assert second == "ServingError: the evaluation was given up, because rank 0 failed: KeyError: 'no such task'"


def test_after_a_refused_request_the_model_still_answers(export: Path) -> None:
    assert world(2, failing, path=str(export), where="nowhere") == ["1 score", "served"]


@pytest.mark.parametrize("where", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_template_that_is_none_of_ours_is_rendered_as_transformers_does(where: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from data_tools.tokenizers import load_tokenizer
    from megatron_aquila.evaluation.chat_format import format_of_directory
    from megatron_aquila.evaluation.pairs import encode

    _train_byte_level(tmp_path / "given")
    tokenizer = load_tokenizer(tmp_path / "given")
    tokenizer.save_pretrained(tmp_path / "model")
    assert format_of_directory(tmp_path / "model", tokenizer) is None
    jinja = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "<|im_start|>[{{ m.role }}] {{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>[assistant]{% endif %}"
    )
    if where == "chat_template.jinja":
        (tmp_path / "model" / where).write_text(jinja, encoding="utf-8")
    else:
        config = tmp_path / "model" / where
        given = json.loads(config.read_text(encoding="utf-8"))
        config.write_text(json.dumps(given | {"chat_template": jinja}), encoding="utf-8")
    chat = format_of_directory(tmp_path / "model", tokenizer)
    assert chat is not None
    theirs = AutoTokenizer.from_pretrained(tmp_path / "model")
    asked_of_user = _QUESTIONS[1][1:]
    wanted = theirs.apply_chat_template(asked_of_user, add_generation_prompt=True).input_ids
    assert encode(tokenizer, chat.pieces(asked_of_user)) == wanted
    assert encode(tokenizer, chat.pieces(_QUESTIONS[1])) == wanted  # a system message goes where none is allowed


def test_a_pair_that_a_tokenizer_joins_has_a_continuation() -> None:
    """By hand: white space moves over, and what is beyond the context's own tokens is the continuation."""
    from megatron_aquila.evaluation.pairs import Piece, encode_pair

    class Characters:
        """A token is a character, but `ab` is one."""

        def __init__(self) -> None:
            self.special_tokens = {"<e>": 99}

        def encode_batch(self, texts: list[str], *, continues: bool = False) -> list[torch.Tensor]:
            return [torch.tensor([ord(c) for c in text.replace("ab", "ß")], dtype=torch.int32) for text in texts]

    def ids(text: str) -> list[int]:
        return [ord(character) for character in text]

    coder: Any = Characters()
    assert encode_pair(coder, "x y", " z") == (ids("x y"), ids(" z"))
    assert encode_pair(coder, "x \n", "z") == (ids("x"), ids(" \nz"))
    assert encode_pair(coder, "xa", "b") == (ids("xa"), ids("b"))  # joined: "xß" is no longer than "xa"
    assert encode_pair(coder, " ", "b") == ([], ids(" b"))
    turn = [Piece("x"), Piece("<e>", True), Piece("y\n")]
    assert encode_pair(coder, turn, "z") == ([*ids("x"), 99, *ids("y")], ids("\nz"))
    assert encode_pair(coder, turn[:2], "z<e>") == ([*ids("x"), 99], ids("z<e>"))
