"""The only door to a language model: any server that speaks the OpenAI chat-completions protocol.

`LanguageModel(config).ask(requests)` gives one `Answer` or `Failure` for each request, in order, and keeps the account.
Answers are recorded in a cache before anything else is done with them, so that nothing is paid for twice; a run that
was killed goes on where it stood. Needs the extra `[llm]` (the `openai` client), which is imported at the first call.
"""

from data_tools.llm.attempts import LanguageModelError
from data_tools.llm.budget import BYTES_PER_TOKEN, Estimate
from data_tools.llm.cache import AnswerCache
from data_tools.llm.client import LanguageModel
from data_tools.llm.config import Limits, ModelConfig
from data_tools.llm.exchange import Account, Answer, Failure, Request, Result
from data_tools.llm.session import NotRecordedError

__all__ = [
    "BYTES_PER_TOKEN",
    "Account",
    "Answer",
    "AnswerCache",
    "Estimate",
    "Failure",
    "LanguageModel",
    "LanguageModelError",
    "Limits",
    "ModelConfig",
    "NotRecordedError",
    "Request",
    "Result",
]
