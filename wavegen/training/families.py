"""The training module of each family."""

from __future__ import annotations

from wavegen.config import Recipe, Vocabulary
from wavegen.training.adversarial import AdversarialModule
from wavegen.training.module import TrainingModule
from wavegen.training.sequence import SequenceModule
from wavegen.training.variational import VariationalModule

KINDS: dict[str, type[TrainingModule]] = {
    "wavenet": SequenceModule, "rnn": SequenceModule, "vae": VariationalModule, "wgan": AdversarialModule}


def build_module(recipe: Recipe, vocabulary: Vocabulary, store_digest: str) -> TrainingModule:
    """The training module of a recipe's family."""
    return KINDS[recipe.model.family](recipe, vocabulary, store_digest)
