"""GPU memory: an estimate of what a training step needs, and what to change when there is too little."""

from __future__ import annotations

from deflare_core.config import DataConfig, ModelConfig, TrainConfig
from deflare_core.events import NUM_BINS, SensorSize

# Peaks of one training step of the default network on one window of 480x640x8 on one H100, GiB: without and with
# use_checkpoint. They grow with the cells of all levels' features, each level an eighth of the one above; in a 2-D
# backbone, which has no bins, a quarter.
MEASURED_GIB = {"half": (1.60, 1.25), "single": (4.91, 2.93)}
MEASURED_FEATURES = (32 + 64 / 8 + 128 / 64) * 8 * 480 * 640


def training_memory_gib(model: ModelConfig, batch_size: int, num_bins: int, sensor_size: SensorSize) -> float:
    """About how many GiB a training step needs at its peak."""
    finer, bins = (4, 1) if model.backbone == "ResidualUNet2D" else (8, num_bins)
    channels = sum(f_maps / finer**level for level, f_maps in enumerate(model.f_maps))
    features = channels * batch_size * bins * sensor_size[0] * sensor_size[1] / model.patch**2
    return MEASURED_GIB[model.precision][model.use_checkpoint] * features / MEASURED_FEATURES


def memory_advice(config: TrainConfig, sensor_size: SensorSize) -> str:
    """A sentence with the settings that need less memory, each with the estimated peak it leads to."""
    model, trainer = config.model, config.trainer
    half = tuple(max(model.num_groups, n // 2) for n in model.f_maps)
    fewer = {"batch_size": 1, "accumulate_steps": (trainer.accumulate_steps or 1) * trainer.batch_size}
    choices = {
        "model.precision=half": (model.model_copy(update={"precision": "half"}), trainer.batch_size),
        "model.use_checkpoint=true": (model.model_copy(update={"use_checkpoint": True}), trainer.batch_size),
        f"model.f_maps={list(half)}": (model.model_copy(update={"f_maps": half}), trainer.batch_size),
        " ".join(f"trainer.{name}={value}" for name, value in fewer.items()): (model, 1),
    }

    def peak(network: ModelConfig, batch_size: int) -> float:
        num_bins = config.data.num_bins if isinstance(config.data, DataConfig) else NUM_BINS
        return training_memory_gib(network, batch_size, num_bins, sensor_size)

    now = peak(model, trainer.batch_size)
    less = [f"{name} (about {peak(*how):.1f} GiB)" for name, how in choices.items() if peak(*how) < now]
    return f"A step needs about {now:.1f} GiB as configured; less with {', or '.join(less)}."
