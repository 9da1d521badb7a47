"""Options that several commands have: how a spec is given."""

from typing import Annotated

import typer

SpecFile = Annotated[
    str | None, typer.Argument(help="A spec in JSON or YAML, or - for JSON on standard input.", show_default=False)
]
Activation = Annotated[str | None, typer.Option(help="sigmoid, tanh, relu, leaky_relu, gelu, …")]
Initialization = Annotated[str | None, typer.Option(help="xavier_uniform, he_normal, orthogonal, …")]
Depth = Annotated[int | None, typer.Option(help="Weight layers, the output layer included.")]
Width = Annotated[int | None, typer.Option(help="Units in each hidden layer.")]
Optimizer = Annotated[str | None, typer.Option(help="adam, adamw, rmsprop, sgd.")]
LearningRate = Annotated[float | None, typer.Option(help="The optimizer's learning rate.")]
Iterations = Annotated[int | None, typer.Option(help="How many steps to train.")]
BatchSize = Annotated[int | None, typer.Option(help="Images in each step.")]
Seed = Annotated[int | None, typer.Option(help="Of the initial weights and the order of the data.")]
Dataset = Annotated[str | None, typer.Option(help="mnist, fashion_mnist, synthetic.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda.")]
Name = Annotated[str | None, typer.Option(help="A name for people.")]
Tags = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A tag; repeat it for more.")]
Json = Annotated[bool, typer.Option("--json", help="Print the document.")]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Any field of the spec, such as network.activation.negative_slope=0.2; repeat it for more.",
    ),
]
