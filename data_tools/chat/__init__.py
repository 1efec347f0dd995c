"""Chat templates: messages → token ids and a mask of what is trained on.

A template is defined once, by its pieces. From them come the ids and masks that training and evaluation use, and the
Jinja that an export carries; both give the same ids. One thing differs, on purpose: a control token is one only where
the template puts it. `<|im_end|>` in what a user wrote is text here. transformers makes it the control token, so that
a user can close his own turn, unless it is told to `sanitize_control_tokens`.

Trained on is what the model must write itself: all that follows the generation prompt, to the end of the turn's
closing. In the layouts that close with text, or that mark turns with text (`###Human:`), a message may still imitate a
turn: no tokenizer can tell the two apart.
"""

from data_tools.chat.encoder import ChatEncoder, Turns
from data_tools.chat.layouts import TEMPLATES, get_template
from data_tools.chat.template import ChatError, ChatTemplate, Message

__all__ = ["TEMPLATES", "ChatEncoder", "ChatError", "ChatTemplate", "Message", "Turns", "get_template"]
