"""GGUF files of small Llamas, written weight by weight as llama.cpp's converter writes them."""

import json
from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import PreTrainedModel

from tikmix_pipeline.corpus.tokenizer import CorpusTokenizer, train_tokenizer

TEXTS = ["Once upon a time there were 27 mixtures.", "x  12   345\n    7 apples, 8.5 pears; it's ½ of ²"] * 9

_BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_AROUND = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def byte_tokenizer(vocabulary_size: int = 320) -> CorpusTokenizer:
    return train_tokenizer(TEXTS, vocabulary_size)


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    tokenizer: CorpusTokenizer | None,
    *,
    cut: str = "gpt-2",
    architecture: str = "llama",
    leave_out: str = "",
    **numbers: int,
) -> Path:
    """Write a model, without the weight named `leave_out`; `numbers` are further keys, `__` standing for a dot."""
    writer = gguf.GGUFWriter(path, architecture)
    _add_config(writer, model.config)
    if tokenizer is not None:
        _add_tokenizer(writer, tokenizer, cut)
    for key, value in numbers.items():
        writer.add_uint32(key.replace("__", "."), value)
    for name, weight in model.named_parameters():  # a tied head once
        if name != leave_out:
            writer.add_tensor(_gguf_name(name), _permuted(name, weight.detach(), model.config).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_config(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_name("A title, and no path")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: CorpusTokenizer, cut: str) -> None:
    content = json.loads(tokenizer.backend.to_str())["model"]
    tokens = sorted(content["vocab"], key=content["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut)
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if n == tokenizer.end_of_text_id else gguf.TokenType.NORMAL for n in range(len(tokens))]
    )
    writer.add_token_merges([" ".join(merge) for merge in content["merges"]])
    writer.add_eos_token_id(tokenizer.end_of_text_id)
    writer.add_pad_token_id(tokenizer.end_of_text_id)


def _gguf_name(name: str) -> str:
    if name in _AROUND:
        return _AROUND[name]
    _, _, layer, *module, _ = name.split(".")
    return f"blk.{layer}.{_BLOCK['.'.join(module)]}.weight"


def _permuted(name: str, weight: torch.Tensor, config: Any) -> torch.Tensor:
    """Interleave the halves that rotary embeddings turn, as llama.cpp has them."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = next((count for module, count in heads.items() if module in name), None)
    if count is None:
        return weight
    return weight.view(count, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
