"""Vision transformers, pure and mixed with convolutions."""

from __future__ import annotations

from family import EXPORTERS, Family, images
from huggingface import tiny

SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
PATCHES = {"image_size": 16, "patch_size": 8, **SIZES}
PIXELS = ("pixel_values",)

FAMILIES = (
    # arXiv 2010.11929: patches, class token, learned positions, pre-norm
    Family("ViT", tiny("ViTForImageClassification", PIXELS, **PATCHES), images(2, 3, 16, 16), ("x",), attention=True),
    # arXiv 2012.12877: a second token for distillation, two heads averaged
    Family(
        "DeiT",
        tiny("DeiTForImageClassificationWithTeacher", PIXELS, **PATCHES),
        images(2, 3, 16, 16),
        ("x",),
        attention=True,
    ),
    # arXiv 2103.14030: window partitions, cyclic shifts with masks, relative position bias, patch merging
    Family(
        "Swin",
        tiny(
            "SwinForImageClassification",
            PIXELS,
            image_size=16,
            patch_size=2,
            embed_dim=16,
            depths=[2, 1],
            num_heads=[2, 4],
            window_size=4,
            mlp_ratio=2.0,
        ),
        images(2, 3, 16, 16),
        ("x",),
        share=0.88,
        why="dynamo writes the final pool as as_strided: elements of a flat vector picked by number, depending on the "
        "batch, which freezes the last width; TorchScript's graph has 0.91",
        attention=True,
    ),
    # arXiv 2110.02178: convolutions, and transformers over unfolded patches
    Family(
        "MobileViT",
        tiny(
            "MobileViTForImageClassification",
            PIXELS,
            image_size=32,
            hidden_sizes=[16, 24, 32],
            neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 48],
            num_attention_heads=4,
        ),
        images(2, 3, 32, 32),
        ("x",),
        attention=True,
    ),
    # arXiv 2105.15203: overlapping patches, keys and values of a reduced map, depthwise convolutions in the FFN
    Family(
        "SegFormer",
        tiny(
            "SegformerForSemanticSegmentation",
            PIXELS,
            num_encoder_blocks=2,
            depths=[1, 1],
            sr_ratios=[2, 1],
            hidden_sizes=[16, 32],
            patch_sizes=[3, 3],
            strides=[4, 2],
            num_attention_heads=[2, 4],
            mlp_ratios=[2, 2],
            decoder_hidden_size=32,
        ),
        images(2, 3, 32, 32),
        ("x",),
        attention=True,
        slow=("dynamo",),
    ),
    # arXiv 2304.07193: layer scale, SwiGLU in place of the FFN
    Family(
        "DINOv2",
        tiny("Dinov2ForImageClassification", PIXELS, use_swiglu_ffn=True, **PATCHES),
        images(2, 3, 16, 16),
        ("x",),
        attention=True,
        slow=EXPORTERS,
    ),
)
