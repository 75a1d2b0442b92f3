"""The CLIP text encoder, by open_clip: phrases to unit embeddings.

torch and open_clip are imported when a phrase needs them and not before.  Only weights that are on this machine
are used unless a download is asked for, because nothing that a node does may wait for a network.
"""

import hashlib
import importlib.util
import os
from glob import escape
from pathlib import Path

import numpy as np

from .cache import home_folder
from .classes import VocabularyError, shorten
from .text_space import check_template

# Sentences for things that stand in a street or a hall, averaged: less depends on one wording.
ENSEMBLE = (
    'a photo of a {}', 'a photo of the {}', 'a photo of one {}', 'a photo of a small {}', 'a photo of a large {}',
    'a blurry photo of a {}', 'a photo of a {} in the street', 'there is a {} in the scene',
)
BATCH = 64
CHECKPOINT_VARIABLE = 'LGSEG_CLIP_WEIGHTS'
HUB_FILES = ('open_clip_model.safetensors', 'open_clip_pytorch_model.bin')
CONTACT_SECONDS = 5.0   # for the hub to answer at all


class EncoderUnavailable(VocabularyError):
    """The text encoder cannot be used here; the message says why."""


class TextEncoder:
    """A loaded text tower."""

    def __init__(self, model, tokenizer):
        """model: of open_clip; its image tower is dropped, which is most of its memory."""
        if hasattr(model, 'visual'):
            del model.visual
        self._model = model.eval()
        self._tokenizer = tokenizer

    def embed(self, phrases, templates):
        """Phrases -> float32 [N, D], unit length: each put into every template, averaged.

        Raises VocabularyError for a phrase that is too long for the encoder, and for a template without {}.
        """
        total = 0
        for template in map(check_template, templates):
            total = total + self._unit([template.replace('{}', phrase) for phrase in phrases], phrases)
        return total / np.linalg.norm(total, axis=1, keepdims=True)

    def _unit(self, sentences, phrases):
        import torch
        vectors = []
        for start in range(0, len(sentences), BATCH):
            tokens = self._tokenizer(sentences[start:start + BATCH])
            # A full context has been cut, and a cut phrase is another phrase. (0 pads CLIP's own tokenizer.)
            full = torch.nonzero(tokens[:, -1]).flatten().tolist() if self._pads_with_zero() else []
            if full:
                raise VocabularyError(f'{shorten(phrases[start + full[0]])} is too long for the text encoder '
                                      f'({tokens.shape[1]} tokens); shorten it')
            with torch.inference_mode():
                vectors.append(self._model.encode_text(tokens, normalize=True).float().numpy())
        return np.concatenate(vectors)

    def _pads_with_zero(self):
        return type(self._tokenizer).__name__ == 'SimpleTokenizer'


def load_encoder(model, checkpoint, quick_gelu=False):
    """Load the text tower of open_clip's architecture `model` from the file `checkpoint`.

    quick_gelu: the weights were trained with that activation (`find_checkpoint` knows it).
    Raises EncoderUnavailable naming the file when that fails.
    """
    open_clip = _import_open_clip()
    try:
        network = open_clip.create_model(model, pretrained=str(checkpoint), force_quick_gelu=quick_gelu,
                                         weights_only=True)
        return TextEncoder(network, open_clip.get_tokenizer(model))
    except Exception as error:   # torch, safetensors, zipfile, transformers: each raises its own kinds
        raise EncoderUnavailable(f'{checkpoint} cannot be loaded as {model} ({_brief(error)})') from error


def find_checkpoint(model, pretrained, file=None, download=False):
    """The file with the weights of open_clip's (model, pretrained), and whether they need the quick GELU.

    file: its path where that is known; otherwise the caches of open_clip and of the Hugging Face hub are looked
    through.  download: fetch it where they do not have it.
    Raises EncoderUnavailable that says what is missing.
    """
    _check_installed()
    missing = f'the CLIP weights {model}/{pretrained} are not on this machine'
    if not (file or download or _caches_hold_weights(model)):
        raise EncoderUnavailable(missing)   # before the import, which would cost a node seconds and 300 MB for nothing
    open_clip = _import_open_clip(offline=not download)
    listed = open_clip.get_pretrained_cfg(model, pretrained) or {}
    # create_model only warns when a built-in model and its OpenAI weights differ in this, and embeds slightly wrong.
    quick_gelu = bool(listed.get('quick_gelu'))
    if file:
        if not Path(file).is_file():
            raise EncoderUnavailable(f'the CLIP weights file {file} does not exist')
        return Path(file), quick_gelu
    if not listed:
        raise EncoderUnavailable(f'open_clip does not list weights {pretrained!r} for model {model!r}')
    found = _cached(listed) or (download and _download(open_clip, listed))
    if not found:
        raise EncoderUnavailable(missing)
    return Path(found), quick_gelu


def quick_twin(model):
    """open_clip's name of `model` with the quick GELU, where it lists both; a checkpoint does not tell which it needs."""
    twin = f'{model}-quickgelu'
    return twin if twin in _import_open_clip().list_models() else None


def checkpoint_of_user():
    """The CLIP weights file that LGSEG_CLIP_WEIGHTS names, or None."""
    return os.environ.get(CHECKPOINT_VARIABLE) or None


def add_model_config(path):
    """Make the architecture of a JSON file known to open_clip; returns its name.  Raises EncoderUnavailable."""
    path = Path(path)
    open_clip = _import_open_clip()
    try:
        open_clip.add_model_config(path)
    except (OSError, ValueError) as error:
        raise EncoderUnavailable(f'{path} is not a model configuration of open_clip ({error})') from error
    return path.stem


def file_tag(path):
    """How a bank names weights that came from a file: no path of this machine, but their content."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(2**20):
            digest.update(block)
    return f'{Path(path).name}@sha256:{digest.hexdigest()[:12]}'


def _check_installed():
    if importlib.util.find_spec('open_clip') is None or importlib.util.find_spec('torch') is None:
        raise EncoderUnavailable('open_clip is not installed here (pip install open_clip_torch)')


def _import_open_clip(offline=False):
    _check_installed()
    if offline:
        # Read once, when the hub's package is imported; some tokenizers would go to the network on their own.
        os.environ.setdefault('HF_HUB_OFFLINE', '1')
    try:
        from ..model.torchvision_compat import ensure_torchvision
        ensure_torchvision()
        import open_clip
    except Exception as error:   # a torch that does not fit this machine raises OSError, RuntimeError, ImportError
        raise EncoderUnavailable(f'open_clip cannot be imported ({_brief(error)})') from error
    return open_clip


def _brief(error):
    """Kind and text of an error of another package, in one line."""
    return f'{type(error).__name__}: {" ".join(str(error).split())[:160]}'


def _hub_files(listed):
    """Repository on the hub and the files that may hold the weights, or None."""
    if not listed.get('hf_hub'):
        return None
    repository, name = os.path.split(listed['hf_hub'])
    return repository, (name,) if name else HUB_FILES


def _caches_hold_weights(model):
    """Whether weights that may be those of `model` lie in the caches; needs no import of open_clip.

    On the hub they have open_clip's own file names, or the repository has the name of the model.
    """
    home = os.environ.get('HF_HOME') or Path(os.environ.get('XDG_CACHE_HOME') or home_folder() / '.cache', 'huggingface')
    hub = Path(os.environ.get('HF_HUB_CACHE') or os.environ.get('HUGGINGFACE_HUB_CACHE') or Path(home, 'hub'))
    patterns = [f'models--*/snapshots/*/{name}' for name in HUB_FILES] + [f'models--*{escape(model)}*/snapshots/*/*']
    return (home_folder() / '.cache' / 'clip').is_dir() or any(any(hub.expanduser().glob(p)) for p in patterns)


def _cached(listed):
    """The weights in the caches of this machine, or None."""
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


def _download(open_clip, listed):
    """Fetch the weights.  Raises EncoderUnavailable soon when the network does not answer."""
    hub = _hub_files(listed)
    if hub is None:
        try:
            return open_clip.download_pretrained(listed)
        except Exception as error:   # urllib, http, OSError
            raise EncoderUnavailable(f'{listed.get("url")} cannot be downloaded ({_brief(error)})') from error
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    _check_contact(constants.ENDPOINT)
    for name in hub[1]:
        try:
            return hf_hub_download(hub[0], name)
        except LocalEntryNotFoundError as error:   # a kind of EntryNotFoundError, but it means "not reachable"
            raise EncoderUnavailable(f'{hub[0]} cannot be downloaded: {constants.ENDPOINT} does not answer') from error
        except EntryNotFoundError:
            continue
        except Exception as error:   # the hub's client changes its kinds of errors with its transport
            raise EncoderUnavailable(f'{hub[0]} cannot be downloaded ({_brief(error)})') from error
    raise EncoderUnavailable(f'{hub[0]} on the hub has none of {", ".join(hub[1])}')


def _check_contact(address):
    """Raises EncoderUnavailable when `address` does not answer; the hub's own retries take minutes to find out."""
    import http.client       # here, because they are a tenth of the time that a node takes to import
    import urllib.error
    import urllib.request
    try:
        urllib.request.urlopen(urllib.request.Request(address, method='HEAD'), timeout=CONTACT_SECONDS).close()
    except urllib.error.HTTPError:
        pass   # an answer
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise EncoderUnavailable(f'the CLIP weights are not on this machine, and {address} does not answer ({error}); '
                                 f'copy {HUB_FILES[0]} here and name it with {CHECKPOINT_VARIABLE}') from error
