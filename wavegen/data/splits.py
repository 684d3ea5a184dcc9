"""Which split an utterance belongs to: by its names, else by a hash of its id."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

from wavegen.config import PrepareConfig
from wavegen.errors import ConfigError, did_you_mean

REST = "train"


def hash_fraction(name: str) -> float:
    """A number in [0, 1) that depends on the id alone: adding files never moves another one."""
    digest = hashlib.sha256(name.encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53  # 53 bits fit a float exactly


def check_splits(config: PrepareConfig, groups: Collection[str]) -> None:
    """Refuse rules that can never be met.

    Args:
        config: with `splits` and `hash_splits`.
        groups: names a rule may ask for.

    Raises:
        ConfigError: an unknown group, or shares outside [0, 1] in total.
    """
    for split, rules in config.splits.items():
        for group in rules:
            if group not in groups:
                raise ConfigError(f'prepare.splits.{split}: the pattern has no group "{group}"; '
                                  f"{did_you_mean(group, sorted(groups))}")
    shares = config.hash_splits
    if any(not 0 <= share <= 1 for share in shares.values()) or sum(shares.values()) > 1 + 1e-9:
        raise ConfigError(f"prepare.hash_splits must be shares of 1, found {shares}")


def split_of(config: PrepareConfig, name: str, groups: Mapping[str, str | None]) -> str:
    """The first split whose rules all hold, else the split the hash of the id falls into, else `train`.

    Args:
        config: with `splits` and `hash_splits`.
        name: id of the utterance.
        groups: what its file name or manifest line says.
    """
    for split, rules in config.splits.items():
        if all(groups.get(group) in values for group, values in rules.items()):
            return split
    threshold, fraction = 0.0, hash_fraction(name)
    for split, share in config.hash_splits.items():
        threshold += share
        if fraction < threshold:
            return split
    return REST
