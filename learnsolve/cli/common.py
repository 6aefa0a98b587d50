"""What commands share: how they end, what they say of errors, and options of one name and one meaning."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

# Wrong input or usage, or a failure: there is no answer.
FAILED = 1
# There is an answer, and it is not what was asked for: not converged, parts skipped, a barrier too high.
NOT_CONVERGED = 2
INTERRUPTED = 130

Json = Annotated[bool, typer.Option("--json", help="Print JSON: an object, or one on a line for each file.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Method = Annotated[str, typer.Option(help="See 'learnsolve methods'.")]
Preconditioner = Annotated[
    str | None,
    typer.Option("--preconditioner", "-M", help="See 'learnsolve methods'.", show_default=False),
]
Rtol = Annotated[float, typer.Option(help="Stop at |b - A x| <= rtol |b| ...")]
Atol = Annotated[float, typer.Option(help="... or at |b - A x| <= atol.")]
Maxiter = Annotated[int | None, typer.Option(help="Most iterations.", show_default=False)]
Rank = Annotated[int | None, typer.Option(min=1, help="Columns of the factors.", show_default="found")]
Regularization = Annotated[float, typer.Option(help="For each entry of a row or column.")]
Bias = Annotated[bool, typer.Option(help="A number for each row and column beside the factors.")]
SplitSeed = Annotated[int, typer.Option(min=0, help="Of the start and of what is held out.")]


def say_error(error: BaseException | str) -> None:
    """One line on standard error."""
    typer.echo(f"learnsolve: {' '.join(str(error).split()) or type(error).__name__}", err=True)


def wrong_usage(error: TyperException) -> int:
    """Say what was wrong with a command line; its exit code, since click's 2 means "not converged"."""
    if message := error.format_message().rstrip("."):
        say_error(f"{message} (see 'learnsolve --help')")
    return FAILED


class Commands(TyperGroup):
    """Commands that errors of input, disk, memory or training end with a line that says it, and code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run what the context names."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except TyperException as error:
            raise typer.Exit(wrong_usage(error)) from None
        except MemoryError as error:
            say_error(f"out of memory: {error}".rstrip(": "))
            raise typer.Exit(FAILED) from None
        # Options that a method does not take are TypeErrors, as everywhere in the package.
        except (OSError, ValueError, TypeError, ImportError, RuntimeError) as error:
            say_error(error)
            raise typer.Exit(FAILED) from None
