"""Several devices, or processes on several machines, that train one network together, each on its part of every batch.

TensorFlow's own strategies do it; batch normalisation and contrast see the whole batch, so that the losses are those of
one device with the same batch.
"""

import json
import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import keras
import tensorflow as tf

from data.terms import InputError


class Replicas:
    """The devices of a TensorFlow strategy, and what their parts of the work have in common.

    Args:
        strategy: under whose scope network and optimizer are made.

    Attributes:
        count: number of devices, of all processes.
        chief: whether this process writes the results.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self.strategy = strategy
        self.count = strategy.num_replicas_in_sync
        resolver = strategy.cluster_resolver
        kind, number = (resolver.task_type, resolver.task_id) if resolver else (None, None)
        jobs = resolver.cluster_spec().jobs if resolver else []
        self.chief = not kind or kind == "chief" or (kind == "worker" and number == 0 and "chief" not in jobs)

    def share(self, batch: Any) -> Any:
        """Each device's part of a nest of tensors, whose first axis is the batch; their order is kept."""

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
        """``function`` of each device's part, on that device; its results must be the same everywhere."""
        found = self.strategy.run(function, args=shared)
        return tf.nest.map_structure(lambda value: self.strategy.experimental_local_results(value)[0], found)

    def mean(self, values: Any) -> Any:
        """The mean over all devices of a nest of tensors; for use within :meth:`run`."""
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
        # Keras has no public way to visit the layers within layers.
        for layer in network._flatten_layers():
            if hasattr(layer, "synchronized"):
                layer.synchronized = self.count > 1

    def wait(self) -> None:
        """Return once all processes have come here."""
        if self.count > 1:
            self.run(tf.function(lambda: self.mean(tf.zeros(()))))


@lru_cache
def replicas(strategy: str | None) -> Replicas:
    """The devices that ``strategy``, one of ``config.STRATEGIES``, takes: all of this machine, or of the machines that
    ``TF_CONFIG`` names; this process's one device if it is None.

    Raises:
        InputError: ``TF_CONFIG`` does not say which machines.
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
            f"--strategy multiworker needs the environment variable TF_CONFIG, such as {example}, with the number of "
            "each machine's own process as index."
        ) from None
    return Replicas(tf.distribute.MultiWorkerMirroredStrategy())
