"""A hostile directory with a model: neither its Python, nor its pickles, nor its chat template get to run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data_tools.causal_model import CausalSettings, load_causal_model
from data_tools.inputs import InputError
from data_tools.tokenizers import load_tokenizer
from megatron_aquila.evaluation.chat_format import ChatFormatError, format_of_directory
from megatron_aquila.evaluation.plan import _theirs
from megatron_aquila.evaluation.settings import EvaluationSettings
from megatron_aquila.huggingface import HuggingFaceError, HuggingFaceReader
from megatron_aquila.release.talker import Talker, TalkError
from tests.data_tools.small_causal import small_causal_model
from tests.security.bombs import Bomb

PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %}"
QUESTION: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_causal_model(tmp_path_factory.mktemp("sound") / "model", hidden=16, layers=1)


@pytest.fixture
def hostile(sound: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt, with Python that writes `ran` beside it when it is imported."""
    directory = shutil.copytree(sound, tmp_path / "model")
    (directory / "evil.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    return directory


def change(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | keys), encoding="utf-8")


def open_causal(directory: Path) -> None:
    load_causal_model(CausalSettings(model=directory, device="cpu"))


def talk(directory: Path) -> None:
    (directory / "chat_template.jinja").write_text(PLAIN)
    Talker(directory)


def lay_out(directory: Path) -> None:
    (directory / "chat_template.jinja").write_text(PLAIN)
    assert format_of_directory(directory, load_tokenizer(directory)) is not None


@pytest.mark.parametrize("opened", [open_causal, talk, lay_out])
@pytest.mark.parametrize("kind", ["llama", "evil"])
def test_python_beside_a_model_is_not_imported(opened: Callable[[Path], None], kind: str, hostile: Path) -> None:
    """Whether transformers knows the architecture itself, and goes by its own class, or not, and refuses."""
    names = ("AutoConfig", "AutoModel", "AutoModelForCausalLM")
    change(hostile / "config.json", model_type=kind, auto_map=dict.fromkeys(names, "evil.Evil"))
    change(hostile / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    try:
        opened(hostile)
        refused = False
    except (InputError, TalkError, ValueError):
        refused = True
    assert refused == (kind == "evil" and opened is not lay_out)  # a tokenizer needs no architecture
    assert not (hostile.parent / "ran").exists()


def with_pickled_weights(directory: Path) -> Path:
    (directory / "model.safetensors").unlink()
    torch.save({"weight": Bomb(directory.parent / "ran")}, directory / "pytorch_model.bin")  # noqa: TID251
    return directory


def test_the_bomb_goes_off_where_somebody_unpickles_it(hostile: Path) -> None:
    torch.load(with_pickled_weights(hostile) / "pytorch_model.bin", weights_only=False)  # noqa: TID251
    assert (hostile.parent / "ran").exists()


@pytest.mark.parametrize("opened", [open_causal, talk, HuggingFaceReader])
def test_pickled_weights_are_not_read(opened: Callable[[Path], Any], hostile: Path) -> None:
    with pytest.raises((InputError, TalkError, HuggingFaceError)):
        opened(with_pickled_weights(hostile))
    assert not (hostile.parent / "ran").exists()


def test_who_has_pickled_weights_is_told_how_to_convert_them(hostile: Path) -> None:
    with pytest.raises(HuggingFaceError, match=r"has pytorch_model\.bin, which is pickled.*save_pretrained"):
        HuggingFaceReader(with_pickled_weights(hostile))


def test_the_backends_of_lm_eval_get_no_pickled_weights(hostile: Path) -> None:
    settings = EvaluationSettings.model_validate({"backend": "hf"})
    with pytest.raises(Exception, match="which is pickled"):
        _theirs(with_pickled_weights(hostile), settings)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/secret.safetensors", "model.bin", ".."])
def test_an_index_names_files_beside_it(name: str, hostile: Path) -> None:
    shutil.move(hostile / "model.safetensors", hostile.parent / "secret.safetensors")
    index = {"weight_map": {"model.norm.weight": name}}
    (hostile / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(HuggingFaceError, match=r"the files of a model are \*\.safetensors beside their index"):
        HuggingFaceReader(hostile)


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch RAN') }}",
        "{{ messages.append(1) }}",
        "{{ messages.__init__.__globals__ }}",
        "{% for a in range(1000000000) %}{% endfor %}",
        "{{ raise_exception('\x1b[2J') }}",
    ],
)
def test_a_chat_template_does_not_leave_its_sandbox(attack: str, hostile: Path) -> None:
    ran = hostile.parent / "ran"
    (hostile / "chat_template.jinja").write_text(PLAIN + attack.replace("RAN", str(ran)))
    chat = format_of_directory(hostile, load_tokenizer(hostile))
    assert chat is not None
    with pytest.raises((ChatFormatError, OverflowError)):
        chat.pieces(QUESTION)
    assert not ran.exists()


@pytest.mark.parametrize("opened", [lambda path: format_of_directory(path, load_tokenizer(path)), Talker])
def test_a_chat_template_of_megabytes_is_refused(opened: Callable[[Path], Any], hostile: Path) -> None:
    (hostile / "chat_template.jinja").write_text(PLAIN + "{# " + "x" * (1 << 20) + " #}")
    with pytest.raises(ChatFormatError, match="it is damaged or hostile"):
        opened(hostile)
