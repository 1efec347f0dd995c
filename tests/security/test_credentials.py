"""Secrets are known by their shapes; no file of the repository holds one; no recipe that does is taken."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from data_tools.config_files import ConfigFileError, load_model
from data_tools.credentials import secret_in
from tests.security.repository import ROOT, tracked

# Made here and now, of no account. No secret stands in this file as a whole, so that it passes its own scan.
_DIGITS = hashlib.sha256(b"no secret").hexdigest()
_LETTERS = base64.b64encode(hashlib.sha256(b"no secret").digest()).decode().translate({ord(c): "A" for c in "+/="})


def _jwt() -> str:
    parts = ({"alg": "HS256"}, {"sub": "1234567890"})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, _LETTERS])


SECRETS = {
    "openai": "sk-" + _LETTERS,
    "openai project": "sk-proj-" + _LETTERS,
    "anthropic": "sk-ant-api03-" + _LETTERS,
    "hugging face": "hf_" + _LETTERS[:34],
    "github": "ghp_" + _LETTERS[:36],
    "github server": "ghs_" + _LETTERS[:36],
    "github fine": "github_pat_" + _LETTERS[:22] + "_" + _LETTERS,
    "gitlab": "glpat-" + _LETTERS[:20],
    "aws": "AKIA" + _DIGITS[:16].upper(),
    "aws session": "ASIA" + _DIGITS[:16].upper(),
    "google": "AIza" + _LETTERS[:35],
    "slack": "xoxb-" + _DIGITS[:24],
    "slack app": "xoxp-" + _DIGITS[:24],
    "npm": "npm_" + _LETTERS[:36],
    "pypi": "pypi-" + _LETTERS + _LETTERS,
    "stripe": "sk_live_" + _LETTERS[:24],
    "jwt": _jwt(),
    "pem": "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIE",
    "pem 8": "-----BEGIN " + "PRIVATE KEY-----",
    "url": "https://user:" + "pass@host/v1",
    "redis": "redis://:" + "pass@host/0",
}
PLAIN = [
    "runs/task-classification_of_2024",  # sk- within a word
    "risk-free-and-more-words-than-that",
    "/data/disk-0123456789abcdef0123/corpus",
    "sk-learn-is-a-library-of-python",
    "hf_transfer",
    "BAAI/AquilaMed-RL",
    _DIGITS,
    _DIGITS[:40],  # a commit
    "https://host:8000/v1/models@main",
    "http://localhost:8000/v1",
    "OPENAI_API_KEY",
    "体温 38.5℃",
]


class Recipe(BaseModel):
    name: str = ""
    listed: list[str] = []
    api_key: str = ""


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_found_in_text_and_its_kind_is_said(name: str) -> None:
    kind = secret_in(f"path/{SECRETS[name]} and more")
    assert kind is not None
    assert kind.startswith(("a ", "an "))


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_is_no_secret(text: str) -> None:
    assert secret_in(text, "name") is None


@pytest.mark.parametrize("key", ["wandb_key", "key", "logging.api_key", "WANDB_API_KEY", "token"])
def test_forty_digits_are_a_secret_under_the_name_of_one(key: str) -> None:
    assert secret_in(_DIGITS[:40], key) == "an API key"
    assert secret_in(_DIGITS[:40], "revision") is None


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("where", ["file", "base", "override", "list"])
def test_a_recipe_with_a_secret_is_refused_without_repeating_it(name: str, where: str, tmp_path: Path) -> None:
    secret = json.dumps(SECRETS[name])
    path = tmp_path / "recipe.yaml"
    text = {"file": f"name: {secret}\n", "list": f"listed: [a, {secret}]\n", "base": "base: other.yaml\n"}
    path.write_text(text.get(where, "name: a\n"), encoding="utf-8")
    (tmp_path / "other.yaml").write_text(f"name: {secret}\n", encoding="utf-8")
    with pytest.raises(ConfigFileError, match="looks like a secret") as caught:
        load_model(Recipe, path, [f"name={secret}"] if where == "override" else [])
    assert SECRETS[name] not in str(caught.value)
    assert _LETTERS[:10] not in str(caught.value)


def test_no_file_of_the_repository_holds_a_secret() -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if not secret_in(text):
            continue
        name = str(path.relative_to(ROOT))
        found += [
            f"{name}:{number}: {kind}"
            for number, line in enumerate(text.splitlines(), 1)
            if (kind := secret_in(line)) and not any(made_up in line for made_up in MADE_UP.get(name, ()))
        ]
    assert found == []


# Path → what stands in it in the shape of a secret, and was made up for a test.
MADE_UP = {
    "tests/data_tools/test_llm.py": ("sk-" + "test-0123456789abcdef",),
    "tests/megatron_aquila/test_config.py": ("hf_" + "abcdefghijklmnopqrst",),
}
