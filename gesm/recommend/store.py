"""A trained recommender in a folder: settings, weights, and the interactions that it was trained on."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gesm.errors import GesmError
from gesm.recommend import _columns
from gesm.recommend.interactions import Interactions
from gesm.recommend.models import LightGCN, Popularity, scorer
from gesm.recommend.ranking import top_k
from gesm.recommend.settings import Settings
from gesm.training.checkpoint import load_tensors, save_tensors, write_atomic

__all__ = ["TrainedRecommender"]

SETTINGS, INTERACTIONS, MODEL = _FILES = ("settings.yaml", "interactions.npz", "model.safetensors")


@dataclass(eq=False)
class TrainedRecommender:
    """A model with its settings and the interactions of its training, which it needs as graph and to leave out what is known.

    Attributes:
        model: As :func:`gesm.recommend.fit` leaves it.
        settings: Those it was built and trained with.
        train: The interactions.
    """

    model: LightGCN | Popularity
    settings: Settings
    train: Interactions
    _scorer: tuple[Any, Any] | None = field(default=None, init=False, repr=False)

    def save(self, folder: str | Path, overwrite: bool = False) -> None:
        """Writes settings.yaml, interactions.npz and model.safetensors, the last one last.

        Raises:
            GesmError: If the folder holds a recommender and `overwrite` is not set, or cannot be written to.
        """
        folder = Path(folder)
        check_free(folder, overwrite)
        train = self.train
        arrays = {"user": train.user.numpy(), "item": train.item.numpy(), "user_ids": train.user_ids}
        arrays |= {"item_ids": train.item_ids, "name": np.array(str(train.name))}
        arrays |= {key: getattr(train, key).numpy() for key in ("time", "weight") if getattr(train, key) is not None}
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        written = content.getvalue()
        yaml = self.settings.to_yaml()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / MODEL).unlink(missing_ok=True)  # a kill in between leaves no mixture of two
            write_atomic(folder / SETTINGS, yaml)
            write_atomic(folder / INTERACTIONS, written)
            save_tensors(folder / MODEL, self.model.state_dict(), {"interactions": zlib.crc32(written)})
        except OSError as error:
            raise GesmError(f"cannot write to {folder}: {error.strerror}") from None

    @classmethod
    def load(cls, folder: str | Path) -> TrainedRecommender:
        """Reads what :meth:`save` wrote; nothing is unpickled.

        Raises:
            GesmError: If a file is missing, damaged, or of another recommender.
        """
        folder = Path(folder)
        for name in _FILES:
            if not (folder / name).is_file():
                raise GesmError(f"{folder} holds no recommender ({name} is missing); pass a folder that save has written")
        settings = Settings.load(folder / SETTINGS)
        content = (folder / INTERACTIONS).read_bytes()
        state, metadata = load_tensors(folder / MODEL)
        if metadata.get("interactions") != zlib.crc32(content):
            raise GesmError(
                f"{folder / INTERACTIONS} was altered, or is not what {MODEL} was trained on; restore it from a copy"
            )
        train = _read(content, folder / INTERACTIONS)
        model = settings.build_model(train.num_users, train.num_items)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise GesmError(f"{folder / MODEL} does not fit {SETTINGS}: {' '.join(str(error).split())}") from None
        return cls(model.eval(), settings, train)

    def _score(self):
        """The scorer, made anew where the model has changed since."""
        state = getattr(self.model, "inference", None), *(t._version for t in self.model.state_dict().values())
        if self._scorer is None or self._scorer[0] != state:
            self._scorer = state, scorer(self.model, None if isinstance(self.model, Popularity) else self.train.graph())
        return self._scorer[1]

    def numbers(self, user_ids: list | np.ndarray) -> Tensor:
        """The numbers of users from their original ids, -1 for those without a row in training; [B].

        Text is read as a number where the ids of the table are numbers.

        Raises:
            GesmError: For ids that are no whole numbers where those of the table are.
        """
        ids, wanted = self.train.user_ids, np.asarray(user_ids)
        try:
            if wanted.dtype.kind == "O":
                wanted = np.array(wanted.tolist())
            whole = wanted.dtype.kind != "f" or ((wanted == np.floor(wanted)) & (np.abs(wanted) < 2**53)).all()
            if ids.dtype.kind != "U" and not whole:
                raise ValueError("a cast would cut them")
            wanted = wanted.astype(np.int64 if ids.dtype.kind != "U" else str)
        except (ValueError, OverflowError, TypeError):
            raise GesmError(f"user ids are whole numbers, such as {ids[0]}, got {', '.join(map(str, user_ids))}") from None
        place = torch.from_numpy(_columns.position(ids, wanted).astype(np.int64))
        seen = torch.bincount(self.train.user, minlength=self.train.num_users) > 0
        return torch.where(seen[place], place, -1)

    def recommend(self, user_ids: list | np.ndarray, k: int = 10, cold: str = "error") -> np.ndarray:
        """The k best items for each user, known pairs left out and only items of the training ranked.

        Args:
            user_ids: Original ids, [B].
            k: Length of the lists.
            cold: What to do for users without a row in training: "error", or "popularity", the items most taken.

        Returns:
            Original ids of items as an object array [B, k], best first, None where nothing is left to recommend.

        Raises:
            GesmError: For users without a row in training if `cold` is "error", another word, or no user.
        """
        if cold not in ("error", "popularity"):
            raise GesmError(f"cold must be 'error' or 'popularity', got {cold!r}")
        if isinstance(user_ids, str) or not hasattr(user_ids, "__len__"):
            raise GesmError(f"user_ids must be a list or an array of ids, got {user_ids!r}; pass [{user_ids!r}]")
        if not len(user_ids):
            raise GesmError("there is no user to recommend to; pass at least one id")
        users = self.numbers(user_ids)
        unknown = users < 0
        if unknown.any() and cold == "error":
            missing = [str(user_ids[i]) for i in unknown.nonzero().flatten().tolist()]
            listed = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise GesmError(
                f"the model knows nothing of user {listed}, who has no interaction in training; train again with theirs, or "
                "ask for what is popular (cold='popularity', --cold popularity)"
            )
        count = torch.bincount(self.train.pairs().item, minlength=self.train.num_items)
        candidates = count > 0
        popular = top_k(lambda index: count.float().expand(len(index), -1), torch.zeros(1).long(), k, None, candidates)
        best = popular.repeat(len(users), 1)
        best[~unknown] = top_k(self._score(), users[~unknown], k, self.train.matrix(), candidates)
        ids = np.append(self.train.item_ids.astype(object), None)
        return ids[best.numpy()]


def check_free(folder: Path, overwrite: bool) -> None:
    """`folder` may be written to.

    Raises:
        GesmError: If it is a file, or holds a recommender and `overwrite` is not set.
    """
    if folder.exists() and not folder.is_dir():
        raise GesmError(f"{folder} is a file; pass a folder")
    if not overwrite and any((folder / name).exists() for name in _FILES):
        raise GesmError(f"{folder} already holds a recommender; pass another folder, or overwrite it (--overwrite)")


def _read(content: bytes, path: Path) -> Interactions:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            kept = dict(arrays)
        columns = {key: torch.from_numpy(kept[key]) if key in kept else None for key in ("user", "item", "time", "weight")}
        ids = kept["user_ids"], kept["item_ids"]
        return Interactions(
            **columns, num_users=len(ids[0]), num_items=len(ids[1]), user_ids=ids[0], item_ids=ids[1], name=str(kept["name"])
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise GesmError(f"{path} cannot be read as interactions without pickles: {error}") from None
