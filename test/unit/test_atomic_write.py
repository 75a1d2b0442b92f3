"""A file is there whole or not at all."""

import pytest

from lgseg_ros.whole_file import whole_file


def test_it_takes_the_place_of_the_old_one_at_the_end(tmp_path):
    path = tmp_path / 'new' / 'folder' / 'rows.bin'
    for text in ('first', 'second'):
        with whole_file(path) as partial:
            partial.write_text(text)
            assert not path.exists() or path.read_text() == 'first'
        assert path.read_text() == text
    assert [entry.name for entry in path.parent.iterdir()] == ['rows.bin']


def test_an_error_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / 'rows.bin'
    path.write_text('old')
    with pytest.raises(OSError, match='disk'), whole_file(path) as partial:
        partial.write_text('half of the n')
        raise OSError('no space left on the disk')
    assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]
