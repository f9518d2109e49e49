"""The root of the command line: a click group whose default command takes the model itself."""

from __future__ import annotations

import click

from onnxprune.cli.advise import advise
from onnxprune.cli.analyze import analyze
from onnxprune.cli.bench import bench
from onnxprune.cli.compare import compare
from onnxprune.cli.compress import compress
from onnxprune.cli.prune import prune
from onnxprune.errors import UsageError

_ROOT_OPTIONS = ("--help", "-h", "--version")


class DefaultGroup(click.Group):
    """A group that hands arguments which name no subcommand to `default`.

    `onnxprune bench` is the subcommand; `onnxprune ./bench` compresses a model file of that name.
    """

    default: click.Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:
            raise UsageError("no model given; `onnxprune MODEL --target-latency 0.5x` compresses one, --help says more")
        if args[0] not in self.commands and args[0] not in _ROOT_OPTIONS:
            ctx.obj = self.default
            args = ["--", "", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if ctx.obj is self.default:
            return "", self.default, args[1:]
        return super().resolve_command(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "MODEL --target-latency 5ms|0.5x [OPTIONS]")
        formatter.write_usage(ctx.command_path, "COMMAND [OPTIONS] ...", prefix="       ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        self.default.format_options(ctx, formatter)


def _version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"onnxprune {version('onnxprune')}")
        ctx.exit()


@click.group(cls=DefaultGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def root() -> None:
    """Compresses a trained ONNX model to a measured latency target, without training.

    MODEL is pruned, compensated on calibration data and quantized until it is measured to meet the target on every
    execution provider asked for. A model file that is called like a command is reached with ./NAME.
    """


root.default = compress
for _command in (prune, advise, analyze, bench, compare):
    root.add_command(_command)
