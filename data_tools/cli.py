"""`aquila data <verb>`: index, verify, preview, train-tokenizer, and the verbs of the other `cli_*` files. Only
typer is imported here, so that `--help` is instant.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_tools.cli_common import DATA_FAULT, bar, console, one_sentence
from data_tools.cli_corpus import corpus, why
from data_tools.cli_dialogues import dialogues, import_files
from data_tools.cli_preferences import pairs
from data_tools.cli_scorers import label, train_scorer

if TYPE_CHECKING:
    from rich.console import Console

    from data_tools.indexing import IndexSummary

app = typer.Typer(
    name="data",
    help="Turn raw text into indexed tokens.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


app.command()(corpus)
app.command()(why)
app.command()(dialogues)
app.command("import")(import_files)
app.command()(pairs)
app.command()(label)
app.command()(train_scorer)


@app.callback()
def _group() -> None:
    pass


Inputs = Annotated[
    list[str],
    typer.Argument(
        help="Files, directories or patterns: .jsonl, .json, .csv (also .gz, .zst), .parquet. In this order; "
        "within a directory or pattern, by path.",
        metavar="INPUT",
    ),
]


@app.command()
def index(
    inputs: Inputs,
    tokenizer: Annotated[Path, typer.Option(help="Tokenizer directory or file.")],
    output: Annotated[Path, typer.Option(help="Path prefix: PREFIX.bin and PREFIX.idx are written.", metavar="PREFIX")],
    kind: Annotated[str, typer.Option(help="What the records are: documents, dialogues or pairs.")] = "documents",
    template: Annotated[
        str | None, typer.Option(help="Chat template of dialogues and pairs, such as chatml.", metavar="NAME")
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(help="Longer sequences of dialogues and pairs are cut, or dropped: tokens [2048]."),
    ] = None,
    text_key: Annotated[
        list[str] | None,
        typer.Option(help="Field that holds the text [text]. Given several times: joined by a line end."),
    ] = None,
    id_key: Annotated[str, typer.Option(help="Field that holds the id; it may be missing.")] = "id",
    encoding: Annotated[
        list[str] | None,
        typer.Option(help="Text encoding [utf-8], such as gb18030. Given several times: tried in turn on each line."),
    ] = None,
    eod: Annotated[
        str | None,
        typer.Option(help="Token that ends a document, where not the tokenizer's own.", metavar="TOKEN"),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes [one per core].")] = None,
    max_line_mib: Annotated[int, typer.Option(min=1, help="Longer lines (MiB) go to quarantine.")] = 256,
    max_bad_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Publish nothing if more of the records than this are bad.")
    ] = 0.1,
    allow_truncated: Annotated[
        bool, typer.Option("--allow-truncated", help="Index what a damaged file holds before the damage.")
    ] = False,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Bar, on a terminal.")] = True,
) -> None:
    """Encode documents, dialogues or preference pairs into a Megatron dataset: PREFIX.bin, PREFIX.idx and
    PREFIX.manifest.json.

    An end-of-document token follows each document. Dialogues and pairs are rendered with a chat template; which of
    their tokens are trained stands in PREFIX.loss_mask.bin and .idx. Bad records go to PREFIX.quarantine.jsonl with
    their reason and place. After an interruption the same command goes on from the parts that were finished.
    """
    with one_sentence():
        import os

        from data_tools.files import ReadOptions
        from data_tools.indexing import build_index
        from data_tools.inputs import InputError
        from data_tools.samples import IndexOptions

        try:
            read = ReadOptions(tuple(encoding or ["utf-8"]), max_line_mib << 20)
            options = IndexOptions(tuple(text_key or ["text"]), id_key, read, kind, template, max_length)
        except ValueError as error:
            raise InputError(str(error)) from error
        terminal = console()
        with bar(terminal, progress and terminal.is_terminal) as on_progress:
            summary = build_index(
                inputs,
                tokenizer,
                output,
                options,
                eod=eod,
                workers=workers or len(os.sched_getaffinity(0)),
                max_bad_fraction=max_bad_fraction,
                allow_truncated=allow_truncated,
                on_progress=lambda done, total: on_progress("indexing", done, total),
            )
        _print_summary(terminal, summary)


@app.command()
def verify(
    prefix: Annotated[Path, typer.Argument(help="Path prefix of the dataset.", metavar="PREFIX")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="Also check that the dataset was made with this tokenizer.")
    ] = None,
    eod: Annotated[str | None, typer.Option(help="As given to index.", metavar="TOKEN")] = None,
) -> None:
    """Check a dataset: sizes, offsets, every id, every end of document or loss mask, checksums, tokenizer, template."""
    with one_sentence():
        from data_tools.tokenizers import load_tokenizer
        from data_tools.verification import verify as verify_dataset

        result = verify_dataset(prefix, load_tokenizer(tokenizer, eod=eod) if tokenizer else None)
        for name in result.passed:
            typer.echo(f"ok       {name}")
        for name in result.skipped:
            typer.echo(f"skipped  {name}")
        for problem in result.problems:
            typer.echo(f"WRONG    {problem}")
        verdict = f"{len(result.problems)} problems" if result.problems else "sound"
        typer.echo(f"{prefix}: {result.documents:,} {result.kind}, {result.tokens:,} tokens: {verdict}")
        if result.problems:
            raise typer.Exit(DATA_FAULT)


@app.command()
def train_tokenizer(
    inputs: Inputs,
    output: Annotated[Path, typer.Option(help="Directory to write; it must not exist.")],
    vocab_size: Annotated[int, typer.Option(min=1, help="Number of ids, control tokens and bytes included.")],
    model_type: Annotated[str, typer.Option(help="bpe or unigram.")] = "bpe",
    text_key: Annotated[str, typer.Option(help="Field that holds the text.")] = "text",
    character_coverage: Annotated[
        float, typer.Option(help="Share of the characters that get a piece; the rest are spelt in bytes.")
    ] = 0.9995,
    control_token: Annotated[
        list[str] | None,
        typer.Option(help="A control token to add, such as '<|im_start|>'; may be repeated.", metavar="TOKEN"),
    ] = None,
    max_sentences: Annotated[
        int | None, typer.Option(min=1, help="Train on a random sample of this many lines [all].")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
) -> None:
    """Train a sentencepiece tokenizer on documents."""
    with one_sentence():
        from data_tools.inputs import resolve_inputs
        from data_tools.tokenizer_training import train_sentencepiece

        manifest = train_sentencepiece(
            resolve_inputs(inputs),
            output,
            vocab_size=vocab_size,
            model_type=model_type,
            text_key=text_key,
            character_coverage=character_coverage,
            control_tokens=control_token or (),
            max_sentences=max_sentences,
            seed=seed,
        )
        counts = manifest["counts"]
        typer.echo(f"{output}: {manifest['vocab_size']:,} ids from {counts['documents']:,} documents")


@app.command()
def preview(
    source: Annotated[
        Path,
        typer.Argument(
            help="Path prefix of a dataset, or a file of records (.jsonl …): dialogues or pairs.", metavar="PREFIX|FILE"
        ),
    ],
    tokenizer: Annotated[Path, typer.Option(help="Tokenizer directory or file.")],
    template: Annotated[
        str | None, typer.Option(help="Chat template to render records with, such as chatml.", metavar="NAME")
    ] = None,
    sample: Annotated[
        list[int] | None, typer.Option(min=0, help="Number of the sample, from 0; may be repeated [0].", metavar="N")
    ] = None,
    random: Annotated[int, typer.Option(min=0, help="Show this many at random instead.", metavar="K")] = 0,
    seed: Annotated[int, typer.Option(help="Of the random choice.")] = 0,
) -> None:
    """Show samples as the model sees them, with what is trained on in colour.

    Trained text is bold and green, context dim, control tokens reversed. Where there is no colour (a pipe, NO_COLOR)
    trained text stands in ⟦ ⟧ and control tokens in ‹ ›.
    """
    with one_sentence():
        from rich.console import Console

        from data_tools.chat import ChatEncoder, get_template
        from data_tools.inputs import InputError
        from data_tools.preview import Choice, indexed_samples, record_samples, show
        from data_tools.tokenizers import load_tokenizer

        if random and sample:
            raise InputError("--sample names samples and --random draws them: give one of the two")
        loaded = load_tokenizer(tokenizer)
        choice = Choice(() if random else tuple(sample or [0]), random, seed)
        if not source.is_file():
            samples = indexed_samples(source, loaded, choice)
        elif template is None:
            raise InputError(f"{source} holds records: give the --template to render them with, such as chatml")
        else:
            try:
                encoder = ChatEncoder(get_template(template), loaded)
            except ValueError as error:
                raise InputError(str(error)) from error
            samples = record_samples(source, encoder, choice)
        show(samples, loaded, Console(highlight=False))


def _print_summary(terminal: "Console", summary: "IndexSummary") -> None:
    from rich.table import Table

    from data_tools.indexing import quarantine_file

    manifest, counts = summary.manifest, summary.manifest["counts"]
    table = Table(show_header=False, title=f"{summary.prefix}.bin, .idx", title_justify="left")
    table.add_column(style="bold")
    table.add_column(justify="right")
    rows: list[tuple[str, Any]] = [
        (manifest["kind"], f"{counts['documents']:,}"),
        ("tokens", f"{counts['tokens']:,} ({manifest['dtype']})"),
        *_chat_rows(manifest),
        ("text", f"{counts['text_bytes']:,} bytes, {counts['characters']:,} characters"),
    ]
    if counts["blank"]:
        rows.append(("blank lines", f"{counts['blank']:,}"))
    rows += [(f"quarantined: {reason}", f"{number:,}") for reason, number in manifest["quarantined"].items()]
    if counts["duplicate_ids"]:
        rows.append(("repeated ids", f"{counts['duplicate_ids']:,}"))
    empty = sum(1 for entry in manifest["inputs"] if not entry["bytes"])
    rows.append(("files", f"{len(manifest['inputs']):,}" + (f", {empty:,} of them empty" if empty else "")))
    rows += [("damaged", f"{entry['path']}: {entry['damage']}") for entry in manifest["inputs"] if "damage" in entry]
    if summary.shards_reused:
        rows.append(("shards", f"{summary.shards_done:,} done, {summary.shards_reused:,} kept from an earlier run"))
    rate = counts["text_bytes"] / 1e6 / summary.seconds if summary.shards_done and not summary.shards_reused else None
    rows.append(("time", f"{summary.seconds:.1f} s" + (f", {rate:.1f} MB/s of text" if rate else "")))
    for name, text in rows:
        table.add_row(name, text)
    terminal.print(table)
    if manifest["quarantined"]:
        terminal.print(f"bad records, with their places: {quarantine_file(summary.prefix)}")
    elif counts.get("dropped"):
        terminal.print(f"what was dropped, with its places: {quarantine_file(summary.prefix)}")


def _chat_rows(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the summary says about dialogues and pairs alone."""
    counts = manifest["counts"]
    if "template" not in manifest:
        return []
    limit = manifest["options"]["max_length"]
    rows = [
        ("trained", f"{counts['trained_tokens']:,} tokens, {counts['trained_tokens'] / counts['tokens']:.1%}"),
        ("template", f"{manifest['template']['name']}, at most {limit:,} tokens"),
    ]
    if counts["truncated"]:
        ways = [("last exchanges dropped", counts["turns_dropped"]), ("answer cut", counts["answer_cut"])]
        how = ", ".join(f"{number:,} {way}" for way, number in ways if number)
        rows.append(("truncated", f"{counts['truncated']:,} ({how})"))
    if counts["trailing_user"]:
        rows.append(("unanswered end left out", f"{counts['trailing_user']:,}"))
    return rows + [(f"dropped: {reason}", f"{number:,}") for reason, number in counts["dropped"].items()]
