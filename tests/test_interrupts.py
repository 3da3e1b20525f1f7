"""Ctrl-C is held back where it would leave a mess, and comes after."""

import signal
import threading

import pytest
from torch import Tensor, nn

from nas.interrupts import interrupt_later
from nas.networks.tracing import traced


class Interrupted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        signal.raise_signal(signal.SIGINT)
        return self.conv(x)


def test_an_interrupt_comes_when_the_block_has_ended() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), interrupt_later():
        signal.raise_signal(signal.SIGINT)
        done.append("the rest")
    assert done == ["the rest"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_exception_of_the_block_comes_through() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="mine"), interrupt_later():
        raise ValueError("mine")
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_are_left_alone() -> None:
    done = []

    def work() -> None:
        with interrupt_later():
            done.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [before]


def test_an_interrupt_in_a_trace_leaves_torch_as_it_was() -> None:
    call, attribute = nn.Module.__call__, nn.Module.__getattr__
    with pytest.raises(KeyboardInterrupt):
        traced(Interrupted())
    assert (nn.Module.__call__, nn.Module.__getattr__) == (call, attribute)
    assert len(traced(nn.Sequential(nn.ReLU())).nodes) == 3
