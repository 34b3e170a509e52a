"""Progress output during training: on stderr, updated at most five times a second."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from peewit.data.packing.decoding import Progress
from peewit.system.ranks import rank
from peewit.system.terminal import NotebookOutput, console_err
from peewit.system.text import printable
from peewit.training.callbacks import Callback, TrainInfo
from peewit.training.state import Row, TrainState

SHOWN_AFTER = 2.0  # seconds of decoding
HEADER = "  epoch      loss  accuracy  validation loss  accuracy  images/s     time"


class Lines(Callback):
    """Plain lines for logs: one per epoch, and every half minute within long epochs."""

    interval = 30.0  # seconds between two lines within an epoch
    decoding_interval = 10.0  # between two lines while pictures are decoded

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or console_err()
        self.info = TrainInfo(None, 0, 1)
        self._next = 0.0
        self._fold: tuple[str, ...] = ()
        self._decoding = 0.0  # seconds of decoding after which it is shown next
        self._decoded = 0.0  # seconds of decoding when it was last reported

    def on_decoding(self, progress: Progress) -> None:
        """Show the progress if it is time."""
        seconds = progress.seconds
        if seconds < self._decoded:  # other pictures
            self._decoding = 0.0
        self._decoded = seconds
        if seconds >= max(self._decoding, SHOWN_AFTER):
            self._decoding = seconds + self.decoding_interval
            self.show_decoding(progress)

    def on_fold_begin(self, fold: int, folds: int, info: TrainInfo, state: TrainState) -> None:
        """Show the steps of a fold of the cross-validation from here on."""
        self._begin(info, state)
        self._fold = (f"fold {fold}/{folds}",)

    def on_fold_step(self, state: TrainState) -> None:
        """Show the step if it is time."""
        self.on_step_end(state)

    def on_train_begin(self, info: TrainInfo, state: TrainState) -> None:
        """Print the header of the table."""
        self._begin(info, state)
        self.say(HEADER)

    def _begin(self, info: TrainInfo, state: TrainState) -> None:
        self.info = info
        self._fold = ()
        self.validation = ""
        if state.history:
            self.validation = f"validation {state.history[-1]['validation_accuracy']:.1%}"
        self._began = time.monotonic()
        self._before = self._done(state)
        self._fraction = state.fraction_done
        self._next = self._began + self.interval

    def on_step_end(self, state: TrainState) -> None:
        """Show the step if it is time."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self.interval
            self.show(state)

    def on_epoch_end(self, state: TrainState, row: Row | None) -> None:
        """Print the new row of the history."""
        if row is None:
            return
        self._next = time.monotonic() + self.interval
        self.validation = f"validation {row['validation_accuracy']:.1%}"
        of = f"/{self.info.epochs}" if self.info.epochs else ""
        self.say(
            f"{row['epoch']:3.0f}{of:<4}  {row['loss']:8.4f}  {row['accuracy']:8.1%}  "
            f"{row['validation_loss']:15.4f}  {row['validation_accuracy']:8.1%}  "
            f"{row['images_per_second']:8,.0f}  {clock(row['seconds']):>7}"
        )

    def on_note(self, text: str) -> None:
        """Print a sentence."""
        self.say(f"note: {printable(text)}")

    def show(self, state: TrainState) -> None:
        """Show the progress within the epoch."""
        self.say(", ".join(self.parts(state)))

    def show_decoding(self, progress: Progress) -> None:
        """Show how many pictures are decoded."""
        self.say(str(progress))

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self.console.print(line, soft_wrap=True)

    def parts(self, state: TrainState) -> list[str]:
        """Return epoch, step, throughput, time left, loss, accuracy and so on."""
        passed, info = max(time.monotonic() - self._began, 1e-9), self.info
        if info.epochs:
            done = self._done(state)
            made, rest = float(done - self._before), float(info.epochs * info.images - done)
        else:
            made, rest = state.fraction_done - self._fraction, 1 - state.fraction_done
        left = clock(rest / made * passed) if made else "?"
        steps = f"{state.step:{len(str(info.steps))}}/{info.steps}"
        # padded to the usual width, so that nothing jumps
        parts = [
            *self._fold,
            f"epoch {state.epoch + 1}{f'/{info.epochs}' if info.epochs else ''}",
            f"step {steps}",
            f"{state.images_per_second:5,.0f} images/s",
            f"{left:>5} left",
            f"loss {state.loss:.3f}",
            f"accuracy {state.accuracy:5.1%}",
        ]
        if self.validation:
            parts.append(self.validation)
        if state.flops:
            parts.append(f"{state.flops_per_second / 1e9:.0f} GFLOP/s")
        return parts

    def _done(self, state: TrainState) -> int:
        # not from state.images, which counts since the last row, perhaps over several epochs
        info = self.info
        return state.epoch * info.images + min(state.step * info.batch_size, info.images)


class LiveLine(Lines):
    """For a terminal: a status line below the table of epochs."""

    interval = 0.2

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self._live: Live | None = None

    decoding_interval = 0.2

    def _begin(self, info: TrainInfo, state: TrainState) -> None:
        """Show the status line."""
        self.close()  # that of a fold, or of decoding
        super()._begin(info, state)
        self._start()

    def _start(self) -> Live:
        # without rich's refresh thread, which would compete with the training
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._live.start()
        return self._live

    def on_decoding(self, progress: Progress) -> None:
        """Show the progress, until all pictures are decoded."""
        if progress.done == progress.total:
            self.close()
        else:
            super().on_decoding(progress)

    def show_decoding(self, progress: Progress) -> None:
        """Update the status line with a bar and how many pictures are decoded."""
        text = Text(str(progress), no_wrap=True)
        bar = ProgressBar(progress.total, progress.done, width=24)
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_row(*([bar, text] if self.console.width > len(text) + 30 else [text]))
        (self._live or self._start()).update(line, refresh=True)

    def show(self, state: TrainState) -> None:
        """Update the status line with as much as fits into the terminal's width."""
        assert self._live is not None
        parts = self.parts(state)
        parts = [part.removeprefix("step ") for part in parts]  # every column counts at width 80
        room = self.console.width - 1
        while len("  ".join(parts)) > room and len(parts) > 1:
            parts.pop()
        line = Table.grid(padding=(0, 2, 0, 0))
        cells: list[Text | ProgressBar] = [Text(part, no_wrap=True) for part in parts]
        bar = min(room - len("  ".join(parts)) - 2, 24)
        if bar >= 8:
            cells.insert(1, ProgressBar(self.info.steps, state.step, width=bar))
        line.add_row(*cells)
        self._live.update(line, refresh=True)

    def on_epoch_end(self, state: TrainState, row: Row | None) -> None:
        """Print the new row of the history above the status line."""
        super().on_epoch_end(state, row)
        if row is not None:
            self._next = 0.0  # the status line still shows the old epoch

    def close(self) -> None:
        """Remove the status line; the table stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None


class Notebook(Lines):
    """For a notebook: one output with the table of epochs and a status line."""

    interval = 0.5  # each update is a message to the browser
    decoding_interval = 0.5

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._output = NotebookOutput()

    def show(self, state: TrainState) -> None:
        """Update the status line."""
        self._update("  ".join(self.parts(state)))

    def show_decoding(self, progress: Progress) -> None:
        """Update the status line."""
        self._update(str(progress))

    def say(self, line: str) -> None:
        """Add a line that stays."""
        self._lines.append(line)
        self._update("")

    def close(self) -> None:
        """Remove the status line; the table stays."""
        self._update("")

    def _update(self, last: str) -> None:
        self._output.show("\n".join([*self._lines, last]).rstrip())


def automatic() -> Callback:
    """Return the progress output for a notebook, a terminal, or a file or pipe.

    Of several processes, only the first shows it.
    """
    if rank():
        return Callback()
    console = console_err()
    if console.is_jupyter:
        return Notebook()
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveLine(console)
    return Lines(console)


def clock(seconds: float) -> str:
    """Format a duration as a clock does.

    >>> clock(42), clock(3599.7), clock(7325)
    ('0:42', '1:00:00', '2:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
