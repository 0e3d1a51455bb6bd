import asyncio
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagemaker_monai.serving.mms.protocol import MAX_HEADER_BYTES, encode_message, read_message, receive_message

texts = st.text(max_size=20)


def receive(data):
    async def read():
        stream = asyncio.StreamReader()
        stream.feed_data(data)
        stream.feed_eof()
        return await receive_message(stream)

    return asyncio.run(read())


@given(st.dictionaries(texts.filter(lambda key: key != "sizes"), texts), st.lists(st.binary(max_size=300), max_size=4))
def test_what_was_sent_is_what_arrives(header, bodies):
    data = b"".join(encode_message(header, bodies))

    for message in (read_message(io.BytesIO(data)), receive(data)):
        received, received_bodies = message
        assert received_bodies == bodies
        assert received == {**header, "sizes": [len(body) for body in bodies]}


@given(st.data())
def test_a_stream_that_ends_inside_a_message_is_no_message(data):
    whole = b"".join(encode_message({"a": 1}, [b"body", b"", b"another"]))
    part = whole[: data.draw(st.integers(0, len(whole) - 1))]

    assert read_message(io.BytesIO(part)) is None
    with pytest.raises(EOFError):
        receive(part)


def test_an_absurd_length_is_not_read():
    with pytest.raises(EOFError, match="not our protocol"):
        read_message(io.BytesIO((MAX_HEADER_BYTES + 1).to_bytes(4, "big")))
