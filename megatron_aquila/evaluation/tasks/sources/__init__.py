"""Readers of published evaluation sets, one for each; a set without rows to expect may have any number."""

from megatron_aquila.evaluation.tasks.sources.base import Options, Source
from megatron_aquila.evaluation.tasks.sources.chinese import CMB_CLIN, CMB_EXAM, CMTMEDQA, HUATUO
from megatron_aquila.evaluation.tasks.sources.clinic import CLINIC
from megatron_aquila.evaluation.tasks.sources.english import MEDMCQA, MEDQA, PUBMEDQA
from megatron_aquila.evaluation.tasks.sources.general import CMMLU_GENERAL, MMLU_GENERAL
from megatron_aquila.evaluation.tasks.sources.subjects import CEVAL, CMMLU, MMLU

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        MMLU,
        CEVAL,
        CMMLU,
        MEDQA,
        MEDMCQA,
        PUBMEDQA,
        CMB_EXAM,
        CMB_CLIN,
        CMTMEDQA,
        HUATUO,
        CLINIC,
        MMLU_GENERAL,
        CMMLU_GENERAL,
    )
}

__all__ = ["SOURCES", "Options", "Source"]
