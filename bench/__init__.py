"""The benchmark of Weir beside other gateways: one mock backend, one load, one method for every contestant.

`python -m bench.run` measures, `python bench/check.py` judges; `docs/bench/README.md` describes the method.
Nothing here is imported by the gateway.
"""
