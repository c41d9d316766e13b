"""One attack stage on one micro-batch of one subject: from inputs to outcomes.

The attack libraries run as they are, isolated: whatever global state they touch is put back.
"""

from __future__ import annotations

import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pytest_prunerob.attacks import ATTACKS, Attack, Settings, drive
from pytest_prunerob.errors import PlanError
from pytest_prunerob.ledger import Cost, Kind
from pytest_prunerob.oracle import OVERSHOOT, Meter, Network, Oracle, Watch, distances, projected
from pytest_prunerob.plans import Plan
from pytest_prunerob.threads import suited_to


@dataclass(frozen=True)
class Result:
    """Outcome of one stage on a batch; keys are places in the batch. ``witness``: (number broken, C, H, W) or None."""

    cost: Cost
    broken: dict[int, float] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    values: dict[int, float] = field(default_factory=dict)
    witness: np.ndarray[Any, Any] | None = None


@dataclass
class Engine:
    """Runs attack stages on ``device``; ``chunk`` samples are forwarded at once, ``seed`` seeds every micro-batch."""

    device: str
    chunk: int
    seed: int

    def clean(self, module: nn.Module, x: Tensor) -> tuple[Tensor, Cost]:
        """Logits (N, K) of ``x`` (N, C, H, W), on the CPU."""
        meter, start = Meter(), time.perf_counter()
        with self._isolated(module, x) as choose_threads, torch.no_grad():
            network = Network(module, chunk=self.chunk, meter=meter, prepare=choose_threads)
            logits = network(x.to(self.device)).float().cpu()
        return logits, Cost(meter.forward, meter.backward, time.perf_counter() - start)

    def run(
        self,
        kind: Kind,
        module: nn.Module,
        plan: Plan,
        stage: int,
        x: Tensor,
        y: Tensor,
        classes: int,
        clean: Tensor | None = None,
        watch: Watch | None = None,
    ) -> Result:
        """Run stage number ``stage`` of ``plan`` on ``x`` (N, C, H, W) in [0, 1] with labels ``y`` (N,).

        ``clean`` are the clean logits (N, K) where they are known; ``watch`` is told of every forward of the attack.

        An exception inside the attack makes every sample without a witness an error; memory that does not suffice for
        a single sample is no outcome and is raised.
        """
        attack = ATTACKS[plan.stages[stage].attack]
        if plan.threat.norm not in attack.norms:
            raise PlanError(f"{attack.name} has no norm {plan.threat.norm!r}: allowed are {', '.join(attack.norms)}")
        eps = None if plan.threat.eps is None else float(plan.threat.radius)
        settings = Settings(plan.stages[stage], plan.threat.norm, eps, self.seed, classes)
        meter, start = Meter(), time.perf_counter()
        x, y = x.to(self.device), y.to(self.device)
        verified = partial(self._verified, clean=None if clean is None else clean.to(self.device), watch=watch)
        body = self._returned if kind == "returned" else verified
        while True:
            network = Network(module, chunk=self.chunk, meter=meter)
            try:
                with self._isolated(module, x) as choose_threads:
                    network.prepare = choose_threads
                    result = body(attack, network, x, y, settings)
                break
            except torch.OutOfMemoryError:  # in a backward pass, which the network cannot repeat by itself
                if network.chunk == 1:
                    raise
                self.chunk = max(1, min(network.chunk, len(x)) // 2)
                torch.cuda.empty_cache()
        cost = Cost(meter.forward, meter.backward, time.perf_counter() - start)
        return Result(cost, result.broken, result.errors, result.values, result.witness)

    def transfer(
        self, source: nn.Module, module: nn.Module, plan: Plan, stage: int, x: Tensor, y: Tensor, classes: int
    ) -> Result:
        """Attack ``source`` by stage number ``stage`` of ``plan`` and verify what it returns on ``module``."""
        attack = ATTACKS[plan.stages[stage].attack]
        settings = Settings(plan.stages[stage], plan.threat.norm, float(plan.threat.radius), self.seed, classes)
        meter, start = Meter(), time.perf_counter()
        x, y = x.to(self.device), y.to(self.device)
        network, other = (Network(part, chunk=self.chunk, meter=meter) for part in (module, source))
        with self._isolated(module, x), torch.no_grad():
            clean = network(x)
            with torch.enable_grad():
                z = attack.perturb(other, x, y, settings).detach()
            oracle = Oracle(network, x, y, clean=clean, norm=settings.norm, eps=settings.radius, mode="decide")
            oracle.submit(z, torch.arange(len(x), device=x.device))
        broken = {place: float(oracle.distance[place]) for place in oracle.broken.nonzero().flatten().tolist()}
        witness = oracle.witness[oracle.broken].cpu().numpy() if broken else None
        cost = Cost(meter.forward, meter.backward, time.perf_counter() - start)
        return Result(cost, broken, witness=witness)

    def _verified(
        self,
        attack: Attack,
        network: Network,
        x: Tensor,
        y: Tensor,
        settings: Settings,
        *,
        clean: Tensor | None,
        watch: Watch | None,
    ) -> Result:
        """Kinds "decide" and "minimise": the oracle judges every proposal."""
        mode: Literal["decide", "minimise"] = "decide" if settings.eps is not None else "minimise"
        if clean is None:
            with torch.no_grad():
                clean = network(x)
        predicted = clean.argmax(1)
        # A clean error is measured away from the predicted class and gets a negative sign (Piras et al., Fig. 2).
        label = y if mode == "decide" else predicted
        oracle = Oracle(network, x, label, clean=clean, norm=settings.norm, eps=settings.eps, mode=mode, watch=watch)
        oracle.exclude((~clean.isfinite().all(1)).nonzero().flatten(), "the output is not finite on the clean input")
        try:
            drive(attack, oracle, settings)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            oracle.fail(f"{attack.name} failed: {type(error).__name__}: {error}")
        broken = {place: float(oracle.distance[place]) for place in oracle.broken.nonzero().flatten().tolist()}
        witness = oracle.witness[oracle.broken].cpu().numpy() if broken else None
        errors = oracle.undecided()
        if mode == "decide":
            return Result(Cost(), broken, errors, {}, witness)
        sign = torch.where(predicted == y, 1.0, -1.0).tolist()
        values = {p: sign[p] * broken.get(p, float("inf")) for p in range(len(x)) if p not in errors}
        return Result(Cost(), broken, errors, values, witness)

    def _returned(self, attack: Attack, network: Network, x: Tensor, y: Tensor, settings: Settings) -> Result:
        """Kind "returned": the accuracy on what the library returns; the oracle is off."""
        assert settings.eps is not None
        try:
            z = attack.perturb(network, x, y, settings).detach()
            far = distances(x, z, settings.norm) > settings.eps * OVERSHOOT
            z = projected(x, z, settings.norm, settings.eps)
            with torch.no_grad():
                logits = network(z)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            reason = f"{attack.name} failed: {type(error).__name__}: {error}"
            return Result(Cost(), errors=dict.fromkeys(range(len(x)), reason))
        errors = {}
        for bad, reason in ((far, "the attack left the threat model"), (~logits.isfinite().all(1), "not finite")):
            errors.update(dict.fromkeys(bad.nonzero().flatten().tolist(), reason))
        wrong = (logits.argmax(1) != y).nonzero().flatten().tolist()
        length = distances(x, z, settings.norm)
        return Result(Cost(), {p: float(length[p]) for p in wrong if p not in errors}, errors)

    @contextmanager
    def _isolated(self, module: nn.Module, x: Tensor) -> Iterator[Callable[[int], None]]:
        """Put back all global state that a library may touch: randomness, tracing, flags, gradients, threads."""
        with ExitStack() as stack:
            stack.enter_context(_random_state())
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # a library's warning must not become an attack error under -W error
            stack.callback(sys.settrace, sys.gettrace())
            stack.callback(_restore_determinism, *_determinism())
            stack.enter_context(_without_parameter_gradients(module))
            stack.enter_context(torch.enable_grad())
            yield stack.enter_context(suited_to(module, x))


def _determinism() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _restore_determinism(enabled: bool, warn_only: bool) -> None:
    if _determinism() != (enabled, warn_only):  # setting it imports torch's compiler, which takes seconds
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


@contextmanager
def _random_state() -> Iterator[None]:
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global state that libraries use
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def _without_parameter_gradients(module: nn.Module) -> Iterator[None]:
    wanted = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
