"""The layer table: what it holds, and how it reads."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from peewit.models.explain import Shape, times

FLOAT = 4  # bytes of a float32
WIDTH = 88  # of the explanations, in characters
# what training keeps for each trained value besides itself: how many numbers, and which
KEPT = {
    "adam": (3, "three", "its gradient and Adam's two averages"),
    "muon": (2, "two", "its gradient and Muon's sum of gradients"),
}


@dataclass(frozen=True)
class LayerRow:
    """One layer.

    Parameters
    ----------
    name, kind : str
        As Keras calls it and its class.
    output_shape : tuple of int
        For one image, in Keras's order: (height, width, channels), or (features,).
    parameters, trainable : int
        All of its values, moving statistics included, and those that are trained. A layer that
        is used again has them in the first row only.
    multiply_adds : int
        To take one image through when predicting.
    activation_bytes : int
        What its output takes for one image; 0 where it is only another view of the input.
    explanation : tuple of str
        Where the numbers come from.
    """

    name: str
    kind: str
    output_shape: Shape
    parameters: int
    trainable: int
    multiply_adds: int
    activation_bytes: int
    explanation: tuple[str, ...]

    @property
    def non_trainable(self) -> int:
        """Values that are not trained: moving statistics and what was frozen."""
        return self.parameters - self.trainable


@dataclass(frozen=True)
class Summary:
    """The rows of a network and their totals.

    Parameters
    ----------
    input_shape : tuple of int
        Height, width and channels.
    rows : tuple of LayerRow
        In the order in which the layers work.
    normalised : tuple of int
        The channels of each batch normalisation that keeps moving statistics.
    optimizer : str
        What it is trained with: a key of ``KEPT``.
    """

    input_shape: Shape
    rows: tuple[LayerRow, ...]
    normalised: tuple[int, ...]
    optimizer: str = "adam"

    @property
    def parameters(self) -> int:
        """All values, moving statistics included."""
        return sum(row.parameters for row in self.rows)

    @property
    def trainable(self) -> int:
        """Values that are trained."""
        return sum(row.trainable for row in self.rows)

    @property
    def non_trainable(self) -> int:
        """Values that are not trained."""
        return self.parameters - self.trainable

    @property
    def multiply_adds(self) -> int:
        """To predict one image."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def weight_bytes(self) -> int:
        """What all values take in memory."""
        return FLOAT * self.parameters

    @property
    def optimizer_bytes(self) -> int:
        """What training keeps beside them: a gradient and the optimiser's averages or sums."""
        return KEPT[self.optimizer][0] * FLOAT * self.trainable

    @property
    def activation_bytes(self) -> int:
        """What the layers' outputs take for one image, all kept for the way back."""
        return sum(row.activation_bytes for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return everything with names, ready for JSON."""
        rows = [asdict(row) | {"non_trainable": row.non_trainable} for row in self.rows]
        names = (
            "parameters",
            "trainable",
            "non_trainable",
            "multiply_adds",
            "weight_bytes",
            "optimizer_bytes",
            "activation_bytes",
        )
        totals = {name: getattr(self, name) for name in names}
        return {"input_shape": list(self.input_shape), "layers": rows} | totals

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the table in a notebook: IPython asks for this."""
        printer.text(self.table())

    def table(self) -> str:
        """Return the table as text: a line a layer, then the totals."""
        head = ("Layer", "Output shape", "Parameters", "Multiply-adds", "Output memory")
        lines = [
            (
                f"{row.name} ({row.kind})",
                times(row.output_shape),
                f"{row.parameters:,}",
                f"{row.multiply_adds:,}",
                size(row.activation_bytes),
            )
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
        rule = "-" * (sum(widths) + 3 * (len(widths) - 1))

        def line(cells: tuple[str, ...]) -> str:
            first, *others = zip(cells, widths, strict=True)
            return "   ".join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in others)])

        return "\n".join([line(head), rule, *map(line, lines), rule, *self._totals()])

    def explain(self) -> str:
        """Return the table, and for each layer where its numbers come from."""
        parts = [self.table(), ""]
        shape = self.input_shape
        for row in self.rows:
            way = f": {times(shape)} -> {times(row.output_shape)}" if row.output_shape else ""
            parts.append(f"{row.name} ({row.kind}){way}")
            memory = (
                f"Memory: {times(row.output_shape)} numbers of {FLOAT} bytes "
                f"= {size(row.activation_bytes)} an image."
                if row.activation_bytes
                else "Memory: none for its output, which is another view of its input."
            )
            parts.extend(_wrap(sentence) for sentence in (*row.explanation, memory))
            parts.append("")
            shape = row.output_shape or shape
        parts.append("Totals")
        parts.extend(_wrap(sentence) for sentence in self._reasons())
        return "\n".join(parts)

    def _totals(self) -> list[str]:
        return [
            f"Parameters     {self.parameters:,}",
            f"  trained      {self.trainable:,}",
            f"  not trained  {self.non_trainable:,}",
            f"Multiply-adds  {self.multiply_adds:,} to predict one {times(self.input_shape)} image",
            f"Memory         {size(self.weight_bytes)} for the weights; training adds "
            f"{size(self.optimizer_bytes)} and {size(self.activation_bytes)} an image of the batch",
        ]

    def _reasons(self) -> list[str]:
        counts = [row.parameters for row in self.rows if row.parameters]
        sentences = [f"Parameters: {' + '.join(f'{n:,}' for n in counts)} = {self.parameters:,}."]
        measured = 2 * sum(self.normalised)
        if measured:
            channels = " + ".join(f"{count:,}" for count in self.normalised)
            sentences.append(
                f"Not trained: 2 x ({channels}) = {measured:,}: the moving mean and the moving "
                "variance of each channel of each batch normalisation. They are measured on the "
                "batches, no gradient changes them, and they are used in prediction."
            )
        if self.non_trainable > measured:
            frozen = self.non_trainable - measured
            sentences.append(f"Not trained: {frozen:,} more, which were frozen on purpose.")
        sentences.append(
            f"Trained: {self.parameters:,} - {self.non_trainable:,} = {self.trainable:,}."
        )
        work, (_, number, which) = self.multiply_adds, KEPT[self.optimizer]
        sentences.append(
            f"Multiply-adds: {work:,} to predict one image. Training takes about three times as "
            f"many, {3 * work:,}: on the way back each layer works out the gradient of its "
            "weights and that of its input, each as much work as the way forward."
        )
        sentences.append(
            f"Memory: the weights are {self.parameters:,} numbers of {FLOAT} bytes, "
            f"{size(self.weight_bytes)}. Training keeps {number} more for each trained one, "
            f"{which}, {size(self.optimizer_bytes)}; and, for the way back, the layers' outputs, "
            f"up to {size(self.activation_bytes)} for each image of the batch "
            f"({size(32 * self.activation_bytes)} for 32)."
        )
        return sentences


def size(count: int) -> str:
    """Return a number of bytes for people, in powers of 1,000.

    >>> size(0), size(40), size(230_400), size(1_902_072)
    ('0 B', '40 B', '230.4 kB', '1.9 MB')
    """
    value, units = float(count), ["B", "kB", "MB", "GB"]
    while value >= 999.95 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{count} B" if units[0] == "B" else f"{value:,.1f} {units[0]}"


def _wrap(sentence: str) -> str:
    return textwrap.fill(sentence, WIDTH, initial_indent="  ", subsequent_indent="    ")
