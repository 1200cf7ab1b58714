"""How well embeddings tell stages apart before a network learns from labels: by nearest neighbours, and in a picture.

The figure is that of Lee et al., arXiv:2502.17481, section 4: an epoch gets the stage of most of its nearest neighbours
among the labelled epochs. The picture is a t-SNE map (van der Maaten & Hinton, JMLR 9, 2008). Neighbours on the map are
neighbours among the embeddings, but sizes of clusters and distances between clusters mean nothing.
"""

from typing import TYPE_CHECKING

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits

from evaluation.stages import Scores

if TYPE_CHECKING:
    from config import SynthSleepNetTraining

MOST_DRAWN = 2000
"""The most epochs in a picture: enough to see clusters, few enough to take about ten seconds."""

Embedded = tuple[np.ndarray, np.ndarray]
"""Embeddings (epochs, features) of scored epochs, and their stages int (epochs,), 0..4, or 0 and 1 for events."""


def told_by_neighbours(known: Embedded, asked: Embedded, training: "SynthSleepNetTraining") -> Scores:
    """Agreement of the ``asked`` epochs' labels with those of their nearest neighbours among the ``known`` ones.

    ``training`` has the number of neighbours, and of the principal components in which distances are measured.
    """
    embeddings, stages = known
    components = min(training.knn_components, *embeddings.shape)
    neighbours = KNeighborsClassifier(min(training.knn_neighbours, len(stages)))
    found = make_pipeline(PCA(components, random_state=0), neighbours).fit(embeddings, stages)
    return Scores.of(asked[1], found.predict(asked[0]))


def as_many_of_each(embedded: Embedded) -> Embedded:
    """The same number of epochs of each label, as many as the rarest label has; the same epochs in every run."""
    embeddings, labels = embedded
    rng = np.random.default_rng(0)
    classes, counts = np.unique(labels, return_counts=True)
    kept = np.concatenate([rng.permutation(np.flatnonzero(labels == one))[: counts.min()] for one in classes])
    return embeddings[kept], labels[kept]


def on_a_map(embedded: Embedded) -> Embedded:
    """The places float32 (epochs, 2) of at most :data:`MOST_DRAWN` evenly chosen epochs, and their stages."""
    embeddings, stages = (part[:: -(-len(part) // MOST_DRAWN)] for part in embedded)
    # With its default, initialisation by principal components, scikit-learn ends the whole process if all embeddings
    # are the same, as with an encoder that has collapsed.
    tsne = TSNE(perplexity=min(30.0, len(stages) / 4), init="random", random_state=0)
    # Its threads wait for each other busily: beside other processes, two threads on two cores take ten times as long.
    with threadpool_limits(1):
        return tsne.fit_transform(embeddings), stages
