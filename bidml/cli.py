"""`bidml join | train | evaluate | export | verify | inspect | score | explain | replay | cost | demo`.

Exit codes: 0 ok, 2 configuration, 3 data, 4 refused on purpose; an error says rule, value and remedy on stderr.
Everything heavy is imported by the command that needs it, so that `--help` is quick.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bidml import __version__
from bidml.errors import BidmlError, ConfigError, DataError, RefusedError

if TYPE_CHECKING:
    from bidml.score import LineItem, Scorer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Bid pricing for demand-side platforms: logged auctions in, one ONNX file out, a bid in microseconds.",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Artifact = Annotated[Path, typer.Argument(help="An artifact: model.onnx.")]
PerClick = Annotated[float | None, typer.Option(help="In the artifact's currency.")]
PerConversion = Annotated[float | None, typer.Option(help="The same; needs a CVR model.")]
PerImpression = Annotated[float | None, typer.Option(help="CPM, whatever follows.")]
RiskAversion = Annotated[
    float,
    typer.Option(
        help="Standard deviations off the log-odds of pctr; of a model trained with ctr.uncertainty."
    ),
]


def main() -> None:
    """Runs the command line; errors of the family become exit codes."""
    # LightGBM's idle threads leave the processor to others.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except BidmlError as error:
        typer.echo(f"bidml: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        unusable = DataError(
            "files and folders named by options can be used", value=str(error), remedy="correct the path"
        )
        typer.echo(f"bidml: {unusable}", err=True)
        sys.exit(unusable.exit_code)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def join(
    events: Annotated[
        list[str], typer.Argument(help="Event files, folders, URIs: JSON Lines, Parquet, Avro.")
    ],
    out: Annotated[Path, typer.Option(help="The folder of the auction log.")],
    spec: Annotated[Path | None, typer.Option(help="A TOML file with [[features]].")] = None,
    currency: Annotated[str | None, typer.Option(help="Of bids that name none.")] = None,
    auction_type: Annotated[int | None, typer.Option(help="Of requests that name none.")] = None,
    first_day: Annotated[str | None, typer.Option(help="First UTC day to write, YYYY-MM-DD.")] = None,
    last_day: Annotated[str | None, typer.Option(help="Last one; default: the first.")] = None,
    as_of: Annotated[str | None, typer.Option(help="Leave out events dated from this time on.")] = None,
    notice_window: Annotated[str | None, typer.Option(help="Bid to win, loss, impression: 1h.")] = None,
    click_window: Annotated[str | None, typer.Option(help="Impression to click: 1d.")] = None,
    conversion_window: Annotated[str | None, typer.Option(help="Click to conversion: 30d.")] = None,
    clock_skew: Annotated[str | None, typer.Option(help="How far clocks may disagree: 2s.")] = None,
    clock_offset: Annotated[
        list[str] | None, typer.Option(help="Added to the times of a type: win=-1h.")
    ] = None,
    convert_to: Annotated[str | None, typer.Option(help="The currency of the log.")] = None,
    rates: Annotated[Path | None, typer.Option(help="CSV: day, currency, rate into that currency.")] = None,
    max_malformed: Annotated[float, typer.Option(help="Largest share of malformed events.")] = 0.05,
    max_out_of_time: Annotated[float, typer.Option(help="Largest share of a type out of time.")] = 0.05,
    memory_mb: Annotated[int, typer.Option(help="For DuckDB.")] = 600,
    threads: Annotated[int, typer.Option(help="Threads, and processes that read JSON.")] = 2,
    as_json: Json = False,
) -> None:
    """Join raw events into the auction log, Parquet by day, out of core; print what was left out and why."""
    from bidml.log.join import join_events
    from bidml.log.join.options import rules_from_options
    from bidml.train.settings import spec_of_file

    rules = rules_from_options(
        first_day=first_day,
        last_day=last_day,
        as_of=as_of,
        notice_window=notice_window,
        click_window=click_window,
        conversion_window=conversion_window,
        clock_skew=clock_skew,
        clock_offsets=clock_offset or (),
        convert_to=convert_to,
        rates=rates,
        max_malformed=max_malformed,
        max_out_of_time=max_out_of_time,
    )
    report = join_events(
        [*events],
        out,
        spec=spec_of_file(spec) if spec else None,
        currency=currency,
        auction_type=auction_type,
        rules=rules,
        memory_limit_mb=memory_mb,
        n_threads=threads,
    )
    typer.echo(json.dumps(report.to_json(), indent=1) if as_json else str(report))


@app.command()
def train(
    config: Annotated[Path | None, typer.Option(help="A TOML file; the options below override it.")] = None,
    log: Annotated[list[Path] | None, typer.Option(help="A log file or folder; may be repeated.")] = None,
    format: Annotated[str | None, typer.Option(help="ipinyou, parquet, csv or openrtb.")] = None,
    test_log: Annotated[
        list[Path] | None, typer.Option(help="Held-out log, same format; else the last 20 %.")
    ] = None,
    spec: Annotated[Path | None, typer.Option(help="A TOML file with [[features]].")] = None,
    models: Annotated[str | None, typer.Option(help="ctr, win, or ctr,win (default).")] = None,
    out: Annotated[Path, typer.Option(help="The run directory.")] = Path("runs/train"),
    value_per_click: Annotated[
        float | None, typer.Option(help="For the evaluation, where the log has none.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train CTR model and win curve from an auction log; export, certify, evaluate, report."""
    from bidml.console import Console
    from bidml.train import train as run
    from bidml.train.settings import config_from_options

    settings = config_from_options(
        config,
        log=log,
        format=format,
        test_log=test_log,
        spec=spec,
        models=models,
        value_per_click=value_per_click,
    )
    console = Console(quiet=as_json)
    with console.progress() as stages:
        result = run(settings, out, stages=stages)
    if as_json:
        typer.echo(json.dumps({"artifact": str(result.artifact), "metrics": result.metrics}, indent=1))
        return
    console.tables(result.metrics, currency=_currency(result.artifact))
    console.files({"artifact": result.artifact, "report": result.report})


@app.command()
def evaluate(
    artifact: Artifact,
    config: Annotated[Path | None, typer.Option(help="A TOML file, as for train: log and pricing.")] = None,
    log: Annotated[list[Path] | None, typer.Option(help="A log file or folder; may be repeated.")] = None,
    format: Annotated[str | None, typer.Option(help="ipinyou, parquet, csv or openrtb.")] = None,
    out: Annotated[Path, typer.Option(help="The run directory.")] = Path("runs/evaluate"),
    value_per_click: Annotated[float | None, typer.Option(help="Where the log has none.")] = None,
    as_json: Json = False,
) -> None:
    """Judge an artifact on every auction of a log; write metrics, report and model card."""
    from bidml.console import Console
    from bidml.train import evaluate as run
    from bidml.train.settings import config_from_options

    settings = config_from_options(config, log=log, format=format, value_per_click=value_per_click)
    console = Console(quiet=as_json)
    with console.progress() as stages, _readable(artifact):
        result = run(artifact, settings, out, stages=stages)
    if as_json:
        typer.echo(json.dumps({"report": str(result.report), "metrics": result.metrics}, indent=1))
        return
    console.tables(result.metrics, currency=result.currency)
    console.files({"report": result.report})


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The run directory; what is there already is used again.")] = Path(
        "runs/demo"
    ),
    auctions: Annotated[int, typer.Option(min=20_000, help="How many auctions to simulate.")] = 250_000,
    as_json: Json = False,
) -> None:
    """The main job, start to finish, on simulated auctions whose truth is known."""
    from bidml.console import Console
    from bidml.demo import run_demo

    console = Console(quiet=as_json)
    with console.progress() as stages:
        result = run_demo(out, n_auctions=auctions, stages=stages)
    if as_json:
        typer.echo(json.dumps({"artifact": str(result.artifact), "metrics": result.metrics}, indent=1))
        return
    console.tables(result.metrics, currency=_currency(result.artifact))
    console.text("One bid explained", result.explanation)
    console.files({"log": result.log, "artifact": result.artifact, "report": result.report})


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="Where to write the artifact.")],
    ctr: Annotated[
        Path | None, typer.Option(help="A LightGBM model text, or an artifact with a CTR model.")
    ] = None,
    win: Annotated[Path | None, typer.Option(help="An artifact with a win curve.")] = None,
    spec: Annotated[Path | None, typer.Option(help="TOML with [[features]], for a LightGBM text.")] = None,
    currency: Annotated[str | None, typer.Option(help="ISO 4217; default: the artifact's, else USD.")] = None,
    as_json: Json = False,
) -> None:
    """Make one certified artifact of parts: your own LightGBM booster, parts of other artifacts."""
    from bidml.assemble import assemble
    from bidml.export import write_artifact

    blueprint = assemble(ctr=ctr, win=win, spec=spec, currency=currency)
    out.parent.mkdir(parents=True, exist_ok=True)
    digest = write_artifact(blueprint, out)
    _print({"artifact": str(out), "sha256": digest}, as_json=as_json)


@app.command()
def verify(artifact: Artifact, as_json: Json = False) -> None:
    """Replay an artifact's own rows through the oracle, onnxruntime and the native scorer."""
    from bidml.certify import verify as certificate_of

    with _readable(artifact):
        certificate = certificate_of(artifact)
    document = {
        "sha256": certificate.sha256,
        "rows": certificate.n_rows,
        "largest relative difference": {
            name: max(differences.values()) for name, differences in certificate.differences.items()
        },
    }
    _print(document, as_json=as_json)


@app.command()
def inspect(artifact: Artifact, as_json: Json = False) -> None:
    """What an artifact is: features, currency, training window, metrics, and how each head will run here."""
    scorer = _loaded(artifact)
    document = scorer.info()
    document["features"] = [feature.to_json() for feature in scorer.spec.features]
    if as_json:
        typer.echo(json.dumps(document, indent=1, default=str))
        return
    from bidml.console import Console

    console = Console()
    console.document({key: document[key] for key in ("sha256", "currency", "provenance", "engine")})
    console.rows(
        "features", ("name", "kind", "source"), [tuple(row.values()) for row in document["features"]]
    )
    console.tables(document["metrics"], currency=document["currency"])


@app.command()
def score(
    artifact: Artifact,
    requests: Annotated[
        Path, typer.Argument(help="OpenRTB bid requests, one JSON object a line; - is stdin.")
    ],
    cap_cpm: Annotated[float, typer.Option(help="The highest bid.")],
    value_per_click: PerClick = None,
    value_per_conversion: PerConversion = None,
    value_per_impression_cpm: PerImpression = None,
    risk_aversion: RiskAversion = 0.0,
    field: Annotated[
        list[str] | None, typer.Option(help="A line-item field, name=value; may be repeated.")
    ] = None,
    rate: Annotated[
        list[str] | None, typer.Option(help="Currency=units of the artifact's, such as EUR=1.08.")
    ] = None,
    explain: Annotated[bool, typer.Option(help="Every step of each decision.")] = False,
    as_json: Json = False,
) -> None:
    """Bid on requests: one line each, the bid in CPM, 0 with its reason for no bid."""
    scorer = _loaded(artifact, rates=dict(_pair(text, "rate", number=True) for text in rate or ()))
    fields = dict(_pair(text, "field") for text in field or ())
    line = scorer.line_item(
        value_per_click=value_per_click,
        value_per_conversion=value_per_conversion,
        value_per_impression_cpm=value_per_impression_cpm,
        risk_aversion=risk_aversion,
        cap_cpm=cap_cpm,
        **fields,
    )
    for number, request in enumerate(_requests(requests), start=1):
        _print_decision(scorer, request, line, number, explain=explain, as_json=as_json)


@app.command()
def explain(
    artifact: Artifact,
    requests: Annotated[
        Path, typer.Argument(help="OpenRTB bid requests, one JSON object a line; - is stdin.")
    ],
    cap_cpm: Annotated[float, typer.Option(help="The highest bid.")],
    value_per_click: PerClick = None,
    value_per_conversion: PerConversion = None,
    value_per_impression_cpm: PerImpression = None,
    risk_aversion: RiskAversion = 0.0,
    margin: Annotated[float, typer.Option(help="The share of the value that is kept.")] = 0.0,
    pacing_multiplier: Annotated[float, typer.Option(help="Of the value.")] = 1.0,
    field: Annotated[
        list[str] | None, typer.Option(help="A line-item field, name=value; may be repeated.")
    ] = None,
    rate: Annotated[
        list[str] | None, typer.Option(help="Currency=units of the artifact's, such as EUR=1.08.")
    ] = None,
    background: Annotated[
        Path | None, typer.Option(help="A Parquet log of average auctions; default: the artifact's own rows.")
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="How many features to name.")] = 5,
    plot: Annotated[Path | None, typer.Option(help="Draw the last decision: .svg, .png, .pdf.")] = None,
    as_json: Json = False,
) -> None:
    """Why this price: from value to bid in money, and what each feature contributed."""
    from bidml.why import background_columns, why_this_price

    scorer = _loaded(artifact, rates=dict(_pair(text, "rate", number=True) for text in rate or ()))
    fields = dict(_pair(text, "field") for text in field or ())
    line = scorer.line_item(
        value_per_click=value_per_click,
        value_per_conversion=value_per_conversion,
        value_per_impression_cpm=value_per_impression_cpm,
        risk_aversion=risk_aversion,
        cap_cpm=cap_cpm,
        margin=margin,
        pacing_multiplier=pacing_multiplier,
        **fields,
    )
    past = None if background is None else background_columns(scorer, background)
    why = None
    for number, request in enumerate(_requests(requests), start=1):
        why = why_this_price(scorer, request, line, background=past)
        if as_json:
            typer.echo(json.dumps({"request": number, **why.to_json()}))
        else:
            typer.echo(f"request {number}\n{why.text(top=top)}\n")
    if plot is not None and why is not None:
        from bidml.report.why import save_waterfall

        save_waterfall(why.explanation, plot)


@app.command()
def cost(
    artifact: Artifact,
    requests: Annotated[Path, typer.Argument(help="OpenRTB bid requests, one JSON object a line.")],
    value_per_click: Annotated[float, typer.Option(help="In the artifact's currency.")],
    cap_cpm: Annotated[float, typer.Option(help="The highest bid.")],
    instance_price: Annotated[float, typer.Option(help="Per hour, in the artifact's currency.")],
    cores: Annotated[int, typer.Option(help="Of the instance.")] = 1,
    utilisation: Annotated[float, typer.Option(help="Share of its time that is paid work.")] = 1.0,
    overhead_us: Annotated[float, typer.Option(help="Processor µs of the bidder around a bid.")] = 0.0,
    egress_per_gb: Annotated[float, typer.Option(help="Price of a GB sent.")] = 0.0,
    response_bytes: Annotated[float, typer.Option(help="Size of an answer with its headers.")] = 0.0,
    answer_fee: Annotated[float, typer.Option(help="Fee for each answer.")] = 0.0,
    field: Annotated[
        list[str] | None, typer.Option(help="A line-item field, name=value; may be repeated.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="A Parquet log: thresholds by exchange.")] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="How long to measure.")] = 2.0,
    as_json: Json = False,
) -> None:
    """Bids per core-second here, the price of a million, and which answers cost more than they earn."""
    from bidml.cost import Prices, cost_report

    scorer = _loaded(artifact)
    fields = dict(_pair(text, "field") for text in field or ())
    report = cost_report(
        scorer,
        list(_requests(requests)),
        scorer.line_item(value_per_click=value_per_click, cap_cpm=cap_cpm, **fields),
        Prices(
            per_hour=instance_price,
            n_cores=cores,
            utilisation=utilisation,
            overhead_us=overhead_us,
            per_gb=egress_per_gb,
            response_bytes=response_bytes,
            per_answer=answer_fee,
        ),
        log=log,
        seconds=seconds,
    )
    typer.echo(json.dumps(report.to_json(), indent=1) if as_json else str(report))


@app.command()
def replay(
    artifact: Artifact,
    config: Annotated[Path | None, typer.Option(help="A TOML file whose [log] says what to read.")] = None,
    log: Annotated[list[Path] | None, typer.Option(help="A log file or folder; may be repeated.")] = None,
    format: Annotated[str | None, typer.Option(help="ipinyou, parquet, csv or openrtb.")] = None,
    judge: Annotated[
        Path | None, typer.Option(help="The artifact that values wins and imputes; default: the same.")
    ] = None,
    value_per_click: Annotated[float | None, typer.Option(help="Where the log has none.")] = None,
    cap_cpm: Annotated[float, typer.Option(help="The highest bid.")] = 1e6,
    floor_cpm: Annotated[float | None, typer.Option(help="Instead of the log's floors.")] = None,
    auction_type: Annotated[int | None, typer.Option(help="1 or 2, instead of the log's.")] = None,
    budget: Annotated[float | None, typer.Option(help="In units of currency; ends the bidding.")] = None,
    windows: Annotated[int | None, typer.Option(help="Pace the budget over so many windows.")] = None,
    as_json: Json = False,
) -> None:
    """What an artifact would have bid, won, paid and earned in a log, with bounds, beside what was done."""
    from bidml.replay import replay_artifact
    from bidml.train.prepare import check, read
    from bidml.train.settings import config_from_options

    settings = config_from_options(config, log=log, format=format, models="win")
    scorer = _loaded(artifact)
    if settings.features is None:
        spec = scorer.spec.to_json()
        settings = settings.model_copy(update={**spec, "features": tuple(spec["features"])})
    rows, _ = check(read(settings.log.path, settings), settings, needs=())  # a log without losses will do
    results = replay_artifact(
        scorer,
        rows,
        judge=None if judge is None else _loaded(judge),
        value_per_click=value_per_click or settings.pricing.value_per_click,
        cap_cpm=cap_cpm,
        floor_cpm=floor_cpm,
        auction_type=auction_type,
        budget=budget,
        n_windows=windows,
    )
    if as_json:
        typer.echo(json.dumps({name: result.to_json() for name, result in results.items()}, indent=1))
        return
    for name, result in results.items():
        typer.echo(f"{name}\n{result}\n")


@app.command("replay-bid")
def replay_bid(
    log: Annotated[list[Path], typer.Argument(help="Files of a decision log.")],
    artifacts: Annotated[Path, typer.Option(help="The folder that published the models, or one artifact.")],
    explain: Annotated[bool, typer.Option(help="Every step of each decision.")] = False,
    as_json: Json = False,
) -> None:
    """Price logged decisions again with the artifact that made them: exit code 4 where a bit differs."""
    from bidml.score.decision_log import read_decisions
    from bidml.score.reprice import Repricer

    with _readable(log[0]):
        records = read_decisions(log)
    repricer, n_other = Repricer(artifacts), 0
    for number, record in enumerate(records, start=1):
        repriced = repricer(record)
        if not repriced.is_equal:
            n_other += 1
            typer.echo(f"decision {number}: {repriced}", err=True)
        if explain:
            typer.echo(f"decision {number}: {repriced}\n{repriced.explanation}\n")
    _print({"decisions": len(records), "differ": n_other}, as_json=as_json)
    if n_other:
        raise RefusedError(
            "a logged bid is priced again to the last bit",
            value=f"{n_other} of {len(records)} decisions differ",
            remedy="the log, the artifact or this build is not what made the bids",
        )


def _print_decision(
    scorer: Scorer, request: object, line: LineItem, number: int, *, explain: bool, as_json: bool
) -> None:
    from bidml.contract import NoBidReason

    bid_cpm, reason = scorer.decide(request, line)
    document: dict[str, Any] = {
        "request": number,
        "bid_cpm": bid_cpm,
        "reason": NoBidReason(reason).name.lower(),
    }
    if explain:
        why = scorer.explain(request, line)
        if not as_json:
            typer.echo(f"request {number}\n{why}\n")
            return
        document |= {
            name: _plain(getattr(why, name))
            for name in ("pctr", "value_cpm", "optimum_cpm", "floor_cpm", "win_rate")
        }
    if as_json:
        typer.echo(json.dumps(document))
    else:
        typer.echo(f"{number}\t{bid_cpm:.4f}\t{document['reason']}")


def _requests(path: Path) -> Iterator[object]:
    try:
        with sys.stdin.buffer if str(path) == "-" else path.open("rb") as lines:
            for number, text in enumerate(lines, start=1):
                if not text.strip():
                    continue
                try:
                    yield json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise DataError(
                        f"line {number} of the requests is a JSON object",
                        value=str(error),
                        remedy="correct the line",
                    ) from None
    except OSError as error:
        raise DataError("the requests can be read", value=str(error), remedy="correct the path") from None


def _pair(text: str, option: str, *, number: bool = False) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    try:
        if not equals or not name:
            raise ValueError
        return name, float(value) if number else _field_value(value)
    except ValueError:
        raise ConfigError(f"--{option} is name=value", value=text, remedy="for example EUR=1.08") from None


def _field_value(text: str) -> str | int | float:
    """A number where it looks like one in JSON, else text; quote a number to keep it text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else text


def _loaded(artifact: Path, *, rates: dict[str, float] | None = None) -> Scorer:
    from bidml.score import Scorer

    with _readable(artifact):
        return Scorer.load(artifact, rates=rates)


class _readable:
    """A missing or unreadable file is a `DataError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise DataError("the artifact can be read", value=str(error), remedy="correct the path") from None


def _currency(artifact: Path) -> str:
    from bidml.score.reader import read_artifact

    return read_artifact(artifact).blueprint.currency


def _plain(value: object) -> object:
    """JSON has no NaN: null."""
    return None if isinstance(value, float) and value != value else value


def _print(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document, indent=1))
        return
    from bidml.console import Console

    Console().document(document)
