"""Independent seeds by number, in plain Python.

What EMS generates fits the numbers of every language: seeds have 31 bits, which R's `set.seed`, `int` of C and Java and
all doubles hold. No two seeds of a root are the same: with `a, b = numpy.random.SeedSequence(root).generate_state(2)`,
seed i is `mixed(mixed(i ^ a) ^ b)`, modulo 2^31. Give it to a generator as it is: `numpy.random.default_rng(seed)`.

Grids that were recorded without the number of bits keep seeds of 63:
`numpy.random.SeedSequence(root, spawn_key=(i,)).generate_state(1, "uint64")[0] >> 1`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, repeat

# The algorithm is M. E. O'Neill's seed_seq_fe with a pool of four words; the names are those of numpy's source.
_INIT_A, _MULT_A, _INIT_B, _MULT_B = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED
_MIX_MULT_L, _MIX_MULT_R = 0xCA01F9DD, 0x4973F715
_WORD, _POOL = 0xFFFFFFFF, 4
_A = tuple(accumulate(repeat(_MULT_A, 18), lambda last, factor: last * factor & _WORD, initial=_INIT_A))
_B = tuple(accumulate(repeat(_MULT_B, 2), lambda last, factor: last * factor & _WORD, initial=_INIT_B))
BITS, WIDE_BITS = 31, 63
_MASK = 2**BITS - 1
_FACTORS = (0x7FEB352D, 0x846CA68B)  # odd, hence with inverses; C. Wellons' "lowbias32"
_INVERSES = tuple(pow(factor, -1, 2**BITS) for factor in reversed(_FACTORS))


@lru_cache(maxsize=2**14)  # an inner axis of seeds is gone through again and again
def seed(root: int, number: int) -> int:
    """Seed `number` (0 to 2**31 - 1) of `root` (0 to 2**128 - 1): a whole number from 0 to 2**31 - 1."""
    first, second = _keys(root)
    return mixed(mixed(number ^ first) ^ second)


def number_of(root: int, seed: int) -> int:
    """Which seed of `root` a number from 0 to 2**31 - 1 is."""
    first, second = _keys(root)
    return mixed(mixed(seed, _INVERSES) ^ second, _INVERSES) ^ first


def mixed(number: int, factors: Sequence[int] = _FACTORS) -> int:
    """A permutation of the numbers of 31 bits without a pattern; with the inverse factors the way back."""
    number &= _MASK
    for factor in factors:
        number = (number ^ number >> 16) * factor & _MASK
    return number ^ number >> 16


@lru_cache(maxsize=2**14)
def wide_seed(root: int, number: int) -> int:
    """Seed `number` (0 to 2**32 - 1) of `root` (0 to 2**128 - 1) of 63 bits."""
    first, second = _pool(root)[:2]
    low = _hashed(_mixed(first, _hashed(number, _A, 16)), _B, 0)
    high = _hashed(_mixed(second, _hashed(number, _A, 17)), _B, 1)
    return (high << 32 | low) >> 1


@lru_cache(maxsize=16)
def _keys(root: int) -> tuple[int, int]:
    first, second = _pool(root)[:2]
    return _hashed(first, _B, 0) & _MASK, _hashed(second, _B, 1) & _MASK


@lru_cache(maxsize=16)
def _pool(root: int) -> tuple[int, ...]:
    """The pool after all that does not depend on the seed's number."""
    pool = [_hashed(root >> 32 * place & _WORD, _A, place) for place in range(_POOL)]
    step = _POOL
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                pool[target] = _mixed(pool[target], _hashed(pool[source], _A, step))
                step += 1
    return tuple(pool)


def _hashed(value: int, constants: tuple[int, ...], step: int) -> int:
    product = (value ^ constants[step]) * constants[step + 1] & _WORD
    return product ^ product >> 16


def _mixed(x: int, y: int) -> int:
    result = (_MIX_MULT_L * x - _MIX_MULT_R * y) & _WORD
    return result ^ result >> 16
