"""Embed phrases with CLIP ahead of time, for the user's cache or for a file that another machine imports."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .classes import VocabularyError, parse_class
from .clip_checkpoint import add_model_config, checkpoint_tag, find_checkpoint, quickgelu_variant, user_checkpoint
from .compatibility import TextWeights, check_text_embeddings, space_of_weights
from .embedding_cache import MAX_ENTRIES
from .embedding_file import Embeddings, read_embeddings
from .encoder import ENSEMBLE, TextEncoder, load_encoder
from .text_source import TextSource, load_matching_encoder
from .text_space import TextSpace, check_template

ENSEMBLE_NAME = 'ensemble'
"""In place of a file of templates: the built-in ones."""


@dataclass(frozen=True)
class CachedPhrases:
    """What was added to the user's cache.

    Attributes:
        path: file of the cache.
        phrases: the added phrases.
        in_weights: those of them that the weights hold, whose text embeddings are used instead.
    """

    path: Path
    phrases: Sequence[str]
    in_weights: Sequence[str]


@dataclass(frozen=True)
class KnownPhrases:
    """The phrases that can be used on this machine.

    Attributes:
        in_weights: phrases of the weights, sorted.
        cache_path: file of the user's cache, None without one.
        cached: {phrase: template} of the cache.
        space: the text encoder of the weights, None where their card names none.
        encoder_unavailable: why other phrases cannot be embedded here, '' if they can.
    """

    in_weights: Sequence[str]
    cache_path: Path | None
    cached: dict[str, str]
    space: TextSpace | None
    encoder_unavailable: str


def read_phrases(phrases: Iterable[str], file: str | Path | None = None) -> list[str]:
    """Collect phrases.

    Args:
        phrases: each a phrase, or a class as in a vocabulary: `name=phrase|phrase`.
        file: text file with more of them, one a line; # starts a comment.

    Returns:
        The normalised phrases, each once.

    Raises:
        VocabularyError: there are none, too many, or one is not valid.
        OSError: the file cannot be read.
    """
    lines = Path(file).read_text().splitlines() if file else []
    lines = [line.split('#')[0].strip() for line in lines]
    specs = map(parse_class, [*phrases, *filter(None, lines)])
    found = list(dict.fromkeys(phrase for spec in specs for phrase in spec.phrases))
    if not 0 < len(found) <= MAX_ENTRIES:
        raise VocabularyError(f'{len(found)} phrases; give 1 to {MAX_ENTRIES}')
    return found


def read_templates(file: str | Path) -> list[str]:
    """Read templates, sentences with {} for the phrase.

    Args:
        file: text file, one template a line, # starts a comment; or 'ensemble' for the built-in ones.

    Returns:
        At least one template.

    Raises:
        VocabularyError: a line has no {} or more than one, or the file has no templates.
        OSError: the file cannot be read.
    """
    if file == ENSEMBLE_NAME:
        return list(ENSEMBLE)
    lines = [line.strip() for line in Path(file).read_text().splitlines()]
    templates = [check_template(line) for line in lines if line and not line.startswith('#')]
    if not templates:
        raise VocabularyError(f'{file} holds no template; write one a line, as in "a photo of a {{}}"')
    return templates


def load_encoder_of_weights(weights: TextWeights, model: str | None = None,
                            pretrained: str | None = None) -> tuple[TextEncoder, TextSpace]:
    """Load the text encoder that weights were trained with; it is downloaded if necessary.

    Args:
        weights: the segmentation weights.
        model: open_clip's name of the encoder, or a JSON file of its format; default: that of the weights.
        pretrained: open_clip's tag of its weights, or a checkpoint file; default: that of the weights.

    Returns:
        The encoder and its identity.

    Raises:
        VocabularyError: it is another encoder than that of the weights, or it is not available.
    """
    model, file, space = _register(model), _as_file(pretrained), space_of_weights(weights)
    wanted = TextSpace(model or space.model, space.pretrained if file or not pretrained else pretrained)
    if not wanted.same_vectors(space):   # before a large download
        raise VocabularyError(f'the weights were trained with the text encoder {space}, and {wanted} makes other '
                              'vectors; leave out `model` and `pretrained`')
    found = find_checkpoint(space.model, space.pretrained, file or user_checkpoint(), download=True)
    return load_matching_encoder(weights, space, *found), space


def load_any_encoder(model: str, pretrained: str | None,
                     warn: Callable[[str], object]) -> tuple[TextEncoder, TextSpace]:
    """Load a text encoder for embeddings to train with; no weights are compared with it.

    Args:
        model: open_clip's name of the encoder, or a JSON file of its format.
        pretrained: open_clip's tag of its weights, or a checkpoint file.
        warn: called with a warning on weights that may need another activation function.

    Returns:
        The encoder and its identity.

    Raises:
        VocabularyError: `pretrained` is missing, or the encoder is not available.
    """
    if not pretrained:
        raise VocabularyError(f'text embeddings of {model} to train with need `pretrained`, a tag of open_clip or a '
                              'checkpoint file')
    name, file = _register(model) or model, _as_file(pretrained)
    checkpoint, quick_gelu = find_checkpoint(name, pretrained, file, download=True)
    if file and (variant := quickgelu_variant(name)):
        warn(f'{file} is loaded as weights of {name} with the usual GELU; if they were trained with the quick GELU, as '
             f'those of OpenAI, DFN and MetaCLIP were, use the model {variant}')
    return load_encoder(name, checkpoint, quick_gelu), TextSpace(name, checkpoint_tag(file) if file else pretrained)


def embed_phrases(encoder: TextEncoder, space: TextSpace, phrases: Sequence[str],
                  templates: Sequence[str] = ()) -> Embeddings:
    """Embed phrases.

    Args:
        encoder: the text encoder.
        space: its identity.
        phrases: N phrases.
        templates: sentences to average over; default: the template of `space`.

    Returns:
        The embeddings. With one template, their `space` names it: weights that are trained with them go on with it.

    Raises:
        VocabularyError: a phrase is too long for the encoder.
    """
    templates = templates or [space.template]
    single = len(templates) == 1
    label = templates[0] if single else f'{len(templates)} templates'
    vectors = encoder.embed(phrases, templates)
    return Embeddings(phrases, vectors, [label] * len(phrases), replace(space, template=label) if single else space)


def import_embeddings(weights: TextWeights, file: str | Path, warn: Callable[[str], object]) -> CachedPhrases | None:
    """Add a file's embeddings to the user's cache, if they are of the weights' text encoder.

    Args:
        weights: the segmentation weights.
        file: from `write_embeddings`.
        warn: called with each warning.

    Returns:
        What was added; None where the cache cannot be written, after a warning.

    Raises:
        VocabularyError: the file cannot be read, or is of another text encoder.
    """
    embeddings = read_embeddings(file)
    check_text_embeddings(weights, embeddings, file)
    return add_to_cache(weights, embeddings, warn)


def add_to_cache(weights: TextWeights, embeddings: Embeddings, warn: Callable[[str], object]) -> CachedPhrases | None:
    """Add embeddings to the user's cache. Arguments and result as those of `import_embeddings`."""
    cache = TextSource(weights, warn=warn).cache
    if cache is None:
        space_of_weights(weights)   # raises the reason
        return None
    if not cache.add(embeddings.names, embeddings.vectors, embeddings.templates):
        return None
    return CachedPhrases(
        cache.path, embeddings.names, [name for name in embeddings.names if name in weights.text_embeddings]
    )


def known_phrases(weights: TextWeights) -> KnownPhrases:
    """Return the phrases that can be used with weights on this machine."""
    source = TextSource(weights)
    cache = source.cache
    return KnownPhrases(
        sorted(weights.text_embeddings.names),
        cache.path if cache else None,
        cache.templates if cache else {},
        source.space,
        source.encoder_unavailable(),
    )


def _register(model: str | None) -> str | None:
    """Return the name of a model that is given by name or by a JSON file."""
    return add_model_config(model) if model and model.endswith('.json') else model


def _as_file(pretrained: str | None) -> str | None:
    """Return `pretrained` if it is a checkpoint file, else None."""
    return pretrained if pretrained and Path(pretrained).is_file() else None
