"""What looks like a secret: API keys and tokens by their published shapes, private keys, passwords in addresses.

Recipes are copied into every run, checkpoint and release, so that a secret in one would be published. The shapes are
those of the issuers (OpenAI, Anthropic, Hugging Face, GitHub, GitLab, AWS, Google, Slack, npm, PyPI, Stripe; JWT of RFC
7519, PEM of RFC 7468); Weights & Biases' keys are 40 hexadecimal digits as a commit is, so that the key's name decides.
"""

import re

# Name → words of which a text with such a secret holds one, and the shape. The words are looked for first: recipes are
# short, but a whole repository is not.
_SHAPES = {
    # OpenAI sk-, sk-proj-; Anthropic sk-ant-
    "an API key": (("sk-",), r"sk-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{16,}"),
    "a Hugging Face token": (("hf_",), r"hf_[A-Za-z0-9]{16,}"),
    "a GitHub token": (
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        r"(?:gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,})",
    ),
    "a GitLab token": (("glpat-",), r"glpat-[A-Za-z0-9_-]{16,}"),
    "an AWS key": (("AKIA", "ASIA"), r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    "a Google key": (("AIza",), r"AIza[A-Za-z0-9_-]{30,}"),
    "a Slack token": (("xox",), r"xox[abeoprs]-[A-Za-z0-9-]{10,}"),
    "an npm token": (("npm_",), r"npm_[A-Za-z0-9]{36}"),
    "a PyPI token": (("pypi-",), r"pypi-[A-Za-z0-9_-]{40,}"),
    "a Stripe key": (("k_live_",), r"[rs]k_live_[A-Za-z0-9]{16,}"),
    "a JSON Web Token": (("eyJ",), r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
    "a private key": (("PRIVATE KEY",), r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    # RFC 3986 3.2.1: user:password@ before the host
    "an address with a password": (("://",), r"(?<=[A-Za-z0-9+.-])://[^/\s:@\"'`<>{}]*:[^/\s@\"'`<>{}]+@"),
}
# Not within a word: `task-…` holds `sk-`.
_WITHIN = {"an address with a password"}
_SECRETS = [
    (name, words, re.compile(shape if name in _WITHIN else rf"(?<![A-Za-z0-9]){shape}"))
    for name, (words, shape) in _SHAPES.items()
]
_KEY_NAME = re.compile(r"(?:^|[_.-])(?:api_?key|key|token|secret|password|passwd)$", re.IGNORECASE)
_HEX_KEY = re.compile(r"[0-9a-f]{40}")


def secret_in(text: str, key: str = "") -> str | None:
    """What kind of secret `text` holds, such as "a GitHub token", or None. `key` is the name it is the value of."""
    for name, words, pattern in _SECRETS:
        if any(word in text for word in words) and pattern.search(text):
            return name
    if _KEY_NAME.search(key) and _HEX_KEY.fullmatch(text):
        return "an API key"
    return None
