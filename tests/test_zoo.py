"""Every file of the zoo is held to the figures that it states."""

import pytest
import torch

import nas
from nas.space_file import load_space, zoo_names


@pytest.mark.parametrize("name", zoo_names())
def test_a_zoo_network_has_the_figures_that_it_states(name):
    space = load_space(f"zoo/{name}")
    assert space.size == 1 and space.source
    stated = space.published
    assert {"input_shape", "num_classes"} <= set(stated) and len(stated) > 2
    shape = tuple(stated["input_shape"])
    found = {}
    for form, prefix in (("train", ""), ("deploy", "deploy_")):
        with torch.device("meta"):
            network = nas.build(space.architecture({}), num_classes=stated["num_classes"], input_shape=shape, form=form)
        params, macs = nas.count(network, shape)
        found |= {f"{prefix}params": params, f"{prefix}macs": macs}
    assert {key: found[key] for key in stated if key in found} == {key: stated[key] for key in found if key in stated}
    assert any(key in stated for key in found)
