import numpy as np
import torch
from torch import Tensor

from gesm.errors import GesmError

Masks = dict[str, Tensor]
DRAWS = 1000  # of few labels, until one holds every class


def _order(n: int, seed: int) -> np.ndarray:
    # the bit stream of PCG64 is fixed for ever, that of Generator.permutation and torch.randperm is not
    return np.random.PCG64(seed).random_raw(n).argsort(kind="stable")


def _masks(n: int, train: np.ndarray, val: np.ndarray) -> Masks:
    masks = {name: torch.zeros(n, dtype=torch.bool) for name in ("train_mask", "val_mask")}
    masks["train_mask"][torch.from_numpy(train)] = True
    masks["val_mask"][torch.from_numpy(val)] = True
    return masks | {"test_mask": ~(masks["train_mask"] | masks["val_mask"])}


def per_class(y: Tensor, seed: int, num_train: int = 20, num_val: int = 30) -> Masks:
    """20 training and 30 validation nodes of every class, the rest is test (Shchur et al. 2018).

    Args:
        y: Classes, [N].
        seed: Number of the split; the same seed gives the same split on every machine.
        num_train: Training nodes a class.
        num_val: Validation nodes a class.
    """
    count = int(y.bincount().min())
    if count <= num_train + num_val:
        raise GesmError(
            f"a class has {count} nodes; this split needs more than {num_train} + {num_val}. Use protocol '60/20/20'."
        )
    order = _order(len(y), seed)
    rows = [order[y.numpy()[order] == c] for c in range(int(y.max()) + 1)]
    train = np.concatenate([row[:num_train] for row in rows])
    val = np.concatenate([row[num_train : num_train + num_val] for row in rows])
    return _masks(len(y), train, val)


def sixty_twenty_twenty(y: Tensor, seed: int) -> Masks:
    """60 % training, 20 % validation, the rest test, at random over all nodes.

    Args:
        y: Labels, [N] or [N, C].
        seed: Number of the split; the same seed gives the same split on every machine.
    """
    order = _order(len(y), seed)
    first, second = len(y) * 6 // 10, len(y) * 8 // 10
    return _masks(len(y), order[:first], order[first:second])


def few_labels(y: Tensor, public: Masks, known: Tensor, rate: float, seed: int) -> Masks:
    """A random training set of `rate` of all nodes, beside the validation and test sets of the public split.

    As in Li et al. 2018 ("Deeper Insights into Graph Convolutional Networks for Semi-Supervised Learning") the nodes are drawn
    uniformly, so classes are not balanced; draws that miss a class are drawn again, which the paper does not say.

    Args:
        y: Classes, [N].
        public: The public split.
        known: Nodes with a label of their own, boolean [N].
        rate: Share of the N nodes that is labelled for training.
        seed: Number of the split; the same seed gives the same split on every machine.
    """
    free, count = known & ~(public["val_mask"] | public["test_mask"]), max(round(rate * len(y)), int(y.max()) + 1)
    for attempt in range(DRAWS):
        order = _order(len(y), seed + attempt * 2**32)
        chosen = torch.from_numpy(order[free.numpy()[order]][:count])
        if y[chosen].unique().numel() == int(y.max()) + 1:
            return {"train_mask": torch.zeros(len(y), dtype=torch.bool).index_fill_(0, chosen, True)}
    raise GesmError(f"{DRAWS} draws of {count} nodes all missed a class; use protocol 'public'")


SPLITS = {"shchur": per_class, "60/20/20": sixty_twenty_twenty}
