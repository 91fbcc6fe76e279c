"""Frozen video and image encoders of `transformers`, with its own SDPA forward, as `EncoderJob`s."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionvit.errors import ActionVitError
from actionvit.features.device import Precision
from actionvit.features.encoder import OutputSpec, VideoEncoder
from actionvit.features.fingerprint import file_digest
from actionvit.features.hf_folder import read_json, read_processor
from actionvit.features.hub import WEIGHT_FILES, fetch
from actionvit.features.pixel_settings import PixelSettings, pixel_settings
from actionvit.features.sampling import ClipSpec
from actionvit.features.transformers_families import FAMILIES, FRAMES, Family
from actionvit.features.view_settings import ViewSettings
from actionvit.text import first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Configuration keys that do not change the forward.
_IRRELEVANT = re.compile(
    r"_name_or_path|architectures|transformers_version|(torch_)?dtype|id2label|label2id|problem_type|initializer_.*"
    r"|text_config|use_cache|return_dict|output_.*|finetuning_task|license|_commit_hash|projection_dim|logit_scale_.*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersJob:
    """A frozen transformers encoder to extract with. An `EncoderJob`."""

    variant: str
    source: str
    folder: Path
    family: str
    config: Mapping[str, Any]
    """The vision part of `config.json` with transformers' defaults, without keys that do not change the forward."""
    model_class: str
    digest: str
    """sha256 of the weight file."""
    pixels: PixelSettings
    spec: ClipSpec
    precision: Precision = "fp32"
    """Resolved, never `auto`."""

    @property
    def tubelet(self) -> list[int]:
        """Frames and pixels of a patch: [frames, ..., side]."""
        tubelet = self.config.get("tubelet_size", 1)
        return tubelet if isinstance(tubelet, list) else [int(tubelet), int(self.config["patch_size"])]

    @property
    def tubelets(self) -> int:
        """T': frames per view, or tubelets of a video model."""
        return self.spec.num_frames // self.tubelet[0]

    def output_spec(self) -> OutputSpec:
        """Return the arrays per video. Raises ActionVitError if the model does not support the views."""
        spec, family, (step, *_, patch) = self.spec, FAMILIES[self.family], self.tubelet
        problem = ""
        if family.fixed_shape and (spec.num_frames, spec.size) != (shape := _shape(family, self.config)):
            problem = f"num_frames, size: got {spec.num_frames}, {spec.size}, expected {shape}: its positions are fixed"
        elif spec.size % patch or spec.num_frames % step:
            problem = f"num_frames, size: got {spec.num_frames}, {spec.size}, expected multiples of {step} and {patch}"
        elif spec.crops > 1 and self.pixels.stretch:
            problem = f"crops: got {spec.crops}, expected 1: its processor resizes to a square"
        if problem:
            raise ActionVitError(f"encoder {self.variant}: {problem}")
        K, D = spec.views, int(self.config["hidden_size"])
        index = ((K, spec.num_frames), "int32")
        return {"clip": ((K, D), "float32"), "frame": ((K, self.tubelets, D), "float32"), "index": index}

    def key_fields(self) -> dict[str, Any]:
        """Return everything of the encoder that changes its numbers."""
        return {
            "weights": self.digest,
            "model": {"family": self.family, "class": self.model_class, **self.config},
            "clip": asdict(self.spec),
            "preprocessing": asdict(self.pixels),
            "precision": self.precision,
            "outputs": {"frame_pool": FAMILIES[self.family].pool, "layers": [], "tokens_after": None},
        }

    @property
    def gmac(self) -> float:
        """Multiply-adds for the views of one video in 10⁹, counted by torch on a model without weights."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        spec = self.spec
        with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
            self._forward(self._model(None))(torch.zeros(1, spec.num_frames, 3, spec.size, spec.size))
        return float(counter.get_total_flops()) / 2e9 * spec.views

    @property
    def plain_gmac(self) -> float:
        """As `gmac`: the forward is transformers' own."""
        return self.gmac

    def load(self, device: str) -> VideoEncoder:
        """Return the encoder on a device; imports torch and transformers, and reads the weights."""
        from actionvit.features.batching import BatchedEncoder

        config, spec = self.config, self.spec
        tokens = self.tubelets * (1 + (spec.size // self.tubelet[-1]) ** 2)
        hidden = config.get("intermediate_size") or config["hidden_size"] * config.get("mlp_ratio", 4)
        return BatchedEncoder(
            spec,
            (self.pixels.mean, self.pixels.std),
            self.output_spec(),
            lambda place, dtype: self._forward(self._model(dtype).to(place)),
            tokens=tokens,
            view_values=tokens * 2 * (config["hidden_size"] + int(hidden)),
            precision=self.precision,
            device=device,
            resize=self.pixels.resizer(spec.size),
        )

    def _forward(self, model: Any) -> Callable[[Tensor], dict[str, Tensor]]:
        def forward(views: Tensor) -> dict[str, Tensor]:
            clip, frame = FAMILIES[self.family].embed(model, views, self.tubelets)
            return {"clip": clip.float(), "frame": frame.float()}

        return forward

    def _model(self, dtype: torch.dtype | None) -> Any:
        """Return the model with its weights in a dtype, or for None without weights on the current device."""
        import transformers

        model_class = getattr(transformers, self.model_class)
        config = model_class.config_class.from_pretrained(self.folder, local_files_only=True)
        config._attn_implementation = "sdpa"
        if self.family == "vjepa2":
            config.crop_size, config.frames_per_clip = self.spec.size, self.spec.num_frames
        if dtype is None:
            return model_class(config).eval()
        options = {"dtype": dtype, "local_files_only": True, "trust_remote_code": False, "output_loading_info": True}
        log, verbosity = transformers.logging, transformers.logging.get_verbosity()
        log.set_verbosity(50)  # otherwise tensors of unused heads are reported
        log.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            model, info = model_class.from_pretrained(self.folder, config=config, **options)
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise ActionVitError(
                f"encoder {self.source}: its weights do not load ({first_line(error)}); fetch them again"
            ) from error
        finally:
            log.set_verbosity(verbosity)
            log.enable_progress_bar()  # type: ignore[no-untyped-call]
        if missing := sorted(key for key in info["missing_keys"] if not key.startswith(("pooler.", "predictor."))):
            raise ActionVitError(
                f"encoder {self.source}: {len(missing)} tensors are missing ({', '.join(missing[:3])}): not complete"
                f" weights of a {self.model_class}"
            )
        return model.eval().requires_grad_(False)


def find_encoder(
    source: str,
    views: ViewSettings = ViewSettings(),
    *,
    name: str | None = None,
    precision: Precision = "fp32",
) -> TransformersJob:
    """Find a transformers encoder, read its settings and digest its weights; imports neither torch nor transformers.

    Parameters
    ----------
    source : str
        A Hugging Face folder, or a hub id (from the local cache or the hub).
    views : ViewSettings
        Frames per view, pixels and sampling; by default the model's own.
    name : str, optional
        Name of its stores; by default the last part of the source.
    precision : str
        Resolved, as `resolve_device` returns it.

    Raises
    ------
    ActionVitError
        If the model does not exist, its family is not supported, it needs custom code, or its processor has a setting
        that is not supported.
    """
    path = Path(source).expanduser()
    folder = path if path.is_dir() else fetch(source)
    config = read_json(folder / "config.json", source)
    file, processor = read_processor(folder, source)
    if "auto_map" in config or "auto_map" in processor:
        raise ActionVitError(f"encoder {source}: needs custom code (auto_map), which is never run; give another model")
    model_class = (config.get("architectures") or [""])[0]
    config = _vision_config(config)
    kind = config.get("model_type")
    family = FAMILIES.get(str(kind))
    if family is None:
        raise ActionVitError(f"encoder {source}: model_type {kind!r}, expected one of {', '.join(FAMILIES)}")
    if not file:
        raise ActionVitError(f"encoder {source}: has no preprocessor_config.json: how its pixels are scaled is unknown")
    weights = next((folder / each for each in WEIGHT_FILES if (folder / each).is_file()), None)
    if weights is None:
        raise ActionVitError(f"encoder {source}: has neither {' nor '.join(WEIGHT_FILES)} (shards are not supported)")
    config = {**family.config, **{key: value for key, value in config.items() if not _IRRELEVANT.fullmatch(key)}}
    try:
        pixels = pixel_settings({**family.processor, **processor})
        spec = ClipSpec.of(views, num_frames=_shape(family, config)[0], size=pixels.crop, stride=family.stride)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ActionVitError(f"encoder {source}: {file} or config.json: {error}") from error
    fine_tuned = model_class == "VideoMAEForVideoClassification"
    return TransformersJob(
        variant=name or re.sub(r"[^\w.-]+", "-", (folder if path.is_dir() else Path(source)).name).strip("-."),
        source=source,
        folder=folder,
        family=str(kind),
        config=config,
        model_class=model_class if fine_tuned else family.model,
        digest=file_digest(weights),
        pixels=pixels,
        spec=spec,
        precision=precision,
    )


def _vision_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of the vision tower of CLIP and SigLIP; any other unchanged."""
    kind = config.get("model_type")
    if kind in ("clip", "siglip"):
        return {**(config.get("vision_config") or {}), "model_type": f"{kind}_vision_model"}
    return config


def _shape(family: Family, config: Mapping[str, Any]) -> tuple[int, int]:
    """Return the frames per view and the pixels of the model's position embedding."""
    return int(config[family.frames]) if family.frames else FRAMES, int(config.get("image_size", 0))
