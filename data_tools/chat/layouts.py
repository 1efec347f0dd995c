"""The layouts of the Aquila family, and ChatML."""

from collections.abc import Mapping

from data_tools.chat.template import AssistantFrame, ChatTemplate, Frame

# FlagAI flagai/model/aquila2/conversation.py
_AQUILA_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions."
)
_PIECE = ("<|startofpiece|>", "<|endofpiece|>")

TEMPLATES: Mapping[str, ChatTemplate] = {
    template.name: template
    for template in (
        ChatTemplate(  # AquilaChat-7B
            "aquila-chat",
            system=Frame("", "###"),
            user=Frame("Human: ", "###"),
            assistant=AssistantFrame("Assistant:", " ", "###", ""),
            default_system=_AQUILA_SYSTEM,
        ),
        ChatTemplate(  # AquilaChat2-7B
            "aquila-v1",
            system=None,
            user=Frame(*_PIECE),
            assistant=AssistantFrame("", "", "</s>", ""),
            control_tokens=(*_PIECE, "</s>"),
        ),
        ChatTemplate(  # AquilaChat2-34B
            "aquila-legacy",
            system=Frame("", "\n\n"),
            user=Frame("### Human: ", "\n"),
            assistant=AssistantFrame("### Assistant: ", "", "</s>", ""),
            default_system=_AQUILA_SYSTEM,
            control_tokens=("</s>",),
        ),
        ChatTemplate(  # AquilaChat2-7B-16K and 34B-16K
            "aquila",
            system=Frame("", "###"),
            user=Frame("Human: ", "###"),
            assistant=AssistantFrame("Assistant:", " ", "</s>", ""),
            default_system=_AQUILA_SYSTEM,
            control_tokens=("</s>",),
        ),
        ChatTemplate(  # AquilaChat2-70B-Expr
            "aquila-v2",
            system=Frame("", "\n\n"),
            user=Frame(*_PIECE),
            assistant=AssistantFrame("", "", "</s>", ""),
            default_system=_AQUILA_SYSTEM,
            control_tokens=(*_PIECE, "</s>"),
        ),
        ChatTemplate(  # AquilaMed-RL, Qwen
            "chatml",
            system=Frame("<|im_start|>system\n", "<|im_end|>\n"),
            user=Frame("<|im_start|>user\n", "<|im_end|>\n"),
            assistant=AssistantFrame("<|im_start|>assistant\n", "", "<|im_end|>", "\n"),
            control_tokens=("<|im_start|>", "<|im_end|>"),
        ),
    )
}


def get_template(name: str) -> ChatTemplate:
    """The template called `name`.

    Raises:
        ValueError: there is none; the sentence lists those there are.
    """
    if name not in TEMPLATES:
        raise ValueError(f"there is no chat template {name!r}: give one of {', '.join(TEMPLATES)}")
    return TEMPLATES[name]
