"""What counts as a right answer in words."""

from megatron_aquila.evaluation.tasks.naming import names_the_answer


def test_an_answer_is_right_when_it_names_the_value_and_no_other() -> None:
    values = ["liver", "lungs", "stomach"]
    assert names_the_answer("It mainly affects the Liver.", "liver", values)
    assert not names_the_answer("It mainly affects the lungs.", "liver", values)
    assert not names_the_answer("It affects the liver, or the lungs.", "liver", values)
    assert not names_the_answer("It is delivered by hand.", "liver", values)
    assert not names_the_answer("", "liver", values)
    assert names_the_answer("病变集中在肝脏。", "肝脏", ["肝脏", "脾脏"])
    assert not names_the_answer("病变集中在脾脏。", "肝脏", ["肝脏", "脾脏"])
    assert names_the_answer("答案：肝脏（选B）。", "肝脏", ["肝脏", "脾脏"])
