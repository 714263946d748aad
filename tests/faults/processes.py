"""Rows D: processes that die, hang, or come twice."""
