"""Means and row numbers over all replicas of a step, so that their number changes nothing."""

import tensorflow as tf


def several():
    """Whether this code runs on more than one replica."""
    return tf.distribute.get_strategy().num_replicas_in_sync > 1


def total(values):
    """The sums of tensors over the replicas; differentiable."""
    if not several():
        return values
    context = tf.distribute.get_replica_context()
    return tf.nest.map_structure(lambda v: context.all_reduce("SUM", v), values)


def gathered(rows):
    """The rows of all replicas, as the global batch has them."""
    if not several():
        return rows
    return tf.distribute.get_replica_context().all_gather(rows, axis=0)


def global_rows(count):
    """`(rows in the global batch, rows of the replicas before this one)`, both int32."""
    count = tf.cast(count, tf.int32)
    if not several():
        return count, tf.zeros((), tf.int32)
    context = tf.distribute.get_replica_context()
    replica = tf.cast(context.replica_id_in_sync_group, tf.int32)
    counts = total(count * tf.one_hot(replica, context.num_replicas_in_sync, dtype=tf.int32))
    return tf.reduce_sum(counts), tf.reduce_sum(counts[:replica])


def share(rows):
    """This replica's part of the rows of a global batch, as even as it gets."""
    context = tf.distribute.get_replica_context()
    size = -(-tf.shape(rows)[0] // context.num_replicas_in_sync)
    replica = tf.cast(context.replica_id_in_sync_group, tf.int32)
    return rows[replica * size : (replica + 1) * size]


def batch_means(terms, rows):
    """Means over the global batch of `rows` images of terms `(batch, ...)`, in float32."""
    sums = {name: tf.reduce_sum(tf.cast(term, tf.float32), 0) for name, term in terms.items()}
    return {name: value / tf.cast(rows, tf.float32) for name, value in total(sums).items()}
