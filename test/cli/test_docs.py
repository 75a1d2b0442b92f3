"""The documentation site is built from the repository without network access and has no broken links."""

import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip('mkdocs')


def build(repository, site):
    """Build as scripts/docs.sh does, with an unreachable proxy; returns the completed process."""
    unreachable = 'http://127.0.0.1:9'
    env = {**os.environ, 'NO_MKDOCS_2_WARNING': '1', 'http_proxy': unreachable, 'https_proxy': unreachable}
    return subprocess.run([sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(site)],
                          cwd=repository, env=env, capture_output=True, text=True)


class Page(HTMLParser):
    """The anchors and links of an HTML file."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links = set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ('id', 'name') and value:
                self.anchors.add(value)
            if name in ('href', 'src') and value:
                self.links.append(value)


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp('site')
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_link_has_a_target(site):
    pages = {path: Page(path) for path in site.rglob('*.html') if path.name != '404.html'}   # its links are absolute
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / 'index.html' if target.is_dir() else target
            anchor_missing = parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors
            if not target.is_file() or anchor_missing:
                broken.append(f'{path.relative_to(site)}: {link}')
    assert len(pages) > 20 and broken == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_page_and_module_is_on_the_site(site):
    for path in (ROOT / 'docs').rglob('*.md'):
        assert (site / path.relative_to(ROOT / 'docs').with_suffix('.html')).is_file(), path
    anchors = set().union(*(Page(path).anchors for path in (site / 'reference' / 'api').glob('*.html')))
    modules = ['.'.join(path.relative_to(ROOT).with_suffix('').parts) for path in (ROOT / 'lgseg_ros').rglob('*.py')
               if path.name != '__init__.py']
    assert set(modules) <= anchors


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_broken_links_fail_the_build(tmp_path):
    links = ['gone.md', '../../config/gone.yaml', 'nav2.md#gone-anchor']
    for name in ('benchmark', 'config', 'docs', 'lgseg_ros', 'scripts'):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns('__pycache__'))
    for path in ROOT.iterdir():
        if path.suffix in ('.md', '.rst', '.yml') or path.name == 'LICENSE':
            shutil.copy(path, tmp_path)
    page = tmp_path / 'docs' / 'how-to' / 'gpu.md'
    page.write_text(page.read_text() + ''.join(f'\nA [broken link]({link}).\n' for link in links))
    done = build(tmp_path, tmp_path / 'site')
    warnings = [line for line in done.stderr.splitlines() if 'WARNING' in line and 'how-to/gpu.md' in line]
    assert done.returncode != 0
    assert [link for link in links if not any(link in warning for warning in warnings)] == []
