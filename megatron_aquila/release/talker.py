"""A model that answers: an export in transformers, with its chat template. Plain Llama, no remote code, no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from data_tools.chat import TEMPLATES, ChatEncoder, ChatError, ChatTemplate, Message
from data_tools.tokenizers import load_tokenizer
from megatron_aquila.errors import AquilaError
from megatron_aquila.evaluation.chat_format import check_template_size
from megatron_aquila.release.streaming import TextStream


class TalkError(AquilaError):
    """The model cannot be talked to, or not in this way."""


class Talker:
    """Answers a conversation.

    A conversation in one of our templates is rendered by `ChatEncoder`, as in training: a control token that somebody
    types stays text. Other templates are rendered by transformers.

    Raises:
        TalkError: the directory has no chat template, or cannot be opened.
    """

    def __init__(self, directory: Path) -> None:
        transformers = _transformers()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(directory, **local)
            if not self._tokenizer.chat_template:
                raise TalkError(
                    f"{directory} has no chat template: it continues text and does not answer. Talk to the export of a "
                    "fine-tuned run (sft or dpo), or lay the chat_template.jinja that it was tuned with into it"
                )
            check_template_size(directory, self._tokenizer.chat_template)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                directory, dtype="auto", use_safetensors=True, **local
            )
        except (OSError, ValueError) as error:
            raise TalkError(f"transformers cannot open {directory}: {error}") from error
        self._model = model.to(device).eval()
        template = _ours(self._tokenizer.chat_template)
        self._encoder = None if template is None else ChatEncoder(template, load_tokenizer(directory))
        self._stops = () if template is None or template.stop_tokens else (template.assistant.closing,)
        self.context: int = model.config.max_position_embeddings

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids of a conversation that ends with the user's message.

        Raises:
            TalkError: the template has no place for a message, such as that of the system.
        """
        from jinja2 import TemplateError

        if self._encoder is not None:
            try:
                return [int(token) for token in self._encoder.prompt(messages)]
            except ChatError as error:
                raise TalkError(error.detail) from error
        try:
            ids = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages], add_generation_prompt=True, return_dict=True
            ).input_ids
        except TemplateError as error:
            raise TalkError(f"the chat template refuses: {error}") from error
        return list(ids)

    def answer(
        self, prompt: Sequence[int], say: Callable[[str], None], *, max_new_tokens: int, temperature: float
    ) -> tuple[str, bool]:
        """Generate, and `say` the text as it comes. The whole text, and whether the model ended it itself.

        At `temperature` 0 the likeliest token is taken; above, tokens are drawn from all the vocabulary, with no top-k
        or top-p. KeyboardInterrupt passes through; what was said until then is with the caller.
        """
        transformers = _transformers()
        stream = TextStream(self._decode, self._stops)
        defaults = self._model.generation_config
        drawn = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature > 0 else {}
        config = transformers.GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=temperature > 0,
            bos_token_id=defaults.bos_token_id,
            eos_token_id=defaults.eos_token_id,
            pad_token_id=defaults.pad_token_id if defaults.pad_token_id is not None else 0,
            **drawn,
        )
        ids = torch.tensor([list(prompt)], device=self._model.device)
        with torch.no_grad():
            found = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=config,
                streamer=_Streamer(stream, say),
                stopping_criteria=[lambda tokens, scores: torch.full((1,), stream.stopped, device=tokens.device)],
            )
        ends = defaults.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return stream.text, stream.stopped or int(found[0, -1]) in ends

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


class _Streamer:
    """What `generate` hands its tokens to: first the prompt, then each token."""

    def __init__(self, stream: TextStream, say: Callable[[str], None]) -> None:
        self._stream, self._say, self._begun = stream, say, False

    def put(self, tokens: torch.Tensor) -> None:
        if self._begun:
            self._say(self._stream.push(tokens.flatten().tolist()))
        self._begun = True

    def end(self) -> None:
        self._say(self._stream.finish())


def _ours(jinja: str) -> ChatTemplate | None:
    return next((template for template in TEMPLATES.values() if template.jinja() == jinja), None)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise TalkError("talking to a model needs transformers: pip install 'megatron-aquila[huggingface]'") from error
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers
