# SPDX-License-Identifier: Apache-2.0
"""Train a task: AdamW, warm-up and cosine, clipping, EMA, a log, resumable checkpoints.

Batches and noise depend on the seed and the step alone, so a run that is killed and resumed from
its checkpoint follows the same curve as one that was not.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gsv3d.errors import Cancelled, ModelError
from gsv3d.lab.training import checkpoint, log, machine
from gsv3d.lab.training.batches import Feed, Plan, Source, make_part_seed, seed_noise, to_device
from gsv3d.lab.training.checkpoint import AveragedWeights, find_changing
from gsv3d.lab.training.machine import catch_signals, make_accelerator, name_lost_processes
from gsv3d.lab.training.schedule import Schedule
from gsv3d.outputs import make_folder, output_error

BAD_STEPS = 10
"""Training stops after so many steps in a row whose gradient is not finite."""
MEASURED_FROM = 50
"""Shorter runs do not count their FLOPs: counting takes time."""
OTHER_CONFIGURATION = "Use the configuration it was made with, or choose another --output."


class Task(Protocol):
    """A stage to train.

    Attributes:
        name: the stage's name.
        modules: networks; their parameters that require a gradient are trained.
        source: source of its batches.
        images_per_sample: pictures of one sample, for the speed in the log.

    A task of ``make_task`` also has ``configuration``, the fields its weights depend on (see
    ``describe_configuration``); a run can resume only from a checkpoint with the same fields.
    """

    name: str
    modules: nn.ModuleDict
    source: Source
    images_per_sample: int

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its parts for the log (without gradient; NaN for none).

        Random numbers come from torch's global generators.
        """

    def samples(self) -> dict[str, Tensor]:
        """Draw grids (rows, columns, H, W, 3) in 0..1, always of the same objects."""

    def export(self, modules: nn.ModuleDict, directory: Path) -> None:
        """Write what the pipeline loads, from the averaged weights."""


class _Loss(nn.Module):
    """A task as one module, so that processes can share its gradients."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.trained = task.modules
        self._loss = task.loss

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self._loss(batch)


class Trainer:
    """The training of a task.

    Args:
        task: the task, its modules on the device.
        schedule: length and speed of the training.
        output: folder of checkpoint, log, samples and exported model.
        seed: seed of batches and noise.
        device: the modules' device.
        tracker: name of a tracker, see ``log.Tracker``.

    Raises:
        ModelError: the batch cannot be shared evenly by the processes.
    """

    def __init__(
        self,
        task: Task,
        schedule: Schedule,
        output: Path,
        seed: int,
        device: torch.device,
        tracker: str = "none",
    ) -> None:
        self.task, self.schedule, self.output = task, schedule, Path(output)
        self.seed, self.device, self.tracker_name = seed, device, tracker
        self.accelerator = make_accelerator(device, schedule.bf16)
        try:
            self.parts, self.part_size = schedule.parts(self.accelerator.num_processes)
        except ValueError as error:
            raise ModelError(str(error), "Change the batch or the number of processes.") from error
        self.parameters = [p for p in task.modules.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=schedule.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=schedule.weight_decay,
            fused=True,
        )
        self.average = AveragedWeights(task.modules)
        self.step, self.seconds = 0, 0.0
        self._bad, self._flops = 0, 0
        self._fresh = True

    @property
    def checkpoint_path(self) -> Path:
        return self.output / checkpoint.NAME

    @property
    def configuration(self) -> dict[str, Any]:
        """Return the task's configuration, {} if it has none."""
        return getattr(self.task, "configuration", {})

    def progress(self) -> float:
        """Return the share of the run that is done, by steps or by clock: the larger of the two."""
        share = self.step / self.schedule.steps
        if self.schedule.minutes:
            share = max(share, self.seconds / (60 * self.schedule.minutes))
        return min(share, 1.0)

    def learning_rate(self) -> float:
        return self.schedule.rate(self.step, self.progress())

    def save(self) -> None:
        """Write the checkpoint; the previous one is replaced when it is complete.

        Raises:
            OutputError: the disk is full, ...
        """
        if not self.accelerator.is_main_process:
            return
        tensors = {f"model.{k}": v for k, v in find_changing(self.task.modules).items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state.items()}
        tensors |= checkpoint.flatten_optimizer(self.optimizer.state_dict())
        facts = {
            "task": self.task.name,
            "step": self.step,
            "seconds": self.seconds,
            "seed": self.seed,
            "micro_batch": self.part_size,
            "configuration": self.configuration,
        }
        checkpoint.save(self.checkpoint_path, tensors, facts)

    def resume(self) -> None:
        """Load the checkpoint in the output folder, so that ``run`` goes on from it.

        Raises:
            ModelError: there is no checkpoint, or it is of another task or configuration.
        """
        tensors, facts = checkpoint.load(self.checkpoint_path)
        if facts["task"] != self.task.name:
            raise ModelError(
                f"{self.checkpoint_path} is a checkpoint of '{facts['task']}', not of"
                f" '{self.task.name}'.",
                "Name another folder with --output.",
            )
        changed = checkpoint.find_changed_fields(facts["configuration"], self.configuration)
        if changed:
            raise ModelError(
                f"{self.checkpoint_path} was made with another configuration:"
                f" {checkpoint.join_differences(changed)}.",
                OTHER_CONFIGURATION,
            )
        model = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
        differing = checkpoint.find_differing(find_changing(self.task.modules), model)
        if differing:
            raise ModelError(
                f"{self.checkpoint_path} was made with another configuration: '{differing[0]}'"
                f" and {len(differing) - 1} more tensors differ.",
                OTHER_CONFIGURATION,
            )
        self.task.modules.load_state_dict(model, strict=False)
        self.average.load({k[8:]: v for k, v in tensors.items() if k.startswith("average.")})
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict(checkpoint.unflatten_optimizer(tensors, groups))
        self.step, self.seconds = int(facts["step"]), float(facts["seconds"])
        self._fresh = False

    def run(self) -> None:
        """Train to the end, then export the averaged weights.

        Raises:
            ModelError: the gradients of ``BAD_STEPS`` steps in a row are not finite.
            DataError: the processes that prepare batches keep dying.
            OutputError: the disk is full, ...; or the folder has a checkpoint that was not loaded.
            Cancelled: a signal asked training to stop.

        After each of these errors the last checkpoint is complete, and ``resume`` loads it.
        """
        if self._fresh:
            checkpoint.refuse_to_overwrite(self.output)
            self._fresh = False
        make_folder(self.output)
        main = self.accelerator.is_main_process
        self._log = log.RunLog(self.output / "log.csv", self.step) if main else None
        name = self.tracker_name if main else "none"
        plan = Plan(
            self.task.source, self.part_size, self.seed, self.schedule.steps, self.parts,
            self.accelerator.num_processes, self.accelerator.process_index,
            self.progress if self.schedule.minutes else None,
        )  # fmt: skip
        with (
            machine.keep_freed_memory() if self.device.type == "cpu" else nullcontext(),
            closing(log.Tracker(name, self.output, self.step)) as self._tracker,
            closing(
                Feed(plan, self.step, self.schedule.workers, self.device, self._say)
            ) as self._batches,
            # Several processes would get the signal at different steps, stop there, and wait for
            # each other for ever.
            catch_signals(enabled=self.accelerator.num_processes == 1) as asked,
            name_lost_processes(self.accelerator.num_processes),
        ):
            self._train(asked)
        self.export()
        with name_lost_processes(self.accelerator.num_processes):
            self.accelerator.wait_for_everyone()

    def _train(self, asked: threading.Event) -> None:
        schedule, modules = self.schedule, self.task.modules
        modules.train()
        self._begun = time.monotonic() - self.seconds
        self._written = self.seconds
        if schedule.checkpointing:
            machine.checkpoint_activations(modules)
            # Gradients flow through frozen networks too, such as the decoder of "distill".
            machine.checkpoint_activations(getattr(self.task, "frozen", nn.ModuleDict()))
        if schedule.steps - self.step >= MEASURED_FROM:
            self._flops = machine.count_flops(self._one_part)
        if schedule.compile:
            machine.compile_networks(modules)
        self._model = self.accelerator.prepare_model(_Loss(self.task))
        rows: list[dict[str, Any]] = []
        while self.progress() < 1:
            rows.append(self._step())
            stop = asked.is_set()
            due = stop or self.step % schedule.save_every == 0
            if due or self.step % schedule.log_every == 0:
                self._write(rows)
                rows = []
            if due:
                self.save()
            if schedule.sample_every and self.step % schedule.sample_every == 0:
                self._sample()
            if stop:
                raise Cancelled(
                    f"Training stopped after step {self.step}, as it was asked to.",
                    "With --resume it goes on.",
                )
        self._write(rows)
        self.save()

    def _one_part(self) -> None:
        """Run a forward and a backward pass that change nothing."""
        batch = self._batches.plan[self.step * self.parts, self.progress()]
        with machine.quick_attention(self.device):
            with self.accelerator.autocast():
                loss, _ = self.task.loss(to_device(batch, self.device))
            loss.backward()
        self.optimizer.zero_grad(set_to_none=True)

    def _step(self) -> dict[str, Any]:
        """Do one optimizer step; return the log's row, its tensors still on the device."""
        rate = self.learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        logged: dict[str, list[Tensor]] = {}
        processes, process = self.accelerator.num_processes, self.accelerator.process_index
        for own in range(self.parts):
            batch = self._batches.next()
            # The noise of a part is a function of the seed, the step and the part, as its batch is.
            noise = make_part_seed(self.seed, self.step, own * processes + process)
            seed_noise(noise, self.device)
            last = own == self.parts - 1
            together = nullcontext() if last else self.accelerator.no_sync(self._model)
            with together, machine.quick_attention(self.device):
                loss, parts = self._model(batch)
                self.accelerator.backward(loss / self.parts)
            for name, value in ({"loss": loss.detach()} | parts).items():
                logged.setdefault(name, []).append(value)
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.schedule.clip)
        # With this set AdamW changes nothing, and the host need not wait for the norm.
        self.optimizer.found_inf = (~torch.isfinite(norm)).float()
        self.optimizer.step()
        self.average.update(self.schedule.decay(self.step))
        self.step += 1
        seconds = time.monotonic() - self._begun
        if processes == 1:
            self.seconds = seconds
        return {
            "step": self.step,
            "seconds": seconds,
            "learning_rate": rate,
            "gradient": norm,
        } | {name: torch.stack(values).nanmean() for name, values in logged.items()}

    def _write(self, rows: list[dict[str, Any]]) -> None:
        """Bring rows to the host, write them, and stop if the gradients are not finite.

        Raises:
            ModelError: those of ``BAD_STEPS`` steps in a row are not finite.
        """
        if not rows:
            return
        values = log.bring_to_host(rows, self.accelerator)
        if self.accelerator.num_processes > 1:
            self._agree_on_time()
        elapsed = max(values[-1]["seconds"] - self._written, 1e-9)
        self._written = values[-1]["seconds"]
        speed = self.schedule.batch_size * len(rows) / elapsed
        for row in values:
            row["samples_per_second"] = speed
            row["mfu"] = math.nan
            if self._flops:
                share = speed / self.schedule.batch_size * self.parts * self._flops
                row["mfu"] = share / machine.matrix_rate(self.device, self.schedule.bf16)
        if self._log is not None:
            self._log.write(values)
            print(log.describe_row(values[-1]), flush=True)
            pictures = {"images_per_second": speed * self.task.images_per_sample}
            self._tracker.log(log.average_rows(values) | pictures, self.step)
        self._judge(values)

    def _agree_on_time(self) -> None:
        """Use the main process's clock in all: with ``minutes``, all must end at the same step."""
        seconds = time.monotonic() - self._begun
        clock = torch.tensor([seconds], device=self.device, dtype=torch.float32)
        torch.distributed.broadcast(clock, src=0)
        self.seconds = float(clock)
        self._begun = time.monotonic() - self.seconds

    def _judge(self, rows: list[dict[str, float]]) -> None:
        for row in rows:
            if math.isfinite(row["gradient"]):
                self._bad = 0
                continue
            self._bad += 1
            self._say(f"Step {row['step']} was skipped: its gradient is no number.")
            if self._bad >= BAD_STEPS:
                raise ModelError(
                    f"The gradients of {BAD_STEPS} steps in a row are no numbers, the last at step"
                    f" {row['step']} with loss {row['loss']:.4g}; the weights are as before them.",
                    f"Go on from {self.checkpoint_path} with --resume and a smaller"
                    " --learning-rate, or with another --seed to see other batches.",
                )

    def _say(self, text: str) -> None:
        if self.accelerator.is_main_process:
            print(text, file=sys.stderr, flush=True)

    def _sample(self) -> None:
        if not self.accelerator.is_main_process:
            return
        with self.average.applied(), self.accelerator.autocast():
            # The same noise every time: samples then differ by the training alone.
            seed_noise(0, self.device)
            grids = self.task.samples()
        for name, grid in grids.items():
            picture = log.join_sheet(grid)
            log.write_sheet(self.output / "samples" / f"{name}-{self.step:07d}.png", picture)
            self._tracker.log_picture(name, picture, self.step)

    def export(self) -> None:
        """Write the averaged weights as the pipeline's components.

        Raises:
            OutputError: the disk is full, ...; ``resume`` and ``run`` write them again.
        """
        if not self.accelerator.is_main_process:
            return
        from gsv3d.models import silent_bars

        with self.average.applied(), silent_bars():
            try:
                self.task.export(self.task.modules, self.output)
            except (OSError, SafetensorError) as error:
                raise output_error(self.output, checkpoint.as_os_error(error)) from error
