"""The readers by name: what a source that is an archive may ask for with `reader`."""

from tikmix_pipeline.corpus.readers.dictd import read_dictd
from tikmix_pipeline.corpus.readers.extracts import read_extracts
from tikmix_pipeline.corpus.readers.factbook import read_factbook
from tikmix_pipeline.corpus.readers.fortunes import read_fortunes
from tikmix_pipeline.corpus.readers.html import read_html
from tikmix_pipeline.corpus.readers.kjv import read_kjv
from tikmix_pipeline.corpus.readers.licences import read_licences
from tikmix_pipeline.corpus.readers.mail import read_mail
from tikmix_pipeline.corpus.readers.metamath import read_metamath
from tikmix_pipeline.corpus.readers.plain import read_code, read_jsonl, read_text
from tikmix_pipeline.corpus.readers.rdata import read_rdata
from tikmix_pipeline.corpus.readers.recipes import read_recipes
from tikmix_pipeline.corpus.readers.troff import read_troff
from tikmix_pipeline.corpus.readers.types import Reader
from tikmix_pipeline.corpus.readers.wordnet import read_wordnet

READERS: dict[str, Reader] = {
    "text": read_text,
    "code": read_code,
    "jsonl": read_jsonl,
    "html": read_html,
    "troff": read_troff,
    "mail": read_mail,
    "dictd": read_dictd,
    "wordnet": read_wordnet,
    "metamath": read_metamath,
    "rdata": read_rdata,
    "extracts": read_extracts,
    "factbook": read_factbook,
    "fortunes": read_fortunes,
    "kjv": read_kjv,
    "licences": read_licences,
    "recipes": read_recipes,
}
