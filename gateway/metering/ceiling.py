"""The ceiling of a charge: nobody is charged more than was reserved of the budgets for the request."""

from __future__ import annotations

from typing import Final

from gateway.types.budgets import Paid
from gateway.types.charge import Charge

_CLASSES: Final = Charge.__struct_fields__


class Ceiling:
    """What one request may be charged, over all its attempts.

    Attributes:
        reserved: the most, nano-USD.
        paid: what the team was charged, by model.
        excess: nano-USD that the answer came to beyond ``reserved``; the owner's.
    """

    __slots__ = ("excess", "paid", "reserved")

    def __init__(self, reserved: int) -> None:
        self.reserved = reserved
        self.paid: Paid = ()
        self.excess = 0

    def bounded(self, model: str, paid: Charge, discount: Charge) -> tuple[Charge, Charge]:
        """Return a charge for ``model`` and its discount within what is left, and keep account of it."""
        whole = paid.total
        paid, discount = capped(paid, discount, self.reserved - sum(nano for _, nano in self.paid))
        self.excess += whole - paid.total
        self.paid = (*self.paid, (model, paid.total))
        return paid, discount


def capped(paid: Charge, discount: Charge, most: int) -> tuple[Charge, Charge]:
    """Return ``paid`` cut down to ``most`` nano-USD, and ``discount`` with what was cut added, class by class.

    Charge and discount go on adding up to the list price. Classes are cut from the last one on.
    """
    excess = paid.total - max(0, most)
    if excess <= 0:
        return paid, discount
    kept = {name: getattr(paid, name) for name in _CLASSES}
    cut = dict.fromkeys(_CLASSES, 0)
    for name in reversed(_CLASSES):
        cut[name] = min(excess, kept[name])
        kept[name] -= cut[name]
        excess -= cut[name]
    return Charge(**kept), Charge(*(getattr(discount, name) + cut[name] for name in _CLASSES))
