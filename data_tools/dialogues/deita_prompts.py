"""What a scorer of complexity or quality is shown: Deita's prompts for a causal language model, and the texts for a
trained scorer (`aquila data train-scorer`), whose seeds are rendered here too.
"""

from typing import NamedTuple

from data_tools.records import Messages

# hkust-nlp/deita, src/deita/selection/scorer/llama_scorer.py and mistral_scorer.py, character by character: two spaces
# end the line of the query, and a space ends the prompt.
COMPLEXITY_PROMPT = (
    "You are a helpful assistant. Please identify the complexity score of the following user query. \n"
    "##Query: {instruction}  \n##Complexity: "
)
QUALITY_PROMPT = (
    "You are a helpful assistant. Please identify the quality score of the Response corresponding to the Question. \n"
    " #Question#:\n{instruction}\n#Response#:\n{output} \n##Quality: "
)

QUESTION_CHARACTERS = 300
"""Of a question that a trained scorer of quality sees: an encoder reads 512 tokens, and a long question would hide its
answer. Two thirds are its beginning. Ours."""


class Exchange(NamedTuple):
    """A user message and the assistant's answer after it. `history`: what was said before by both, oldest first."""

    question: str
    answer: str
    history: tuple[str, ...] = ()


def exchanges(messages: Messages) -> list[Exchange]:
    """The exchanges of a dialogue. Successive messages of one role are one, joined by a line end; a question that
    nobody answered has the answer "", as in Deita's code; system messages, and what the assistant says before the
    first question, are in no exchange.
    """
    turns: list[tuple[list[str], list[str]]] = []
    for message in messages:
        if message["role"] == "user":
            if not turns or turns[-1][1]:
                turns.append(([], []))
            turns[-1][0].append(message["content"])
        elif message["role"] == "assistant" and turns:
            turns[-1][1].append(message["content"])
    found: list[Exchange] = []
    history: tuple[str, ...] = ()
    for questions, answers in turns:
        question, answer = "\n".join(questions), "\n".join(answers)
        found.append(Exchange(question, answer, history))
        history = (*history, question, answer)
    return found


def complexity_prompt(instruction: str) -> str:
    """Deita's prompt; the score is the expected value over the tokens 1 to 6 after it."""
    return COMPLEXITY_PROMPT.format(instruction=instruction)


def quality_prompt(instruction: str, output: str) -> str:
    """As `complexity_prompt`."""
    return QUALITY_PROMPT.format(instruction=instruction, output=output)


def complexity_text(question: str) -> str:
    """What a trained scorer of complexity sees."""
    return question


def quality_text(question: str, answer: str) -> str:
    """What a trained scorer of quality sees: the question, its middle cut out where it is longer than
    QUESTION_CHARACTERS, and the whole answer.
    """
    return f"#Question#:\n{_short(question)}\n#Response#:\n{answer}"


def with_history(exchange: Exchange) -> str:
    """The question after all that was said before it, a line end between two messages."""
    return "\n".join([*exchange.history, exchange.question])


def _short(question: str) -> str:
    if len(question) <= QUESTION_CHARACTERS:
        return question
    head = 2 * QUESTION_CHARACTERS // 3
    return f"{question[:head]}…{question[head - QUESTION_CHARACTERS :]}"
