"""Dialogues for supervised fine-tuning: published files in, cleaned, scored and selected dialogues out."""
