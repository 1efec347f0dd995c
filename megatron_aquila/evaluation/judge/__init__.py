"""A language model judges what a model said in dialogues: two answers against each other (`pair`), or one answer by
four criteria from 1 to 5 (`rubric`); Aquila-Med's technical report, 3.2 and tables 3 and 4.

    run.py         a recipe → OUTPUT/verdicts.jsonl and OUTPUT/judge.json
    reading.py     answers of dialogue sets → what there is to judge, and what not and why
    pair.py, rubric.py    what is asked, and what became of an item
    verdicts.py    what a judge said, read strictly
    canaries.py    known pairs, to see that the judge judges
    suspicious.py  answers that speak to the judge
    pair_figures.py, rubric_figures.py    verdicts → the summary, pure
    summary.py     what `judge.json` holds: for the report and the model card
    agreement.py   a second judge, or people, over the same items

The only door to a language model is `data_tools.llm`: what was answered once is recorded, and neither asked for nor
paid for again. Texts of strangers stand in fences, with a code that no verdict can be written without
(`data_tools.prompts`).
"""
