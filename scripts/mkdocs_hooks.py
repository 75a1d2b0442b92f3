"""Hooks of the documentation site: pages of the Python API, and files of the repository that pages link to."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = 'lgseg_ros'
# Where files outside docs/ are in the site, by their path in the repository.
OUTSIDE = 'repository'
LINK = re.compile(r'(!?\[[^\]]*\]\()([^)\s#:]+)((?:#[^)\s]*)?\))')


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages of the Python API to the navigation: one page for each room of the package."""
    entries: list[Any] = [{room: f'reference/api/{room}.md'} for room in rooms()]
    for section in config.nav or []:
        if 'Reference' in section:
            section['Reference'].append({'Python API': entries})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Generate the pages of the Python API and add the files outside docs/ that pages link to."""
    for room, modules in rooms().items():
        files.append(File.generated(config, f'reference/api/{room}.md', content=api_page(room, modules)))
    docs = Path(config.docs_dir).resolve()
    unread = sorted(docs.rglob('*.md'))
    known = set(unread)
    while unread:
        page = unread.pop()
        for target in links_of(page):
            if target in known or target.is_relative_to(docs) or not target.is_file():
                continue
            known.add(target)
            source = f'{OUTSIDE}/{target.relative_to(ROOT).as_posix()}'
            files.append(File.generated(config, source, abs_src_path=str(target)))
            if target.suffix == '.md':
                unread.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the place in the site of the file that they name in the repository."""
    docs = Path(config.docs_dir).resolve()
    here = posixpath.dirname(page.file.src_uri)
    source = ROOT / posixpath.relpath(here, OUTSIDE) if here.startswith(OUTSIDE) else docs / here

    def in_site(match: re.Match[str]) -> str:
        target = (source / match[2]).resolve()
        if not target.is_file() or not target.is_relative_to(ROOT):
            return match[0]  # mkdocs reports it
        if target.is_relative_to(docs):
            place = target.relative_to(docs).as_posix()
        else:
            place = f'{OUTSIDE}/{target.relative_to(ROOT).as_posix()}'
        return f'{match[1]}{posixpath.relpath(place, here or ".")}{match[3]}'

    return LINK.sub(in_site, markdown)


def links_of(page: Path) -> list[Path]:
    """Files of the repository that a Markdown file links to."""
    targets = [(page.parent / match[2]).resolve() for match in LINK.finditer(page.read_text())]
    return [target for target in targets if target.is_relative_to(ROOT)]


def rooms() -> dict[str, list[str]]:
    """Modules by room: each subpackage with the modules in it, and the modules of the package itself."""
    found: dict[str, list[str]] = {PACKAGE: [PACKAGE]}
    for path in sorted((ROOT / PACKAGE).rglob('*.py')):
        parts = path.relative_to(ROOT).with_suffix('').parts
        if parts[-1] == '__init__':
            continue
        room = parts[1] if len(parts) > 2 else PACKAGE
        found.setdefault(room, []).append('.'.join(parts))
    return found


def api_page(room: str, modules: list[str]) -> str:
    """The page of one room: all its modules, documented from their docstrings."""
    title = room if room == PACKAGE else f'{PACKAGE}.{room}'
    return '\n\n'.join([f'# {title}', *(f'::: {module}' for module in modules)]) + '\n'
