"""A file is written completely or not at all."""

import pytest

from lgseg_ros.utils.atomic_write import atomic_write


def test_the_file_is_replaced_at_the_end(tmp_path):
    path = tmp_path / 'new' / 'folder' / 'data.bin'
    for text in ('first', 'second'):
        with atomic_write(path) as partial:
            partial.write_text(text)
            assert not path.exists() or path.read_text() == 'first'
        assert path.read_text() == text
    assert [entry.name for entry in path.parent.iterdir()] == ['data.bin']


def test_an_error_keeps_the_old_file_and_removes_the_temporary_one(tmp_path):
    path = tmp_path / 'data.bin'
    path.write_text('old')
    with pytest.raises(OSError, match='disk'), atomic_write(path) as partial:
        partial.write_text('incomplete')
        raise OSError('no space left on the disk')
    assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]
