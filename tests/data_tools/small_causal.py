"""A causal language model of transformers with random weights and a tokenizer of its own, made on the spot."""

from pathlib import Path

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

TEXTS = [
    "You are a helpful assistant. Please identify the complexity score of the following user query.",
    "The patient has had a fever and a dry cough for three days. Which dose of ibuprofen is safe?",
    "Drink enough water, rest, and see a doctor if the fever does not go down. ",
    "患者发热三天，伴有咳嗽和头痛，请问应该服用什么药？每日几次？",
    "建议您多喝水，注意休息；如果体温超过三十八度五，可以服用退烧药，并及时到医院就诊。",
    "##Query: ##Complexity: #Question#: #Response#: ##Quality: 1 2 3 4 5 6",
]


def small_causal_model(
    directory: Path, *, hidden: int = 64, layers: int = 2, seed: int = 0, digits_apart: bool = True
) -> Path:
    """Writes a Llama of random weights and its tokenizer, about 600 ids; returns the directory.

    The tokenizer is a byte-level BPE that puts <s> (id 0) before a text. `digits_apart`: a digit is always a token of
    its own, as of Llama and Qwen; otherwise a space before it may be in the token, as of GPT-2 and Aquila.
    """
    coder = Tokenizer(models.BPE())
    bytes_alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not digits_apart)
    pieces = pre_tokenizers.Split(Regex(r"\d| ?\p{L}+| ?[^\s\p{L}\d]+|\s+"), "isolated")
    coder.pre_tokenizer = pre_tokenizers.Sequence([pieces, bytes_alone]) if digits_apart else bytes_alone
    coder.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    coder.train_from_iterator(TEXTS * 4, trainer)
    coder.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=coder, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(directory)
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=coder.get_vocab_size(),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.2,  # of 0.02 all scores would be alike
        bos_token_id=0,
        eos_token_id=1,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(directory)
    return directory
