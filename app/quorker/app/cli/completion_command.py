"""`quorker completion SHELL`: a script that completes commands and options. It is made from the commands themselves."""

from __future__ import annotations

from typing import Literal

from cyclopts import App as Program


def add_to(program: Program) -> None:
    @program.command
    def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
        """Print the completion of commands and options for SHELL: bash, zsh or fish.

        bash: eval "$(quorker completion bash)" in .bashrc. zsh: quorker completion zsh > a file called _quorker in $fpath.
        fish: quorker completion fish > ~/.config/fish/completions/quorker.fish.
        """
        print(program.generate_completion(shell=shell))
