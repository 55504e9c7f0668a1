"""Bugs of the update: gradients that pile up, a rate that is off, parameters that are left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from refimpl.conformance.mutants.planting import (
    Fault,
    Plant,
    gradients,
    has_module,
    mutant,
)
from refimpl.training.problem import Problem

Optimizer = torch.optim.Optimizer


def _by_hand(update: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """Replace the update by hand, ``parameter -= change``, under its names in versions of torch."""
    return {"sub_": update, "__isub__": update}


def _nothing(*args: object, **kwargs: object) -> None:
    return None


# --- zeroing -------------------------------------------------------------------------------------


@mutant()
def zero_grad_dropped(fault: Fault) -> Plant:
    """Gradients are never zeroed, so that those of all batches pile up."""

    def zeroes_nothing(owner: Any) -> bool:
        def zero_grad(*args: object, **kwargs: object) -> None:
            fault.hit()

        owner.zero_grad = zero_grad
        return False

    def keeps_what_is_there(original: Any, tensor: Tensor, *given: Any) -> Any:
        return NotImplemented if given and given[0] is not None else None

    return Plant(
        module=zeroes_nothing,
        optimizer=zeroes_nothing,
        calls={"zero_": lambda original, tensor: tensor, "grad=": keeps_what_is_there},
    )


@mutant()
def zero_grad_before_update(fault: Fault) -> Plant:
    """Gradients are zeroed between ``backward`` and the update."""

    def zeroed(leaves: Any, share: float) -> bool:
        for gradient in gradients(leaves):
            gradient.zero_()
        return True

    return Plant(after_backward=zeroed)


@mutant()
def gradients_left_in_twos(fault: Fault) -> Plant:
    """Gradients are zeroed after every second batch only."""
    kept: dict[int, Tensor] = {}
    calls = [0]

    def doubled(leaves: Any, share: float) -> bool:
        calls[0] += 1
        for number, leaf in enumerate(leaves):
            if leaf.grad is None:
                continue
            own = leaf.grad.clone()
            if calls[0] % 2 == 0 and number in kept:
                leaf.grad += kept[number]
            kept[number] = own
        return calls[0] % 2 == 0

    return Plant(after_backward=doubled)


# --- the update ----------------------------------------------------------------------------------


def _stepping(change: Callable[[Optimizer, Callable[..., Any]], Any]) -> Callable[[Any], bool]:
    """Replace an optimizer's ``step`` by ``change``, which gets the optimizer and the old step."""

    def planted(optimizer: Any) -> bool:
        step = optimizer.step
        optimizer.step = lambda *args, **kwargs: change(optimizer, step)
        return True

    return planted


@mutant()
def update_dropped(fault: Fault) -> Plant:
    """The optimizer's step, or the update by hand, is forgotten."""
    return Plant(
        optimizer=_stepping(_nothing),
        calls=_by_hand(lambda original, tensor, change: tensor),
    )


@mutant()
def update_twice(fault: Fault) -> Plant:
    """The update is made twice from one gradient."""

    def twice(optimizer: Optimizer, step: Callable[..., Any]) -> None:
        step()
        step()

    return Plant(
        optimizer=_stepping(twice),
        calls=_by_hand(lambda original, tensor, change: original(tensor, 2 * change)),
    )


@mutant()
def update_every_second_batch(fault: Fault) -> Plant:
    """Only every second batch leads to an update."""
    count = [0]

    def now_and_then(optimizer: Optimizer, step: Callable[..., Any]) -> None:
        count[0] += 1
        if count[0] % 2:
            step()

    return Plant(optimizer=_stepping(now_and_then))


@mutant()
def update_before_backward(fault: Fault) -> Plant:
    """The optimizer steps before ``backward``: with the gradients of the batch before."""
    before: dict[Tensor, Tensor] = {}

    def late(optimizer: Optimizer, step: Callable[..., Any]) -> None:
        own = [p for group in optimizer.param_groups for p in group["params"]]
        now = {p: p.grad for p in own}
        for p in own:
            p.grad = before.get(p)
        step()
        for p in own:
            p.grad = now[p]
            if now[p] is not None:
                before[p] = now[p].clone()

    return Plant(optimizer=_stepping(late))


@mutant()
def update_uphill(fault: Fault) -> Plant:
    """The sign of the update is wrong: the loss is climbed."""

    def uphill(optimizer: Optimizer) -> bool:
        for group in optimizer.param_groups:
            group["maximize"] = True
        return True

    return Plant(
        optimizer=uphill,
        calls=_by_hand(lambda original, tensor, change: original(tensor, -change)),
    )


@mutant()
def no_grad_missing(fault: Fault) -> Plant:
    """The update by hand is made under autograd's eyes."""

    def watched(original: Any, tensor: Tensor, change: Tensor) -> Any:
        if not (tensor.is_leaf and tensor.requires_grad):
            return NotImplemented
        with torch.enable_grad():
            return original(tensor, change)

    return Plant(calls=_by_hand(watched))


# --- the optimizer -------------------------------------------------------------------------------


def _setting(key: str, change: Callable[[Any], Any]) -> Callable[[Any], bool]:
    """Change one setting in every parameter group that has it."""

    def planted(optimizer: Optimizer) -> bool:
        changed = False
        for group in optimizer.param_groups:
            if key in group and change(group[key]) != group[key]:
                group[key] = change(group[key])
                changed = True
        return changed

    return planted


def _leaving_out(which: slice) -> Callable[[Any], bool]:
    def planted(optimizer: Optimizer) -> bool:
        group = optimizer.param_groups[0]
        left = list(group["params"])
        del left[which]
        changed = 0 < len(left) < len(group["params"])
        if changed:
            group["params"] = left
        return changed

    return planted


@mutant()
def optimizer_without_the_last_tensor(fault: Fault) -> Plant:
    """The optimizer was made before the last tensor was there."""
    return Plant(optimizer=_leaving_out(slice(-1, None)))


@mutant()
def optimizer_of_the_last_layer_only(fault: Fault) -> Plant:
    """The optimizer is given the last two tensors only."""
    return Plant(optimizer=_leaving_out(slice(None, -2)))


@mutant()
def momentum_dropped(fault: Fault) -> Plant:
    """SGD without the momentum that the document gives it."""
    return Plant(optimizer=_setting("momentum", lambda momentum: 0))


@mutant()
def momentum_added(fault: Fault) -> Plant:
    """SGD with a momentum of 0.9 that the document does not have."""
    return Plant(optimizer=_setting("momentum", lambda momentum: 0.9))


@mutant()
def adam_betas_swapped(fault: Fault) -> Plant:
    """Adam's two decay rates in the wrong order."""
    return Plant(optimizer=_setting("betas", lambda betas: betas[::-1]))


@mutant()
def epsilon_too_large(fault: Fault) -> Plant:
    """The number that keeps an adaptive optimizer from dividing by zero is 0.1."""
    return Plant(optimizer=_setting("eps", lambda eps: 0.1))


@mutant(weakest=1e-12, strongest=0.1)
def weight_decay_added(fault: Fault) -> Plant:
    """The optimizer decays the weights, which the document's does not."""
    return Plant(optimizer=_setting("weight_decay", lambda decay: decay + fault.strength))


@mutant()
def optimizer_made_anew(fault: Fault) -> Plant:
    """A new optimizer is made for every batch, so that no moments carry over."""

    def forgetful(optimizer: Optimizer, step: Callable[..., Any]) -> None:
        for state in optimizer.state.values():
            for key, value in state.items():
                if isinstance(value, Tensor) and bool((value != 0).any()):
                    fault.hit()
                    state[key] = torch.zeros_like(value)
                elif value is not None and not isinstance(value, Tensor):
                    state[key] = 0
            if "momentum_buffer" in state:
                state["momentum_buffer"] = None
        step()

    def planted(optimizer: Any) -> bool:
        _stepping(forgetful)(optimizer)
        return False

    return Plant(optimizer=planted)


@mutant()
def plain_descent(fault: Fault) -> Plant:
    """Plain gradient descent in the place of an adaptive optimizer."""

    @torch.no_grad()
    def descend(optimizer: Optimizer, step: Callable[..., Any]) -> None:
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p -= group["lr"] * p.grad

    def planted(optimizer: Any) -> bool:
        return not isinstance(optimizer, torch.optim.SGD) and _stepping(descend)(optimizer)

    return Plant(optimizer=planted)


@mutant()
def state_not_resumed(fault: Fault) -> Plant:
    """A resumed run begins with a fresh optimizer."""
    return Plant(resume=lambda optimizer, checkpoint: bool(checkpoint.get("state")))


# --- rates and sizes -----------------------------------------------------------------------------


def _rate(change: Callable[[float], float]) -> Callable[[Problem], Problem]:
    def posed(problem: Problem) -> Problem:
        rate = change(problem.protocol.learning_rate)
        if rate == problem.protocol.learning_rate:
            return problem
        return problem.but(protocol=replace(problem.protocol, learning_rate=rate))

    return posed


@mutant()
def learning_rate_tenfold(fault: Fault) -> Plant:
    """The learning rate is ten times the document's."""
    return Plant(problem=_rate(lambda rate: 10 * rate))


@mutant()
def learning_rate_a_tenth(fault: Fault) -> Plant:
    """The learning rate is a tenth of the document's."""
    return Plant(problem=_rate(lambda rate: rate / 10))


@mutant(weakest=1e-15, strongest=1.0)
def learning_rate_too_high(fault: Fault) -> Plant:
    """The learning rate is too high by this share of it."""
    return Plant(problem=_rate(lambda rate: rate * (1 + fault.strength)))


@mutant()
def learning_rate_decays(fault: Fault) -> Plant:
    """The learning rate shrinks by a hundredth with every update."""

    def shrinking(optimizer: Optimizer, step: Callable[..., Any]) -> None:
        if any("decayed" in group for group in optimizer.param_groups):
            fault.hit()  # an optimizer that is thrown away after its first step never gets here
        step()
        for group in optimizer.param_groups:
            group["lr"] *= 0.99
            group["decayed"] = True

    def planted(optimizer: Any) -> bool:
        _stepping(shrinking)(optimizer)
        return False

    return Plant(optimizer=planted)


@mutant(weakest=1e-15, strongest=1.0)
def gradients_too_large(fault: Fault) -> Plant:
    """Every gradient is too large by this share of it."""

    def scaled(leaves: Any, share: float) -> bool:
        for gradient in gradients(leaves):
            gradient.mul_(1 + fault.strength)
        return True

    return Plant(after_backward=scaled)


@mutant()
def gradients_clipped(fault: Fault) -> Plant:
    """Gradients are cut to a norm of 0.01."""

    def clipped(leaves: Any, share: float) -> bool:
        with_gradient = [leaf for leaf in leaves if leaf.grad is not None]
        return bool(nn.utils.clip_grad_norm_(with_gradient, 0.01) > 0.01)

    return Plant(after_backward=clipped)


@mutant(weakest=1e-12, strongest=0.5)
def gradients_noisy(fault: Fault) -> Plant:
    """Gradients carry noise of this share of their size."""
    generator = torch.Generator().manual_seed(0)

    def noisy(leaves: Any, share: float) -> bool:
        for gradient in gradients(leaves):
            noise = torch.randn(gradient.shape, generator=generator).to(gradient)
            gradient.mul_(1 + fault.strength * noise)
        return True

    return Plant(after_backward=noisy)


@mutant()
def gradient_of_one_tensor_lost(fault: Fault) -> Plant:
    """The gradient of the first tensor is thrown away."""

    def lost(leaves: Any, share: float) -> bool:
        gradient = next(iter(gradients(leaves)), None)
        if gradient is None:
            return False
        gradient.zero_()
        return True

    return Plant(after_backward=lost)


@mutant()
def last_batch_counts_for_more(fault: Fault) -> Plant:
    """The gradient of the short last batch is multiplied by the size of a full one over its own."""

    def weighted(leaves: Any, share: float) -> bool:
        for gradient in gradients(leaves):
            gradient.div_(share)
        return share < 1

    return Plant(after_backward=weighted)


@mutant(has_module)
def parameters_rounded(fault: Fault) -> Plant:
    """Parameters are stored in bfloat16 after every update."""

    @torch.no_grad()
    def rounded(optimizer: Optimizer, step: Callable[..., Any]) -> None:
        step()
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.copy_(p.bfloat16())

    return Plant(optimizer=_stepping(rounded))
