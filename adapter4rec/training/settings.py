"""Settings of training."""

from __future__ import annotations

from dataclasses import dataclass

from adapter4rec.checkpoints.settings import SourceSettings, TargetSettings
from adapter4rec.runs.settings import RunSettings
from adapter4rec.training.schedule import SCHEDULES
from adapter4rec.utils.settings import PRECISIONS, option


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(RunSettings):
    """Training."""

    user_share: float = option(
        1.0,
        "fraction of users to train on, sampled by the seed; validation and test always use all users",
        above=0,
        most=1,
    )
    batch_size: int = option(64, "users per step, in total over all processes", least=1)
    accumulation_steps: int = option(1, "gradient accumulation steps", least=1)
    lr_backbone: float = option(5e-5, "learning rate of the backbone", above=0, most=10)
    lr_item_head: float = option(
        1e-4, "learning rate of the item head, or of the id tower's embeddings", above=0, most=10
    )
    lr_user_encoder: float = option(1e-4, "learning rate of the user encoder", above=0, most=10)
    weight_decay: float = option(
        0.0, "weight decay (AdamW) of all trained weights but biases and layer norms", least=0, most=1
    )
    clip_norm: float | None = option(None, "maximum norm of the gradient; default: no clipping", above=0)
    warmup_steps: int = option(0, "steps in which the learning rates rise to their values", least=0)
    schedule: str = option(
        "constant", "learning rates after the warm-up; linear and cosine decay to 0", choices=SCHEDULES
    )
    eval_every: int = option(1, "epochs between validations", least=1)
    precision: str = option("auto", "number format of training", choices=PRECISIONS)
    save_minutes: float = option(
        10.0, "minutes between checkpoints (one is always written after an epoch)", above=0, runtime=True
    )

    def learning_rates(self) -> dict[str, float]:
        """Learning rates by parameter group."""
        return {
            "backbone": self.lr_backbone,
            "item_head": self.lr_item_head,
            "user_encoder": self.lr_user_encoder,
        }

    @property
    def extendable(self) -> bool:
        """Whether a run with more epochs begins like this one, so that this one can be continued."""
        return self.schedule == "constant" and self.eval_every == 1

    @property
    def caches_states(self) -> bool:
        """Whether training starts from cached hidden states of the frozen backbone."""
        return self.method == "head" and self.uses_content


@dataclass(frozen=True, kw_only=True)
class SourceTraining(SourceSettings, TrainingSettings):
    """Train a source model."""


@dataclass(frozen=True, kw_only=True)
class TargetTraining(TargetSettings, TrainingSettings):
    """Training of adapters."""

    cache_frozen: bool = option(
        False,
        "cache the hidden states before the first trained layer, computed once without dropout, and train "
        "on them",
    )
    cache_format: str = option(
        "fp16", "number format of the cached hidden states", choices=("fp16", "bf16", "fp32")
    )
    lr_adapter: float = option(1.5e-4, "learning rate of the adapters", above=0, most=10)
    lr_item_layer_norms: float = option(
        5e-5, "learning rate of the item encoder's layer norms, where adapters train them", above=0, most=10
    )
    lr_user_layer_norms: float = option(
        1e-4, "learning rate of the user encoder's layer norms, where adapters train them", above=0, most=10
    )

    def learning_rates(self) -> dict[str, float]:
        """Learning rates by parameter group."""
        rates = super().learning_rates() | {
            "adapter": self.lr_adapter,
            "shared": self.lr_adapter,
            "adapted_head": self.lr_item_head,
            "adapted_user_encoder": self.lr_user_encoder,
            "item_layer_norms": self.lr_item_layer_norms,
            "user_layer_norms": self.lr_user_layer_norms,
        }
        return rates | (self.adapter.learning_rates() if self.adapter else {})

    @property
    def caches_states(self) -> bool:
        """Whether training starts from cached hidden states of the frozen backbone."""
        return super().caches_states or self.cache_frozen
