import importlib
import subprocess
import sys

import pytest

import nas

REPORT = "; import sys; print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'ray'}))"


def heavy_after(code: str) -> str:
    """Which of torch and ray a fresh Python has loaded after some code."""
    done = subprocess.run([sys.executable, "-c", code + REPORT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "import nas, nas.blocks, nas.architecture, nas.space, nas.space_file, nas.trial, nas.objectives",
        "import nas; s = nas.load_space('mobile'); a = s.sample(0); s.contains(a); s.size; a.deploy_id; a.to_json()",
        "import nas; nas.load_architecture('mobilenet_v2')",
        "import nas.store",
        "import nas.results",
        "import nas; nas.load_space('tiny').suggest(__import__('optuna').create_study().ask())",
    ],
)
def test_the_light_half_loads_neither_torch_nor_ray(code):
    assert heavy_after(code) == "[]"


def test_building_loads_torch_and_not_ray():
    assert heavy_after("import nas; nas.build") == "['torch']"


def test_every_promised_name_is_there():
    promised = {"load_space", "load_architecture", "build", "fuse", "count", "measure", "run_search"}
    assert promised <= set(nas.__all__) and promised <= set(dir(nas))
    assert all(callable(getattr(nas, name)) for name in nas.__all__)
    assert nas.load_space is importlib.import_module("nas.space_file").load_space


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="bild"):
        nas.bild  # noqa: B018
