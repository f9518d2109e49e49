"""Text decoders: one causal stack, rotary or learned positions, one or many key heads."""

from __future__ import annotations

from typing import Any

from family import EXPORTERS, Exporter, Family, tokens
from huggingface import TINY, tiny

GROUPED = {**TINY, "num_key_value_heads": 2}
BOTH = ("input_ids", "attention_mask")  # without a mask, transformers looks for packed sequences with torch.diff
BOTH_EXPORTERS = ("GPT-2", "Llama", "Mistral")
ONE_EXPORTER = ("GPT-NeoX", "BLOOM", "Falcon", "Phi-3", "Mamba")  # the rest is left to the slow suite
TEXT = tokens(2, 8, 50)


def decoder(name: str, model: str, exporters: tuple[Exporter, ...] = EXPORTERS, **settings: Any) -> Family:
    """A family that reads token numbers and their mask, and scores the next token."""
    slow: tuple[Exporter, ...] = () if name in BOTH_EXPORTERS else ("dynamo",) if name in ONE_EXPORTER else EXPORTERS
    return Family(name, tiny(model, BOTH, **settings), TEXT, BOTH, attention=True, exporters=exporters, slow=slow)


FAMILIES = (
    # OpenAI 2019: one product for queries, keys and values (Conv1D: weights the other way round), tied embeddings
    decoder("GPT-2", "GPT2LMHeadModel", vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=32),
    # arXiv 2302.13971, 2307.09288: RMSNorm, rotary positions, SwiGLU, grouped key heads
    decoder("Llama", "LlamaForCausalLM", **{**GROUPED, "num_hidden_layers": 2}),
    # arXiv 2310.06825: a sliding window in the mask
    decoder("Mistral", "MistralForCausalLM", sliding_window=4, **GROUPED),
    # arXiv 2407.10671: biases on queries, keys and values
    decoder("Qwen2", "Qwen2ForCausalLM", **GROUPED),
    # arXiv 2505.09388: RMSNorm over the head dimensions of queries and keys
    decoder("Qwen3", "Qwen3ForCausalLM", head_dim=8, **GROUPED),
    # arXiv 2306.11644: half of the head dimensions rotate, attention and feed-forward side by side
    decoder("Phi", "PhiForCausalLM", **TINY),
    # arXiv 2204.06745: queries, keys and values packed head by head, a quarter rotates, two norms side by side
    decoder("GPT-NeoX", "GPTNeoXForCausalLM", **TINY),
    # arXiv 2403.08295: RMSNorm by 1 + weight, scaled embeddings, GEGLU
    decoder("Gemma", "GemmaForCausalLM", head_dim=8, **GROUPED),
    # arXiv 2211.05100: linear biases by distance (ALiBi), packed head by head
    decoder("BLOOM", "BloomForCausalLM", vocab_size=50, hidden_size=32, n_layer=1, n_head=4),
    # arXiv 2205.01068: learned positions counted from the mask
    decoder("OPT", "OPTForCausalLM", ffn_dim=64, word_embed_proj_dim=32, **TINY),
    # GitHub 2021 (kingoflolz/mesh-transformer-jax): interleaved rotary pairs, one norm for both branches
    decoder(
        "GPT-J",
        "GPTJForCausalLM",
        vocab_size=50,
        n_embd=32,
        n_layer=1,
        n_head=4,
        rotary_dim=4,
        n_inner=64,
        n_positions=32,
    ),
    # arXiv 2311.16867: one key head for all query heads (multi-query), packed behind them
    decoder("Falcon", "FalconForCausalLM", multi_query=True, **TINY),
    # arXiv 2305.06161: multi-query, query heads and positions on one axis
    decoder(
        "StarCoder", "GPTBigCodeForCausalLM", vocab_size=50, n_embd=32, n_layer=1, n_head=4, n_inner=64, n_positions=32
    ),
    # arXiv 2404.14219: packed queries, keys and values, packed gate and up projections
    decoder("Phi-3", "Phi3ForCausalLM", pad_token_id=0, **GROUPED),
    # arXiv 2501.00656: norms behind attention and feed-forward, RMSNorm over all heads of queries and keys
    decoder("OLMo2", "Olmo2ForCausalLM", **GROUPED),
    # arXiv 2408.00118: norms on both sides, scores and logits bounded by tanh
    decoder("Gemma2", "Gemma2ForCausalLM", head_dim=8, **GROUPED),
    # MosaicML 2023: packed projections without biases, ALiBi
    decoder(
        "MPT", "MptForCausalLM", vocab_size=50, d_model=32, n_layers=1, n_heads=4, expansion_ratio=2, max_seq_len=32
    ),
    # Cohere 2024: interleaved rotary pairs, one norm for both branches. TorchScript's repeat_interleave leaves four
    # cosines for eight dimensions: ONNX Runtime refuses that model.
    decoder("Cohere", "CohereForCausalLM", ("dynamo",), **GROUPED),
    # arXiv 2312.00752: no attention: a selective state space scanned step by step, gated
    decoder("Mamba", "MambaForCausalLM", vocab_size=50, hidden_size=32, num_hidden_layers=1, state_size=4),
    # the operators of opset 23: Attention with grouped key heads, RMSNormalization
    Family(
        "Llama, opset 23",
        tiny("LlamaForCausalLM", BOTH, attn_implementation="sdpa", **GROUPED),
        TEXT,
        BOTH,
        attention=True,
        exporters=("dynamo",),
        opsets={"dynamo": 23},
    ),
)
