"""What the vendor charges for calls, and the budget that stops polling before it stops trading."""

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal

from jvq_fast.errors import BudgetError
from jvq_fast.trade.model import amount

# PROTOCOL: CNY a call.
FEES: Mapping[str, Decimal] = {
    "login": Decimal("0.50"),
    "check_hold": Decimal("0.02"),
    "check_order": Decimal("0.02"),
    "buy": Decimal("0.20"),
    "sale": Decimal("0.20"),
    "cancel": Decimal("0.20"),
}


class Bill:
    """Counts calls by day and name. One thread at a time uses it.

    `budget` is what a day's calls may cost, `polling_budget` what they may have cost when the client polls by itself;
    CNY, None for no end.
    """

    def __init__(self, fees: Mapping[str, Decimal], budget: Decimal | None, polling_budget: Decimal | None) -> None:
        unknown = set(fees) - set(FEES)
        if unknown:
            raise ValueError(f"no such call: {', '.join(sorted(unknown))}; there are {', '.join(FEES)}")
        self.fees = {**FEES, **{call: amount(f"the fee of {call}", fee) for call, fee in fees.items()}}
        self.budget = None if budget is None else amount("budget", budget)
        self.polling_budget = None if polling_budget is None else amount("polling_budget", polling_budget)
        self._calls: dict[dt.date, Counter[str]] = {}

    def count(self, day: dt.date, call: str, times: int = 1) -> None:
        """A call left this machine."""
        self._calls.setdefault(day, Counter())[call] += times

    def spent(self, day: dt.date) -> Decimal:
        """CNY of a day."""
        return sum((self.fees[call] * n for call, n in self._calls.get(day, Counter()).items()), Decimal(0))

    def by_call(self, day: dt.date) -> dict[str, Decimal]:
        """CNY of a day by call."""
        calls = self._calls.get(day, Counter())
        return {call: self.fees[call] * calls[call] for call in self.fees}

    def days(self) -> dict[dt.date, dict[str, Decimal]]:
        """CNY by day and call."""
        return {day: self.by_call(day) for day in sorted(self._calls)}

    def check(self, day: dt.date, call: str, *, polling: bool = False) -> None:
        """BudgetError where the day's budget has no room for a call."""
        budget = self.polling_budget if polling else self.budget
        if budget is not None and self.spent(day) + self.fees[call] > budget:
            name = "polling_budget" if polling else "budget"
            raise BudgetError(
                f"{call} costs {self.fees[call]} CNY, and {self.spent(day)} of the day's {name} of {budget} are spent"
            )
