"""Configuration: typed models with one documented field per setting, read from YAML and dotted overrides.

An unknown key is an error that names the nearest known one, so a misspelt setting never runs with its default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, field_validator, model_validator

from deflare_core.events import NUM_BINS, WINDOW_US, PolarityRule, SensorSize
from deflare_core.io.reading import Reading, TimeUnit
from deflare_core.system import limits
from deflare_core.system.places import PRETRAINED
from deflare_core.system.settings import StrictModel

SEEDS = 1 << 63
"""Seeds are less than this: torch takes no larger ones."""
LAYERS = "gbcrledD"
"""The letters that pytorch-3dunet knows for the layers of a block."""


class LossRow(NamedTuple):
    """What a loss is, and whether it is of a gate; its function stands in `losses.FUNCTIONS` under the same name."""

    about: str
    needs_gate: bool = False


LOSSES = {
    "mse": LossRow("the squared difference of output and target, averaged over cells"),
    "l1": LossRow("the absolute difference, averaged over cells"),
    "smooth_l1": LossRow("quadratic below a difference of 1 event, linear above, averaged over cells"),
    "kept": LossRow("of a gate: the surprise at how many of each cell's events are kept, per event", True),
    "kept_dice": LossRow("kept, plus one minus Dice's overlap of what is kept and what should be", True),
}
"""Every loss by name. All are averaged over windows, which weigh alike however many events each has."""


LEVEL_WORDS = ("careful", "balanced", "thorough")
"""Rules that give each window a decision level of its own: to spare lamps, the usual one, and to spare no flare."""


def _level_is_known(level: Any) -> Any:
    if level in LEVEL_WORDS or (isinstance(level, float) and 0 < level < 1):
        return level
    if level == "adaptive":  # The word for balanced in checkpoints before the others came.
        return "balanced"
    raise ValueError(f"a level is a number between 0 and 1, or one of {', '.join(LEVEL_WORDS)}")


Level = Annotated[float | Literal[*LEVEL_WORDS], BeforeValidator(_level_is_known)]  # type: ignore[valid-type]
"""A decision level; see `ModelConfig.level`."""


class ModelConfig(StrictModel):
    """The network: a backbone of pytorch-3dunet inside the residual rule."""

    name: Literal["TrueResidualUNet3D", "ResidualUNet3D", "UNet3D"] = "TrueResidualUNet3D"
    """TrueResidualUNet3D adds the input to its backbone's output; the other two are the bare backbones."""
    backbone: Literal["ResidualUNet3D", "UNet3D", "ResidualUNet2D"] = "ResidualUNet3D"
    """Backbone of TrueResidualUNet3D; ResidualUNet2D takes the bins as channels, at a fraction of the work."""
    num_bins: int = Field(NUM_BINS, gt=0, le=limits.MOST_BINS)
    """Time bins that a 2-D backbone takes; a 3-D one takes any number."""
    polarity: Literal["signed", "split"] = "signed"
    """signed: one channel of positive less negative events; split: a channel for each, so that none cancel unseen."""
    residual: Literal["free", "gate"] = "free"
    """free: output = input + backbone(input); gate: output = input - input x removed(backbone(input)), with a removed
    share between 0 and 1, so that nothing is invented. Both are the identity before training."""
    context: int = Field(0, ge=0, le=limits.MOST_CONTEXT)
    """Windows before and after its own that the network also sees, as further channels of its input."""
    level: Level = 0.5
    """The part of an event in the output from which on it counts as one; 0.5 is rounding. A word is a rule that gives
    each window its own, low where flare can hardly be told from the rest, so that lamps stay, higher where it can:
    careful keeps lamps and leaves flare where in doubt, thorough the reverse (`deflaring/decision_level.py`)."""
    f_maps: tuple[Annotated[int, Field(le=limits.MOST_MAPS)], ...] = Field((32, 64, 128), max_length=limits.MOST_LEVELS)
    """Feature maps of each level, finest first."""
    num_levels: int = 3
    """Number of levels; must equal the length of f_maps. In 3-D eight time bins allow at most four."""
    patch: Literal[1, 2] = 1
    """Side of the squares of pixels that a 2-D backbone sees as one pixel of more channels: 2 leaves out the finest
    level, which takes half of the time."""
    layer_order: str = "gcr"
    """Order within a block: g GroupNorm, b BatchNorm, c convolution, r ReLU, l LeakyReLU, e ELU, d dropout, D dropout
    of whole channels."""
    num_groups: int = Field(8, gt=0)
    """Groups of GroupNorm; must divide every entry of f_maps."""
    conv_padding: int = 1
    """Padding of UNet3D's convolutions; the residual backbone always uses 1."""
    upsampling: Literal["shifted", "aligned"] = "shifted"
    """shifted: as pytorch-3dunet has it, whose residual decoders make one cell less than they need along each axis and
    count the first twice, so that all others move by one; aligned: as many as they need. UNet3D does neither."""
    dropout_prob: float = Field(0.1, ge=0, lt=1)
    """Dropout probability; without effect unless layer_order contains d."""
    use_checkpoint: bool = False
    """Recompute each level's activations in the backward pass: less memory, more time."""
    precision: Literal["half", "single"] = "half"
    """half multiplies in 16 bits with parameters and sums in 32: on a GPU residual backbones in our own kernels
    (bfloat16 in training, float16 otherwise), others in bfloat16; on a processor that multiplies bfloat16 without
    training, in bfloat16. single, and half on any other processor, is plain torch in float32."""

    @field_validator("layer_order")
    @classmethod
    def _layers_are_known(cls, order: str) -> str:
        if strange := sorted(set(order) - set(LAYERS)):
            raise ValueError(f"{', '.join(strange)}: no such layers; write each as one of the letters {LAYERS}")
        if "c" not in order or len(set(order)) < len(order) or order[0] in "rle":
            raise ValueError("an order has c, no letter twice, and does not begin with r, l or e; write it like gcr")
        return order

    @model_validator(mode="after")
    def _settings_agree(self) -> ModelConfig:
        if self.residual == "gate" and self.name != "TrueResidualUNet3D":
            raise ValueError(f"residual=gate is of TrueResidualUNet3D; {self.name} has no residual")
        if self.patch > 1 and self.backbone != "ResidualUNet2D":
            raise ValueError(f"patch={self.patch} is of a 2-D backbone; set backbone=ResidualUNet2D, or patch=1")
        if len(self.f_maps) != self.num_levels:
            raise ValueError(
                f"num_levels is {self.num_levels} but f_maps {list(self.f_maps)} has {len(self.f_maps)} entries; "
                "give one feature count per level"
            )
        if len(self.f_maps) < 2:
            raise ValueError(f"f_maps {list(self.f_maps)} is a single level; a U-Net has at least two")
        unfit = [n for n in self.f_maps if n < 1 or n % min(self.num_groups, n)]
        if unfit:
            raise ValueError(
                f"f_maps {list(self.f_maps)}: {unfit} cannot be split into num_groups={self.num_groups}; use multiples"
            )
        return self


class ReadingConfig(StrictModel):
    """How to read recordings that do not say enough about themselves."""

    sensor_size: SensorSize | None = Field(None, json_schema_extra={"nargs": 2, "metavar": "HEIGHT WIDTH"})
    """(height, width), where files do not say"""
    polarity: PolarityRule = "strict"
    """lenient: 1 is positive, all else negative"""
    time_unit: TimeUnit | None = None
    """of times whose unit is not declared"""
    stream: str | None = None
    """the one of several in a file, such as a camera"""
    follow_links: bool = False
    """read what an HDF5 file has in other files"""

    @property
    def reading(self) -> Reading:
        """The same for readers."""
        return Reading(self.sensor_size, self.polarity, self.time_unit, self.stream, self.follow_links)


class DataConfig(ReadingConfig):
    """A folder of noisy recordings, the folder of their clean partners, and how they are read and cut."""

    noisy_dir: Path
    """Folder of recordings with flare (the input)."""
    clean_dir: Path
    """Folder of the same recordings without flare (the target), matched by name."""
    window_us: int = Field(WINDOW_US, gt=0, le=limits.LONGEST_US)
    """Length of one window in microseconds."""
    num_bins: int = Field(NUM_BINS, gt=0, le=limits.MOST_BINS)
    """Time bins of a window."""
    num_windows: int | None = Field(None, gt=0)
    """Most windows taken from each pair, from the start of its clock; none: all whole ones that it holds."""
    ids: tuple[int, ...] = ()
    """Recordings to take, by the number in their name; none: all."""


class FurtherPairs(StrictModel):
    """Pairs of another kind that follow the first of a `SimulatedDataConfig`, whose overrides hold for them too."""

    simulation: Path | None = None
    """Simulation configuration; none: that of the first pairs."""
    overrides: tuple[str, ...] = ()
    """Settings that replace those of the file, such as a seed of their own; the length stays the same."""
    num_pairs: int = Field(gt=0, le=limits.MOST_PAIRS)
    """Pairs to simulate."""


class PairKind(NamedTuple):
    """Pairs of one kind: a simulation configuration, settings that replace its own, and how many."""

    simulation: Path
    overrides: tuple[str, ...]
    num_pairs: int

    def __str__(self) -> str:
        return f"{self.simulation} with {', '.join(self.overrides)}" if self.overrides else str(self.simulation)


class SimulatedDataConfig(StrictModel):
    """Pairs that are simulated when a run starts, and kept as voxels where it computes: no files."""

    simulation: Path
    """Simulation configuration, such as configs/simu_config.yaml."""
    overrides: tuple[str, ...] = ()
    """Settings that replace those of the file, such as target=subset."""
    split: Literal["train", "test"] = "train"
    """Which of the configuration's two sets of seeds, the same as `deflare simulate` draws from."""
    num_pairs: int = Field(500, gt=0, le=limits.MOST_PAIRS)
    """Pairs to simulate; on a GPU each 100 ms at 640x480 takes about 30 ms and 9 MB."""
    further: tuple[FurtherPairs, ...] = ()
    """Pairs of other kinds that follow these."""
    fresh_share: float = Field(0.0, ge=0, le=1)
    """The share of a step's windows that windows of new pairs replace after it, oldest first, while the network trains:
    each window is then seen about 1 / fresh_share times. 0: the pairs stay the same. Only then must all pairs be of
    one sensor size."""
    workers: int = Field(8, ge=0, le=limits.MOST_PROCESSES)
    """Processes that prepare pairs."""
    device: str | None = None
    """Where pairs are simulated, such as cuda:1; none: where the network trains."""

    @property
    def kinds(self) -> list[PairKind]:
        """What is simulated in turn, each with all of its settings."""
        first = PairKind(self.simulation, self.overrides, self.num_pairs)
        return [first] + [
            PairKind(kind.simulation or self.simulation, (*self.overrides, *kind.overrides), kind.num_pairs)
            for kind in self.further
        ]


class OptimizerConfig(StrictModel):
    """The optimizer, its step size and how that changes."""

    name: Literal["Adam", "AdamW"] = "Adam"
    """Optimizer of torch.optim; AdamW takes the weight decay off the weights, Adam adds it to the gradient."""
    learning_rate: float = Field(2e-4, gt=0, le=1e6)
    """Step size of the optimizer, after the warm-up."""
    weight_decay: float = Field(1e-5, ge=0, le=1e6)
    """Weight decay of the optimizer."""
    schedule: Literal["constant", "cosine", "step"] = "constant"
    """constant keeps the rate; cosine lets it fall to 0 at trainer.max_steps; step lowers it at each milestone."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the rate first rises in a straight line to learning_rate; 0: none."""
    milestones: tuple[int, ...] = ()
    """Steps after which the rate is multiplied by milestone_factor; only with the schedule step."""
    milestone_factor: float = Field(0.2, gt=0, lt=1)
    """What the rate is multiplied by at each milestone."""
    clip_norm: float | None = Field(None, gt=0)
    """Longest gradient, as the Euclidean norm over all weights; a longer one is shortened to it. None: as it is."""

    @model_validator(mode="after")
    def _milestones_agree(self) -> OptimizerConfig:
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError(
                f"schedule is {self.schedule} and milestones are {list(self.milestones)}; "
                "the schedule step needs milestones, the others have none"
            )
        return self


class TrainerConfig(StrictModel):
    """How long to train, how often to look, and where to write."""

    output_dir: Path = Path("runs/train")
    """Folder of checkpoints and metrics.jsonl."""
    start_from: Path | None = None
    """Checkpoint or run folder whose weights the run starts from, such as deflare_core/pretrained; none: untrained."""
    max_steps: int = Field(5000, gt=0)
    """Optimizer steps in all."""
    batch_size: int = Field(1, gt=0)
    """Windows that pass through the network at once."""
    crop_size: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None = None
    """(height, width) of the part of the frame that is trained on, drawn for each batch; none: the whole frame.
    Validation is always of whole frames."""
    mirror: bool = False
    """Train on each batch as it is, or mirrored left to right, upside down or both, drawn for each."""
    accumulate_steps: int | None = Field(None, gt=0)
    """Batches whose gradients make one optimizer step, over all processes together; none: one for each process.

    It acts like a batch_size that is larger by this factor, in the memory of one batch, in any number of processes.
    """
    loss: Literal[*LOSSES] = Field(  # type: ignore[valid-type]
        "mse", description="; ".join(f"{name}: {row.about}" for name, row in LOSSES.items())
    )
    average_decay: float | None = Field(None, gt=0, lt=1)
    """Decay per step of a running average of the weights, which is then validated and saved; none: no average."""
    overfit_one_batch: bool = False
    """Train on the first step's windows only, whose loss must fall towards 0: a test of network and settings."""
    validate_every: int = Field(500, gt=0)
    """Steps between validations, each over the whole validation set; the last step is always validated."""
    checkpoint_every: int = Field(500, gt=0)
    """Steps between checkpoints; the best validation and the last step are always kept."""
    tensorboard: bool = False
    """Write the figures of metrics.jsonl as TensorBoard scalars too, beside it."""
    num_workers: int = Field(2, ge=0, le=limits.MOST_PROCESSES)
    """Processes that load data; 0 loads in the training process."""
    device: str = "auto"
    """auto takes the first GPU, else the CPU; or a torch device such as cuda:1."""
    seed: int = Field(0, ge=0, lt=SEEDS)
    """Seed of the initial weights, of the order of the samples and of dropout."""


class TrainConfig(StrictModel):
    """Everything that `deflare train` needs."""

    model: ModelConfig = ModelConfig()
    """The network."""
    data: DataConfig | SimulatedDataConfig
    """Training pairs, in files or simulated."""
    validation: DataConfig | SimulatedDataConfig
    """Validation pairs, in files or simulated."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimizer."""
    trainer: TrainerConfig = TrainerConfig()
    """The loop."""

    @model_validator(mode="after")
    def _parts_agree(self) -> TrainConfig:
        if LOSSES[self.trainer.loss].needs_gate and self.model.residual != "gate":
            raise ValueError(f"trainer.loss={self.trainer.loss} is of a gate; set model.residual=gate, or another loss")
        if self.optimizer.warmup_steps >= self.trainer.max_steps:
            raise ValueError(
                f"optimizer.warmup_steps is {self.optimizer.warmup_steps} of {self.trainer.max_steps} "
                "trainer.max_steps; the warm-up must end before the run"
            )
        return self


class TestConfig(StrictModel):
    """Everything that `deflare evaluate` needs; the network's shape comes from the checkpoint."""

    __test__ = False

    checkpoint: Path = PRETRAINED
    """Checkpoint folder, or a run folder, whose best checkpoint is then taken; by default the pretrained network."""
    data: DataConfig
    """Pairs to score."""
    methods: tuple[str, ...] = ("input", "network")
    """What to compare: network, any baseline that `deflare infer` knows, oracle (the input without flare's events, by
    recorded causes), or another checkpoint as NAME=PATH. Gains in pictures are the last one's."""
    legacy: bool = False
    """Also score as published numbers were computed; see deflare_core/scores/legacy.py."""
    output_dir: Path = Path("reports/evaluation")
    """Folder for the tables and pictures of an evaluation, and for predictions, which are made once."""
    workers: int = Field(0, ge=0, le=limits.MOST_PROCESSES)
    """Processes that score while this one predicts, no more than there are cores; 0 or 1: this one does both."""
    device: str = "auto"
    """auto takes the first GPU, else the CPU; or a torch device such as cuda:1."""

    @field_validator("methods")
    @classmethod
    def _each_method_has_a_name_of_its_own(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        names = [method.partition("=")[0] for method in methods]
        if not names:
            raise ValueError("names no method; give at least one, such as [input, network]")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"names {', '.join(twice)} more than once; give each a name of its own, as NAME=PATH")
        return methods


class InferenceConfig(StrictModel):
    """Everything that `deflare infer` needs besides its input and output."""

    method: str = "network"
    """network, or a baseline: input, empty, encode_decode, baf, efr (efr_50hz for that frequency), pfd_a, pfd_b."""
    checkpoint: Path = PRETRAINED
    """Checkpoint folder, or a run folder, whose best checkpoint is then taken; by default the pretrained network."""
    window_us: int = Field(WINDOW_US, gt=0, le=limits.LONGEST_US)
    """Length of one window in microseconds."""
    num_bins: int = Field(NUM_BINS, gt=0, le=limits.MOST_BINS)
    """Time bins of a window."""
    seed: int = Field(0, ge=0, lt=SEEDS)
    """Seed of the times of synthesised events and of the choice among removed ones."""
    overlap: bool = False
    """Blend the network's outputs of windows that overlap by half, at twice the work (`deflaring/overlap.py`)."""
    level: Level | None = None
    """Of a network: careful keeps lamps and leaves flare where in doubt, thorough removes it with more of the lamps,
    balanced is between; or a number; none: the network's own (`ModelConfig.level`)."""
    strip_rows: int | None = Field(None, gt=0)
    """Rows of the frame that the device works on at once, for frames that do not fit a GPU's memory; none: all."""
    flags: bool = False
    """Also write which events were synthesised, and which of the input were kept."""
    device: str = "auto"
    """auto takes the first GPU, else the CPU; or a torch device such as cuda:1."""

    @model_validator(mode="after")
    def _the_method_has_the_settings(self) -> InferenceConfig:
        of_networks = {name: getattr(self, name) for name in ("overlap", "level", "strip_rows", "device")}
        asked = [f"{k}={v}".lower() for k, v in of_networks.items() if v != type(self).model_fields[k].default]
        if asked and self.method != "network":
            raise ValueError(
                f"{', '.join(asked)}: of a network only, but method is {self.method}; leave it out, or take "
                "method=network"
            )
        return self


class AblationConfig(StrictModel):
    """What is varied, and what the variants are scored on."""

    base: Path
    """Training configuration that the variants change."""
    settings: tuple[str, ...] = ()
    """Settings that replace those of the base in every variant, such as the data and the budget."""
    variants: dict[str, tuple[str, ...]] = Field(min_length=1)
    """Settings that replace those before, by the variant's name; none: what all have in common."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds of each variant."""
    kept: float | None = Field(None, gt=0, lt=1)
    """Share of other events than flare's that the decision level keeps on `level_data`; none: as configured."""
    level_data: DataConfig | None = None
    """Pairs with causes that decision levels are chosen on; never the scored ones."""
    data: DataConfig
    """Pairs with causes to score."""
    workers: int = Field(0, ge=0, le=limits.MOST_PROCESSES)
    """Processes that score while later variants are trained; 0 scores in this one."""
    runs_dir: Path = Path("runs/ablation")
    """Folder of the training runs."""
    output_dir: Path = Path("reports/ablation")
    """Folder of the table, and of predictions, which are made once."""
