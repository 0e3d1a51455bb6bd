"""What a network holds while it runs, counted module by module: the same in every run.

The memory of the whole process was rejected as a measure, because it depends on what else runs and what malloc keeps.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

# Convolutions copy input and output to an order of their own, and hold some of both. With 2, the count was 0.8 to 1.5
# times what the process grew by (U-Net, DynUNet, SegResNet at 48^3 to 96^3 voxels and FlexibleUNet at 256^2, one thread
# of a Xeon); 3 so that it is seldom too low.
_COPIES = 3


class _Alive:
    """The most bytes of tensors that went into modules or came out of them and are alive at once."""

    def __init__(self) -> None:
        self.most_bytes = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def before(self, module: torch.nn.Module, args: Any) -> None:
        """A hook: count what goes in."""
        self._see(module, args)

    def after(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        """A hook: count what comes out, and what the module held in between."""
        moved = self._see(module, (*args, output))
        is_convolution = isinstance(module, torch.nn.modules.conv._ConvNd)
        held = sum(size for reference, size in self._alive.values() if not reference.expired())
        self.most_bytes = max(self.most_bytes, held + (_COPIES * moved if is_convolution else 0))

    def _see(self, _module: torch.nn.Module, values: Any) -> int:
        total = 0
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        for each in values if isinstance(values, tuple | list) else (values,):
            if isinstance(each, torch.Tensor):
                storage = each.untyped_storage()
                self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
                total += storage.nbytes()
        return total


@contextmanager
def counting(network: torch.nn.Module) -> Iterator[Callable[[], int]]:
    """Count what a network holds beside its weights while it runs within the block; gives the most bytes so far."""
    alive = _Alive()
    leaves = [module for module in network.modules() if not any(True for _ in module.children())]
    hooks = [module.register_forward_pre_hook(alive.before) for module in leaves]
    hooks += [module.register_forward_hook(alive.after) for module in leaves]
    try:
        yield lambda: alive.most_bytes
    finally:
        for hook in hooks:
            hook.remove()
