import pytest

from gesm.training import Recipe


@pytest.fixture
def recipe():
    return Recipe(hidden_channels=4, heads=2, K=2, dropout=0.2, attention_dropout=0.2, epochs=6, structure_weight=0.5)
