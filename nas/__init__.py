"""Neural architecture search judged by the network that ships.

The map, in the order in which data passes:

    search_spaces/*.yaml
      -> nas.space_file    reads a space, and says where a bad file is wrong
      -> nas.space         SearchSpace: sample, suggest, contains
      -> nas.architecture  Architecture: a frozen value with arch_id and deploy_id
      -> nas.networks      build(form="train" | "deploy"), fuse, plan_merges; nas.fusion is the algebra
      -> nas.layers        the deployed network's layers as values, without torch
      -> nas.cost, nas.latency   what the deploy form costs, before any training: counted, predicted, measured
      -> nas.data          images: in memory, or streamed from disk
      -> nas.recipes       how a network is trained, by kind of data
      -> nas.training      the loop, its checkpoints, evaluation
      -> nas.job           what all trainings of a search have in common
      -> nas.pipeline      THE SPINE: one architecture in, events out
      -> nas.trial         events and the TrialRecord that they add up to
      -> nas.store         runs/<run>/: events.jsonl is the truth
      -> nas.results       records as a table, the front, the picture; nas.knee: where a front bulges
      -> nas.deploy        the front's networks as verified files

`nas.tune` runs many trials (Ray or inline), `nas.samplers` proposes them; `nas.search` is that command, `nas.train` the
one that trains a single network (`nas.train_one`), `nas.export` the one that makes files of a run's networks
(`nas.exporting`); `nas.describe` shows a network's layers in both forms, and `nas.estimator` is scikit-learn's way in.
The names below are loaded when they are first used: `import nas` loads neither torch nor ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.cost import count, footprint
    from nas.estimator import NASClassifier
    from nas.forms_table import layer_table
    from nas.latency.measure import measure
    from nas.networks.builder import build
    from nas.networks.fusing import fuse
    from nas.networks.merging import apply_merges, conv_macs, plan_merges
    from nas.networks.weights import load_weights
    from nas.space_file import load_architecture, load_space
    from nas.tune.run import run_search

__version__ = "0.1.0"
__all__ = [
    "NASClassifier",
    "apply_merges",
    "build",
    "conv_macs",
    "count",
    "footprint",
    "fuse",
    "layer_table",
    "load_architecture",
    "load_space",
    "load_weights",
    "measure",
    "plan_merges",
    "run_search",
]

_HOMES = {
    "NASClassifier": "nas.estimator",
    "apply_merges": "nas.networks.merging",
    "build": "nas.networks.builder",
    "conv_macs": "nas.networks.merging",
    "count": "nas.cost",
    "footprint": "nas.cost",
    "fuse": "nas.networks.fusing",
    "layer_table": "nas.forms_table",
    "load_architecture": "nas.space_file",
    "load_space": "nas.space_file",
    "load_weights": "nas.networks.weights",
    "measure": "nas.latency.measure",
    "plan_merges": "nas.networks.merging",
    "run_search": "nas.tune.run",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'nas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
