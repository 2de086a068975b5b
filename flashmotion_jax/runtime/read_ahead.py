"""Items that a thread prepares while the caller uses the ones before."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

_END: Any = object()


def read_ahead(items: Iterable[T], count: int = 2) -> Iterator[T]:
    """Yields items in their order, and prepares the next ones in a thread.

    This pays off for work that releases Python's lock, as decoding of images and videos does.

    Args:
      items: Only that thread advances it, in the caller's context.
      count: Items that are prepared ahead.

    Yields:
      The items. An exception that preparing one raised is raised in its place.
    """
    iterator, context = iter(items), contextvars.copy_context()
    with ThreadPoolExecutor(1) as pool:
        coming = deque(pool.submit(context.run, next, iterator, _END) for _ in range(count))
        try:
            while (item := coming.popleft().result()) is not _END:
                coming.append(pool.submit(context.run, next, iterator, _END))
                yield item
        finally:
            for future in coming:
                future.cancel()
