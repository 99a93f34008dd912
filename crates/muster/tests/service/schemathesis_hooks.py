"""What a file in a form may be: bytes of any kind, or a photograph."""

import os

import schemathesis
from hypothesis import strategies as st

with open(os.environ["MUSTER_PHOTO"], "rb") as file:
    PHOTO = file.read()

schemathesis.openapi.format("binary", st.one_of(st.just(PHOTO), st.binary(max_size=64)))
