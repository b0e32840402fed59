"""The tables that GESM_HOME holds against the counts published with them; skipped where it holds none."""

import os
from pathlib import Path

import pytest
import torch

from gesm.recommend import item_names, load, registry, rolling_origins, targets

HOME = Path(os.environ.get("GESM_HOME", "/nonexistent"))

# q: users in the window, warm users, rankable users, share of rows with a warm user, with a warm item, with both.
DRIFT = {
    "online-retail-ii": {
        0.3: (2063, 1505, 1423, 0.782, 0.917, 0.714),
        0.4: (1963, 1504, 1408, 0.791, 0.976, 0.771),
        0.5: (1893, 1529, 1440, 0.873, 0.967, 0.844),
        0.6: (2002, 1648, 1543, 0.865, 0.900, 0.774),
        0.7: (1890, 1587, 1483, 0.871, 0.953, 0.829),
        0.8: (1976, 1594, 1499, 0.836, 0.948, 0.791),
        0.9: (1861, 1660, 1529, 0.909, 0.991, 0.900),
    },
    "movietweetings": {
        0.3: (5043, 3068, 2690, 0.744, 0.783, 0.589),
        0.4: (4893, 3207, 3024, 0.785, 0.859, 0.677),
        0.5: (4706, 3203, 2945, 0.788, 0.853, 0.671),
        0.6: (5165, 3386, 3229, 0.762, 0.900, 0.686),
        0.7: (5446, 3228, 3063, 0.686, 0.903, 0.619),
        0.8: (5063, 3671, 3580, 0.812, 0.928, 0.753),
        0.9: (4741, 3648, 3488, 0.847, 0.907, 0.769),
    },
    "ciao": {
        0.3: (1819, 785, 673, 0.360, 0.594, 0.211),
        0.4: (1942, 1003, 857, 0.425, 0.529, 0.218),
        0.5: (2055, 1091, 893, 0.428, 0.528, 0.224),
        0.6: (2008, 1112, 876, 0.447, 0.433, 0.180),
        0.7: (1676, 1119, 873, 0.527, 0.452, 0.217),
        0.8: (1148, 839, 674, 0.618, 0.446, 0.254),
        0.9: (874, 676, 517, 0.702, 0.364, 0.237),
    },
    "ml-100k": {
        0.3: (133, 48, 48, 0.119, 0.997, 0.119),
        0.4: (145, 73, 72, 0.213, 0.990, 0.209),
        0.5: (180, 81, 79, 0.163, 0.983, 0.156),
        0.6: (179, 95, 95, 0.187, 0.991, 0.186),
        0.7: (162, 85, 84, 0.174, 0.989, 0.170),
        0.8: (197, 81, 80, 0.153, 0.995, 0.152),
        0.9: (166, 90, 87, 0.289, 0.987, 0.280),
    },
}


def table(name, **options):
    spec = registry()[name]
    if not (HOME / spec.folder / spec.file).is_file():
        pytest.skip(f"GESM_HOME has no {spec.folder}/{spec.file}")
    return load(name, root=HOME, **options)


@pytest.mark.parametrize("name", DRIFT)
def test_windows_have_the_published_counts(name):
    windows = rolling_origins(table(name))
    assert [w.q for w in windows] == list(DRIFT[name])
    for window, expected in zip(windows, DRIFT[name].values(), strict=True):
        found = targets(window)
        assert (found.window_users, found.warm_users, len(found.users)) == expected[:3]
        assert (found.warm_user_share, found.warm_item_share, found.warm_share) == pytest.approx(expected[3:], abs=6e-4)
        repeat = targets(window, "repeat")
        assert len(targets(window, "all").user) == len(found.user) + len(repeat.user)


def test_core_of_ciao():
    data = table("ciao", min_count=5)
    assert (len(data), data.num_users, data.num_items) == (143217, 5868, 10724)


def test_products_of_online_retail():
    data = table("online-retail-ii", products_only=True)
    assert (len(data), data.num_items) == (791044 - 2838, 4621)


def test_ratings_of_movielens():
    assert torch.bincount(table("ml-100k").weight.long()).tolist() == [0, 6110, 11370, 27145, 34174, 21201]


@pytest.mark.parametrize(("name", "title"), [("ml-100k", "Toy Story"), ("movietweetings", "The Adventures of Dollie (1908)")])
def test_titles(name, title):
    data, names = table(name), item_names(name, root=HOME)
    assert names[data.item_ids[0]] == title
    assert len(names) == data.num_items
