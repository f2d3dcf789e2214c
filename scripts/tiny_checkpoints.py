"""The tiny checkpoints themselves: the real classes and ratios, a few channels wide, with random weights.

Each `write_` function makes one diffusers folder from the torch generator's present state. Where real generations
differ (text encoder, attention, vocoder, scheduler), the checkpoints differ in the same way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

MAX_TOKENS: Final = 64

_ROLES: Final = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
_SPECIAL_TOKENS: Final = (*_ROLES.values(), "<start_of_image>", "<end_of_image>", "<image_soft_token>")


def byte_tokenizer(max_tokens: int = MAX_TOKENS, **options: Any) -> Any:
    """One token per byte: no vocabulary to train, and any text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*_SPECIAL_TOKENS, *letters))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=_ROLES["unk_token"]))
    parts = cast(Any, tokenizer)
    parts.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    parts.decoder = decoders.ByteLevel()
    parts.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **_ROLES,
        model_max_length=max_tokens,
        **options,
    )


_TEXT: Final[dict[str, Any]] = {
    "vocab_size": 7 + 256,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
_SOUND_VAE: Final[dict[str, Any]] = {
    # The statistics have base_channels entries, the packed latents latent_channels · mel_bins / 4: they must agree.
    "base_channels": 32,
    "latent_channels": 4,
    "num_res_blocks": 1,
    "ch_mult": (1, 1, 2),
    "mel_bins": 32,
}
_VIDEO_VAE: Final[dict[str, Any]] = {
    "latent_channels": 16,
    "block_out_channels": (8, 16, 32, 64),
    "layers_per_block": (1, 1, 1, 1, 1),
    "decoder_causal": False,
    "spatial_compression_ratio": 32,
    "temporal_compression_ratio": 8,
}
_TRANSFORMER: Final[dict[str, Any]] = {
    "in_channels": 16,
    "out_channels": 16,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "cross_attention_dim": 32,
    "audio_in_channels": 32,
    "audio_out_channels": 32,
    "audio_num_attention_heads": 2,
    "audio_attention_head_dim": 8,
    "audio_cross_attention_dim": 16,
    "num_layers": 2,
    "caption_channels": 32,
    "rope_type": "split",
}


def _connectors(**options: Any) -> Any:
    from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors

    sides = {
        f"{side}_connector_{key}": value
        for side in ("video", "audio")
        for key, value in {"num_attention_heads": 2, "num_layers": 1, "num_learnable_registers": 16}.items()
    }
    return LTX2TextConnectors(
        caption_channels=32,
        text_proj_in_factor=3,
        connector_rope_base_seq_len=128,
        rope_type="split",
        video_connector_attention_head_dim=16,
        **sides,
        **options,
    )


def _gemma3() -> Any:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    return Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config={**_TEXT, "sliding_window": 64},
            vision_config={
                "model_type": "siglip_vision_model",
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 28,
                "patch_size": 14,
            },
            boi_token_index=4,
            eoi_token_index=5,
            image_token_index=6,
            mm_tokens_per_image=4,
        )
    )


def write_ltx2(folder: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
    from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    _save_ltx2(
        folder,
        text_encoder=_gemma3(),
        connectors=_connectors(audio_connector_attention_head_dim=16),
        transformer=LTX2VideoTransformer3DModel(**_TRANSFORMER),
        vae=AutoencoderKLLTX2Video(
            decoder_block_out_channels=(8, 16, 32), decoder_layers_per_block=(1, 1, 1, 1), **_VIDEO_VAE
        ),
        vocoder=LTX2Vocoder(in_channels=64, hidden_channels=64, resnet_kernel_sizes=[3], resnet_dilations=[[1, 3, 5]]),
        # As the undistilled repository ships it: the family must not let it bend the distilled schedules.
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, shift_terminal=0.1
        ),
    )


_GATED: Final[dict[str, Any]] = {
    "gated_attn": True,
    "cross_attn_mod": True,
    "audio_gated_attn": True,
    "audio_cross_attn_mod": True,
    "use_prompt_embeddings": False,
    "perturbed_attn": True,
}
_LONGER_DECODER: Final[dict[str, Any]] = {
    "decoder_block_out_channels": (8, 16, 16, 32),
    "decoder_layers_per_block": (1, 1, 1, 1, 1),
    "decoder_spatio_temporal_scaling": (True, True, True, True),
    "decoder_inject_noise": (False, False, False, False, False),
    "upsample_type": ("spatiotemporal", "spatiotemporal", "temporal", "spatial"),
    "upsample_residual": (False, False, False, False),
    "upsample_factor": (2, 2, 1, 2),
    "decoder_spatial_padding_mode": "zeros",
}


def _gated_connectors() -> Any:
    return _connectors(
        audio_connector_attention_head_dim=8,
        per_modality_projections=True,
        video_hidden_dim=32,
        audio_hidden_dim=16,
        proj_bias=True,
        video_gated_attn=True,
        audio_gated_attn=True,
    )


def _wider_vocoder() -> Any:
    from diffusers.pipelines.ltx2.vocoder import LTX2VocoderWithBWE

    residual: dict[str, Any] = {"resnet_kernel_sizes": [3], "resnet_dilations": [[1, 3, 5]]}
    return LTX2VocoderWithBWE(
        in_channels=64,
        hidden_channels=64,
        bwe_in_channels=64,
        bwe_hidden_channels=32,
        num_mel_channels=32,
        **residual,
        **{f"bwe_{key}": value for key, value in residual.items()},
    )


def write_ltx23(folder: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
    from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    _save_ltx2(
        folder,
        text_encoder=_gemma3(),
        connectors=_gated_connectors(),
        transformer=LTX2VideoTransformer3DModel(**_TRANSFORMER, **_GATED),
        vae=AutoencoderKLLTX2Video(**_VIDEO_VAE, **_LONGER_DECODER),
        vocoder=_wider_vocoder(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


def write_ltx25(folder: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
    from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
    from transformers import Gemma4UnifiedConfig, Gemma4UnifiedForConditionalGeneration

    _save_ltx2(
        folder,
        text_encoder=Gemma4UnifiedForConditionalGeneration(
            Gemma4UnifiedConfig(text_config={**_TEXT, "sliding_window": 64, "global_head_dim": 16})
        ),
        connectors=_gated_connectors(),
        transformer=LTX2VideoTransformer3DModel(
            **_TRANSFORMER, **_GATED, ff_bias=False, use_keyframes_abs_pos_embedding=True
        ),
        vae=AutoencoderKLLTX2Video(**_VIDEO_VAE, **_LONGER_DECODER),
        vocoder=_wider_vocoder(),
        scheduler=FlowMatchEulerDiscreteScheduler(stochastic_sampling=True),
    )


def _save_ltx2(folder: Path, **parts: Any) -> None:
    from diffusers.models.autoencoders.autoencoder_kl_ltx2_audio import AutoencoderKLLTX2Audio
    from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
    from diffusers.pipelines.ltx2.pipeline_ltx2 import LTX2Pipeline

    pipe = LTX2Pipeline(
        audio_vae=AutoencoderKLLTX2Audio(**_SOUND_VAE), tokenizer=byte_tokenizer(padding_side="left"), **parts
    )
    pipe.save_pretrained(str(folder))
    upsampler = LTX2LatentUpsamplerModel(in_channels=16, mid_channels=32, num_blocks_per_stage=1)
    upsampler.save_pretrained(str(folder / "latent_upsampler"))


def chat_tokenizer(max_tokens: int = MAX_TOKENS) -> Any:
    """For the families that wrap a prompt as a chat's message."""
    tokenizer = byte_tokenizer(max_tokens, padding_side="right")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return tokenizer


_IMAGE_VAE: Final[dict[str, Any]] = {
    "block_out_channels": (8, 8, 16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 16,
    "norm_num_groups": 4,
    "layers_per_block": 1,
}


def write_flux2_klein(folder: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
    from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel
    from diffusers.pipelines.flux2.pipeline_flux2_klein import Flux2KleinPipeline
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
    from transformers import Qwen3Config, Qwen3ForCausalLM

    # The pipeline reads hidden states 9, 18 and 27.
    text: dict[str, Any] = {**_TEXT, "hidden_size": 16, "intermediate_size": 32, "head_dim": 8, "num_hidden_layers": 28}
    pipe = Flux2KleinPipeline(
        text_encoder=Qwen3ForCausalLM(Qwen3Config(**text)),
        tokenizer=chat_tokenizer(),
        transformer=Flux2Transformer2DModel(
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=48,
            timestep_guidance_channels=32,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
        vae=AutoencoderKLFlux2(**_IMAGE_VAE, patch_size=(2, 2)),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        is_distilled=True,
    )
    pipe.save_pretrained(str(folder))


def write_z_image(folder: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
    from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
    from transformers import Qwen3Config, Qwen3Model

    pipe = ZImagePipeline(
        text_encoder=Qwen3Model(Qwen3Config(**_TEXT)),
        tokenizer=chat_tokenizer(),
        transformer=ZImageTransformer2DModel(
            in_channels=16,
            dim=48,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=32,
            axes_dims=[8, 8, 8],
            axes_lens=[256, 256, 256],
        ),
        vae=AutoencoderKL(
            **_IMAGE_VAE, use_quant_conv=False, use_post_quant_conv=False, scaling_factor=0.3611, shift_factor=0.1159
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    pipe.save_pretrained(str(folder))
