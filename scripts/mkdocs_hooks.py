"""Hooks of the documentation site: pages of the CLI and the Python API, and files that pages link to."""

import argparse
import importlib
import os
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
# Documented in docs/reference/api/index.md, by hand.
PUBLIC_API = f'{PACKAGE}.api'
LINK = re.compile(r'(!?\[[^\]]*\]\()([^)\s#:]+)((?:#[^)\s]*)?\))')


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the generated pages to the navigation: the CLI, and one page for each room of the package."""
    entries: list[Any] = ['reference/api/index.md', *({room: f'reference/api/{room}.md'} for room in rooms())]
    for section in config.nav or []:
        if 'Reference' in section:
            section['Reference'] += [{'CLI': 'reference/cli.md'}, {'Python API': entries}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Generate the pages of the CLI and the Python API and add the files outside docs/ that pages link to."""
    files.append(File.generated(config, 'reference/cli.md', content=cli_page()))
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
        module = '.'.join(parts)
        if parts[-1] == '__init__' or module == PUBLIC_API:
            continue
        room = parts[1] if len(parts) > 2 else PACKAGE
        found.setdefault(room, []).append(module)
    return found


def api_page(room: str, modules: list[str]) -> str:
    """The page of one room: all its modules, documented from their docstrings."""
    title = room if room == PACKAGE else f'{PACKAGE}.{room}'
    return '\n\n'.join([f'# {title}', *(f'::: {module}' for module in modules)]) + '\n'


def cli_page() -> str:
    """The page of the command `lgseg`: the help of each subcommand."""
    os.environ['COLUMNS'] = '100'   # argparse wraps lines at this width
    commands = importlib.import_module(f'{PACKAGE}.cli.main').COMMANDS
    parts = ['# CLI', 'This page is generated from `lgseg COMMAND --help`.']
    for name, summary in commands.items():
        module = importlib.import_module(f'{PACKAGE}.cli.{name.replace("-", "_")}')
        parser = argparse.ArgumentParser(prog=f'lgseg {name}', description=module.__doc__,
                                         formatter_class=argparse.RawDescriptionHelpFormatter)
        module.add_arguments(parser)
        parts += [f'## lgseg {name}', f'{summary[0].upper()}{summary[1:]}.', f'```text\n{parser.format_help()}```']
    return '\n\n'.join(parts) + '\n'
