"""The tariff: dated, immutable versions of what is charged and what it costs.

A *version* says what holds from a moment on: the price of a model or of one endpoint (``sell``), what a backend costs
by token (``cost``) or by hour (``hour``), or the terms of a team (``terms``: discount and markup in basis points). A
version is never changed and never deleted; another one with a later moment takes its place. The keeper keeps them
(``office``), every worker holds those that are valid now or will be (``follow``) and puts them into its fleet, so a
request is priced by what was valid when it was opened, at no cost of its own.

**List, discount, effective.** A ledger row holds what the team is charged, by class (``charge_*``, the effective
price), and what that is below the list price, by class (``discount_*``; NULL stands for 0; negative where a markup is
larger than the discount). The list price is charge and discount together, exactly, class by class, row by row; so
sums of both are exact too: ``SUM(charge_nano) + COALESCE(SUM(discount_nano), 0)`` is the list price of any set of rows.
``usage_hour`` and ``usage_day`` hold ``charge_nano`` and ``discount_nano`` (0, not NULL). Each amount of a class is
rounded once, from the exact product of tokens, rate and terms (``gateway.pricing.charge.payable``); the list amount is
rounded once on its own, and the discount is their difference. The service tier is the label ``tier``; which
long-context tier counted follows from the row's ``tokens_prompt``. ``label_set.price_id`` names the rates with the
team's terms in the table ``price``.

Corrections of what the owner pays (an invoice of a provider that differs) are ledger rows of kind ``correction`` with
``cost_*`` only, no tokens, and a team that no team can be called (``gateway.metering.record.OWNER``): they
change no team's bill.
"""
