"""Train one network on several devices, or in processes on several machines, each with its part of every batch.

TensorFlow's own strategies are used. Batch normalisation and contrast see the whole batch, so the losses are the same
as on one device with the same batch.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import keras
import tensorflow as tf

from data.terms import InputError


class Replicas:
    """The devices of a TensorFlow strategy, which share each batch.

    Args:
        strategy: the strategy; network and optimizer must be made in :meth:`scope`.

    Attributes:
        count: the number of devices in all processes.
        chief: whether this process writes the results.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self.strategy = strategy
        self.count = strategy.num_replicas_in_sync
        resolver = strategy.cluster_resolver
        kind, number = (resolver.task_type, resolver.task_id) if resolver else (None, None)
        jobs = resolver.cluster_spec().jobs if resolver else []
        self._meet = tf.function(lambda: self.run(lambda: self.mean(tf.zeros(()))), autograph=False)
        self.chief = not kind or kind == "chief" or (kind == "worker" and number == 0 and "chief" not in jobs)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """The strategy's scope, in which networks are made and trained.

        Raises:
            InputError: a process on another machine ended, or could not be reached.
        """
        try:
            with self.strategy.scope():
                yield
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
            if not self.strategy.cluster_resolver:
                raise
            raise InputError(
                "a process of this training on another machine has ended or cannot be reached: see what it printed, "
                "and run the same command again on each machine to continue."
            ) from error

    def share(self, batch: Any) -> Any:
        """Each device's part of nested tensors, whose first axis is the batch; the order is kept."""

        def part(context: tf.distribute.experimental.ValueContext) -> Any:
            def cut(values: Any) -> Any:
                size = len(values) // self.count
                first = context.replica_id_in_sync_group * size
                return tf.convert_to_tensor(values[first : first + size])

            return tf.nest.map_structure(cut, batch)

        if self.count == 1:
            return batch
        return self.strategy.experimental_distribute_values_from_function(part)

    def run(self, function: Callable[..., Any], *shared: Any) -> Any:
        """Call ``function`` with each device's part on that device; its result must be the same on all devices."""
        found = self.strategy.run(function, args=shared)
        return tf.nest.map_structure(lambda value: self.strategy.experimental_local_results(value)[0], found)

    def mean(self, values: Any) -> Any:
        """The mean of nested tensors over all devices; for use within :meth:`run`."""
        if self.count == 1:
            return values
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, values)

    def gather(self, values: Any) -> Any:
        """The parts of all devices, one after another along the first axis; for use within :meth:`run`."""
        if self.count == 1:
            return values
        gathered = tf.distribute.get_replica_context().all_gather(values, axis=0)
        return tf.ensure_shape(gathered, (self.count * values.shape[0], *values.shape[1:]))

    def unite(self, network: keras.Model) -> None:
        """Let batch normalisation and contrast of ``network`` see the whole batch."""
        network.gather = self.gather
        # Keras has no public way to visit layers inside layers.
        for layer in network._flatten_layers():
            if hasattr(layer, "synchronized"):
                layer.synchronized = self.count > 1

    def wait(self) -> None:
        """Return when all processes have reached this point."""
        if self.count > 1:
            with self.scope():
                self._meet()


@lru_cache
def replicas(strategy: str | None) -> Replicas:
    """The devices that ``strategy`` uses, one of ``synth.terms.STRATEGIES``: all of this machine, or of the machines
    that ``TF_CONFIG`` names; with None, this process's one device.

    Raises:
        InputError: ``TF_CONFIG`` does not name the machines.
    """
    if strategy is None:
        return Replicas(tf.distribute.get_strategy())
    if strategy == "mirrored":
        return Replicas(tf.distribute.MirroredStrategy())
    told = os.environ.get("TF_CONFIG", "")
    try:
        cluster, task = (json.loads(told)[name] for name in ("cluster", "task"))
        if not isinstance(cluster[task["type"]][task["index"]], str):
            raise TypeError
    except (ValueError, KeyError, TypeError, IndexError):
        example = '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", "index": 0}}'
        raise InputError(
            "--strategy multiworker needs the environment variable TF_CONFIG: set it on each machine to a value such "
            f"as {example}, with the number of that machine's own process as index."
        ) from None
    return Replicas(tf.distribute.MultiWorkerMirroredStrategy())
