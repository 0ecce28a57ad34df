"""How good a method is: metrics, evaluations of data sets, reports on residuals, ablations, and what comes after.

It may import everything but `show` and `app`, and draws nothing.
"""
