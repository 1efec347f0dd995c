"""The Llama-shaped model of every Aquila, built from Megatron's `GPTModel` by layer specs.

What differs from Megatron's own: RMSNorm that allows sequence parallelism, attention that honours document
bounds, and an output that is the per-token log-probability of the labels, not a loss.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel.layers import (
    ColumnParallelLinear,
    RowParallelLinear,
    set_tensor_model_parallel_attributes,
)
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.module import Float16Module, MegatronModule
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules

from megatron_aquila.config import RunConfig
from megatron_aquila.engine import gpu_path
from megatron_aquila.engine.attention import CachedTokens, DocumentAttention, Pack, PrefixedPack
from megatron_aquila.engine.context import ContextPack
from megatron_aquila.engine.device import DTYPES
from megatron_aquila.engine.norm import RMSNorm
from megatron_aquila.engine.scored_rows import QuestionedPack, score_rows
from megatron_aquila.errors import ConfigError
from megatron_aquila.kernels.linear import linear_logps
from megatron_aquila.shapes import ModelShape, padded_vocab_size


class AquilaModel(GPTModel):
    """`GPTModel` whose forward with labels returns log-probabilities.

    `forward(input_ids [b, s], position_ids [b, s], attention_mask=None, labels [b, s], packed_seq_params)` gives
    `[b, s]` float32 log p(label) on the last pipeline stage; without labels, logits `[b, s, padded vocab / TP]`, or,
    where `packed_seq_params` is a `QuestionedPack`, what `score_rows` answers to it, or, where it is `CachedTokens`,
    the logits of each sequence's last token, `[B, padded vocab / TP]`.
    """

    def __init__(self, *, shape: ModelShape, logits_budget: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.shape = shape
        self.logits_budget = logits_budget

    def _preprocess(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """As Megatron's; but tokens that bring positions of their own are rotated by those."""
        embedded, rotary, *rest = super()._preprocess(*args, **kwargs)
        packed = kwargs.get("packed_seq_params")
        if isinstance(packed, Pack | CachedTokens | PrefixedPack | ContextPack) and packed.positions is not None:
            rotary = rotary[packed.positions]
        return (embedded, rotary, *rest)

    def _postprocess(
        self, hidden_states: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """From hidden states `[s, b, H]` to log p(label) `[b, s]`. Megatron's own makes all the logits first."""
        packed = kwargs.get("packed_seq_params")
        if isinstance(packed, QuestionedPack) and packed.questions is not None and self.post_process:
            return score_rows(
                hidden_states.flatten(0, 1),
                self._output_weight(),
                packed.questions,
                vocab_size=self.shape.vocab_size,
                group=parallel_state.get_tensor_model_parallel_group(),
                sequence_parallel=self.config.sequence_parallel,
                budget_bytes=self.logits_budget,
            )
        if isinstance(packed, CachedTokens) and self.post_process:
            if self.config.sequence_parallel:
                hidden_states = gather_from_sequence_parallel_region(hidden_states)
            return torch.nn.functional.linear(hidden_states[packed.last, 0], self._output_weight())
        if labels is None or not self.post_process:
            return super()._postprocess(hidden_states=hidden_states, labels=labels, **kwargs)
        logps_SB = linear_logps(
            hidden_states,
            self._output_weight(),
            labels.transpose(0, 1).contiguous(),
            vocab_size=self.shape.vocab_size,
            group=parallel_state.get_tensor_model_parallel_group(),
            sequence_parallel=self.config.sequence_parallel,
            budget_bytes=self.logits_budget,
            rows=None if packed is None else packed.labelled,
        )
        return logps_SB.transpose(0, 1).contiguous()

    def _output_weight(self) -> torch.Tensor:
        shared = self.share_embeddings_and_output_weights
        weight: torch.Tensor = self.shared_embedding_or_output_weight() if shared else self.output_layer.weight
        return weight


class FusedGradientLayer(TransformerLayer):
    """A layer of Transformer Engine whose matrix products add to the float32 gradient buffers themselves.

    Megatron 0.16 has one switch for the layers and the output layer, and the latter, which is Megatron's own whatever
    the spec, refuses it without Apex; it is our kernel that computes there, and the switch would do nothing.
    """

    def __init__(self, config: TransformerConfig, **kwargs: Any) -> None:
        config = copy.copy(config)
        config.gradient_accumulation_fusion = True
        super().__init__(config, **kwargs)


def transformer_config(
    run: RunConfig, shape: ModelShape, device: torch.device, *, own_layers: bool = False
) -> TransformerConfig:
    """Megatron's configuration of the model and its parallelism."""
    here = gpu_path.machine(device)
    engine_layers = gpu_path.uses_transformer_engine(here, run) and not own_layers
    compiles = gpu_path.compiles(here, run)
    dtype = DTYPES[run.training.precision]
    recompute: dict[str, dict[str, Any]] = {
        "none": {},
        "selective": {"recompute_granularity": "selective", "recompute_modules": ["core_attn"]},
        "full": {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1},
    }
    parallel = run.parallel
    return TransformerConfig(
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        ffn_hidden_size=shape.ffn_hidden_size,
        num_attention_heads=shape.num_attention_heads,
        num_query_groups=shape.num_query_groups,
        kv_channels=shape.head_dim,
        normalization="RMSNorm",
        layernorm_epsilon=shape.rms_norm_eps,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        add_qkv_bias=shape.qkv_bias,
        attention_dropout=run.model.attention_dropout,
        hidden_dropout=run.model.hidden_dropout,
        attention_softmax_in_fp32=True,
        bias_dropout_fusion=compiles,
        bias_activation_fusion=compiles,
        apply_rope_fusion=gpu_path.fuses_rope(here, engine_layers=engine_layers),
        fp8=run.training.fp8 if engine_layers else None,
        fp8_recipe=run.training.fp8_recipe,
        # Weights come from a reader (`engine/weights.py`): Megatron's own initialisation would be overwritten.
        perform_initialization=False,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype is torch.bfloat16,
        fp16=dtype is torch.float16,
        tensor_model_parallel_size=parallel.tensor_parallel,
        pipeline_model_parallel_size=parallel.pipeline_parallel,
        virtual_pipeline_model_parallel_size=parallel.virtual_pipeline,
        sequence_parallel=parallel.sequence_parallel,
        variable_seq_lengths=False,
        # Freeing an output that is still being sent is safe on a CUDA stream, a race over gloo.
        deallocate_pipeline_outputs=device.type == "cuda",
        # With chunks interleaved over two ranks each is the other's previous and next: batched sends would be
        # received in the wrong order, and train on wrong activations without an error.
        overlap_p2p_comm=parallel.virtual_pipeline is not None,
        batch_p2p_comm=parallel.virtual_pipeline is None,
        calculate_per_token_loss=True,
        # Without Apex the layers of Transformer Engine still do it: `FusedGradientLayer`.
        gradient_accumulation_fusion=here.apex_gradients
        and gpu_path.fuses_gradients(here, run, engine_layers=engine_layers),
        deterministic_mode=run.training.deterministic,
        **recompute[run.training.recompute],
    )


def layer_spec(*, engine_layers: bool, fuses_gradients: bool = False) -> ModuleSpec:
    """One transformer layer as data: Transformer Engine's or ours."""
    if engine_layers:
        from megatron.core.models.gpt.gpt_layer_specs import HAVE_TE, get_gpt_layer_with_transformer_engine_spec

        if not HAVE_TE:
            raise ConfigError(
                "Transformer Engine is installed, but Megatron cannot import it (python -c 'import "
                "transformer_engine.pytorch' says why): mend it, or set training.layers=own"
            )
        spec = get_gpt_layer_with_transformer_engine_spec()
        if fuses_gradients:
            spec.module = FusedGradientLayer
        return spec
    return ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=RMSNorm,
            self_attention=ModuleSpec(
                module=SelfAttention,
                params={"attn_mask_type": AttnMaskType.causal},
                submodules=SelfAttentionSubmodules(
                    linear_qkv=ColumnParallelLinear,
                    core_attention=DocumentAttention,
                    linear_proj=RowParallelLinear,
                    q_layernorm=IdentityOp,
                    k_layernorm=IdentityOp,
                ),
            ),
            self_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=RMSNorm,
            mlp=ModuleSpec(
                module=MLP,
                submodules=MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear),
            ),
            mlp_bda=get_bias_dropout_add,
        ),
    )


def build_model(
    run: RunConfig, shape: ModelShape, device: torch.device, *, own_layers: bool = False
) -> tuple[list[MegatronModule], TransformerConfig]:
    """This rank's model chunks (one per virtual pipeline stage), with undefined weights, and their config.

    own_layers: without Transformer Engine, on a GPU too.
    """
    here = gpu_path.machine(device)
    gpu_path.require_machine(run, here)
    engine_layers = gpu_path.uses_transformer_engine(here, run) and not own_layers
    config = transformer_config(run, shape, device, own_layers=own_layers)
    spec = layer_spec(
        engine_layers=engine_layers,
        fuses_gradients=gpu_path.fuses_gradients(here, run, engine_layers=engine_layers),
    )
    chunks: list[MegatronModule] = []
    for virtual in range(run.parallel.virtual_pipeline or 1):
        stage = virtual if run.parallel.virtual_pipeline else None
        if engine_layers:
            block = spec
        else:
            layers = get_num_layers_to_build(config, vp_stage=stage)
            block = TransformerBlockSubmodules(layer_specs=[spec] * layers, layer_norm=RMSNorm)
        chunk = AquilaModel(
            shape=shape,
            logits_budget=run.training.logits_mib << 20,
            config=config,
            transformer_layer_spec=block,
            vocab_size=padded_vocab_size(shape.vocab_size, run.model.vocab_divisible_by, run.parallel.tensor_parallel),
            max_sequence_length=shape.max_position_embeddings,
            pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=stage),
            post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=stage),
            share_embeddings_and_output_weights=shape.tie_embeddings,
            position_embedding_type="rope",
            rotary_base=shape.rope_theta,
            seq_len_interpolation_factor=shape.rope_scaling_factor,
            vp_stage=stage,
            pg_collection=_process_groups(),
        ).to(device)
        _mark_weights(chunk, config)
        if config.bf16 or config.fp16:
            chunk = Float16Module(config, chunk)
        chunks.append(chunk)
    return chunks, config


def _process_groups() -> ProcessGroupCollection:
    """Megatron's groups, but for context parallelism a group of this rank alone (that of its one expert).

    Packs are cut, and what attention needs is exchanged, by `engine/context.py`. Megatron, told of the group, would cut
    the table of rotations once more, in packs that a rank computes whole, too.
    """
    groups = ProcessGroupCollection.use_mpu_process_groups()
    groups.cp = groups.ep
    return groups


def _mark_weights(model: torch.nn.Module, config: TransformerConfig) -> None:
    """Mark which weights are split over tensor-parallel ranks, and which see a part of the sequence only.

    Megatron 0.16 marks split ones only while it initialises them. Unmarked, they count as copies of one another, and
    the gradient norm, hence clipping, silently leaves out all but the first rank's. By name, so that it holds whatever
    the layers are made of; for Transformer Engine's it repeats what they do themselves.
    """
    for name, parameter in model.named_parameters():
        if is_norm(name):
            parameter.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
        elif not hasattr(parameter, "tensor_model_parallel"):
            dim = 1 if name.endswith(("linear_proj.weight", "linear_fc2.weight")) else 0
            set_tensor_model_parallel_attributes(parameter, True, dim, 1)


def is_norm(name: str) -> bool:
    """Whether a parameter is a norm's, in layers of ours or of Transformer Engine, which fuses two of them."""
    return name.endswith(("layernorm.weight", "layer_norm_weight"))


def bare(chunk: torch.nn.Module) -> AquilaModel:
    """The `AquilaModel` inside its DDP and mixed-precision wrappers."""
    while not isinstance(chunk, AquilaModel):
        chunk = chunk.module  # type: ignore[assignment]
    return chunk


def attends_by_document(chunks: Sequence[torch.nn.Module]) -> bool:
    """Whether the layers' attention is ours, and not Transformer Engine's."""
    layers = [layer for chunk in chunks for layer in bare(chunk).decoder.layers]
    return all(isinstance(layer.self_attention.core_attention, DocumentAttention) for layer in layers)


def residual_std(init_std: float, num_layers: int) -> float:
    """Standard deviation of the projections that write into the residual stream (GPT-2: σ / sqrt(2 L))."""
    return init_std / math.sqrt(2 * num_layers)
