"""Predictions for very many pictures on a Ray cluster.

A shard is a task of its own, because it ends in a file of its own: Ray starts it again if its
worker is lost, and nothing has to be brought together, which is what Ray Data would be for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peewit.errors import PeewitError
from peewit.prediction.bulk import Counts, Shard, classify

if TYPE_CHECKING:
    from peewit.prediction.engines import Engine
    from peewit.runs.run import Run

# Of a task whose worker was lost
RETRIES = 5
# the run and its engine in a worker, by the path of its folder
_loaded: dict[str, tuple[Run, Engine]] = {}


def classify_on_ray(
    address: str,
    folder: Path,
    shards: Sequence[Shard],
    out: Path,
    *,
    features: bool,
    done: Callable[[Shard, Counts], None],
) -> None:
    """Classify the shards by the workers of a Ray cluster.

    Parameters
    ----------
    address : str
        Of the cluster: "auto", "local" for one on this machine, or "ray://host:port".
    folder : Path
        The run's folder, which all workers can read.
    shards : sequence of Shard
        Without those that are finished.
    out : Path
        The folder of the results, which all workers can write to.
    features : bool
        As for ``classify``.
    done : callable
        Called after each shard.

    Raises
    ------
    PeewitError
        Ray is not installed, the cluster cannot be reached, or a shard cannot be classified.
    """
    try:
        import ray
    except ImportError as error:
        raise PeewitError(
            "cannot use a Ray cluster", "Ray is not installed", "pip install 'peewit[ray]'"
        ) from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise PeewitError(f"cannot reach the Ray cluster {address}", why) from error
    try:
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(_classified)
        place, results = str(folder.absolute()), str(out.absolute())
        waiting: dict[Any, Shard] = {
            task.remote(place, shard, results, features): shard for shard in shards
        }
        while waiting:
            ready, _ = ray.wait(list(waiting))
            for one in ready:
                found = ray.get(one)
                if isinstance(found, PeewitError):
                    raise found
                done(waiting.pop(one), Counts(*found))
    except ray.exceptions.RayError as error:
        why = str(error).partition("\n")[0]
        raise PeewitError("the Ray cluster failed", why, "run the command again") from error
    finally:
        ray.shutdown()


def _classified(folder: str, shard: Shard, out: str, features: bool) -> Any:
    """Classify a shard in a worker; return the counts, or the reason of a failure."""
    from peewit.prediction.engines import fastest
    from peewit.runs.run import Run

    try:
        if folder not in _loaded:
            run = Run.open(folder)
            _loaded[folder] = run, fastest(run)
        return tuple(classify(*_loaded[folder], shard, Path(out), features=features))
    except PeewitError as error:
        return error
