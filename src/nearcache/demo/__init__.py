"""A tour of nearcache on real data: `python -m nearcache.demo`.

Read it in this order: `atlas.py` is a slow source, `guide.py` puts a cache in front of it, and each file of `scenes/`
shows one thing with measured numbers. The rest is stagecraft.
"""
