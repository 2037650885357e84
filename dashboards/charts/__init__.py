"""Charts as geometry: pure functions from rows to rectangles and paths, drawn by macros of ``templates/_components``.

They know no HTML, no database and no clock, so they are tested without a browser. Drawings are in a square of 1000 by
1000, stretched to where they are shown; letters stand beside it, so that they keep their size at any width.
"""
