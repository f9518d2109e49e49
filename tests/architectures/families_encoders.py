"""Text encoders: BERT and what came after it."""

from __future__ import annotations

from typing import Any

from family import EXPORTERS, Exporter, Family, tokens
from huggingface import TINY, tiny

BOTH_EXPORTERS = ("BERT", "DistilBERT", "RoBERTa")
ONE_EXPORTER = ("ALBERT", "ConvBERT", "DeBERTa")  # the rest is left to the slow suite
BOTH = ("input_ids", "attention_mask")


def encoder(name: str, model: str, **settings: Any) -> Family:
    """A family that reads token numbers and their mask."""
    slow: tuple[Exporter, ...] = () if name in BOTH_EXPORTERS else ("dynamo",) if name in ONE_EXPORTER else EXPORTERS
    return Family(name, tiny(model, BOTH, **settings), tokens(2, 8, 50), BOTH, attention=True, slow=slow)


FAMILIES = (
    # arXiv 1810.04805: separate projections, LayerNorm after each sum; the head's weight is the embedding's
    encoder("BERT", "BertForMaskedLM", **{**TINY, "num_hidden_layers": 2}),
    # arXiv 1910.01108: BERT without token types and without a pooler
    encoder(
        "DistilBERT",
        "DistilBertForSequenceClassification",
        vocab_size=50,
        dim=32,
        n_layers=1,
        n_heads=4,
        hidden_dim=64,
        max_position_embeddings=32,
    ),
    # arXiv 1907.11692: positions are counted from the padding mask of the token numbers
    encoder("RoBERTa", "RobertaForTokenClassification", **TINY),
    # arXiv 1909.11942: one layer applied twice, embeddings of another width
    encoder("ALBERT", "AlbertForSequenceClassification", embedding_size=16, **{**TINY, "num_hidden_layers": 2}),
    # arXiv 2003.10555: a head that judges every token
    encoder("ELECTRA", "ElectraForPreTraining", embedding_size=16, **TINY),
    # arXiv 2008.02496: half of the heads are replaced by convolutions whose kernels depend on the tokens
    encoder("ConvBERT", "ConvBertForSequenceClassification", embedding_size=32, **TINY),
    # arXiv 2004.09297: relative position bias, shared by all layers
    encoder("MPNet", "MPNetForSequenceClassification", **TINY),
    # arXiv 2412.13663: packed projections, rotary positions, GEGLU, local attention
    encoder(
        "ModernBERT",
        "ModernBertForSequenceClassification",
        **TINY,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
    ),
    # arXiv 2006.03654: scores of contents against relative positions, picked by distance
    encoder(
        "DeBERTa", "DebertaV2ForSequenceClassification", relative_attention=True, pos_att_type=["p2c", "c2p"], **TINY
    ),
    # arXiv 1901.07291: embeddings of positions in a stream that padding sets to zero
    encoder(
        "XLM",
        "XLMForSequenceClassification",
        vocab_size=50,
        emb_dim=32,
        n_layers=1,
        n_heads=4,
        max_position_embeddings=32,
        pad_index=0,
        bos_index=1,
        eos_index=2,
        unk_index=3,
        mask_index=4,
    ),
)
