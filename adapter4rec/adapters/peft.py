"""Methods of Hugging Face PEFT in the item encoder (Mangrulkar et al. 2022, github.com/huggingface/peft)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar

from adapter4rec.adapters.config import PAPER, AdapterConfig
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.settings import option

if TYPE_CHECKING:
    from adapter4rec.adapters.base import Adapter
    from adapter4rec.adapters.sites import Sites

TESTED = ("lora", "dora", "ia3", "oft", "randlora", "ln_tuning", "vera")
"""Methods that the tests run on every kind of backbone; other names are passed to PEFT untested."""
USER_FAMILIES = (
    *("houlsby", "houlsby_parallel", "pfeiffer", "pfeiffer_after_layernorm", "k_adapter", "lora"),
    *("compacter", "bitfit", "layernorm"),
)
"""Families of this project for the user encoder: all but those of item encoders only."""
_REFUSED = {
    "adalora": "moves its budget between layers by a call in the training loop (update_and_allocate), which "
    "this project's loop does not make; use lora",
}
_IN_PYTHON = {"True": True, "False": False, "None": None}
_REFUSED_OPTIONS: dict[str, tuple[tuple[Any, ...], str]] = {
    "use_asa": (
        (True,),
        "needs a call in the training loop (update_and_allocate), which this project's loop does not make",
    ),
    "init_lora_weights": (
        ("eva", "corda", "lora_ga"),
        "needs a call with training data before the first step, which this project does not make",
    ),
}
_SET_HERE = {
    "peft_type": "is set by --peft",
    "task_type": "is for PEFT's own model classes, which are not used here",
    "inference_mode": "is false here: adapters are added to be trained",
    "use_dora": "is set by --peft dora",
    "layers_to_transform": "is set by --item_layers",
    "layers_pattern": "is set by --item_layers",
}
"""Options of PEFT's configs that are not those of a method."""


@dataclass(frozen=True)
class PeftConfig(AdapterConfig):
    """A method of PEFT in the item encoder, by its name in PEFT; it replaces modules of the backbone.

    Target modules come from the layout of the backbone: query and value projections; for ``ia3`` keys,
    values and the second layer of feed-forward; for ``ln_tuning`` the layer norms.
    """

    adapter: ClassVar[str] = "adapter4rec.adapters.peft_layers:PeftAdapter"
    encoders: tuple[str, ...] = option(
        (), "default: item, by PEFT; with --user_family also user", choices=("item", "user")
    )
    peft: str = option(
        "lora",
        f"method: {', '.join(TESTED)}; or another one that PEFT knows, which is then untested here",
    )
    peft_options: tuple[str, ...] | None = option(
        None, "options of the method, by their names in PEFT, such as r=4,lora_alpha=8; default: PEFT's"
    )
    user_family: str | None = option(
        None, "family of this project for the user encoder; default: none", choices=USER_FAMILIES
    )
    user_options: tuple[str, ...] | None = option(
        None, "options of that family, such as user_bottleneck=8; default: the family's"
    )

    def __post_init__(self) -> None:
        if not self.encoders:
            object.__setattr__(self, "encoders", self._adapted)
        super().__post_init__()
        object.__setattr__(self, "peft", self.peft.lower())

    @property
    def _adapted(self) -> tuple[str, ...]:
        return ("item",) if self.user_family is None else ("item", "user")

    @property
    def label(self) -> str:
        """The name of the method, with a remark if it is untested here."""
        return self.peft if self.peft in TESTED else f"{self.peft} (untested)"

    def check(self) -> None:
        """Raise a UserError for a method that is refused, or options that do not fit each other."""
        if reason := _REFUSED.get(self.peft):
            raise UserError(f"--peft {self.peft}: {reason}")
        for name, value in parsed("peft_options", self.peft_options).items():
            refused, why = _REFUSED_OPTIONS.get(name, ((), ""))
            if reason := _SET_HERE.get(name) or (why if value in refused else ""):
                raise UserError(f"--peft_options {name}={json.dumps(value)}: {reason}")
            if name.startswith("target_") and self.item_layers != "all":
                raise UserError(
                    f"--peft_options {name}={value}: names the modules of all layers, so --item_layers "
                    f"{self.item_layers} has no effect; name the layers there, with --item_layers all"
                )
        if self.semantics != PAPER:
            raise UserError("--semantics release: the released code does not use PEFT")
        if self.peft == "ln_tuning" and self.train_layer_norms:
            raise UserError("--train_layer_norms true: --peft ln_tuning trains them already")
        if set(self.encoders) != set(self._adapted):
            hint = "for the user encoder use --user_family or --train_user_encoder true"
            if self.user_family is not None:
                hint = f"--user_family {self.user_family} the user encoder; or use --user_family none"
            raise UserError(f"--encoders {','.join(self.encoders)}: PEFT adapts the item encoder; {hint}")
        if self.user_family is not None:
            self.user_config().check()
        elif self.user_options is not None:
            raise UserError("--user_options: needs --user_family")

    def trains_layer_norms_of(self, role: str) -> bool:
        """Whether the layer norms of an encoder are trained; the family ``layernorm`` always does it."""
        return self.user_config().train_layer_norms if role == "user" else self.train_layer_norms

    def only(self, encoders: Iterable[str]) -> str:
        """The options with which PEFT adapts the item encoder alone."""
        return "--user_family none, with --train_user_encoder true to train it as a whole"

    def user_config(self) -> AdapterConfig:
        """The config of the user encoder's adapters.

        Raises:
            UserError: no such option, or an invalid value.
        """
        assert self.user_family is not None
        # The registry, which lists this family, too.
        families: Mapping[str, type[AdapterConfig]] = resolve_name("adapter4rec.adapters.registry:FAMILIES")
        values = parsed("user_options", self.user_options)
        common = {one.name for one in fields(AdapterConfig)}
        for name in values:
            if name in common:
                raise UserError(
                    f"--user_options {name}: is no option of {self.user_family} alone; use --{name}"
                )
            if name.startswith("item_"):
                raise UserError(f"--user_options {name}: is for the item encoder, which PEFT adapts")
        here: dict[str, Any] = {"encoders": "user", "user_layers": self.user_layers}
        if self.train_layer_norms:
            here["train_layer_norms"] = True
        try:
            return families[self.user_family].from_values(values | here)
        except UserError as error:
            raise UserError(f"--user_options of {self.user_family}: {error}") from None

    def build_all(self, sites: Mapping[str, Sites]) -> Iterator[tuple[str, Adapter]]:
        """The adapter of PEFT in the item encoder, and those of the user encoder's family."""
        yield "item", self.build(sites["item"])
        if self.user_family is not None and "user" in sites:
            try:
                yield from self.user_config().build_all({"user": sites["user"]})
            except UserError as error:
                raise UserError(
                    f"--user_options of {self.user_family}: {error} (with --method peft: --user_family none)"
                ) from None

    def learning_rates(self) -> dict[str, float]:
        """Those of the user encoder's family."""
        return self.user_config().learning_rates() if self.user_family is not None else {}


def parsed(name: str, options: tuple[str, ...] | None) -> dict[str, Any]:
    """Options of the form ``name=value``: values as in JSON; True, False and None as in Python; else strings.

    Raises:
        UserError: an option has no value.
    """
    values = {}
    for one in options or ():
        key, equals, value = one.partition("=")
        if not equals:
            raise UserError(f"--{name} {one}: expected name=value")
        try:
            values[key.strip()] = json.loads(value)
        except json.JSONDecodeError:
            values[key.strip()] = _IN_PYTHON.get(value.strip(), value.strip())
    return values
