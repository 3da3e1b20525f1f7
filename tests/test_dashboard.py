"""What a person sees of a live search in a browser: Ray's dashboard and Optuna's."""

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from nas.tune.figures import SearchFigures
from tests.browser import TEXT, browser, chromium
from tests.processes import children, wait_for
from tests.searching import small_search

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium() is None, reason="needs Chromium")]

SEARCH = ["space=mobile", "budget=100", "train.epochs=5", "latency.tolerance=1", "ray.dashboard=true", "run=watched"]
FIGURES = [field.name for field in dataclasses.fields(SearchFigures) if field.name != "trials"]
CLICK = "[...document.querySelectorAll('button')].find(each => each.innerText.includes('STDOUT')).click()"
LINK = "[...document.querySelectorAll('tr')].find(each => each.innerText.includes('{}')).querySelector('a').href"


@pytest.fixture(params=["token", "disabled", ""])
def live(request, tmp_path):
    """A search through Ray in a process of its own, two trials after its begin, and its home folder."""
    environment = {**os.environ, "HOME": str(tmp_path), "RAY_AUTH_MODE": request.param, "MPLCONFIGDIR": str(tmp_path)}
    if not request.param:
        del environment["RAY_AUTH_MODE"]
    printed = tmp_path / "printed.txt"
    with printed.open("w") as out:
        command = [sys.executable, "-m", "nas.search", *SEARCH, f"runs_dir={tmp_path}"]
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        wait_for(lambda: process.poll() is not None or printed.read_text().count("completed") >= 2)
        assert process.poll() is None, printed.read_text()
        yield process, printed
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=240) == 0
    finally:
        process.kill()


def address(printed, words):
    return re.search(rf"{words}: (http://127\.0\.0\.1:\d+\S*)", printed.read_text())[1]


def test_a_live_search_is_found_in_the_dashboard(live, tmp_path):
    process, printed = live
    site = address(printed, "Ray dashboard") + "/"
    check_listeners(process.pid)
    check_metrics(address(printed, "for Prometheus"))
    token = tmp_path / ".ray" / "auth_token"
    assert token.exists() == ("its token: ray get-auth-token" in printed.read_text())
    with browser(tmp_path / "profile", site) as page:
        page.open(site, 1500)
        if token.exists():
            page.wait_for(f"{TEXT}.includes('oken')")
            header = f"{{method: 'POST', headers: {{Authorization: 'Bearer {token.read_text()}'}}}}"
            assert page.ask(f"fetch('/api/authenticate', {header}).then(answer => answer.status)") == 200

        def show(place, text):
            page.open("about:blank", 1500)
            page.open(place, 1500)
            return page.wait_for(f"{TEXT}.match({text})", 90)

        show(site + "#/jobs", "'nas.search space=mobile budget=100'")
        show(site + "#/cluster", r"/ray::trial\d+_[0-9a-f]{12}/")
        show(site + "#/actors", r"/ArchitectureTrainable[^]*worker since trial\d+_[0-9a-f]{12}/")
        for actor, line in [("search watched", "front_size"), ("ArchitectureTrainable", r"trial\d+_[0-9a-f]{12}\s")]:
            show(site + "#/actors", f"'{actor}'")
            link = page.ask(LINK.format(actor))
            show(link, "'STDOUT'")
            page.ask(CLICK)
            page.wait_for(rf"{TEXT}.split('STDOUT')[1].match(/20\d\d-\d\d-\d\d [0-9:]+ .*{line}/)")


def check_listeners(pid):
    """Holds that Ray's processes listen on this machine's own address only."""
    inodes = set()
    for each in children(pid):
        for file in Path(f"/proc/{each}/fd").glob("*"):
            with contextlib.suppress(OSError):
                inodes |= set(re.findall(r"socket:\[(\d+)\]", str(file.readlink())))
    found = []
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state, inode = (line.split()[i] for i in (1, 3, 9))
            if state == "0A" and inode in inodes:
                words = bytes.fromhex(local.split(":")[0])
                raw = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                found.append(socket.inet_ntop(family, raw).removeprefix("::ffff:"))
    assert len(found) > 5 and set(found) <= {"127.0.0.1", "::1"}


def check_metrics(endpoint):
    """Holds that Prometheus would read all metrics of the run."""

    def read():
        with urllib.request.urlopen(endpoint) as answer:
            families = parse(answer.read().decode())
        samples = [each for family in families for each in family.samples if each.labels.get("run") == "watched"]
        return {(each.name, each.labels.get("state", "")): each.value for each in samples}

    wait_for(lambda: read().get(("ray_nas_trials", "completed"), 0) >= 2)
    shown = read()
    assert shown["ray_nas_trials", "running"] >= 1 and ("ray_nas_trials", "failed") in shown
    assert {name for name, state in shown if not state} == {f"ray_nas_{name}" for name in FIGURES}
    assert 0.1 <= shown["ray_nas_best_accuracy_ratio", ""] <= 1 and 1 <= shown["ray_nas_front_size", ""] <= 10
    assert shown["ray_nas_training_images_per_second", ""] > 1


@pytest.mark.skipif(shutil.which("optuna-dashboard") is None, reason="needs the extra optuna-dashboard")
def test_a_runs_journal_is_shown_by_optunas_dashboard(tmp_path):
    run = small_search(tmp_path, run="mine", budget=5, **{"constraints.params": 2000})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["optuna-dashboard", str(run.path / "study.log"), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    site = f"http://127.0.0.1:{port}/"

    def answers():
        with socket.socket() as asked:
            return asked.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for(answers)
        with browser(tmp_path / "profile", site) as page:
            page.open(site + "dashboard/studies/0", 1500)
            page.wait_for(f"{TEXT}.includes('Pareto Front')")
            page.wait_for(f"{TEXT}.includes('latency_ms') && {TEXT}.includes('error')")
            page.open(site + "dashboard/studies/0/trials", 1500)
            page.wait_for(f"{TEXT}.includes('Complete')")
            trial = run.trials[run.trials["state"] == "completed"].iloc[0]
            page.wait_for(f"{TEXT}.includes({str(trial['accuracy'])[:1]!r}) && {TEXT}.includes({trial['arch_id']!r})")
            assert page.ask(f"{TEXT}.includes('stage1.out_channels')")
            assert not page.problems
    finally:
        process.kill()
