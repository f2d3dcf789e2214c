"""How a component's weights are kept: which layers become 8 or 4 bits wide, and what a folder holds already.

Only the linear layers of the repeated blocks are quantised: what comes before and after them (embeddings of time,
projections in and out, modulation) is small, and errors there reach every token. Norms are never linear layers here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec
import torch

from zsky_box.errors import JobFailure
from zsky_box.manifest import ON_CUDA_ONLY, ModelSpec, Quantisation, Recipe

# Parts of layers' names, by the class of the component; a layer whose name holds one of them stays as it is.
_KEPT: Final[dict[str, tuple[str, ...]]] = {
    "LTX2VideoTransformer3DModel": (
        "proj_in",
        "audio_proj_in",
        "caption_projection",
        "audio_caption_projection",
        "time_embed",
        "audio_time_embed",
        "av_cross_attn_video_scale_shift",
        "av_cross_attn_audio_scale_shift",
        "av_cross_attn_video_a2v_gate",
        "av_cross_attn_audio_v2a_gate",
        "prompt_adaln",
        "audio_prompt_adaln",
        "to_gate_logits",
        "proj_out",
        "audio_proj_out",
    ),
    "LTX2TextConnectors": ("to_gate_logits",),
    "Flux2Transformer2DModel": (
        "time_guidance_embed",
        "double_stream_modulation_img",
        "double_stream_modulation_txt",
        "single_stream_modulation",
        "x_embedder",
        "context_embedder",
        "norm_out",
        "proj_out",
    ),
    "ZImageTransformer2DModel": (
        "t_embedder",
        "cap_embedder",
        "all_x_embedder",
        "all_final_layer",
        "adaLN_modulation",
    ),
}
_KEPT_OF_TEXT_ENCODERS: Final = ("lm_head",)

_TORCHAO_TYPES: Final[dict[str, Quantisation]] = {
    "Int8WeightOnlyConfig": "int8",
    "Float8WeightOnlyConfig": "fp8",
    "Float8DynamicActivationFloat8WeightConfig": "fp8_dynamic",
}
_FP8_DYNAMIC_CAPABILITY: Final = (8, 9)
_MAX_CONFIG_BYTES: Final = 4 * 2**20


def refuse_unable(spec: ModelSpec, recipe: Recipe, device: str) -> None:
    """Raises JobFailure where the device cannot run the recipe."""
    reason = _unable(recipe, device)
    if reason:
        raise JobFailure(
            "internal_error", f"The recipe {recipe.name} of {spec.name} cannot run here: {reason}. Choose another one."
        )


def _unable(recipe: Recipe, device: str) -> str | None:
    if not device.startswith("cuda"):
        return "it needs an NVIDIA card, and this worker has the processor" if recipe.needs_cuda else None
    has = torch.cuda.get_device_capability(device)
    needs = (int(recipe.capability), round(recipe.capability % 1 * 10))
    if "fp8_dynamic" in recipe.quantise.values():
        needs = max(needs, _FP8_DYNAMIC_CAPABILITY)
    if has < needs:
        return f"it needs a card of compute capability {needs[0]}.{needs[1]}, and this one has {has[0]}.{has[1]}"
    return None


def stored(folder: Path) -> str | None:
    """How a component's folder says its weights are kept: a Quantisation, another method's name, or None for in full.

    Raises OSError and ValueError for a configuration that cannot be read.
    """
    path = folder / "config.json"
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise ValueError("the configuration is too long")
    config = msgspec.json.decode(path.read_bytes())
    said = config.get("quantization_config") if isinstance(config, dict) else None
    if not isinstance(said, dict):
        return None
    match said:
        case {"quant_method": "torchao", "quant_type": {"default": {"_type": str(name)}}} if name in _TORCHAO_TYPES:
            return _TORCHAO_TYPES[name]
        case {"quant_method": "bitsandbytes", "bnb_4bit_quant_type": "nf4", "load_in_4bit": True}:
            return "nf4"
        case {"quant_method": str(method)}:
            return method
        case _:
            return "unknown"


def quantising(kind: type, quantisation: Quantisation, dtype: torch.dtype, device: str) -> dict[str, Any]:
    """The keyword arguments of `kind.from_pretrained` that quantise while it loads.

    The quantisations that any device can do are done on the processor: the same weights come out whatever the card.
    """
    from diffusers.models.modeling_utils import ModelMixin

    library = "diffusers" if issubclass(kind, ModelMixin) else "transformers"
    kept = list(_KEPT.get(kind.__name__, ()) if library == "diffusers" else _KEPT_OF_TEXT_ENCODERS)
    chosen: dict[str, Any] = {"quantization_config": _config(library, quantisation, dtype, kept)}
    if quantisation in ON_CUDA_ONLY:
        chosen["device_map"] = {"": device}
    return chosen


def _config(library: str, quantisation: Quantisation, dtype: torch.dtype, kept: list[str]) -> Any:
    import diffusers
    import transformers

    place: Any = diffusers if library == "diffusers" else transformers
    if quantisation == "nf4":
        skipped = {"llm_int8_skip_modules": kept}
        return place.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, **skipped
        )
    return place.TorchAoConfig(_torchao(quantisation), modules_to_not_convert=kept)


def _torchao(quantisation: Quantisation) -> Any:
    from torchao.quantization import (
        Float8DynamicActivationFloat8WeightConfig,
        Float8WeightOnlyConfig,
        Int8WeightOnlyConfig,
    )

    match quantisation:
        case "int8":
            return Int8WeightOnlyConfig(version=2)
        case "fp8":
            return Float8WeightOnlyConfig()
        case "fp8_dynamic":
            return Float8DynamicActivationFloat8WeightConfig()
        case "nf4":
            raise ValueError("nf4 is not torchao's")
