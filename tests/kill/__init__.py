"""``make kill``: real workers die at named and at random moments under real callers, then three books are compared.

``python -m tests.kill --kills N --seed S`` prints one JSON object and exits with 1 when an answer was lost or doubled.
The seed decides what is asked and what is killed when; the operating system decides the rest.
"""
