"""One attack stage on one micro-batch of one subject: from inputs to outcomes.

The attack libraries run as they are, isolated: whatever global state they touch is put back.
"""

from __future__ import annotations

import hashlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pytest_prunerob.attacks import ATTACKS, Attack, Pool, Settings, drive, drive_voted
from pytest_prunerob.ledger import Cost, Kind
from pytest_prunerob.oracle import OVERSHOOT, Meter, Network, Oracle, Watch, distances, projected
from pytest_prunerob.plans import Plan
from pytest_prunerob.randomness import kept, seed_all
from pytest_prunerob.threads import suited_to
from pytest_prunerob.votes import Ballot, Jury, vote


@dataclass(frozen=True)
class Result:
    """Outcome of one stage on a batch; keys are places in the batch.

    ``witness``: (number broken, C, H, W) or None; in kind "crafted" the input of every place in ``values``.
    """

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
        """Logits (N, K) of ``x`` (N, C, H, W), on the CPU; what a module draws on its way follows the seed."""
        meter, start = Meter(), time.perf_counter()
        with self._isolated(module, x) as choose_threads, torch.no_grad():
            seed_all(self.seed)
            network = Network(module, chunk=self.chunk, meter=meter, prepare=choose_threads)
            logits = network(x.to(self.device)).float().cpu()
        return logits, Cost(meter.forward, meter.backward, time.perf_counter() - start)

    def mean_logits(self, module: nn.Module, x: Tensor, forwards: int) -> tuple[Tensor, Cost]:
        """The means (N, K) of the logits of ``x`` (N, C, H, W) over so many ``forwards``, whose draws follow the seed.

        All of ``x`` is forwarded at once, so that no forward chunk changes what is drawn.
        """
        meter, start = Meter(), time.perf_counter()
        with self._isolated(module, x) as choose_threads, torch.no_grad():
            seed_all(self.seed)
            network = Network(module, chunk=max(self.chunk, len(x)), meter=meter, prepare=choose_threads)
            found = torch.stack([network(x.to(self.device)).float() for _ in range(forwards)]).mean(0).cpu()
        return found, Cost(meter.forward, meter.backward, time.perf_counter() - start)

    def votes(self, module: nn.Module, x: Tensor, y: Tensor) -> tuple[Ballot, Cost]:
        """The votes of repeated forwards on the inputs ``x`` (N, C, H, W) themselves, with labels ``y`` (N,)."""
        meter, start = Meter(), time.perf_counter()
        with self._isolated(module, x) as choose_threads:
            network = Network(module, chunk=self.chunk, meter=meter, prepare=choose_threads)
            ballot = vote(network, x.to(self.device), y.to(self.device), seed=self.seed)
        return ballot, Cost(meter.forward, meter.backward, time.perf_counter() - start)

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
        pool: Pool | None = None,
    ) -> Result:
        """Run stage number ``stage`` of ``plan`` on ``x`` (N, C, H, W) in [0, 1] with labels ``y`` (N,).

        ``clean`` are the clean logits (N, K) where they are known; ``watch`` is told of every forward of the attack;
        ``pool`` are samples for attacks that start from some.

        An exception inside the attack makes every sample without a witness an error; memory that does not suffice for
        a single sample is no outcome and is raised.
        """
        attack, threat = ATTACKS[plan.stages[stage].attack], plan.threat
        attack.require(threat.norm, target=threat.target, module=module)
        eps = None if threat.eps is None else float(threat.radius)
        if pool is not None:
            pool = Pool(pool.x.to(self.device), pool.predicted.to(self.device))
        settings = Settings(plan.stages[stage], threat.norm, eps, self.seed, classes, pool=pool)
        meter, start = Meter(), time.perf_counter()
        x, y = x.to(self.device), y.to(self.device)
        bodies: dict[str, Callable[..., Result]] = {
            "returned": partial(self._returned, target=threat.target, voted=plan.randomised),
            "crafted": partial(self._crafted, target=threat.target),
            "estimate": self._estimated,
        }
        body = bodies.get(kind, partial(self._verified, clean=clean, watch=watch, target=threat.target))
        if plan.randomised and kind not in bodies:
            body = partial(self._voted, watch=watch)
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
            settings = replace(settings, target=targets(plan.threat.target, x, y, clean))
            with torch.enable_grad():
                z = attack.perturb(other, x, y, settings).detach()
            if plan.randomised:
                jury = Jury(network, x, y, norm=settings.norm, eps=settings.radius, seed=self.seed)
                jury.submit(z, torch.arange(len(x), device=x.device))
                return replace(_found(jury), cost=Cost(meter.forward, meter.backward, time.perf_counter() - start))
            oracle = Oracle(network, x, y, clean=clean, norm=settings.norm, eps=settings.radius, mode="decide",
                            target=settings.target)  # fmt: skip
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
        target: str,
    ) -> Result:
        """Kinds "decide" and "minimise": the oracle judges every proposal."""
        mode: Literal["decide", "minimise"] = "decide" if settings.eps is not None else "minimise"
        with torch.no_grad():
            clean = network(x) if clean is None else clean.to(self.device)
        predicted = clean.argmax(1)
        # A clean error is measured away from the predicted class and gets a negative sign (Piras et al., Fig. 2).
        label = y if mode == "decide" else predicted
        settings = replace(settings, target=targets(target, x, label, clean))
        oracle = Oracle(network, x, label, clean=clean, norm=settings.norm, eps=settings.eps, mode=mode, watch=watch,
                        target=settings.target)  # fmt: skip
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

    def _voted(
        self, attack: Attack, network: Network, x: Tensor, y: Tensor, settings: Settings, *, watch: Watch | None
    ) -> Result:
        """Kind "decide" for subjects that draw: the oracle is off, and votes judge what the attack ends with."""
        jury = Jury(network, x, y, norm=settings.norm, eps=settings.radius, seed=self.seed, watch=watch)
        try:
            drive_voted(attack, jury, settings)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            jury.fail(f"{attack.name} failed: {type(error).__name__}: {error}")
        return _found(jury)

    def _returned(
        self, attack: Attack, network: Network, x: Tensor, y: Tensor, settings: Settings, *, target: str, voted: bool
    ) -> Result:
        """Kind "returned": the accuracy on what the library returns; the oracle is off."""
        z, errors = self._proposed(attack, network, x, y, settings, target)
        return self._judged(network, x, z, y, settings.norm, errors, voted=voted)

    def _crafted(
        self, attack: Attack, network: Network, x: Tensor, y: Tensor, settings: Settings, *, target: str
    ) -> Result:
        """Kind "crafted": what the library returns for each sample, and how far that is from it; nothing is judged."""
        z, errors = self._proposed(attack, network, x, y, settings, target)
        length = distances(x, z, settings.norm)
        values = {place: float(length[place]) for place in range(len(x)) if place not in errors}
        return Result(Cost(), errors=errors, values=values, witness=z[list(values)].cpu().numpy() if values else None)

    def judge(self, module: nn.Module, x: Tensor, z: Tensor, y: Tensor, norm: str, *, voted: bool = False) -> Result:
        """Which of the inputs ``z``, made from ``x`` on another model, ``module`` gets wrong (kind "transferred").

        By votes of repeated forwards where ``voted``.
        """
        meter, start = Meter(), time.perf_counter()
        x, z, y = x.to(self.device), z.to(self.device), y.to(self.device)
        with self._isolated(module, x) as choose_threads:
            network = Network(module, chunk=self.chunk, meter=meter, prepare=choose_threads)
            result = self._judged(network, x, z, y, norm, {}, voted=voted)
        return replace(result, cost=Cost(meter.forward, meter.backward, time.perf_counter() - start))

    def _judged(
        self, network: Network, x: Tensor, z: Tensor, y: Tensor, norm: str, errors: Mapping[int, str], *, voted: bool
    ) -> Result:
        if voted:
            ballot = vote(network, z, y, seed=self.seed)
            wrong = ballot.broken.nonzero().flatten().tolist()
            open_ = (~ballot.broken & ~ballot.holds).nonzero().flatten().tolist()
            errors = {**{place: ballot.reason(place) for place in open_}, **errors}
        else:
            with torch.no_grad():
                logits = network(z)
            silent = (~logits.isfinite().all(1)).nonzero().flatten().tolist()
            errors = {**dict.fromkeys(silent, "the output is not finite"), **errors}
            wrong = (logits.argmax(1) != y).nonzero().flatten().tolist()
        length = distances(x, z, norm)
        return Result(Cost(), {p: float(length[p]) for p in wrong if p not in errors}, errors)

    def _proposed(
        self, attack: Attack, network: Network, x: Tensor, y: Tensor, settings: Settings, target: str
    ) -> tuple[Tensor, dict[int, str]]:
        """What the library returns, inside ball and box, and why that does not count for some samples."""
        predicted = dict(settings.stage.params).get("labels") == "predicted"
        try:
            if predicted or target:
                with torch.no_grad():
                    clean = network(x)
                y = clean.argmax(1) if predicted else y
                settings = replace(settings, target=targets(target, x, y, clean))
            z = attack.perturb(network, x, y, settings).detach()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            return x, dict.fromkeys(range(len(x)), f"{attack.name} failed: {type(error).__name__}: {error}")
        errors = {}
        if not bool(z.isfinite().all()):
            broken = (~z.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
            errors.update(dict.fromkeys(broken, "the attack returned an input that is not finite"))
        if settings.eps is not None:
            far = (distances(x, z, settings.norm) > settings.eps * OVERSHOOT).nonzero().flatten().tolist()
            errors.update(dict.fromkeys(far, "the attack left the threat model"))
        return projected(x, z, settings.norm, settings.eps), errors

    def _estimated(self, attack: Attack, network: Network, x: Tensor, y: Tensor, settings: Settings) -> Result:
        """Kind "estimate": a score for each sample, with a negative sign for clean errors as distances have."""
        try:
            with torch.no_grad():
                predicted = network(x).argmax(1)
            scores = attack.perturb(network, x, predicted, settings).double()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            reason = f"{attack.name} failed: {type(error).__name__}: {error}"
            return Result(Cost(), errors=dict.fromkeys(range(len(x)), reason))
        missing = scores.isnan().nonzero().flatten().tolist()
        signed = torch.where(predicted == y, scores, -scores).tolist()
        values = {place: signed[place] for place in range(len(x)) if place not in missing}
        return Result(Cost(), errors=dict.fromkeys(missing, f"{attack.name} gave no number"), values=values)

    @contextmanager
    def _isolated(self, module: nn.Module, x: Tensor) -> Iterator[Callable[[int], None]]:
        """Put back all global state that a library may touch: randomness, tracing, flags, gradients, threads."""
        with ExitStack() as stack:
            stack.enter_context(kept())
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # a library's warning must not become an attack error under -W error
            stack.callback(sys.settrace, sys.gettrace())
            stack.callback(_restore_determinism, *_determinism())
            stack.enter_context(_without_parameter_gradients(module))
            stack.enter_context(torch.enable_grad())
            yield stack.enter_context(suited_to(module, x))


def _found(jury: Jury) -> Result:
    broken = {place: float(jury.distance[place]) for place in jury.broken.nonzero().flatten().tolist()}
    return Result(Cost(), broken, jury.undecided(), {}, jury.witness[jury.broken].cpu().numpy() if broken else None)


def targets(rule: str, x: Tensor, y: Tensor, clean: Tensor) -> Tensor | None:
    """The target classes (N,) that ``rule`` gives the samples ``x`` with labels ``y``; ``None`` for the empty rule.

    ``clean``: (N, K) clean logits. "random" draws one of the other classes by the bytes of the sample alone, so that no
    batch and no seed changes it.
    """
    if not rule:
        return None
    classes = clean.shape[1]
    if rule == "least-likely":
        return clean.argmin(1)
    if rule == "next":
        return (y + 1) % classes
    digests = (hashlib.sha256(sample.tobytes()).digest() for sample in x.cpu().numpy())
    steps = [1 + int.from_bytes(digest[:8], "big") % (classes - 1) for digest in digests]
    return (y + torch.tensor(steps, device=y.device)) % classes


def _determinism() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _restore_determinism(enabled: bool, warn_only: bool) -> None:
    if _determinism() != (enabled, warn_only):  # setting it imports torch's compiler, which takes seconds
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


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
