"""The training loop: epochs of steps, validation after each epoch, and checkpoints.

A CPU training that is killed at any time and resumed ends with the same bits: every random choice is a function of
(seed, epoch, position), and weights, EMA and optimizer state come back from the checkpoint.
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
from actionvit.pipeline.finetuning.clips import Batch, Clips, prefetch
from actionvit.pipeline.finetuning.distributed import ProcessGroup
from actionvit.pipeline.finetuning.loss import Loss, num_correct
from actionvit.pipeline.finetuning.micro_batch import MicroBatcher
from actionvit.pipeline.finetuning.sampling import Sample, epoch_steps
from actionvit.pipeline.finetuning.schedule import EMA, drop_path_keep_probs, lr_factor, parameter_groups, set_lr
from actionvit.pipeline.finetuning.scoring import predict_views, validation_metrics
from actionvit.pipeline.finetuning.spec import Progress, TrainerState, TrainSpec


class Trainer:
    """Trains a model on some rows of the dataset and selects the epoch on others.

    Parameters
    ----------
    model : Classifier
    frozen : callable
        Maps pixels to the model's input; not called if `clips` are cached outputs of the frozen blocks.
    clips : Clips
    y : ndarray of shape (N,)
        Class numbers of all rows.
    train_rows, val_rows : ndarray of int
        Rows to train on, and rows of other sources that select the epoch; without any, the last epoch is the best.
    spec : TrainSpec
    ranks : ProcessGroup
    folder : Path
        Folder of the checkpoint.
    identity : dict
        JSON-serializable settings that must be equal for a checkpoint to be resumed.
    flush_seconds : float
        Minimum time between checkpoints; there is always one at the end. 0: after every epoch.
    """

    def __init__(
        self,
        model: Classifier,
        frozen: Callable[[Tensor], Tensor],
        clips: Clips,
        y: NDArray[np.intp],
        *,
        train_rows: NDArray[np.intp],
        val_rows: NDArray[np.intp],
        spec: TrainSpec,
        ranks: ProcessGroup,
        folder: Path,
        identity: dict[str, Any],
        flush_seconds: float = 0.0,
    ) -> None:
        self.model, self.frozen, self.clips, self.y = model, frozen, clips, y
        self.train_rows, self.val_rows, self.spec, self.ranks = train_rows, val_rows, spec, ranks
        self.folder, self.identity, self.state = folder, json.loads(json.dumps(identity)), TrainerState()
        self.parameters = model.trained()
        self.optimizer = torch.optim.AdamW(parameter_groups(self.parameters, spec.optim, model.depth), lr=0.0)
        self.ema = EMA(self.parameters, spec.optim.ema) if spec.optim.ema else None
        self.best = _copy(self.parameters)
        recompute = "activation_checkpointing=True, " if model.recomputable and not model.checkpointing else ""
        self.micro_batcher = MicroBatcher(
            spec.micro_batch, remedy=f"use {recompute}fewer trained blocks, fewer num_frames= or a smaller size="
        )
        self.flush_seconds, self._saved_at, self._saved_epoch = flush_seconds, time.monotonic(), -1
        self.loss = Loss(spec.loss, y[train_rows], model.head.out_features, ranks.device)

    def run(
        self,
        *,
        resume: bool,
        stop_after: int | None = None,
        on_step: Callable[[Progress], None] = lambda progress: None,
        on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
    ) -> TrainerState:
        """Train until the last epoch or until patience ends; leave the best epoch's weights in the model.

        Parameters
        ----------
        resume : bool
            Continue from the checkpoint, if there is one.
        stop_after : int, optional
            End training after this epoch; the learning rate follows the schedule of all epochs.
        on_step, on_epoch : callable
            Called after each step with the running values, and after each epoch with its row of the history.

        Raises
        ------
        ActionVitError
            If there is a checkpoint and `resume` is off, or it belongs to another training; if a single clip does not
            fit into memory; if the loss becomes NaN or infinite.
        """
        if self.ranks.is_main:
            remove_stale_temporaries(self.folder)
        self._resume(resume)
        if self.state.epoch < 0:
            self.ranks.broadcast_(list(self.parameters.values()))
            on_epoch(self._validate(0, {}))
        spec = self.spec
        last = spec.epochs if stop_after is None else stop_after
        for epoch in range(self.state.epoch + 1, last + 1):
            if spec.patience and epoch - 1 - self.state.best_epoch >= spec.patience:
                break
            on_epoch(self._validate(epoch, self._epoch(epoch, on_step)))
        self._checkpoint(now=True)
        _load(self.parameters, self.best)
        return self.state

    def scores(self, rows: NDArray[np.intp], *, once: bool = False) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return logits of rows' plain views (n, K, C) and a mask of the rows that decode (n,), computed by all ranks.

        `once` for rows that are not scored in every epoch.
        """
        self.model.eval()

        def compute(x: Tensor) -> Tensor:
            x = self._input(x)
            with self._autocast():
                return self.model.logits(x)

        return predict_views(compute, self.clips, rows, self.model.head.out_features, self.ranks, once=once)

    def _epoch(self, epoch: int, on_step: Callable[[Progress], None]) -> dict[str, float]:
        """Train for an epoch; return its row of the history."""
        began, spec = time.perf_counter(), self.spec
        self.model.train()
        y, rank, world = self.y[self.train_rows], self.ranks.rank, self.ranks.world
        steps, sizes = epoch_steps(y, spec.sampling, epoch=epoch, rank=rank, world=world)
        steps = [[sample.of_rows(self.train_rows) for sample in samples] for samples in steps]
        sums, total = np.zeros(3), len(steps) * spec.epochs
        lr = 0.0
        for step, batch in enumerate(prefetch(self.clips.train(steps))):
            lr = spec.optim.lr * lr_factor((epoch - 1) * len(steps) + step, total, spec.optim.warmup)
            sums += self._step(batch, sizes[step], lr)
            seconds, clips = time.perf_counter() - began, max(sums[2], 1)
            on_step(
                Progress(
                    epoch=epoch,
                    step=step + 1,
                    steps=len(steps),
                    loss=sums[0] / clips,
                    accuracy=sums[1] / clips,
                    lr=lr,
                    clips_per_second=sums[2] * world / seconds,
                )
            )
        loss, correct, clips = self.ranks.all_reduce(sums)
        seconds = time.perf_counter() - began
        return {
            "lr": lr,
            "loss": float(loss / max(clips, 1)),
            "train_accuracy": float(correct / max(clips, 1)),
            "seconds": seconds,
            "clips_per_second": float(clips / seconds),
        }

    def _step(self, batch: Batch, size: int, lr: float) -> NDArray[np.float64]:
        """Take one step; return (summed loss, correct clips, clips) of this rank's part of it."""
        sums = self._gradients(batch, size)
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        self.ranks.all_reduce_(gradients)
        # The norm of the summed gradients: all ranks see the same value and stop together.
        norm = torch.nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            raise _diverged(lr)
        if self.spec.optim.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(list(self.parameters.values()), self.spec.optim.clip_norm, norm)
        set_lr(self.optimizer, lr)
        self.optimizer.step()
        if self.ema:
            self.ema.update(self.parameters)
        return sums

    def _gradients(self, batch: Batch, size: int) -> NDArray[np.float64]:
        """Accumulate the gradients of a batch over micro-batches."""

        def begin() -> None:
            for parameter in self.parameters.values():
                parameter.grad = torch.zeros_like(parameter)

        sums = self.micro_batcher.map(
            len(batch.samples), lambda rows: self._micro_batch(batch, rows, size), begin=begin
        )
        return sum(sums, start=np.zeros(3))

    def _micro_batch(self, batch: Batch, rows: slice, size: int) -> NDArray[np.float64]:
        part = Batch(batch.samples[rows], batch.x[rows], batch.weight[rows])
        target = self.loss.targets(part, self.y)
        x = self._input(part.x)
        with self._autocast():
            logits = self.model.logits(x, self._keep(part.samples))
        losses = self.loss(logits, target)
        torch.autograd.backward(losses.sum() / size)
        return np.array([float(losses.sum().detach()), num_correct(logits.detach(), target), len(part.samples)])

    def _input(self, x: Tensor) -> Tensor:
        # Cast after the copy: fp16 tokens are half the size to move.
        return x.to(self.ranks.device, non_blocking=True).float() if self.clips.cached else self.frozen(x)

    def _keep(self, samples: Sequence[Sample]) -> Tensor | None:
        """Return the stochastic-depth factors of each clip and block, (b, depth); see `Classifier.embedding`."""
        depth = self.model.depth
        if not self.spec.drop_path or depth < 2:
            return None
        keep_prob = drop_path_keep_probs(self.spec.drop_path, depth)
        drawn = np.stack([sample.rng("drop").random(depth) for sample in samples])
        return torch.from_numpy(((drawn < keep_prob) / keep_prob).astype(np.float32)).to(self.ranks.device)

    def _autocast(self) -> AbstractContextManager[Any]:
        device = torch.device(self.ranks.device).type
        return torch.autocast(device, torch.bfloat16) if self.spec.autocast else nullcontext()

    def _validate(self, epoch: int, train_row: dict[str, float]) -> dict[str, float]:
        """Score the validation set, keep the weights if they are the best so far, write a checkpoint if one is due."""
        state, values = self.state, self.ema.values if self.ema and epoch else self.parameters
        with _swapped(self.parameters, values):
            metrics = self._val_metrics(train_row)
            score = -metrics["log_loss"] if self.spec.criterion == "log_loss" else metrics[self.spec.criterion]
            ranked = (score, -metrics["log_loss"])
            if ranked > tuple(state.best_score) or not len(self.val_rows):
                state.best_epoch, state.best_score, self.best = epoch, ranked, _copy(self.parameters)
        state.epoch, state.averaged = epoch, self.ema.steps if self.ema else 0
        state.failures = self.ranks.gather_dict(self.clips.failures)
        row = {"epoch": epoch, **train_row}
        row |= {f"validation_{name}": value for name, value in metrics.items() if len(self.val_rows)}
        state.history.append(row)
        self._checkpoint()
        return row

    def _val_metrics(self, train_row: dict[str, float]) -> dict[str, float]:
        logits, decoded = self.scores(self.val_rows)
        if not np.isfinite(logits[decoded]).all():  # caused by the last step, whose gradients were still finite
            if not train_row:
                raise ActionVitError("these weights give NaN or Inf scores")
            raise _diverged(train_row["lr"])
        return validation_metrics(logits, decoded, self.y[self.val_rows])

    def _checkpoint(self, *, now: bool = False) -> None:
        """Write the checkpoint if it is due, or `now`, unless this epoch's is already written."""
        due = now or time.monotonic() - self._saved_at >= self.flush_seconds
        if self.ranks.is_main and due and self._saved_epoch < self.state.epoch:
            self._save()
            self._saved_at, self._saved_epoch = time.monotonic(), self.state.epoch
        self.ranks.barrier()

    def _save(self) -> None:
        groups: dict[str, Mapping[str, Tensor]] = {
            "now": self.parameters,
            "best": self.best,
            "optimizer": optimizer_tensors(self.optimizer),
        }
        if self.ema:
            groups["average"] = self.ema.values
        tensors = {f"{group}/{name}": value for group, named in groups.items() for name, value in named.items()}
        state = {name: getattr(self.state, name) for name in TrainerState.__dataclass_fields__}
        save_checkpoint(self.folder, tensors, {**state, "identity": self.identity})

    def _resume(self, resume: bool) -> None:
        checkpoint = load_checkpoint(self.folder)
        if checkpoint is None:
            return
        tensors, state = checkpoint
        if not resume:
            raise ActionVitError(
                f"{self.folder} holds an unfinished training: continue it with resume=True, or discard it with"
                " restart=True"
            )
        if state["identity"] != self.identity:
            names = [name for name in self.identity if self.identity[name] != state["identity"].get(name, "missing")]
            raise ActionVitError(
                f"{self.folder}: the checkpoint belongs to another training ({', '.join(names)} differ): use the"
                " settings and the dataset that it was started with, or discard it with restart=True"
            )
        self.state = TrainerState(**{name: state[name] for name in TrainerState.__dataclass_fields__})
        self._saved_epoch = self.state.epoch
        self.clips.failures.update(self.state.failures)
        self.state.best_score = (state["best_score"][0], state["best_score"][1])

        def group(kind: str) -> dict[str, Tensor]:
            return {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{kind}/")}

        _load(self.parameters, group("now"))
        self.best = {name: value.to(self.ranks.device) for name, value in group("best").items()}
        restore_optimizer(self.optimizer, group("optimizer"))
        if self.ema:
            self.ema.steps = self.state.averaged
            _load(self.ema.values, group("average"))


def _diverged(lr: float) -> ActionVitError:
    return ActionVitError(
        f"the loss is NaN or Inf at a learning rate of {lr:.1e}: start again with restart=True and a lower lr="
    )


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in tensors.items()}


@torch.no_grad()
def _load(into: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in into.items():
        value.copy_(values[name])


@contextmanager
def _swapped(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Load other weights into the model inside the `with` block."""
    if values is parameters:
        yield
        return
    original = _copy(parameters)
    _load(parameters, values)
    try:
        yield
    finally:
        _load(parameters, original)
