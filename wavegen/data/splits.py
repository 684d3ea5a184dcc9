"""Which split an utterance belongs to: by its names, else by a hash of its id or of another of its names."""

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


def speech_commands_fraction(name: str) -> float:
    """A number in [0, 1] by the rule the Speech Commands corpus is split with.

    Args:
        name: speaker id, the part of a file's name before `_nohash_`.

    Reference: `which_set` in the corpus's README (Warden, arXiv:1804.03209, section 7).
    """
    return int(hashlib.sha1(name.encode()).hexdigest(), 16) % 2**27 / (2**27 - 1)


HASHES = {"sha256": hash_fraction, "speech_commands": speech_commands_fraction}


def check_splits(config: PrepareConfig, groups: Collection[str]) -> None:
    """Refuse rules that can never be met.

    Args:
        config: with `splits`, `hash_splits` and `hash_group`.
        groups: names a rule may ask for.

    Raises:
        ConfigError: an unknown group, or shares outside [0, 1] in total.
    """
    for split, rules in config.splits.items():
        for group in rules:
            if group not in groups:
                raise ConfigError(f'prepare.splits.{split}: the pattern has no group "{group}"; '
                                  f"{did_you_mean(group, sorted(groups))}")
    if config.hash_group not in {*groups, "id"}:
        raise ConfigError(f'prepare.hash_group: the pattern has no group "{config.hash_group}"; '
                          f"{did_you_mean(config.hash_group, sorted(groups))}")
    shares = config.hash_splits
    if any(not 0 <= share <= 1 for share in shares.values()) or sum(shares.values()) > 1 + 1e-9:
        raise ConfigError(f"prepare.hash_splits must be shares of 1, found {shares}")


def split_of(config: PrepareConfig, name: str, groups: Mapping[str, str | None]) -> str:
    """The first split whose rules all hold, else the split a hash falls into, else `train`.

    Args:
        config: with `splits`, `hash_splits` and what is hashed.
        name: id of the utterance.
        groups: what its file name or manifest line says.
    """
    for split, rules in config.splits.items():
        if all(groups.get(group) in values for group, values in rules.items()):
            return split
    threshold, fraction = 0.0, HASHES[config.hash_function](groups.get(config.hash_group) or name)
    for split, share in config.hash_splits.items():
        threshold += share
        if fraction < threshold:
            return split
    return REST
