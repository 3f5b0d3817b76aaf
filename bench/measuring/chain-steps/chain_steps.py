"""The step checker of the noisy chain, for rewards by correct prefix. Alone in its folder, which is a ConfigMap's."""


def check(case):
    """The share of the steps before the first wrong one, 0 to 1, of a `case` with `item` and `response`."""
    expected, said = case.item["answer"].split(), case.response.split()
    right = 0
    for is_state, state in zip(said, expected):  # noqa: B905 - a response may be shorter or longer
        if is_state != state:
            break
        right += 1
    return right / len(expected)
