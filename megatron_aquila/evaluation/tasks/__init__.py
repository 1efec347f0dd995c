"""Evaluation tasks over local files: their definitions, their data, and what a model's answers are worth."""
