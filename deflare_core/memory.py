"""GPU memory: an estimate of what a training step needs, and what to change when there is too little."""

from __future__ import annotations

from deflare_core.config import ModelConfig, TrainConfig
from deflare_core.events import SensorSize

# Peak of one training step of the default network on one window of 480x640x8, float32, on one H100: 4.91 GiB, and
# 2.93 GiB with use_checkpoint. It grows with the cells of all levels' features, each level an eighth of the one above.
MEASURED_GIB, MEASURED_FEATURES = 4.91, (32 + 64 / 8 + 128 / 64) * 8 * 480 * 640
CHECKPOINTED_SHARE = 2.93 / 4.91


def training_memory_gib(model: ModelConfig, batch_size: int, num_bins: int, sensor_size: SensorSize) -> float:
    """About how many GiB a training step needs at its peak, in float32 without compilation."""
    channels = sum(f_maps / 8**level for level, f_maps in enumerate(model.f_maps))
    features = channels * batch_size * num_bins * sensor_size[0] * sensor_size[1]
    share = CHECKPOINTED_SHARE if model.use_checkpoint else 1
    return MEASURED_GIB * features / MEASURED_FEATURES * share


def memory_advice(config: TrainConfig, sensor_size: SensorSize) -> str:
    """A sentence with the settings that need less memory, each with the estimated peak it leads to."""
    model, trainer = config.model, config.trainer
    half = tuple(max(model.num_groups, n // 2) for n in model.f_maps)
    fewer = {"batch_size": 1, "accumulate_steps": (trainer.accumulate_steps or 1) * trainer.batch_size}
    choices = {
        "model.use_checkpoint=true": (model.model_copy(update={"use_checkpoint": True}), trainer.batch_size),
        f"model.f_maps={list(half)}": (model.model_copy(update={"f_maps": half}), trainer.batch_size),
        " ".join(f"trainer.{name}={value}" for name, value in fewer.items()): (model, 1),
    }

    def peak(network: ModelConfig, batch_size: int) -> float:
        return training_memory_gib(network, batch_size, config.data.num_bins, sensor_size)

    now = peak(model, trainer.batch_size)
    less = [f"{name} (about {peak(*how):.1f} GiB)" for name, how in choices.items() if peak(*how) < now]
    return f"A step needs about {now:.1f} GiB as configured; less with {', or '.join(less)}."
