"""Choice: the values that one setting of a template may take, and what decides among them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from nas.block_fields import Value

Shared = Mapping[str, tuple[Value, ...]]  # the choices of the whole network, by name


@dataclass(frozen=True)
class Choice:
    """The values that one setting may take; with a single option it is fixed and never asked for.

    Attributes:
        key: the setting's name within its stage, e.g. `kernel_size` or `bottleneck.expansion`.
        options: every value that the setting can have, at least one.
        per_block: asked for anew in each block of the stage.
        given: name of the space-wide choice that decides, if any.
        cases: what stands at a value of `given`; without cases that value itself stands.
    """

    key: str
    options: tuple[Value, ...]
    per_block: bool = False
    given: str | None = None
    cases: Mapping[Value, Choice] = field(default_factory=dict)

    def name(self, stage: str, block: int) -> str:
        """The parameter's name in a trial; dots, since Ray's flattening owns the slash."""
        name = f"{stage}.block{block + 1}.{self.key}" if self.per_block else f"{stage}.{self.key}"
        return sys.intern(name)  # all proposals of a search are kept, and their choices have the same names

    def under(self, shared: Mapping[str, Value]) -> Choice | None:
        """What stands under these values of shared choices; None where no case does, or what decides is not there."""
        if self.given is None:
            return self
        if self.given not in shared:
            return None
        return self.cases.get(shared[self.given]) if self.cases else Choice(self.key, (shared[self.given],))

    @property
    def varies(self) -> bool:
        """Whether anything is left to choose in some case."""
        return any(len(case.options) > 1 for case in self.cases.values()) if self.given else len(self.options) > 1
