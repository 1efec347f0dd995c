"""Tokenizers of four kinds behind one protocol: byte-level BPE, tokenizer.json, sentencepiece, .tiktoken."""

from data_tools.tokenizers.loader import load_tokenizer
from data_tools.tokenizers.protocol import LONG_DOCUMENT, Tokenizer, TokenizerError

__all__ = ["LONG_DOCUMENT", "Tokenizer", "TokenizerError", "load_tokenizer"]
