"""A broker that takes paper orders: accounts, the exchanges' rules, matching, and its face on HTTP."""
