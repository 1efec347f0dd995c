"""Tokens → weights → numbers: training, release and evaluation of a medical language model on Megatron-core.

Importing this package is light: torch and megatron are imported where they are used.
"""
