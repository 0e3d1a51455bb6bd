from sagemaker_monai.errors import FAILURE_FILE_LIMIT, DatasetError, failure_line


def test_a_callers_error_is_its_code_and_message_on_one_line():
    assert failure_line(DatasetError("two\n lines:\tone remedy")) == "DatasetError: two lines: one remedy"


def test_a_fault_of_ours_names_its_type_and_the_last_frame():
    def broken():
        raise KeyError("name")

    try:
        broken()
    except KeyError as error:
        line = failure_line(error)

    first = test_a_fault_of_ours_names_its_type_and_the_last_frame.__code__.co_firstlineno
    assert line.startswith("InternalError: KeyError: 'name' at ")
    assert line.endswith(f"broken:{first + 2}")


def test_a_long_message_of_odd_names_fits_and_can_be_written():
    name = b"\xff.jpg ".decode("utf-8", "surrogateescape")

    line = failure_line(DatasetError(name * 1_000))

    assert len(line) == FAILURE_FILE_LIMIT
    assert line.startswith("DatasetError: \\udcff.jpg \\udcff.jpg")
    assert line.encode().endswith("…".encode())
