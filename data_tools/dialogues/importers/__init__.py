"""Importers: the files of published sets, as dialogues. `IMPORTERS` has them by the name that a recipe uses."""

import difflib

from data_tools.dialogues.importers.alpaca import Alpaca, AquilaMedInstruct
from data_tools.dialogues.importers.base import Imported, Importer, RecordReader
from data_tools.dialogues.importers.chatdoctor import ChatDoctor
from data_tools.dialogues.importers.chatmed import ChatMed
from data_tools.dialogues.importers.cmb import CMB
from data_tools.dialogues.importers.huatuo import Huatuo
from data_tools.dialogues.importers.meddialog import MedDialogChinese, MedDialogEnglish
from data_tools.dialogues.importers.messages import Dialogues, OpenAIMessages
from data_tools.dialogues.importers.sharegpt import ShareGPT
from data_tools.dialogues.importers.toyhom import Toyhom
from data_tools.dialogues.importers.zhongjing import CMtMedQA
from data_tools.inputs import InputError

IMPORTERS: dict[str, Importer] = {
    made.name: made
    for made in (
        Toyhom(),
        Huatuo(),
        MedDialogChinese(),
        MedDialogEnglish(),
        ChatMed(),
        CMB(),
        ChatDoctor(),
        CMtMedQA(),
        AquilaMedInstruct(),
        ShareGPT(),
        Alpaca(),
        OpenAIMessages(),
        Dialogues(),
    )
}


def importer(name: str) -> Importer:
    """The importer of the format `name`.

    Raises:
        InputError: there is none of that name.
    """
    if found := IMPORTERS.get(name):
        return found
    nearest = difflib.get_close_matches(name.lower(), IMPORTERS, n=1, cutoff=0.4)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise InputError(f"there is no importer {name!r}.{hint} The formats are {', '.join(IMPORTERS)}")


__all__ = ["IMPORTERS", "Imported", "Importer", "RecordReader", "importer"]
