"""How good a method is: metrics, evaluations of whole data sets, reports on residuals, ablations.

It may import everything but `show` and `app`, and draws nothing.
"""
