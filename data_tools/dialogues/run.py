"""`aquila data dialogues`: import the raw files, then take what they hold through the steps as a corpus is."""

from collections.abc import Callable

from data_tools.corpus.run import CorpusSummary, build_corpus, prepare_output
from data_tools.dialogues.recipe import DialogueRecipe
from data_tools.publish import exclusive


def build_dialogues(
    recipe: DialogueRecipe,
    *,
    workers: int = 1,
    on_progress: Callable[[str, int, int], None] = lambda title, done, total: None,
) -> CorpusSummary:
    """Make the dialogues that `recipe` describes in its output directory. Killed at any moment, the next run goes on.

    Raises:
        InputError: it cannot be begun. RunError: it cannot be finished. BusyError. WorkerDiedError. StorageError.
    """
    imports = recipe.imports
    prepare_output(recipe.output)
    with exclusive(imports.directory, recipe.output):
        imports.run(workers, lambda done, total: on_progress("import", done, total))
        return build_corpus(recipe, workers=workers, on_progress=on_progress)
