"""The contenders, each used as its documentation recommends, and nearcache among them as its README does.

A peer is imported inside the function that uses it: workers run in environments that hold only what they measure.
"""
