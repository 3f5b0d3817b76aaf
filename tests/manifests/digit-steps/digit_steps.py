"""A checker of steps: a response is right as far as its characters are those of the answer."""


def check(case):
    """The share of the answer's characters that come before the first wrong one, 0 to 1."""
    answer, said = case.item["answer"], case.response.strip()
    right = next((i for i, (is_there, wanted) in enumerate(zip(said, answer)) if is_there != wanted), None)  # noqa: B905
    return (min(len(said), len(answer)) if right is None else right) / len(answer)
