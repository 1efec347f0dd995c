"""What others wrote does not act on the terminal: control characters of names and messages come as pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from megatron_aquila import chat, cli

HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m"


def test_error_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text('name: "\\x1B[2J\\x9B31m/"\n', encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["aquila", "config", "show", str(tmp_path / "recipe.yaml"), f"{HOSTILE}=1"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "owned" in said
    assert said.replace("\n", "").isprintable()


def test_notes_of_a_chat(capsys: pytest.CaptureFixture[str]) -> None:
    chat._note(f"(the chat template refuses: {HOSTILE})")
    assert capsys.readouterr().err == "(the chat template refuses: ␛[2J␛]0;owned␇[U+009B]31m)\n"
