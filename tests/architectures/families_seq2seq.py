"""Encoders and decoders with cross attention."""

from __future__ import annotations

import torch
from family import EXPORTERS, Family
from huggingface import tiny

SOUND = ("input_features", "decoder_input_ids", "decoder_attention_mask")
PAIR = ("input_ids", "decoder_input_ids")
T5 = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
LAYERS = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": 50,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}


def pair() -> dict[str, torch.Tensor]:
    """Token numbers of a source and of a target."""
    return {"input_ids": torch.randint(3, 50, (2, 8)), "decoder_input_ids": torch.randint(3, 50, (2, 6))}


def sound() -> dict[str, torch.Tensor]:
    """A spectrogram of 16 bands and 16 frames, token numbers of a target, and their mask."""
    inputs = {"input_features": torch.randn(2, 16, 16), "decoder_input_ids": torch.randint(3, 50, (2, 6))}
    return {**inputs, "decoder_attention_mask": torch.ones(2, 6, dtype=torch.int64)}


FAMILIES = (
    Family("T5", tiny("T5ForConditionalGeneration", PAIR, **T5), pair, PAIR, attention=True),
    Family(
        "T5 gated",
        tiny("T5ForConditionalGeneration", PAIR, feed_forward_proj="gated-gelu", **T5),
        pair,
        PAIR,
        attention=True,
        slow=("dynamo",),
    ),
    Family(
        "BART",
        tiny("BartForConditionalGeneration", PAIR, max_position_embeddings=32, **LAYERS),
        pair,
        PAIR,
        attention=True,
        slow=EXPORTERS,
    ),
    Family(
        "Whisper",
        tiny(
            "WhisperForConditionalGeneration",
            SOUND,
            num_mel_bins=16,
            max_source_positions=8,
            max_target_positions=32,
            **LAYERS,
        ),
        sound,
        SOUND,
        attention=True,
    ),
)
