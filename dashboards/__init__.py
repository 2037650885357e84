"""What people look at: the console for who signs in, and the public rankings. Jinja2, hand-written CSS, SVG.

Every page is a plain GET and the URL is its state. Pages ask the keeper through ``gateway.types.method`` and see the
fleet of their own process; they hold nothing. An error becomes a page that says what is wrong.
"""
