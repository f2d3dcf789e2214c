"""Money and included units: the only writer of transfers and balances, over double entries in two phases.

A period's included units are a ledger like the wallet is: `issuer` grants them to `included:ACCOUNT:PERIOD`, a reserve
holds one for a job, a post moves it to `consumed`, a void lets it go. The wallet is filled from `funding` and spent to
`revenue`. Every movement has exactly one audit row, written in the same transaction.
"""

from zsky_box.ledger.alerts import Alert
from zsky_box.ledger.charge import Assessment, Held, Payer, assess, refund, reserve, resolve
from zsky_box.ledger.charge_view import Charge, Paid, charges, paid
from zsky_box.ledger.units import Allowance, allowance
from zsky_box.ledger.verify import first_wrong_balance
from zsky_box.ledger.wallet import correct, topup, wallet_micros

__all__ = [
    "Alert",
    "Allowance",
    "Assessment",
    "Charge",
    "Held",
    "Paid",
    "Payer",
    "allowance",
    "assess",
    "charges",
    "correct",
    "first_wrong_balance",
    "paid",
    "refund",
    "reserve",
    "resolve",
    "topup",
    "wallet_micros",
]
