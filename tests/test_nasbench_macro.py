"""NAS-Bench-Macro as a space: its networks, parameters and multiply-adds are those of its authors' table."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nas.architecture import Architecture
from nas.cost import count
from nas.networks.builder import build
from nas.space_file import load_space

DATA_ROOT = os.environ.get("NAS_DATA_ROOT")
NAMES = [f"l{i}" for i in range(8)]
IMAGES = (3, 32, 32)
SPACE = load_space("nasbench_macro")

pytestmark = pytest.mark.usefixtures("one_thread")
needs_table = pytest.mark.skipif(not DATA_ROOT, reason="NAS_DATA_ROOT is not set: no table of NAS-Bench-Macro at hand")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_parquet(Path(str(DATA_ROOT)) / "tables" / "nasbench_macro.parquet")


@pytest.fixture(scope="module")
def networks(table) -> list[Architecture]:
    """The architecture of each row."""
    return [SPACE.architecture(dict(zip(NAMES, map(int, row), strict=True))) for row in table[NAMES].to_numpy()]


def cost(arch: Architecture) -> tuple[int, int]:
    """Parameters and multiply-adds of the train form, as the table counts them."""
    with torch.device("meta"):
        network = build(arch, num_classes=10, input_shape=IMAGES)
    return count(network, IMAGES)


def test_the_choices_are_the_columns_of_the_table():
    assert SPACE.size == 3**8 == len(list(SPACE.enumerate()))
    assert dict(SPACE.shared) == dict.fromkeys(NAMES, (0, 1, 2))
    assert set(SPACE.sample_choices(0)) == set(NAMES)


def test_encoding_a_network_gives_choices_that_make_it():
    for choices in list(SPACE.enumerate())[::41]:
        arch = SPACE.architecture(choices)
        again = SPACE.encode(arch)
        assert again is not None and SPACE.architecture(again).arch_id == arch.arch_id


@needs_table
def test_networks_are_equal_exactly_where_the_table_says_so(table, networks):
    pairs = set(zip(table["unique_id"], (arch.arch_id for arch in networks), strict=True))
    assert len(table) == 3**8
    assert len(pairs) == len({key for key, _ in pairs}) == len({arch_id for _, arch_id in pairs}) == 3969


@needs_table
def test_costs_of_all_rows_by_adding_up_their_layers(table):
    """A layer's cost does not depend on the others: its input is the same whatever they are."""
    base = dict.fromkeys(NAMES, 0)
    origin = np.array(cost(SPACE.architecture(base)))
    total = np.tile(origin, (len(table), 1))
    for name in NAMES:
        for value in (1, 2):
            more = np.array(cost(SPACE.architecture({**base, name: value}))) - origin
            total[table[name] == value] += more
    assert (total == table[["params", "flops"]].to_numpy()).all()


@needs_table
def test_costs_of_some_rows_network_by_network(table, networks):
    for i in range(0, len(table), 97):
        assert cost(networks[i]) == (table["params"][i], table["flops"][i])


@needs_table
@pytest.mark.slow
def test_costs_of_all_rows_network_by_network(table, networks):
    counted = {arch.arch_id: cost(arch) for arch in dict.fromkeys(networks)}
    rows = zip(networks, table["params"], table["flops"], strict=True)
    assert all(counted[arch.arch_id] == (params, flops) for arch, params, flops in rows)
