from pathlib import Path
from textwrap import dedent

import pytest

from bertsmith.corpus.docstrings import module_paragraphs, paragraphs

NUMPY_STYLE = """
    Return the sum of the values
    in ``values`` over the given axis.

    .. versionadded:: 1.2
       The sum of an empty array is zero.

    Parameters
    ----------
    values : array_like, optional
        The values that are added, see :func:`~numpy.sum`.
    x, y
        Where the values are in the plane.

    Returns
    -------
    ndarray
        A number for each row of the array.

    See Also
    --------
    mean : The mean of the values in the array.

    Notes
    -----
    The error grows with :math:`\\sqrt{n}` of the rows. It is small for the *pairwise* sum [1]_.

    ===== =====
    name  the value in the row
    ===== =====

    References
    ----------
    .. [1] A. Author, the book of all the sums in the world.

    Examples
    --------
    The sum of a list is a number:

    >>> sum([1, 2, 3])
    6
"""

GOOGLE_STYLE = """Opens the file and reads it.

    .. note::
        It has to be closed by the caller.

    Args:
        path (str or Path, optional): The file that is opened for reading,
            which has to be there.
        mode: How the file is opened by the system.

    Example::

        with reader(path) as file:
            the = file.read_all_of_it()

    Steps are as follows::

        this is code in the docstring

    - The first is to open the file.
    - The second is to read it
      to the end.

    ```python
    and this is the code
    ```
    See https://example.org for the rest. Read the
    `manual <https://example.org/manual>`_ of **all** functions.
"""


def test_numpy_style() -> None:
    assert paragraphs(NUMPY_STYLE) == [
        "Return the sum of the values in ``values`` over the given axis.",
        ".. versionadded:: 1.2 The sum of an empty array is zero.",
        "Parameters values : array_like, optional The values that are added, see :func:`~numpy.sum`. "
        "x, y Where the values are in the plane.",
        "Returns ndarray A number for each row of the array.",
        "See Also mean : The mean of the values in the array.",
        "Notes The error grows with :math:`\\sqrt{n}` of the rows. It is small for the *pairwise* sum [1]_.",
        "name  the value in the row",
        "References .. [1] A. Author, the book of all the sums in the world.",
        "Examples The sum of a list is a number:",
    ]


def test_google_style_without_its_code() -> None:
    found = paragraphs(GOOGLE_STYLE)
    assert found[:2] == ["Opens the file and reads it.", ".. note:: It has to be closed by the caller."]
    assert "Steps are as follows" in found
    assert "- The first is to open the file. - The second is to read it to the end." in found
    assert not any("read_all_of_it" in text or "this is code" in text or "this is the code" in text for text in found)


@pytest.mark.parametrize("docstring", ["Foo bar", "", "=====", ">>> f(of, some, words)\nan answer of some words"])
def test_nothing_to_read(docstring: str) -> None:
    assert paragraphs(docstring) == []


def test_which_strings_of_a_module_are_documentation(tmp_path: Path) -> None:
    source = '''
        """The module is about the things of the world."""
        import does_not_exist
        add_docstr(does_not_exist.f, """f(x) -> y

        This is the text of a function that was written in C.
        """.format(**notes))
        limit = 3
        """The limit of the things in the world."""
        if limit:
            class Thing:
                """A thing is a part of the world."""
                def use(self):
                    """Use it for what it is made for."""
                    "This string in the middle is not documentation of it."
                    raise SystemExit("nothing of this is run")
        message = "This is a long message to the user, which is not documentation of any kind."
        async def g():
            def inner():
                """The inner function is in the outer one."""
    '''
    path = tmp_path / "module.py"
    path.write_text(dedent(source), encoding="utf-8")
    assert module_paragraphs(path) == [
        "The module is about the things of the world.",
        "This is the text of a function that was written in C.",
        "The limit of the things in the world.",
        "A thing is a part of the world.",
        "Use it for what it is made for.",
        "The inner function is in the outer one.",
    ]


@pytest.mark.parametrize("content", [b"def broken(:\n", b'"""\xff"""\n', b"x = '\x00'\n"])
def test_a_file_that_does_not_parse(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.py"
    path.write_bytes(content)
    assert module_paragraphs(path) is None
