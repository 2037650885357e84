"""The ceiling of a charge: nobody is charged more than was reserved of the budgets for the request. Pure."""

from __future__ import annotations

from typing import Final

from gateway.types.charge import Charge

_CLASSES: Final = Charge.__struct_fields__


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
