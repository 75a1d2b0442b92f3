"""CLIP weights of the text encoder: where they are on this machine, and their download by open_clip.

torch and open_clip are imported only when needed. Nothing is downloaded unless that is asked for, because nothing that
a node does may wait for a network.
"""

import hashlib
import importlib.util
import os
from glob import escape
from pathlib import Path
from types import ModuleType
from typing import Any

from ..utils.paths import home_folder
from .classes import VocabularyError

CHECKPOINT_VARIABLE = 'LGSEG_CLIP_WEIGHTS'
HUB_FILES = ('open_clip_model.safetensors', 'open_clip_pytorch_model.bin')
CONTACT_TIMEOUT_S = 5.0
"""Seconds for the hub to answer at all."""


class EncoderUnavailable(VocabularyError):  # noqa: N818 (a state of this machine, also reported as a reason)
    """The text encoder cannot be used here; the message says why."""


def find_checkpoint(model: str, pretrained: str, file: str | Path | None = None,
                    download: bool = False) -> tuple[Path, bool]:
    """Find the weights of a CLIP model of open_clip.

    Args:
        model: the architecture, e.g. 'ViT-B-16'.
        pretrained: the tag of the weights, e.g. 'openai'.
        file: path of the weights. Without it the caches of open_clip and of the Hugging Face hub are searched.
        download: fetch weights that are not in a cache.

    Returns:
        The file, and whether its weights need the quick GELU activation.

    Raises:
        EncoderUnavailable: open_clip or the weights are missing.
    """
    _check_installed()
    missing = f'the CLIP weights {model}/{pretrained} are not on this machine'
    if not (file or download or _caches_hold_weights(model)):
        raise EncoderUnavailable(missing)   # before the import, which would cost a node seconds and 300 MB for nothing
    open_clip = import_open_clip(offline=not download)
    listed = open_clip.get_pretrained_cfg(model, pretrained) or {}
    # create_model only warns if a built-in model and its OpenAI weights differ in this; the vectors are slightly wrong.
    quick_gelu = bool(listed.get('quick_gelu'))
    if file:
        if not Path(file).is_file():
            raise EncoderUnavailable(f'the CLIP weights file {file} does not exist')
        return Path(file), quick_gelu
    if not listed:
        raise EncoderUnavailable(f'open_clip does not list weights {pretrained!r} for model {model!r}')
    found = _find_cached(listed) or (_download(open_clip, listed) if download else None)
    if not found:
        raise EncoderUnavailable(missing)
    return Path(found), quick_gelu


def user_checkpoint() -> str | None:
    """Return the CLIP weights file that LGSEG_CLIP_WEIGHTS names, or None."""
    return os.environ.get(CHECKPOINT_VARIABLE) or None


def checkpoint_tag(path: str | Path) -> str:
    """Return how embedding files name weights that came from a file: its name and a hash, but no path."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(2**20):
            digest.update(block)
    return f'{Path(path).name}@sha256:{digest.hexdigest()[:12]}'


def quickgelu_variant(model: str) -> str | None:
    """Return open_clip's name of `model` with the quick GELU, or None; a checkpoint does not tell which it needs."""
    variant = f'{model}-quickgelu'
    return variant if variant in import_open_clip().list_models() else None


def add_model_config(path: str | Path) -> str:
    """Register the architecture of a JSON file with open_clip; return its name.

    Raises:
        EncoderUnavailable: the file is not such a configuration, or open_clip is missing.
    """
    path = Path(path)
    open_clip = import_open_clip()
    try:
        open_clip.add_model_config(path)
    except (OSError, ValueError) as error:
        raise EncoderUnavailable(f'{path} is not a model configuration of open_clip ({error})') from error
    return path.stem


def import_open_clip(offline: bool = False) -> Any:  # a module without types
    """Import open_clip.

    Args:
        offline: keep the Hugging Face hub from using the network. It works only before its first import.

    Raises:
        EncoderUnavailable: it is not installed or cannot be imported.
    """
    _check_installed()
    if offline:
        # Read once, when the hub's package is imported; some tokenizers would use the network on their own.
        os.environ.setdefault('HF_HUB_OFFLINE', '1')
    try:
        from ..utils.torchvision_compat import ensure_torchvision
        ensure_torchvision()
        import open_clip
    except Exception as error:   # a torch that does not fit this machine raises OSError, RuntimeError, ImportError
        raise EncoderUnavailable(f'open_clip cannot be imported ({brief(error)})') from error
    return open_clip


def brief(error: Exception) -> str:
    """Return kind and text of an error of another package, in one line."""
    return f'{type(error).__name__}: {" ".join(str(error).split())[:160]}'


def _check_installed() -> None:
    if importlib.util.find_spec('open_clip') is None or importlib.util.find_spec('torch') is None:
        raise EncoderUnavailable('open_clip is not installed here (pip install open_clip_torch)')


def _hub_files(listed: dict[str, Any]) -> tuple[str, tuple[str, ...]] | None:
    """Return the repository on the hub and the files that may hold the weights, or None."""
    if not listed.get('hf_hub'):
        return None
    repository, name = os.path.split(listed['hf_hub'])
    return repository, (name,) if name else HUB_FILES


def _caches_hold_weights(model: str) -> bool:
    """Return whether weights that may be those of `model` are in the caches; open_clip is not imported for that.

    On the hub they have open_clip's own file names, or the repository has the name of the model.
    """
    caches = os.environ.get('XDG_CACHE_HOME') or home_folder() / '.cache'
    home = os.environ.get('HF_HOME') or Path(caches, 'huggingface')
    hub = Path(os.environ.get('HF_HUB_CACHE') or os.environ.get('HUGGINGFACE_HUB_CACHE') or Path(home, 'hub'))
    patterns = [f'models--*/snapshots/*/{name}' for name in HUB_FILES] + [f'models--*{escape(model)}*/snapshots/*/*']
    return (home_folder() / '.cache' / 'clip').is_dir() or any(any(hub.expanduser().glob(p)) for p in patterns)


def _find_cached(listed: dict[str, Any]) -> str | Path | None:
    """Return the weights in the caches of this machine, or None."""
    if listed.get('url'):
        path = home_folder() / '.cache' / 'clip' / Path(listed['url']).name
        if path.is_file():
            return path
    hub = _hub_files(listed)
    if hub is None or importlib.util.find_spec('huggingface_hub') is None:
        return None
    from huggingface_hub import try_to_load_from_cache
    paths = (try_to_load_from_cache(hub[0], name) for name in hub[1])
    return next((path for path in paths if isinstance(path, str)), None)


def _download(open_clip: ModuleType, listed: dict[str, Any]) -> str:
    """Download the weights. EncoderUnavailable soon if the network does not answer."""
    hub = _hub_files(listed)
    if hub is None:
        try:
            return str(open_clip.download_pretrained(listed))
        except Exception as error:   # urllib, http, OSError
            raise EncoderUnavailable(f'{listed.get("url")} cannot be downloaded ({brief(error)})') from error
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    _check_contact(constants.ENDPOINT)
    for name in hub[1]:
        try:
            return str(hf_hub_download(hub[0], name))
        except LocalEntryNotFoundError as error:   # a kind of EntryNotFoundError, but it means "not reachable"
            raise EncoderUnavailable(f'{hub[0]} cannot be downloaded: {constants.ENDPOINT} does not answer') from error
        except EntryNotFoundError:
            continue
        except Exception as error:   # the hub's client changes its kinds of errors with its transport
            raise EncoderUnavailable(f'{hub[0]} cannot be downloaded ({brief(error)})') from error
    raise EncoderUnavailable(f'{hub[0]} on the hub has none of {", ".join(hub[1])}')


def _check_contact(address: str) -> None:
    """EncoderUnavailable if `address` does not answer; the hub's own retries take minutes to find out."""
    # Here, because they are a tenth of the import time of a node.
    import http.client
    import urllib.error
    import urllib.request
    try:
        urllib.request.urlopen(urllib.request.Request(address, method='HEAD'), timeout=CONTACT_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        pass   # an answer
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise EncoderUnavailable(f'the CLIP weights are not on this machine, and {address} does not answer ({error}); '
                                 f'copy {HUB_FILES[0]} here and name it with {CHECKPOINT_VARIABLE}') from error
