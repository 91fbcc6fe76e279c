"""The training loop: epochs of steps, a validation part that decides, a checkpoint after every epoch.

Killed at any instant and resumed, a training on the CPU ends in the same bits: every random choice is a function of
(seed, epoch, position), and weights, moving average and the optimizer's moments come back from the checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.errors import ActionVitError
from actionvit.features.atomic import remove_stale_temporaries
from actionvit.pipeline.finetuning.checkpoints import (
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from actionvit.pipeline.finetuning.classifier import Classifier
from actionvit.pipeline.finetuning.clips import Clips, Loaded, ahead
from actionvit.pipeline.finetuning.distributed import Ranks
from actionvit.pipeline.finetuning.loss import Loss, right
from actionvit.pipeline.finetuning.micro_batch import Pieces
from actionvit.pipeline.finetuning.sampling import Item, epoch_steps
from actionvit.pipeline.finetuning.schedule import MovingAverage, kept_shares, parameter_groups, rate_at, set_rate
from actionvit.pipeline.finetuning.scoring import judged, plain_outputs
from actionvit.pipeline.finetuning.spec import Progress, State, TrainSpec


class Training:
    """A model being trained on some rows and judged on others.

    Parameters
    ----------
    model : Classifier
    frozen : callable
        What turns pixels into the model's input; not called where clips are cached behind it.
    clips : Clips
    y : ndarray of shape (N,)
        Class numbers of all rows.
    fit, held : ndarray of int
        Rows to train on, and rows of other sources to choose the epoch by.
    spec : TrainSpec
    ranks : Ranks
    folder : Path
        Of the checkpoint.
    identity : dict
        What must be the same for a checkpoint to be resumed, as JSON can hold it.
    flush_seconds : float
        Write a checkpoint only where the last is so old, and at the end; 0: after every epoch.
    """

    def __init__(
        self,
        model: Classifier,
        frozen: Callable[[Tensor], Tensor],
        clips: Clips,
        y: NDArray[np.intp],
        *,
        fit: NDArray[np.intp],
        held: NDArray[np.intp],
        spec: TrainSpec,
        ranks: Ranks,
        folder: Path,
        identity: dict[str, Any],
        flush_seconds: float = 0.0,
    ) -> None:
        self.model, self.frozen, self.clips, self.y = model, frozen, clips, y
        self.fit_rows, self.held, self.spec, self.ranks = fit, held, spec, ranks
        self.folder, self.identity, self.state = folder, json.loads(json.dumps(identity)), State()
        self.parameters = model.trained()
        self.optimizer = torch.optim.AdamW(parameter_groups(self.parameters, spec.optim, model.depth), lr=0.0)
        self.average = MovingAverage(self.parameters, spec.optim.ema) if spec.optim.ema else None
        self.best = _copy(self.parameters)
        recompute = "--activation-checkpointing, " if model.recomputable and not model.checkpointing else ""
        self.pieces = Pieces(
            spec.micro_batch, remedy=f"use {recompute}fewer trained blocks, fewer --num-frames or a smaller --size"
        )
        self.flush_seconds, self._flushed, self._kept = flush_seconds, time.monotonic(), -1
        self.loss = Loss(spec.loss, y[fit], model.head.out_features, ranks.device)

    def run(
        self,
        *,
        resume: bool,
        on_step: Callable[[Progress], None] = lambda progress: None,
        on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
    ) -> State:
        """Train to the end, or until patience is; leave the best epoch's weights in the model.

        Raises
        ------
        ActionVitError
            If there is a checkpoint and `resume` is off, or it is of another training; if a single clip does not fit
            into memory; if the loss stops being a number.
        """
        if self.ranks.first:
            remove_stale_temporaries(self.folder)
        self._resume(resume)
        if self.state.epoch < 0:
            self.ranks.agree(list(self.parameters.values()))
            on_epoch(self._judge(0, {}))
        spec = self.spec
        for epoch in range(self.state.epoch + 1, spec.epochs + 1):
            if spec.patience and epoch - 1 - self.state.best_epoch >= spec.patience:
                break
            on_epoch(self._judge(epoch, self._epoch(epoch, on_step)))
        self._checkpoint(now=True)
        _load(self.parameters, self.best)
        return self.state

    def scores(self, rows: NDArray[np.intp], *, once: bool = False) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return logits of rows' plain views (n, K, C), and which rows decode (n,); computed by all ranks together.

        `once` for rows that are not scored in every epoch.
        """
        self.model.eval()

        def compute(x: Tensor) -> Tensor:
            x = self._input(x)
            with self._autocast():
                return self.model.logits(x)

        return plain_outputs(compute, self.clips, rows, self.model.head.out_features, self.ranks, once=once)

    def _epoch(self, epoch: int, on_step: Callable[[Progress], None]) -> dict[str, float]:
        """Train an epoch; return what to tell of it."""
        began, spec = time.perf_counter(), self.spec
        self.model.train()
        y, rank, world = self.y[self.fit_rows], self.ranks.rank, self.ranks.world
        items, sizes = epoch_steps(y, spec.sampling, epoch=epoch, rank=rank, world=world)
        done, total = np.zeros(3), len(items) * spec.epochs
        rate = 0.0
        for step, loaded in enumerate(ahead(self.clips.train(self._placed(items)))):
            rate = spec.optim.lr * rate_at((epoch - 1) * len(items) + step, total, spec.optim.warmup)
            done += self._step(loaded, sizes[step], rate)
            seconds, clips = time.perf_counter() - began, max(done[2], 1)
            on_step(
                Progress(
                    epoch=epoch,
                    step=step + 1,
                    steps=len(items),
                    loss=done[0] / clips,
                    accuracy=done[1] / clips,
                    lr=rate,
                    clips_per_second=done[2] * world / seconds,
                )
            )
        loss, hits, clips = self.ranks.share(done)
        seconds = time.perf_counter() - began
        return {
            "lr": rate,
            "loss": float(loss / max(clips, 1)),
            "train_accuracy": float(hits / max(clips, 1)),
            "seconds": seconds,
            "clips_per_second": float(clips / seconds),
        }

    def _placed(self, steps: Sequence[Sequence[Item]]) -> list[list[Item]]:
        """Return items that number all rows, not only those trained on."""
        return [[item.of_rows(self.fit_rows) for item in items] for items in steps]

    def _step(self, loaded: Loaded, size: int, rate: float) -> NDArray[np.float64]:
        """Take one step; return (summed loss, right, clips) of this rank's share."""
        found = self._gradients(loaded, size)
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        self.ranks.add_up(gradients)
        # Of the summed gradients, so that all ranks see the same and stop together.
        norm = torch.nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            raise _no_number(rate)
        if self.spec.optim.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(list(self.parameters.values()), self.spec.optim.clip_norm, norm)
        set_rate(self.optimizer, rate)
        self.optimizer.step()
        if self.average:
            self.average.update(self.parameters)
        return found

    def _gradients(self, loaded: Loaded, size: int) -> NDArray[np.float64]:
        """Add up the gradients of a share, in as small pieces as memory asks for."""
        number = len(loaded.items)

        def begin() -> None:
            for parameter in self.parameters.values():
                parameter.grad = torch.zeros_like(parameter)

        return sum(
            self.pieces.over(number, lambda part: self._piece(loaded, part, size), begin=begin), start=np.zeros(3)
        )

    def _piece(self, loaded: Loaded, rows: slice, size: int) -> NDArray[np.float64]:
        part = Loaded(loaded.items[rows], loaded.x[rows], loaded.share[rows])
        target = self.loss.targets(part, self.y)
        x = self._input(part.x)
        with self._autocast():
            logits = self.model.logits(x, self._keep(part.items))
        losses = self.loss(logits, target)
        torch.autograd.backward(losses.sum() / size)
        return np.array([float(losses.sum().detach()), right(logits.detach(), target), len(part.items)])

    def _input(self, x: Tensor) -> Tensor:
        # Half of it to move where tokens are kept in fp16.
        return x.to(self.ranks.device, non_blocking=True).float() if self.clips.cached else self.frozen(x)

    def _keep(self, items: Sequence[Item]) -> Tensor | None:
        """Return what each block counts on each clip's way, (b, depth); see `Classifier.logits`."""
        depth = self.model.depth
        if not self.spec.drop_path or depth < 2:
            return None
        share = kept_shares(self.spec.drop_path, depth)
        drawn = np.stack([item.rng("drop").random(depth) for item in items])
        return torch.from_numpy(((drawn < share) / share).astype(np.float32)).to(self.ranks.device)

    def _autocast(self) -> AbstractContextManager[Any]:
        kind = torch.device(self.ranks.device).type
        return torch.autocast(kind, torch.bfloat16) if self.spec.autocast else nullcontext()

    def _judge(self, epoch: int, told: dict[str, float]) -> dict[str, float]:
        """Score the validation part, keep the weights if they are the best so far, write a checkpoint if it is time."""
        state, values = self.state, self.average.values if self.average and epoch else self.parameters
        with _holding(self.parameters, values):
            found = judged(*self.scores(self.held), self.y[self.held])
            if not np.isfinite(found["log_loss"]):  # the last step's doing, whose gradients were numbers still
                raise (
                    _no_number(told["lr"]) if told else ActionVitError("these weights give scores that are no numbers")
                )
            score = (-found["log_loss"] if self.spec.criterion == "log_loss" else found[self.spec.criterion],)
            ranked = (*score, -found["log_loss"])
            if ranked > tuple(state.best_score):
                state.best_epoch, state.best_score, self.best = epoch, ranked, _copy(self.parameters)
        state.epoch, state.averaged = epoch, self.average.steps if self.average else 0
        state.failures = self.ranks.union(self.clips.failures)
        state.history.append({"epoch": epoch, **told, **{f"validation_{name}": found[name] for name in found}})
        self._checkpoint()
        return state.history[-1]

    def _checkpoint(self, *, now: bool = False) -> None:
        """Write the checkpoint if it is time, or `now`, unless there is one of this epoch."""
        due = now or time.monotonic() - self._flushed >= self.flush_seconds
        if self.ranks.first and due and self._kept < self.state.epoch:
            self._save()
            self._flushed, self._kept = time.monotonic(), self.state.epoch
        self.ranks.wait()

    def _save(self) -> None:
        named: dict[str, Mapping[str, Tensor]] = {
            "now": self.parameters,
            "best": self.best,
            "optimizer": optimizer_tensors(self.optimizer),
        }
        if self.average:
            named["average"] = self.average.values
        tensors = {f"{kind}/{name}": value for kind, group in named.items() for name, value in group.items()}
        state = {name: getattr(self.state, name) for name in State.__dataclass_fields__}
        save_checkpoint(self.folder, tensors, {**state, "identity": self.identity})

    def _resume(self, resume: bool) -> None:
        found = load_checkpoint(self.folder)
        if found is None:
            return
        tensors, state = found
        if not resume:
            raise ActionVitError(f"{self.folder} holds an unfinished training: --resume it, or --restart from nothing")
        if state["identity"] != self.identity:
            names = [name for name in self.identity if self.identity[name] != state["identity"].get(name, "not said")]
            raise ActionVitError(
                f"{self.folder}: the checkpoint is of another training ({', '.join(names)} differ); --restart, or"
                " give the options and the dataset it was started with"
            )
        self.state = State(**{name: state[name] for name in State.__dataclass_fields__})
        self._kept = self.state.epoch
        self.clips.failures.update(self.state.failures)
        self.state.best_score = (state["best_score"][0], state["best_score"][1])

        def group(kind: str) -> dict[str, Tensor]:
            return {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{kind}/")}

        _load(self.parameters, group("now"))
        self.best = {name: value.to(self.ranks.device) for name, value in group("best").items()}
        restore_optimizer(self.optimizer, group("optimizer"))
        if self.average:
            self.average.steps = self.state.averaged
            _load(self.average.values, group("average"))


def _no_number(rate: float) -> ActionVitError:
    return ActionVitError(
        f"the loss is no number any more at a learning rate of {rate:.1e}: --restart with a lower --lr"
    )


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in tensors.items()}


@torch.no_grad()
def _load(into: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in into.items():
        value.copy_(values[name])


@contextmanager
def _holding(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Give a model other weights for a while."""
    if values is parameters:
        yield
        return
    own = _copy(parameters)
    _load(parameters, values)
    try:
        yield
    finally:
        _load(parameters, own)
