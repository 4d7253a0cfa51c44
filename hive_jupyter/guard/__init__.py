"""Who may commit, and what an agent may call: requests, approvals, and the git that obeys them."""
