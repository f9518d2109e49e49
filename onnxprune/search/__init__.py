"""The search: levels, a latency table, one integer programme, and a loop that measures and corrects it."""
