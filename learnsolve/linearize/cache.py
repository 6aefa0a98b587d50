"""A layer of Hugging Face's caches that holds a `LigerState`."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers.cache_utils import CacheLayerMixin

from learnsolve.linearize.state import LigerState


class LigerCacheLayer(CacheLayerMixin):
    """What one layer remembers: as much after a thousand tokens as after a million.

    Examples
    --------
    >>> from learnsolve.linearize.cache import LigerCacheLayer
    >>> LigerCacheLayer().get_seq_length()
    0
    """

    is_sliding = False
    is_compileable = False
    is_croppable = False
    supports_early_init = False

    def __init__(self) -> None:
        super().__init__()
        self.state = None

    @property
    def state(self) -> LigerState | None:
        """What is remembered, None at first."""
        return self._state

    @state.setter
    def state(self, state: LigerState | None) -> None:
        self._state = state
        # Where others look.
        self.is_initialized = state is not None
        self.keys, self.values = (None, None) if state is None else (state.keys, state.values)

    @property
    def numbers(self) -> int:
        """How many numbers are remembered."""
        return 0 if self.state is None else sum(one.numel() for one in _tensors(self.state))

    def lazy_initialization(self, *_: Any) -> None:
        """Nothing: the first call of attention does it."""

    def update(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Not to be called: what is remembered is more than keys and values.

        Raises
        ------
        TypeError
            Always.
        """
        raise TypeError("a cache that Liger attention has used takes no keys of other attention")

    def get_mask_sizes(self, query: Any) -> tuple[int, int]:
        """Of a mask for the new tokens alone; older versions give their places instead of their number."""
        return query if isinstance(query, int) else len(query), self.get_seq_length()

    def get_seq_length(self, *_: Any) -> int:
        """How many tokens there were."""
        return 0 if self.state is None else self.state.seen

    def get_max_length(self) -> int:
        """There is no bound."""
        return -1

    get_max_cache_shape = get_max_length

    def reset(self) -> None:
        """Forget."""
        self.state = None

    def crop(self, *_: Any) -> None:
        """Not possible: a recurrence does not go back.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError("a recurrence does not go back; generate without an assistant is accepted")

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beams in another order."""
        self._each(lambda one: one.index_select(0, beam_idx.to(one.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each sequence several times."""
        self._each(lambda one: one.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Some sequences."""
        self._each(lambda one: one[indices])

    def _each(self, change: Callable[[Tensor], Tensor]) -> None:
        if self.state is not None:
            keys, values, recurrent, seen = self.state
            after = tuple(change(one) for one in recurrent)
            self.state = LigerState(change(keys), change(values), after, seen)


def _tensors(state: LigerState) -> tuple[Tensor, ...]:
    return (state.keys, state.values, *state.recurrent)


def layer_of(cache: Any, number: int) -> LigerCacheLayer:
    """The layer of a cache, put in the place of an empty one of keys and values.

    Parameters
    ----------
    cache : transformers.Cache
        As ``generate`` or a model makes it.
    number : int

    Raises
    ------
    ValueError
        The cache is static, or holds what softmax attention has left there.

    Examples
    --------
    >>> from transformers import DynamicCache
    >>> from learnsolve.linearize.cache import layer_of
    >>> cache = DynamicCache()
    >>> layer_of(cache, 0) is layer_of(cache, 0)
    True
    """
    while len(cache.layers) <= number:
        cache.layers.append(LigerCacheLayer())
    found = cache.layers[number]
    if isinstance(found, LigerCacheLayer):
        return found
    if found.is_compileable or found.get_seq_length():
        raise ValueError(
            f"the cache has a {type(found).__name__} with {found.get_seq_length()} tokens; a new dynamic "
            "one, or one that Liger attention has used, is accepted"
        )
    cache.layers[number] = layer = LigerCacheLayer()
    return layer


def cache_numbers(cache: Any) -> int:
    """How many numbers a cache of Liger attention holds.

    Examples
    --------
    >>> from transformers import DynamicCache
    >>> from learnsolve.linearize.cache import cache_numbers
    >>> cache_numbers(DynamicCache())
    0
    """
    return sum(layer.numbers for layer in cache.layers if isinstance(layer, LigerCacheLayer))


def as_argument(model: nn.Module, cache: Any) -> dict[str, Any]:
    """A cache by the name that a model takes it by, which depends on the version of transformers.

    Examples
    --------
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from learnsolve.linearize.cache import as_argument
    >>> sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> found = as_argument(LlamaForCausalLM(LlamaConfig(vocab_size=5, **sizes)), "one")
    >>> found in ({"cache": "one"}, {"past_key_values": "one"})
    True
    """
    named = "cache" in inspect.signature(model.forward).parameters
    return {"cache" if named else "past_key_values": cache}
