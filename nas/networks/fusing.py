"""From a trained network to its deploy form, for our modules, foreign ones and plain Sequentials."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections import Counter
from collections.abc import Callable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.fusion import affine_after, affine_before
from nas.linear_conv import LinearConv
from nas.networks.conv_modules import ShiftedConv, affine_of, conv2d_from, is_plain, linear_of, with_weights

IN_PLACE_PROTOCOLS = ("switch_to_deploy", "reparameterize")


def fuse(network: nn.Module) -> nn.Module:
    """The deploy form of a network: the same function in eval mode, in fewer and plainer layers.

    From the root downwards, a module with `fuse()` is replaced by what that returns; else its `switch_to_deploy()`
    or `reparameterize()`, the protocols of RepVGG and timm, is called. Then, in every Sequential, BatchNorms are
    folded into the convolution or linear layer beside them (`fuse_children` says which). The argument is not
    changed. Exact, but for the rounding of the folded weights. `fuse()` of a module whose children have one too is
    followed by theirs, so it must leave them as they are or be done with them.

    Raises:
        ValueError: a module that refuses, such as a fading activation that has not faded; the message names it.
    """
    done: dict[nn.Module, nn.Module] = {}
    try:
        fused = _fused(copy.deepcopy(network).eval(), done)
    except _Refusal as refusal:
        raise refusal.under("network") from None
    _fold_sequentials(fused)
    return fused


def fuse_children(module: nn.Module) -> None:
    """Fuses what is inside a module, in place, and leaves it in eval mode: `switch_to_deploy` of a whole network.

    The module's own `fuse()` or `switch_to_deploy()` is not called. Folded are, within a Sequential that has no
    forward of its own and with nothing but Identity between them: Conv2d then BatchNorm2d; Linear then BatchNorm1d,
    where a Flatten comes before them; BatchNorm2d then Conv2d. The module that is folded away becomes an Identity,
    so that indices and slices stay as they were. Left alone are norms without running statistics, layers that are
    used in several places, layers with hooks or parametrizations, and subclasses with a forward of their own.
    A Sequential is taken to run as a whole: whoever reads between a layer and its norm finds the norm's values.

    Raises:
        ValueError: a module inside refuses; the message names it from here.
    """
    module.eval()
    _fuse_inside(module, {})
    _fold_sequentials(module)


def switch_to_deploy(self: nn.Module) -> None:
    """A method for networks: makes them their own deploy form, as RepVGG's and timm's tools ask of modules.

    Raises:
        ValueError: it cannot be fused; it is left as it was.
    """
    fused = copy.deepcopy(self)
    fuse_children(fused)
    for name, child in fused.named_children():
        setattr(self, name, child)
    self.eval()


def unfused_norms(network: nn.Module) -> list[str]:
    """Names of the BatchNorms that are left in a network, for the tools to count and name."""
    return [name for name, module in network.named_modules() if isinstance(module, _BatchNorm)]


def places(root: nn.Module) -> Counter[nn.Module]:
    """In how many places of a network each of its modules is registered."""
    return Counter(child for module in root.modules() for child in module._modules.values() if child is not None)


class _Refusal(ValueError):
    """A module's refusal to be fused, with the path to it, which grows on the way up."""

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.reason, self.path = reason, path

    def under(self, name: str) -> _Refusal:
        return _Refusal(self.reason, f"{name}.{self.path}" if self.path else name)


def _fused(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """What takes a module's place; `done` remembers it, so that shared modules stay shared."""
    if module in done:
        return done[module]
    result = module
    try:
        replacement = _method(module, "fuse")
        if replacement is not None:
            returned = replacement()
            # Some fuse in place, and return nothing.
            result = module if returned is None else returned
            if not isinstance(result, nn.Module):
                raise ValueError(f"fuse() returned {type(result).__name__}, which is no module")
        else:
            for name in IN_PLACE_PROTOCOLS:
                method = _method(module, name)
                if getattr(method, "__func__", None) is switch_to_deploy:
                    break  # what it would do is what comes now
                if method is not None:
                    method()
                    break
    except _Refusal:
        raise
    except ValueError as error:
        raise _Refusal(str(error)) from error
    done[module] = done[result] = result.eval()
    _fuse_inside(result, done)
    return result


def _fuse_inside(module: nn.Module, done: dict[nn.Module, nn.Module]) -> None:
    for name, child in list(module._modules.items()):
        if child is None:
            continue
        try:
            fused = _fused(child, done)
        except _Refusal as refusal:
            raise refusal.under(name) from refusal
        if fused is not child:
            setattr(module, name, fused)


def _method(module: nn.Module, name: str) -> Callable[[], object] | None:
    """A method of the protocols: of the class, callable without arguments.

    Feature-fusion networks have layers called `fuse`, and methods of that name that take features.
    """
    if not inspect.isroutine(getattr(type(module), name, None)):
        return None
    method = getattr(module, name)
    required = [p for p in inspect.signature(method).parameters.values() if p.default is p.empty]
    return None if any(p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in required) else method


def _fold_sequentials(root: nn.Module) -> None:
    used = places(root)
    for module in root.modules():
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            _fold(module, used)


def _fold(sequence: nn.Sequential, used: Counter[nn.Module]) -> None:
    """Folds the norms of one Sequential: into the layer before where that is possible, else into the one after."""
    for fold, norm_at in ((_norm_after, 1), (_norm_before, 0)):
        names = [name for name, module in sequence._modules.items() if not is_plain(module, nn.Identity)]
        position = 0
        while position + 1 < len(names):
            pair = names[position : position + 2]
            layer, norm = pair[1 - norm_at], pair[norm_at]
            exact = not isinstance(sequence._modules[layer], nn.Linear) or _is_flat(sequence, layer)
            folded = fold(sequence._modules[layer], sequence._modules[norm], used) if exact else None
            if folded is None:
                position += 1
                continue
            setattr(sequence, layer, folded)
            setattr(sequence, norm, nn.Identity().eval())
            # The folded layer stays at this position, and meets what follows on the norm.
            names.remove(norm)


def _is_flat(sequence: nn.Sequential, name: str) -> bool:
    """Whether a layer's input is (N, features) for certain: BatchNorm1d normalizes another axis of (N, C, features)."""
    before = list(sequence._modules)[: list(sequence._modules).index(name)]
    modules = [sequence._modules[each] for each in before]
    return any(isinstance(m, nn.Flatten) and (m.start_dim, m.end_dim) == (1, -1) for m in modules) and not any(
        isinstance(m, nn.Unflatten) for m in modules
    )


def _norm_after(layer: nn.Module | None, norm: nn.Module | None, used: Counter[nn.Module]) -> nn.Module | None:
    """The layer with the norm that follows on it folded in, or None where that is not exact."""
    if isinstance(layer, nn.Conv2d) and _foldable(layer, norm, layer.out_channels, used):
        # The weights' algebra alone: the copy keeps its padding, whatever its mode.
        as_conv = LinearConv(layer.weight.detach(), layer.bias, groups=layer.groups)
    elif isinstance(layer, nn.Linear) and _foldable(layer, norm, layer.out_features, used):
        as_conv = LinearConv(layer.weight.detach()[:, :, None, None], layer.bias)
    else:
        return None
    assert isinstance(norm, _BatchNorm)
    folded = affine_after(as_conv, *affine_of(norm))
    return with_weights(copy.deepcopy(layer), folded.weight.reshape(layer.weight.shape), folded.bias).eval()


def _norm_before(layer: nn.Module | None, norm: nn.Module | None, used: Counter[nn.Module]) -> nn.Module | None:
    """The convolution with the norm before it folded in, or None where that is not exact."""
    if not isinstance(layer, nn.Conv2d) or not _foldable(layer, norm, layer.in_channels, used):
        return None
    assert isinstance(norm, _BatchNorm)
    try:
        conv = linear_of(layer)
        folded, border = affine_before(*affine_of(norm), conv)
    except ValueError:
        return None
    if border is None:
        return conv2d_from(folded)
    # The norm is factor * (x - border), so after the subtraction zeros are the right padding and no bias is gained.
    shifted = dataclasses.replace(folded, bias=conv.bias, padding=conv.padding)
    return ShiftedConv(border, conv2d_from(shifted)).eval()


def _foldable(layer: nn.Module, norm: nn.Module | None, channels: int, used: Counter[nn.Module]) -> bool:
    """Whether layer and norm are plain ones that fit, and the layer is used in this place alone."""
    kinds = (nn.BatchNorm2d, nn.SyncBatchNorm) if isinstance(layer, nn.Conv2d) else (nn.BatchNorm1d,)
    if norm is None or not is_plain(layer, nn.Conv2d, nn.Linear) or not is_plain(norm, *kinds) or used[layer] > 1:
        return False
    return isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.num_features == channels
